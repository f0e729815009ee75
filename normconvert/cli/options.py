"""Options that several verbs share, each defined once."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from normconvert.cli.output import Output

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


def _all(*decorators: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several decorators as one, in the order they are listed in the help."""

    def decorate(function: F) -> F:
        result: F = reduce(lambda inner, decorator: decorator(inner), reversed(decorators), function)
        return result

    return decorate


def _definitions(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    result = {}
    for value in values:
        name, separator, path = value.partition("=")
        if not (name and separator and path):
            raise click.BadParameter(f"{value!r} is not of the form CLASS=FILE.toml")
        result[name] = Path(path)
    return result


from_format = click.option(
    "--from", "from_format", metavar="FORMAT", help="Source format, instead of looking at the file."
)

source_options = _all(
    click.option("--config", type=PATH, metavar="JSON", help="Architecture of a weights-only file."),
    click.option("--recipe", type=PATH, metavar="TOML", help="What the file does not say; see 'plan'."),
    click.option(
        "--define",
        multiple=True,
        callback=_definitions,
        metavar="CLASS=TOML",
        help="Cell description that stands for a custom class; may be repeated.",
    ),
)
"""What the user says about a source file."""


def output_options(function: F) -> F:
    """`--json`, `-v`, `-q`, given to the command as one `Output`."""

    @wraps(function)
    def command(*args: Any, as_json: bool, verbose: int, quiet: bool, **options: Any) -> Any:
        return function(*args, output=Output(as_json, verbose, quiet), **options)

    return cast(F, _OUTPUT_OPTIONS(command))


_OUTPUT_OPTIONS = _all(
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
    click.option("-v", "--verbose", count=True, help="Say more."),
    click.option("-q", "--quiet", is_flag=True, help="Print errors and results only."),
)
