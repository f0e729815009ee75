"""What a checkpoint holds, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from normconvert.cli.output import closed, printable, several
from normconvert.cli.tables import terminal
from normconvert.ir.values import Shape, show

if TYPE_CHECKING:
    from normconvert.sources.tf1.surveyed import RecurrentLayer, Survey, SurveyedCell


def print_survey(survey: Survey) -> None:
    """Cells with their evidence and open questions, what `--scope` may name, other layers, and what is left aside."""
    out = terminal()
    arrays = "tensors" if survey.format.startswith("pytorch") else "variables"
    facts = [survey.name, survey.format, f"{survey.count} {arrays}"]
    if survey.graph or survey.format.startswith("tf1"):
        facts.append(f"graph in {survey.graph}" if survey.graph else "no graph (.meta) beside it")
    _line(out, "  ".join(facts))
    if survey.unreadable:
        _line(out, f"Only names and shapes can be read: {survey.unreadable}")
    _section(out, "Recurrent cells", [line for cell in survey.cells for line in _cell(cell)])
    _section(
        out,
        "Layers that --scope can take out",
        [_scope(scope, layers) for scope, layers in survey.scopes.items()],
    )
    _section(
        out,
        "Recognised, but not converted",
        [f"{refusal.scope or 'the top'}: {refusal.title}: {refusal.reason}" for refusal in survey.refused],
    )
    _print_plain(out, survey, arrays)
    _section(
        out,
        "Not recognised",
        [f"{name} {show(shape)}" for name, shape in survey.unknown.items()],
    )
    _section(
        out,
        "Not read by inference",
        [f"{several(list(each.variables), arrays)}: {closed(each.reason)}" for each in survey.aside],
    )


def _cell(cell: SurveyedCell) -> Iterator[str]:
    sizes = ", ".join(f"{name} {size}" for name, size in cell.sizes.items())
    yield cell.scope or "the top"
    yield f"  {cell.family}/{cell.layout}: {cell.title}"
    yield f"  certainty {cell.certainty}; {sizes}"
    for name, (value, _) in cell.settings.items():
        yield f"  {name} = {_value(value)}, fixed by the layout"
    for name, (value, why) in _of_all_norms(cell.graph).items():
        yield f"  {name} = {_value(value)}, in the graph ({why})"
    if cell.note:
        yield f"  {cell.note}; a conversion takes the graph's equations"
    for sentence in cell.evidence:
        yield f"  - {sentence}"
    for name, why in cell.unused.items():
        yield f"  unused: {name} ({why})"
    if cell.alternatives:
        yield f"  open: which cell it is; or {' or '.join(cell.alternatives)}. Decide with --family FAMILY/LAYOUT"
    for question in cell.open:
        options = " or ".join(map(_value, question.options))
        yield f"  open: {question.setting}, {options} ({question.why}). Decide with {question.answer}"


def _of_all_norms(settings: Mapping[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    """The settings, those in which all norms agree named once, with the first of their places."""
    fields: dict[str, list[str]] = {}
    for name in settings:
        if name.startswith("norms."):
            fields.setdefault(name.rpartition(".")[2], []).append(name)
    agreed = {
        field: names
        for field, names in fields.items()
        if len(names) > 1 and len({str(settings[name][0]) for name in names}) == 1
    }
    shown: dict[str, tuple[Any, str]] = {}
    for name, setting in settings.items():
        field = name.rpartition(".")[2]
        shown.setdefault(f"norms.*.{field}" if name in agreed.get(field, ()) else name, setting)
    return shown


def _scope(scope: str, layers: Sequence[RecurrentLayer]) -> str:
    """A line for a scope: its layers and what goes through them."""
    sizes = " -> ".join(_sizes(shape) for shape in (layers[0].inputs, *(layer.outputs for layer in layers)))
    directions = "both directions" if layers[0].backward else "one direction"
    chain = len(layers[0].forward)
    inner = f", {chain} cells in each" if chain > 1 else ""
    stack = f"{len(layers)} layers, " if len(layers) > 1 else ""
    return f"{scope or 'the top'}: {stack}{directions}{inner}, {sizes} features"


def _print_plain(out: Console, survey: Survey, arrays: str) -> None:
    if not survey.plain:
        return
    _line(out, "\nOther layers, guessed from names and shapes")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("Scope", "Looks like", arrays.capitalize()):
        table.add_column(title, overflow="fold")
    for layer in survey.plain:
        held = ", ".join(f"{name} {show(shape)}" for name, shape in layer.variables.items())
        table.add_row(*(Text(printable(each)) for each in (layer.scope or "the top", layer.kind, held)))
    out.print(table)


def _section(out: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        _line(out, f"\n{title}")
        for line in lines:
            _line(out, f"  {line}")


def _line(out: Console, text: str) -> None:
    out.print(Text("\n".join(map(printable, text.split("\n")))), soft_wrap=True)


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sizes(shape: Shape | None) -> str:
    return "?" if shape is None else "x".join("?" if size is None else str(size) for size in shape)
