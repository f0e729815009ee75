"""`plan`: what a conversion would do, as a recipe to edit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normconvert.cli.options import PATH, from_format, output_options, source_options
from normconvert.cli.output import Output, printable

if TYPE_CHECKING:
    from normconvert.sources import Plan


@click.command("plan")
@click.argument("source", type=PATH)
@from_format
@source_options
@output_options
def command(source: Path, output: Output, **reading: Any) -> None:
    """Show what a conversion would use, ignore and assume.

    Prints a recipe (TOML) on standard output, with the findings as comments: save it, edit it, and give it back with
    --recipe.
    """
    from normconvert import api
    from normconvert.validation.report import to_json

    with output.progress() as progress:
        progress(f"reading {source.name}")
        plan = api.plan(source, **reading)
    output.result("\n".join([*map(_comment, _findings(plan)), plan.recipe.rstrip("\n")]))
    output.document(to_json(plan))


def _findings(plan: Plan) -> Iterator[str]:
    """What the reader did with each stored array, and what it assumed, a line each."""
    used = [tensor for tensor in plan.tensors if not tensor.ignored]
    ignored = [tensor for tensor in plan.tensors if tensor.ignored]
    yield f"Used: {len(used)} of {len(plan.tensors)} stored arrays"
    yield from (f"  {tensor.name} {list(tensor.shape)} {tensor.dtype} -> {tensor.used_as}" for tensor in used)
    yield "Ignored:" if ignored else "Ignored: none"
    yield from (f"  {tensor.name} {list(tensor.shape)} {tensor.dtype}: {tensor.ignored}" for tensor in ignored)
    yield "Assumed:" if plan.assumptions else "Assumed: nothing"
    yield from (f"  {assumption.sentence} ({assumption.source})" for assumption in plan.assumptions)
    yield ""


def _comment(line: str) -> str:
    return f"# {printable(line)}".rstrip()
