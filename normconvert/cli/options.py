"""Options that several verbs share, each defined once."""

from __future__ import annotations

import json
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


def _settings(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    result = {}
    for text in values:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
        result[name] = _value(value)
    return result


def _value(text: str) -> Any:
    """A number, a truth value, the text itself, or several of them between commas."""
    if "," in text:
        return [_value(part) for part in text.split(",")]
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _arguments(_: click.Context, __: click.Parameter, value: str | None) -> dict[str, Any]:
    try:
        result = json.loads(value or "{}")
    except ValueError as error:
        raise click.BadParameter(f"is not JSON ({error})") from None
    if not isinstance(result, dict):
        raise click.BadParameter("is a JSON object, such as '{\"hidden\": 64}'")
    return result


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
    click.option(
        "--config",
        type=PATH,
        metavar="FILE",
        help="Architecture of a weights-only file: Keras's JSON, or the cfg of pytorch-kaldi.",
    ),
    click.option("--recipe", type=PATH, metavar="TOML", help="What the file does not say; see 'plan'."),
    click.option(
        "--define",
        multiple=True,
        callback=_definitions,
        metavar="CLASS=TOML",
        help="Cell description that stands for a custom class; may be repeated.",
    ),
    click.option("--scope", metavar="SCOPE", help="Take this cell, layer or stack out of a checkpoint; see 'inspect'."),
    click.option(
        "--cell", "single_step", is_flag=True, help="With --scope: one step, the states as inputs and outputs."
    ),
    click.option("--family", metavar="NAME", help="With --scope: which cell it is, FAMILY or FAMILY/LAYOUT."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        callback=_settings,
        metavar="NAME=VALUE",
        help="Decide what a checkpoint leaves open, such as forget_bias=1; may be repeated.",
    ),
    click.option("--ema", is_flag=True, help="Read the moving averages of a checkpoint's variables."),
    click.option(
        "--source-module",
        metavar="FILE.py:CLASS",
        help="Run this module of yours, with a state dict's tensors, as the reference of the proof. Runs its code.",
    ),
    click.option(
        "--source-args",
        callback=_arguments,
        metavar="JSON",
        help="Arguments of that class by name, such as '{\"hidden\": 64}'.",
    ),
    click.option("--outputs", multiple=True, metavar="TENSOR", help="Output of a checkpoint's graph; may be repeated."),
)
"""What the user says about a source file."""


def source_options_of(side: str) -> Callable[[F], F]:
    """The options about a source that one of two may have for itself: `--recipe-a`."""
    of = f"As without -{side}, for {side.upper()} alone."
    return _all(
        click.option(f"--config-{side}", type=PATH, metavar="FILE", help=of),
        click.option(f"--recipe-{side}", type=PATH, metavar="TOML", help=of),
        click.option(f"--scope-{side}", metavar="SCOPE", help=of),
        click.option(
            f"--set-{side}", f"settings_{side}", multiple=True, callback=_settings, metavar="NAME=VALUE", help=of
        ),
        click.option(f"--ema-{side}", is_flag=True, help=of),
    )


reduction_options = (
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16", "bfloat16"]),
        help="For ONNX: what products with weights are computed in; all else stays in float32.",
    ),
    click.option(
        "--quantize",
        type=click.Choice(["int8", "float16", "bfloat16"]),
        help="For ONNX: int8 computes products with weights in whole numbers; the others only store weights so.",
    ),
)
max_error = click.option(
    "--max-error",
    type=click.FloatRange(min=0, min_open=True),
    metavar="ERROR",
    help="For ONNX of reduced precision: the largest error accepted, relative to the size of the output.",
)


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
