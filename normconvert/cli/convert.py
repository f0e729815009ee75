"""`convert`, and the pairs such as `keras-to-torch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normconvert.cli.lazy import TARGETS
from normconvert.cli.options import PATH, from_format, max_error, output_options, reduction_options, source_options
from normconvert.cli.output import Output

if TYPE_CHECKING:
    from normconvert.validation.report import Report


def _convert(
    *, source: Path, output_path: Path | None, validate: bool, force: bool, output: Output, **options: Any
) -> None:
    from normconvert import api
    from normconvert.targets.onnx.reduction import reduction, remarks
    from normconvert.validation.report import to_json

    reduced = reduction(options.get("dtype") or "float32", options.get("quantize"))
    for remark in () if reduced is None else remarks(reduced):
        output.note(remark)
    try:
        with output.progress() as progress:
            done = api.convert(
                source, output=output_path, validate=validate, overwrite=force, progress=progress, **options
            )
    except api.ConversionError as error:
        kept = None if error.kept is None else str(error.kept)
        output.document({"output": None, "kept": kept, "report": to_json(error.report)})
        raise
    output.remarks(done.model.provenance)
    _show(f"{done.output}{'/' if done.output.is_dir() else ''}", done.report, output)
    if done.stream is not None:
        _show(str(done.stream), done.stream_report, output, brief=True)
    report, stream_report = (None if each is None else to_json(each) for each in (done.report, done.stream_report))
    stream = {} if done.stream is None else {"stream": {"output": str(done.stream), "report": stream_report}}
    output.document(
        {
            "output": str(done.output),
            "target": done.target,
            "notes": list(done.notes),
            "warnings": list(done.warnings),
            "report": report,
            **stream,
        }
    )


def _show(place: str, report: Report | None, output: Output, *, brief: bool = False) -> None:
    """An artefact and what its proof found."""
    output.result(place)
    if report is not None:
        from normconvert.cli.tables import print_report

        print_report(report, output, brief=brief)


_OPSET = click.option("--opset", type=int, metavar="N", help="For ONNX: version of its operators; 18 by default.")
_STREAMING = click.option(
    "--streaming", is_flag=True, help="For ONNX: write NAME.stream.onnx too, which is called chunk by chunk."
)
_ONNX = (_OPSET, _STREAMING, *reduction_options, max_error)
_NAMED = (
    click.option(
        "--layout",
        metavar="NAME",
        help="For tf1, state-dict: whose class loads it, such as jihunchoi, spitis or nn.LSTM; or FAMILY/LAYOUT.",
    ),
    click.option(
        "--to-scope", metavar="SCOPE", help="For these: what names of tensors begin with; LAYER=SCOPE,... for layers."
    ),
)
_OWN: dict[str, tuple[Any, ...]] = {"onnx": _ONNX, "torch": _NAMED, "tf1": _NAMED, "state-dict": _NAMED}
"""Options of single targets."""
_FORMATS = {"ir": "normconvert"}
"""Source formats by their names in pairs, where these differ."""

_OPTIONS = (
    click.argument("source", type=PATH),
    click.option(
        "-o",
        "--output",
        "output_path",
        type=PATH,
        metavar="PATH",
        help="Where to; by default named after the source, in the current folder. With --to torch a name ending in "
        ".ts.pt, .pt2 or .safetensors chooses another form; a state dict is a .pth or .safetensors file.",
    ),
    source_options,
    click.option("--validate/--no-validate", default=True, help="Prove the result (the default), or only write it."),
    click.option("--keep-failed", is_flag=True, help="Keep what fails the proof, as PATH.failed."),
    click.option("--force", is_flag=True, help="Replace an earlier result of normconvert."),
    output_options,
)


def _with_options(function: Any, *extra: Any) -> Any:
    for decorator in reversed((_OPTIONS[0], *extra, *_OPTIONS[1:])):
        function = decorator(function)
    return function


def pair_command(name: str) -> click.Command:
    """The command of a pair: `convert` with its source format and target fixed."""
    source_format, _, to = name.partition("-to-")

    def run(**options: Any) -> None:
        _convert(from_format=_FORMATS.get(source_format, source_format), to=to, **options)

    text = f"Convert a model from {source_format} to {to} and prove the result; see 'convert'."
    return click.command(name, help=text)(_with_options(run, *_OWN.get(to, ())))


def _run(**options: Any) -> None:
    _convert(**options)


command: click.Command = click.command(
    "convert",
    help="Convert a model and prove that the result computes the same.\n\n"
    "SOURCE is a model file, or the intermediate format (.safetensors).",
)(
    _with_options(
        _run,
        click.option(
            "--to",
            default="torch",
            metavar="TARGET",
            show_default=True,
            shell_complete=lambda _, __, begun: [name for name in TARGETS if name.startswith(begun)],
            help=f"One of {', '.join(TARGETS)}.",
        ),
        from_format,
        *_ONNX,
        *_NAMED,
    )
)
