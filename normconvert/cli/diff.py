"""`diff`: what differs between two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from normconvert.cli.options import PATH, from_format, output_options, source_options, source_options_of
from normconvert.cli.output import Output


@click.command("diff")
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--no-weights", is_flag=True, help="Compare layers, equations and settings, not the numbers.")
@click.option("--no-evaluate", is_flag=True, help="Do not run the models where it is not shown that they are the same.")
@click.option("--strict", is_flag=True, help="Fail for every difference, those that matter in training only too.")
@source_options_of("a")
@source_options_of("b")
@from_format
@source_options
@output_options
def command(
    a: Path, b: Path, output: Output, no_weights: bool, no_evaluate: bool, strict: bool, **reading: Any
) -> None:
    """Show what differs between two models; the exit code is 1 if they are not shown to be the same.

    A and B are source files, the intermediate format (.safetensors), or PyTorch folders that normconvert wrote, in
    whose case text and weights are compared. Nothing in them is run. Options that say how to read a source hold for
    both; those that end in -a or -b for one.
    """
    from normconvert.cli.diff_tables import print_difference
    from normconvert.comparison import diff
    from normconvert.errors import NotEquivalent, UsageError
    from normconvert.sources.reading import ReadingOptions
    from normconvert.validation.report import to_json

    if reading["source_module"] is not None:
        raise UsageError("--source-module is for the proof of a conversion; diff runs nobody's code")
    own = {
        side: {name.removesuffix(f"_{side}"): reading.pop(name) for name in list(reading) if name.endswith(f"_{side}")}
        for side in ("a", "b")
    }
    given = [{name: value for name, value in own[side].items() if value} for side in ("a", "b")]
    with output.progress() as progress:
        found = diff(
            a,
            b,
            options_a=cast(ReadingOptions, given[0]),
            options_b=cast(ReadingOptions, given[1]),
            weights=not no_weights,
            evaluate=not no_evaluate,
            progress=progress,
            **reading,
        )
    print_difference(found, output)
    output.document({**to_json(found), "same": found.same, "empty": found.empty})
    if not found.same:
        raise NotEquivalent(found.summary.removeprefix("different: "), where=f"{a} and {b}")
    if strict and not found.empty:
        raise NotEquivalent("they compute the same, but --strict asks for no difference", where=f"{a} and {b}")
