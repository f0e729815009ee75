"""The difference of two models on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from normconvert.cli.output import Output, printable, several
from normconvert.cli.tables import terminal
from normconvert.comparison.records import Difference, LayerPair, LoneLayer, Setting, Side, TensorPair

_EFFECTS = {"function": "", "rounding": "rounding only", "training": "training only", "interface": "interface"}
_EQUATIONS = {
    "the same function": "other equations of the same function",
    "of the same form": "equations of the same form",
    "not compared": "equations too long to be compared",
}
_MOST_STEPS = 12
"""Most runs of steps that are listed."""


def print_difference(found: Difference, output: Output) -> None:
    """The verdict, and a table of each kind of difference; with -v what is equal, too."""
    if output.as_json or (output.quiet and found.same):
        return
    for name, side in (("A", found.a), ("B", found.b)):
        click.echo(printable(f"{name}  {_side(side)}"))
    click.echo(printable(found.summary))
    console = terminal()
    _print_lone(console, found)
    _print_matches(found, output)
    _print_settings(console, found)
    _print_equations(found)
    _print_arrays(console, found, everything=output.verbose > 0)
    if found.evaluation:
        click.echo(printable(found.evaluation))
    if not output.quiet:
        click.echo()
        console.print(_text(found.meaning))


def ranges(numbers: Iterable[int]) -> str:
    """Numbers with runs of them shortened: `3, 7-9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(texts if len(texts) <= _MOST_STEPS else [*texts[:_MOST_STEPS], "..."])


def _side(side: Side) -> str:
    return "  ".join(part for part in (side.source, side.name, side.format, side.framework) if part)


def _print_lone(console: Console, found: Difference) -> None:
    if not (found.only_a or found.only_b):
        return
    table = _table("Only in", "Layer", "Kind", "Params", "")
    for place, layers in (("A", found.only_a), ("B", found.only_b)):
        for layer in layers:
            table.add_row(place, *map(_text, _lone(layer)))
    console.print(table)


def _lone(layer: LoneLayer) -> tuple[str, str, str, str]:
    return layer.name, layer.kind, f"{layer.parameters:,}", "nothing at inference" if layer.identity else ""


def _print_matches(found: Difference, output: Output) -> None:
    """The layers that were paired although their names differ."""
    placed = [f"{layer.a} = {layer.b}" for layer in found.layers if layer.matched_by == "place"]
    if placed:
        listed = ", ".join(placed) if output.verbose else several(placed, "layers")
        click.echo(printable(f"paired by their place: {listed}"))
    for layer in found.layers:
        if layer.equations in _EQUATIONS:
            click.echo(printable(f"{_names(layer)}: {_EQUATIONS[layer.equations]}"))


def _names(layer: LayerPair) -> str:
    return layer.a if layer.a == layer.b else f"{layer.a} | {layer.b}"


def _print_settings(console: Console, found: Difference) -> None:
    rows: list[tuple[str, Setting]] = [("(the model)", setting) for setting in found.interface]
    rows += [(_names(layer), setting) for layer in found.layers for setting in layer.settings]
    if not rows:
        return
    table = _table("Layer", "Setting", "A", "B", "Matters in")
    for name, setting in rows:
        table.add_row(*map(_text, (name, setting.name, setting.a, setting.b, _EFFECTS[setting.effect])))
    console.print(table)


def _print_equations(found: Difference) -> None:
    for layer in found.layers:
        if layer.differing or layer.evaluation:
            evaluated = f"; they {layer.evaluation}" if layer.evaluation else ""
            click.echo(printable(f"Equations of {_names(layer)} differ{evaluated}"))
        for pair in layer.differing:
            click.echo(printable(f"    A: {pair.a or 'nothing like it'}"))
            click.echo(printable(f"    B: {pair.b or 'nothing like it'}"))


def _print_arrays(console: Console, found: Difference, *, everything: bool) -> None:
    total = sum(len(layer.tensors) for layer in found.layers)
    alike = sum(tensor.stored_alike for layer in found.layers for tensor in layer.tensors)
    table = _table("Array of A", "of B", "Relation", "", "Differing", "Max diff", "Relative")
    for layer in found.layers:
        rows = [_array(tensor) for tensor in layer.tensors if everything or not tensor.stored_alike]
        if rows:
            table.add_row(_text(layer.a), _text("" if layer.a == layer.b else layer.b))
        for row in rows:
            table.add_row(*map(_text, row))
    if table.row_count:
        console.print(table)
    if total:
        click.echo(f"{alike:,} of {total:,} arrays are equal{'' if alike == total else ' and stored alike'}")


def _array(tensor: TensorPair) -> tuple[str, ...]:
    a, b = (f"  {name}" if name else "" for name in (tensor.a, tensor.b))
    words = [tensor.arrangement, tensor.detail]
    if tensor.relation == "shape" and not tensor.detail:
        words.append(f"{list(tensor.shape_a)} | {list(tensor.shape_b)}")
    if tensor.steps:
        noun = "step" if len(tensor.steps) == 1 else "steps"
        words.append(f"{noun} {ranges(tensor.steps)}")
    count = "" if not tensor.differing else f"{tensor.differing:,} of {tensor.numbers:,}"
    apart = "" if not tensor.differing else f"{tensor.max_difference:.2g}"
    relative = "" if not tensor.differing else f"{tensor.max_relative:.2g}"
    relation = "other shape" if tensor.relation == "shape" else tensor.relation
    return a, "" if a == b else b, relation, "; ".join(filter(None, words)), count, apart, relative


def _table(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        numeric = title in ("Params", "Differing", "Max diff", "Relative")
        table.add_column(title, overflow="fold", justify="right" if numeric else "left", no_wrap=numeric)
    return table


def _text(text: str) -> Text:
    return Text(printable(text))
