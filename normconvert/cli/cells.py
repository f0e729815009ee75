"""`cells`: the catalogue of known cells."""

from __future__ import annotations

from importlib import resources

import click

from normconvert.cli.options import output_options
from normconvert.cli.output import Output


@click.group("cells")
def command() -> None:
    """The known cells and their equations."""


@command.command("list")
@output_options
def list_cells(output: Output) -> None:
    """List the known cells."""
    from normconvert import cells

    titles = {name: cells.family(name).title for name in cells.names()}
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        output.result(f"{name:{width}}  {title}")
    output.document([{"name": name, "title": title} for name, title in titles.items()])


@command.command("show")
@click.argument("name")
@output_options
def show_cell(name: str, output: Output) -> None:
    """Print a cell's description: equations, norms, and how it is stored.

    The text is a complete cell file; edit a copy of it and give that to --define.
    """
    from normconvert import cells
    from normconvert.validation.report import to_json

    family = cells.family(name)
    output.result((resources.files(cells) / f"{name}.toml").read_text(encoding="utf-8").rstrip("\n"))
    output.document(to_json(family))
