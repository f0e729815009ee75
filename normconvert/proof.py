"""Which runners take part in a proof: the artefact, and the framework that wrote the source."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec

from normconvert.artefacts import runner_for
from normconvert.errors import UsageError
from normconvert.ir.model import Model
from normconvert.passes.streaming import streaming
from normconvert.runtimes.chunked import Chunked
from normconvert.runtimes.interpreted import Interpreted
from normconvert.runtimes.keras_source import KerasSource
from normconvert.runtimes.onnx_program import OnnxProgram
from normconvert.runtimes.runner import Runner, Source
from normconvert.runtimes.tf1_source import TF1Source
from normconvert.runtimes.torch_program import TorchProgram
from normconvert.runtimes.torch_source import TorchSource
from normconvert.sources import Reading, ReadResult
from normconvert.targets import Target
from normconvert.targets.keras import cells_path
from normconvert.validation.equivalence import prove
from normconvert.validation.report import Loss, Report

Progress = Callable[[str], None]
_RECIPE = "the recipe says what is computed, not the file alone"
_NO_GRAPH = "there is no graph beside the checkpoint that could be run"
_NO_MODULE = "a state dict has no code of its own; --source-module runs yours"
_VERSION = re.compile(r"(\d+)\.\d")


def prove_artefact(
    read: ReadResult,
    kind: Target,
    artefact: Path,
    *,
    source: Path,
    reading: Reading,
    progress: Progress,
    max_error: float | None = None,
) -> Report:
    """Compare an artefact with what was read from `source`.

    Raises:
        UsageError: `max_error` is given for an artefact that keeps the precision of float32.
    """
    runner = runner_for(kind, artefact, read.model)
    if isinstance(runner, OnnxProgram) and runner.streaming:
        return prove_streaming(read.model, artefact, source=source, progress=progress, max_error=max_error)
    report = _prove(read, runner, source, reading, progress, _loss(runner, max_error))
    return _in_nn_classes(report, read.model, artefact, progress) if kind.name == "state-dict" else report


def _in_nn_classes(report: Report, model: Model, state_dict: Path, progress: Progress) -> Report:
    """The report of a state dict, with what the classes of `torch.nn` make of its tensors."""
    if find_spec("torch") is None:
        note = "PyTorch is not installed, so that no class of torch.nn loaded the state dict"
        return msgspec.structs.replace(report, notes=(*report.notes, note))
    from normconvert.targets.torch.nn_classes import nn_modules

    for module in nn_modules(model, state_dict):
        own = prove(module.reference, module.program, progress=progress)
        if own.equivalent:
            note = f"{module.title}, loaded with strict=True: {own.verdict}"
            report = msgspec.structs.replace(report, notes=(*report.notes, note))
        else:
            reason = f"{module.title} is {own.verdict}"
            report = msgspec.structs.replace(report, equivalent=False, reasons=(*report.reasons, reason))
    return report


def _loss(runner: Runner, max_error: float | None) -> Loss | None:
    """What an artefact rounds more coarsely than float32."""
    loss = runner.loss(max_error) if isinstance(runner, OnnxProgram) else None
    if loss is None and max_error is not None:
        raise UsageError(
            "--max-error is for files of reduced precision; any other is held to the rounding of float32",
            where=runner.title,
        )
    return loss


def prove_streaming(
    model: Model, artefact: Path, *, source: Path, progress: Progress, max_error: float | None = None
) -> Report:
    """Compare a streaming ONNX model, called with chunks of uneven lengths, with the model over whole sequences.

    Raises:
        Unsupported: the model cannot be streamed.
    """
    plan = streaming(model)
    program = OnnxProgram(artefact, plan.reference, "the streaming ONNX model")
    loss = _loss(program, max_error)
    return prove(
        plan.reference,
        Chunked(program, plan),
        source_note="the source takes part in the proof of the sequence model",
        reference_title=f"{source.name} over whole sequences, the interpreter in float64",
        loss=loss,
        whole=None if loss is None else Chunked(program.whole(), plan),
        progress=progress,
    )


def prove_model(
    read: ReadResult, other: Model, name: str, *, source: Path, reading: Reading, progress: Progress
) -> Report:
    """Compare a model read from a file with the model read from `source`.

    Raises:
        UsageError: they do not have as many inputs.
    """
    expected = len(read.model.inputs)
    if expected != len(other.inputs):
        raise UsageError(f"has {len(other.inputs)} inputs, the reference has {expected}", where=name)
    return _prove(read, Interpreted(other, f"{name} in the NumPy interpreter"), source, reading, progress)


def _prove(
    read: ReadResult, target: Runner, source: Path, reading: Reading, progress: Progress, loss: Loss | None = None
) -> Report:
    runner, note = source_runner(source, read, reading)
    return prove(
        read.model,
        target,
        source=runner,
        source_note=note,
        reference_title=f"{source.name}, the interpreter in float64",
        loss=loss,
        whole=target.whole() if loss is not None and isinstance(target, OnnxProgram) else None,
        remarks=target.remarks if isinstance(target, (Interpreted, TorchProgram)) else (),
        shortest=target.shortest if isinstance(target, TorchProgram) else 1,
        progress=progress,
    )


def source_runner(source: Path, read: ReadResult, reading: Reading) -> tuple[Source | None, str]:
    """What can run the source file itself; or None, and why."""
    model, provenance = read.model, read.model.provenance
    if read.reference is not None:
        return TF1Source(read.reference, model), ""
    if reading.source_module is not None and not provenance.format.startswith("pytorch"):
        raise UsageError("--source-module is for the state dict of a PyTorch module", where=str(source))
    if source.suffix == ".safetensors" and not provenance.format.startswith("pytorch"):
        return None, "the intermediate format has no framework of its own"
    if provenance.format.startswith(("tf1", "arrays")):
        return None, _NO_GRAPH if reading.recipe is None else _RECIPE
    if provenance.format.startswith("pytorch"):
        return _torch_module(source, read, reading)
    if provenance.format == "saved-model":
        return None, "the graph of a SavedModel is a program, and is not run"
    if not provenance.format.startswith("keras"):
        return None, f"files of the format {provenance.format or 'unknown'} cannot be run"
    if reading.recipe is not None:
        return None, _RECIPE
    if reading.define:
        return None, "the file holds classes that only their authors' code defines"
    if cells_path(source).is_file():
        return None, f"the code of its own layers, {cells_path(source).name}, is not run"
    version = _VERSION.search(provenance.framework)
    package = "keras" if version is not None and int(version[1]) >= 3 else "tf_keras"
    inputs = tuple(declared.name for declared in model.inputs)
    return KerasSource(source, package, inputs, reading.config), ""


def _torch_module(source: Path, read: ReadResult, reading: Reading) -> tuple[Source | None, str]:
    """The user's own module with the state dict's tensors; or None, where no module is named."""
    if reading.source_module is None:
        return None, _NO_MODULE
    inputs = tuple(declared.name for declared in read.model.inputs)
    return TorchSource(source, reading, inputs, len(read.model.outputs)), ""
