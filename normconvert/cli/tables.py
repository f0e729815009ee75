"""Summaries and reports as tables on a terminal."""

from __future__ import annotations

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from normconvert.cli.output import Output, printable
from normconvert.inspection import CellInfo, NormInfo, Summary
from normconvert.validation.report import Report

_PIPE_WIDTH = 120


def terminal() -> Console:
    """Standard output; as wide as the terminal, or a fixed width where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH, no_color=True)


def print_summary(summary: Summary) -> None:
    """Layers with shapes, parameters and connections, the totals, and each distinct cell."""
    console = terminal()
    provenance = summary.provenance
    facts = [summary.name, provenance.source, provenance.format, provenance.framework]
    console.print(_text("  ".join(fact for fact in facts if fact)))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("Layer", "Kind", "Output shape"):
        table.add_column(title, overflow="fold")
    table.add_column("Params", justify="right", no_wrap=True)
    table.add_column("Reads", overflow="fold")
    for declared in summary.inputs:
        table.add_row(_text(declared.name), f"Input ({declared.dtype})", _shape((None, *declared.shape)), "0", "")
    for row in summary.rows:
        count = f"(as {row.shared_with})" if row.shared_with else f"{row.parameters:,}"
        table.add_row(_text(row.name), _text(row.kind), _shape(row.shape), _text(count), _text(", ".join(row.inputs)))
    console.print(table)
    console.print(_text(f"Outputs: {', '.join(summary.outputs)}"))
    console.print(f"Total params: {summary.total:,}")
    console.print(f"Trainable params: {summary.trainable:,}")
    console.print(f"Non-trainable params: {summary.non_trainable:,}")
    for cell in summary.cells:
        _print_cell(console, cell)


def _print_cell(console: Console, cell: CellInfo) -> None:
    title = f"Cell of {', '.join(cell.layers)}" + (f" ({cell.family})" if cell.family else "")
    lines = [title]
    states = ", ".join(f"{name} {list(shape)}" for name, shape in cell.states.items())
    facts = {
        "states": states,
        "gates": "; ".join(", ".join(names) for names in cell.gates),
        "constants": ", ".join(f"{name} = {value:g}" for name, value in cell.constants.items()),
    }
    lines += [f"  {name}: {text}" for name, text in facts.items() if text]
    lines += [f"  norm {norm.name}: {_norm(norm)}" for norm in cell.norms]
    lines += ["", *(f"    {line}" for line in cell.equations.strip("\n").splitlines())]
    console.print()
    console.print(Text("\n".join(map(printable, lines))), soft_wrap=True)


def _text(text: str) -> Text:
    return Text(printable(text))


def _norm(norm: NormInfo) -> str:
    affine = [name for name, present in (("gamma", norm.gamma), ("beta", norm.beta)) if present]
    parts = [
        norm.kind,
        f"{norm.features} features" + (f" in {norm.groups} groups" if norm.groups > 1 else ""),
        f"eps {norm.epsilon:g}",
        " and ".join(affine) or "no gamma or beta",
        norm.statistics,
        *([f"T_max {norm.steps}"] if norm.steps is not None else []),
    ]
    return ", ".join(parts)


def _shape(shape: tuple[int | None, ...]) -> Text:
    return Text(f"({', '.join('None' if size is None else str(size) for size in shape)})")


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def print_report(report: Report, output: Output, *, brief: bool = False) -> None:
    """The verdict, and with -v every case; in brief, no more than that it is equivalent."""
    if output.as_json or (output.quiet and report.equivalent):
        return
    click.echo(printable(report.verdict))
    if brief and report.equivalent and not output.verbose:
        return
    if report.worst_layer is not None:
        click.echo(printable(f"the difference begins in {report.worst_layer}"))
    console = terminal()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rounded = ("float32 error",) if report.loss is None else ("error", "allowed")
    for title in ("Output", "float64 error", "allowed", *rounded, "noise floor", "multiple"):
        table.add_column(title, justify="left" if title == "Output" else "right", overflow="fold")
    for each in report.outputs:
        exact = "not run" if each.function_error is None else f"{each.function_error:.2g}"
        rounding = (each.rounding_error, *(() if report.loss is None else (each.rounding_bound,)))
        numbers = (each.function_bound, *rounding, each.floor, each.rounding_multiple)
        table.add_row(_text(each.name), exact, *(f"{number:.2g}" for number in numbers))
    console.print(table)
    if report.loss is not None:
        click.echo(f"size: {_size(report.loss.size)}, in float32 {_size(report.loss.float32_size)}")
    floor = f"noise floor: {report.floor}" + (f" ({report.floor_note})" if report.floor_note else "")
    click.echo(click.wrap_text(printable(floor), console.width, subsequent_indent="    "))
    click.echo(f"reading: {report.reading}")
    for note in filter(None, (report.function_note, *report.notes)):
        click.echo(printable(f"note: {note}"))
    if output.verbose:
        for case in report.cases:
            exact = "" if case.function_error is None else f"float64 {case.function_error:.2g}, "
            own = "float32" if report.loss is None else f"{case.rounding_error:.2g} in reduced precision,"
            click.echo(printable(f"  {case.output}: {exact}{own} {case.rounding_multiple:.2g} x floor ({case.case})"))
