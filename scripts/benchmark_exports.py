"""How each contender of `bench_onnx` is exported."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmark_cells import INPUTS, NATIVE, build_model

from normconvert.benchmarking.timing import repeated
from normconvert.ir.model import Model

OPSET = 18
LONGEST_EXPORT, USUAL_PER_STEP = 15.0, 0.5
"""Seconds that PyTorch's exporter may take by default, and what it needs for a step as long as nothing is known: it
unrolls."""

NATIVE_NAME, OURS = "native", "ours"


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        folder: for the exported files.
        packages: a folder of packages that only the benchmark needs.
        longest_export: what would take PyTorch's exporter more seconds, going by its export before, is left out.
        tensorflow: whether to run TensorFlow.
    """

    folder: Path
    packages: Path
    longest_export: float = LONGEST_EXPORT
    tensorflow: bool = True

    def place(self, cell: str, units: int) -> Path:
        return self.folder / f"{cell.replace(' ', '_')}-{units}"


@dataclass
class Artefact:
    """An exported file: its size and how long the export took, or why there is none."""

    seconds: float = 0.0
    bytes: int = 0
    load: float = 0.0
    problem: str = ""


def export(plan: Plan, cell: str, units: int, lengths: list[int]) -> dict[str, Artefact]:
    """Write every file for one cell and size."""
    quiet(plan)
    _import_all(plan)
    place = plan.place(cell, units)
    place.mkdir()
    model = build_model(cell, units)
    found = {
        NATIVE_NAME: _export(place / "native.onnx", lambda path: _ours(build_model(NATIVE[cell], units), path), 3),
        OURS: _export(place / "ours.onnx", lambda path: _ours(model, path), 3),
        "TorchScript": _export(place / "model.ts.pt", lambda path: _torchscript(model, path), 1),
    }
    if plan.tensorflow:
        found["tf2onnx"] = _export(place / "tf2onnx.onnx", lambda path: _tf2onnx(cell, model, path), 1)
    for length in sorted(lengths):
        name = f"torch.onnx, T={length}"
        expected = _seconds_per_step.get(cell, USUAL_PER_STEP) * length
        if expected > plan.longest_export:
            found[name] = Artefact(
                problem=f"not exported: unrolling {length} steps would take about {expected:.0f} s, "
                f"the limit is {plan.longest_export:.0f} s"
            )
            continue
        path = place / f"unrolled-{length}.onnx"
        found[name] = _export(path, lambda path, n=length: _unrolled(model, path, n), 1)
        _seconds_per_step.setdefault(cell, found[name].seconds / length)
    return found


_seconds_per_step: dict[str, float] = {}
"""How long PyTorch's exporter took for each step of a cell; hardly depends on the units."""


@cache
def _import_all(plan: Plan) -> None:
    """Export something small by every way, so that imports count nowhere."""
    place = plan.folder / "small"
    place.mkdir()
    model = build_model("LSTM", 4)
    for write in (_ours, _torchscript, lambda model, path: _unrolled(model, path, 1)):
        _export(place / "file", lambda path, write=write: write(model, path), 1)
    if plan.tensorflow:
        _export(place / "file", lambda path: _tf2onnx("LSTM", model, path), 1)


def _export(path: Path, write: Callable[[Path], None], times: int) -> Artefact:
    """The quickest of several exports, so that imports do not count where there are several."""
    try:
        seconds = min(repeated(lambda: write(path))(1) for _ in range(times))
    except Exception as error:  # a contender that fails in whatever way is a row of the table
        return Artefact(problem=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}")
    return Artefact(seconds, path.stat().st_size)


def _ours(model: Model, path: Path) -> None:
    from normconvert.targets.onnx import write_onnx

    write_onnx(model, path, opset=OPSET)


def _torchscript(model: Model, path: Path) -> None:
    from normconvert.targets.torch import write_torchscript

    write_torchscript(model, path)


def _tf2onnx(cell: str, model: Model, path: Path) -> None:
    import tf2onnx
    from benchmark_tf_cells import keras_model

    tf2onnx.convert.from_keras(keras_model(cell, model), opset=OPSET, output_path=str(path))


def _unrolled(model: Model, path: Path, length: int) -> None:
    import torch

    example = torch.zeros(2, length, INPUTS)
    with torch.no_grad():
        program = torch.onnx.export(
            module_of(model, path.parent), (example,), dynamo=True, opset_version=OPSET,
            dynamic_shapes=({0: "batch"},), verbose=False,
        )  # fmt: skip
    path.write_bytes(program.model_proto.SerializeToString())


def module_of(model: Model, place: Path) -> Any:
    """The generated PyTorch module."""
    from normconvert.runtimes.torch_folder import TorchFolder
    from normconvert.targets.torch import write_folder

    folder = place / "module"
    if not folder.exists():
        folder.mkdir()
        write_folder(model, folder)
    return TorchFolder(folder, model.inputs, {}).module


@cache
def quiet(plan: Plan) -> None:
    """Only the tables on the terminal: TensorFlow's libraries write to standard error as they are loaded."""
    sys.path.append(str(plan.packages))
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
