"""Conversion: read a model, write it for another framework, and prove that it computes the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, cast

from normconvert import __version__
from normconvert.artefacts import read_model
from normconvert.errors import NotEquivalent
from normconvert.ir.model import Model
from normconvert.output_paths import companion, destination, staged
from normconvert.sources.reading import ReadingOptions, ReadResult, reading_from
from normconvert.targets import Target
from normconvert.targets.card import write_card
from normconvert.targets.layouts.keeping import Names, kept_names
from normconvert.targets.onnx import stream_file
from normconvert.targets.writing import WritingOptions, writing_from
from normconvert.validation.report import PRODUCER, Report, to_json

if TYPE_CHECKING:
    from typing_extensions import Unpack

AnyPath = str | PathLike[str]
Progress = Callable[[str], None]


class ConversionOptions(ReadingOptions, WritingOptions, total=False):
    """What the user says of the source and of the artefact, as keyword arguments."""


class ConversionError(NotEquivalent):
    """The rebuilt model does not compute the same; `report` has the numbers, `kept` where the artefact went."""

    def __init__(self, report: Report, kept: Path | None, where: str = "") -> None:
        place = f"; it begins in {report.worst_layer}" if report.worst_layer is not None else ""
        remedy = "No artefact was left" if kept is None else f"The artefact was kept as {kept}"
        super().__init__(f"{report.verdict}{place}", where=where, remedy=remedy)
        self.report = report
        self.kept = kept


@dataclass(frozen=True)
class Conversion:
    """A finished conversion.

    Attributes:
        output: the artefact.
        target: its kind, a key of `normconvert.targets.TARGETS`.
        model: what was read.
        report: the measured equivalence; None with `validate=False`.
        stream: the streaming model beside it, if one was asked for.
        stream_report: its measured equivalence with the model over whole sequences.
    """

    output: Path
    target: str
    model: Model
    report: Report | None
    stream: Path | None = None
    stream_report: Report | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or left out, one sentence each."""
        return self.model.provenance.notes

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the result doubtful, one sentence each."""
        return self.model.provenance.warnings


def convert(
    source: AnyPath,
    to: str = "torch",
    output: AnyPath | None = None,
    *,
    validate: bool = True,
    keep_failed: bool = False,
    overwrite: bool = False,
    max_error: float | None = None,
    progress: Progress = lambda _: None,
    **options: Unpack[ConversionOptions],
) -> Conversion:
    """Read a model, write it for another framework, and prove that it computes the same.

    Args:
        source: a model file, a checkpoint's prefix or folder, or the intermediate format (`.safetensors`).
        to: `torch`, `torchscript`, `export`, `onnx`, `keras`, `keras-h5`, `tf`, `tf1`, `state-dict` or `ir`.
        output: where to; `<stem>-torch` or `<stem><suffix>` in the current directory if not given. With
            `to="torch"` the suffixes `.ts.pt`, `.pt2` and `.safetensors` choose another form.
        validate: prove the result, and leave nothing behind if the proof fails.
        keep_failed: keep what failed the proof as `<output>.failed`.
        overwrite: replace an earlier artefact of ours, once the new one is proven.
        max_error: for an ONNX file of reduced precision, the largest error relative to the size of an output that is
            accepted; by default what the coarser roundings explain.
        progress: told of each stage in a few words.
        options: what the source does not say, the attributes of `normconvert.sources.Reading`: `recipe`, `config`,
            `define`, `from_format`; for checkpoints `scope`, `single_step`, `family`, `settings`, `ema`, `outputs`. And
            how to write, the attributes of `normconvert.targets.writing.Writing`: `opset`, `streaming`, `dtype`,
            `quantize`, `layout`, `to_scope`.

    Returns:
        Where the artefact is, and the measured equivalence.

    Raises:
        ConversionError: the result does not compute the same.
        UsageError, Unsupported, CorruptFile, MissingRuntime: as their names say.
        TypeError: there is no such option.
    """
    path = Path(source)
    writing, about_source = writing_from(options)
    to = "state-dict" if to == "torch" and writing.layout is not None else to
    place = destination(path, to, None if output is None else Path(output), overwrite=overwrite)
    place.check()
    reading = reading_from(**cast(ReadingOptions, about_source))
    progress(f"reading {path.name}")
    read = read_model(path, reading)
    model = read.model
    with staged(place, keep_failed=keep_failed) as partial:
        progress(f"writing {place.target.title}")
        names = stored_names(read, place.target)
        place.target.write(model, partial, **writing.options(), **({} if names is None else {"names": names}))
        report = stream_report = None
        if validate:
            from normconvert.proof import prove_artefact

            report = prove_artefact(
                read, place.target, partial, source=path, reading=reading, progress=progress, max_error=max_error
            )
        write_record(partial, model, report)
        if place.target.name == "onnx":
            from normconvert.targets.onnx.metadata import record

            record(partial, report)
        if writing.streaming:
            stream_report = _finish_stream(
                model, partial, source=path, validate=validate, progress=progress, max_error=max_error
            )
        if report is not None and not report.equivalent:
            raise ConversionError(report, place.failed if keep_failed else None)
        if stream_report is not None and not stream_report.equivalent:
            raise ConversionError(stream_report, place.failed if keep_failed else None, "the streaming model")
    stream = stream_file(place.path) if writing.streaming else None
    return Conversion(place.path, place.target.name, model, report, stream, stream_report)


def _finish_stream(
    model: Model, artefact: Path, *, source: Path, validate: bool, progress: Progress, max_error: float | None
) -> Report | None:
    """Prove the streaming model beside an artefact, and put down what was found."""
    from normconvert.passes.streaming import streaming as streamed
    from normconvert.targets.onnx.metadata import record

    stream, report = stream_file(artefact), None
    reference = streamed(model).reference
    if validate:
        from normconvert.proof import prove_streaming

        report = prove_streaming(model, stream, source=source, progress=progress, max_error=max_error)
    write_record(stream, reference, report)
    record(stream, report)
    return report


def stored_names(read: ReadResult, kind: Target) -> Names | None:
    """Names of tensors in a source, by what they hold, for a target that can keep them."""
    known = {"tf1": ("tf1",), "state-dict": ("pytorch",)}.get(kind.name, ())
    if not read.model.provenance.format.startswith(known or ("no format",)):
        return None
    return kept_names(read.plan.tensors)


def write_record(artefact: Path, model: Model, report: Report | None) -> None:
    """Put the measured equivalence, and for a folder the model card, with an artefact."""
    record = {
        "producer": PRODUCER,
        "version": __version__,
        "verdict": "not validated" if report is None else report.verdict,
        "source": to_json(model.provenance),
        "inputs": to_json(model.inputs),
        "report": None if report is None else to_json(report),
    }
    companion(artefact).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if (artefact / "model.py").is_file():
        write_card(artefact, model, report)
