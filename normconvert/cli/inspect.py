"""`inspect`: layers, parameters and cells of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from normconvert.cli.options import PATH, from_format, output_options, source_options
from normconvert.cli.output import Output


@click.command("inspect")
@click.argument("source", type=PATH)
@from_format
@source_options
@output_options
def command(source: Path, output: Output, **reading: Any) -> None:
    """Show a model's layers, parameters and cells.

    SOURCE is a model file, or the intermediate format (.safetensors).
    """
    from normconvert import api
    from normconvert.cli.tables import print_summary
    from normconvert.validation.report import to_json

    with output.progress() as progress:
        progress(f"reading {source.name}")
        summary = api.inspect(source, **reading)
    if not output.as_json:
        print_summary(summary)
    output.remarks(summary.provenance)
    output.document(to_json(summary))
