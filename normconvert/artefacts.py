"""What a path holds, and how to read or run it."""

from __future__ import annotations

from pathlib import Path

from normconvert.errors import UsageError
from normconvert.ir.layers import Bidirectional, Recurrent
from normconvert.ir.model import Model
from normconvert.output_paths import is_ours
from normconvert.runtimes.runner import Runner
from normconvert.sources import Reading, ReadResult, is_prefix, read
from normconvert.targets import TARGETS, Target, by_suffix
from normconvert.targets.layouts import record

_FOLDERS = {"torch": "model.py", "tf": "saved_model.pb", "tf1": "layout.json"}
"""A file that tells the folder of a target."""

_ALSO_SOURCES = ("keras", "keras-h5", "tf", "tf1", "state-dict")
"""Targets whose files are source files too, if they are not of ours."""


def kind_of(path: Path) -> Target | None:
    """Which target's artefact a path is; None for a source file.

    Raises:
        UsageError: there is nothing at the path.
    """
    if is_prefix(path):
        return None
    if not path.exists():
        raise UsageError("there is no such file", where=str(path))
    if path.is_dir():
        return next((TARGETS[name] for name, file in _FOLDERS.items() if (path / file).is_file()), None)
    if record.beside(path).is_file():
        return TARGETS["state-dict"]
    found = by_suffix(path)
    return None if found is not None and found.name in _ALSO_SOURCES and not is_ours(path) else found


def defines_function(path: Path) -> bool:
    """Whether a path can be read as a model: a source file or the intermediate format."""
    kind = kind_of(path)
    return kind is None or kind.name in ("ir", *_ALSO_SOURCES)


def read_model(path: Path, reading: Reading) -> ReadResult:
    """The model at a path, and what became of each stored tensor.

    Raises:
        UsageError: the path is missing, or an artefact that cannot be read back.
        CorruptFile, Unsupported: as the readers say.
    """
    if not defines_function(path):
        kind = kind_of(path)
        raise UsageError(
            f"is {kind.title if kind else 'an artefact'}, which can be run but not read",
            where=str(path),
            remedy="Give the source file or the intermediate format (.safetensors)",
        )
    return read(path, reading)


def runner_for(kind: Target, path: Path, model: Model) -> Runner:
    """A runner for an artefact that is compared with a model. Running a torch folder executes its code."""
    match kind.name:
        case "torch":
            from normconvert.runtimes.torch_folder import TorchFolder
            from normconvert.targets.torch import observations

            return TorchFolder(path, model.inputs, observations(model))
        case "torchscript":
            from normconvert.runtimes.torch_program import torchscript

            return torchscript(path, model.inputs, is_stateful(model))
        case "export":
            from normconvert.runtimes.torch_program import exported

            return exported(path, model.inputs, is_stateful(model))
        case "onnx":
            from normconvert.runtimes.onnx_program import OnnxProgram

            return OnnxProgram(path, model)
        case "keras" | "keras-h5":
            from normconvert.runtimes.keras_target import KerasTarget
            from normconvert.targets.keras import cells_path
            from normconvert.targets.keras import observations as keras_layers

            cells = cells_path(path)
            return KerasTarget(path, cells if cells.is_file() else None, model.inputs, keras_layers(model))
        case "tf1":
            from normconvert.targets.tf1.restoring import runner

            return runner(model, path)
        case "state-dict":
            from normconvert.targets.torch.loading import runner as loaded

            return loaded(model, path)
        case "tf":
            from normconvert.runtimes.saved_model import SavedModel
            from normconvert.targets.keras.request import input_names, output_names

            return SavedModel(path, model.inputs, input_names(model), output_names(model))
        case _:
            from normconvert.ir.file import load
            from normconvert.runtimes.interpreted import Interpreted

            return Interpreted(load(path), f"{path.name} in the NumPy interpreter")


def is_stateful(model: Model) -> bool:
    """Whether a call depends on the calls before it."""
    return any(_is_stateful(layer) for layer in model.layers.values())


def _is_stateful(layer: object) -> bool:
    if isinstance(layer, Bidirectional):
        return layer.forward.stateful or layer.backward.stateful
    return isinstance(layer, Recurrent) and layer.stateful
