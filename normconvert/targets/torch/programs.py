"""The generated module as a program: TorchScript, or `torch.export`."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from normconvert.errors import MissingRuntime, Unsupported, UsageError
from normconvert.ir.layers import AnyLayer, recurrent_parts
from normconvert.ir.lengths import fits
from normconvert.ir.model import Array, Model
from normconvert.targets.torch.model_text import Written, write_model

_numbers = itertools.count()
_FOLDER_INSTEAD = "Write a TorchScript file (.ts.pt) or the folder instead"
_EXAMPLE_SIZES = (24, 19)
"""Sizes that stand for a dynamic axis: in the example that is exported, and in the check that another one works."""

_SPREAD = _EXAMPLE_SIZES[0] - _EXAMPLE_SIZES[1]
_LARGER = (24, 61, 256, 1024)
"""From what size on the example may be, for models that take longer sequences only."""


def save_torchscript(model: Model, path: Path) -> None:
    """See `targets.torch.write_torchscript`."""
    torch = _torch()
    program = BytesIO()
    with loaded(write_model(model)) as module:
        torch.jit.save(torch.jit.script(module), program)
    # PyTorch's own writer aborts the process where the disk is full.
    path.write_bytes(program.getbuffer())


def save_exported(model: Model, path: Path) -> None:
    """See `targets.torch.write_exported`."""
    torch = _torch()
    for name, layer in model.layers.items():
        if any(part.stateful for part in recurrent_parts(layer)):
            raise Unsupported(
                "an exported program cannot carry states from call to call",
                where=f"layer {name}",
                remedy=_FOLDER_INSTEAD,
            )
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate((None, *declared.shape)) if size is None}
        for declared in model.inputs
    )
    more = next((size for size in _LARGER if fits(model, size - _SPREAD)), _LARGER[0]) - _LARGER[0]
    most = min(map(_most_steps, model.layers.values()), default=_EXAMPLE_SIZES[0])
    written = write_model(model, exported=True)
    try:
        with loaded(written) as module:
            example, other = (
                _example(model, more + min(size, most - n), written.arrays) for n, size in enumerate(_EXAMPLE_SIZES)
            )
            program = torch.export.export(module, example, dynamic_shapes=dynamic)
            program.module()(*other)
    except ImportError as error:
        raise MissingRuntime(
            f"this PyTorch has no scan, which keeps time loops dynamic: {error}", remedy="Install PyTorch 2.6 or later"
        ) from None
    except (RuntimeError, ValueError, AssertionError, torch._dynamo.exc.TorchDynamoException) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise Unsupported(f"torch.export cannot express the model: {reason}", remedy=_FOLDER_INSTEAD) from None
    stored = BytesIO()
    torch.export.save(program, stored)
    path.write_bytes(stored.getbuffer())


@contextmanager
def loaded(written: Written) -> Iterator[Any]:
    """The generated module with its weights, while its source lies in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="normconvert-") as name:
        folder = Path(name)
        (folder / "model.py").write_text(written.text, encoding="utf-8")
        save_file(written.arrays, folder / "model.safetensors")
        module = load_module(folder)
        # The exporter looks the module up by its name.
        sys.modules[module.__name__] = module
        try:
            yield module.load(folder)
        finally:
            del sys.modules[module.__name__]


def load_module(folder: Path) -> Any:
    """The Python module of a written folder. It runs the folder's code: only for folders that were just written."""
    name = f"normconvert_generated_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, folder / "model.py")
    if spec is None or spec.loader is None:
        raise UsageError("the folder holds no model.py", where=str(folder))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _most_steps(layer: AnyLayer) -> int:
    """How many time steps a layer has statistics for, where another one is an error."""
    norms = [norm for part in recurrent_parts(layer) for norm in part.cell.norms.values()]
    limits = [norm.steps for norm in norms if norm.steps is not None and norm.past_end == "error"]
    return max(min([_EXAMPLE_SIZES[0], *limits]), 2)


def _example(model: Model, size: int, arrays: dict[str, Array]) -> tuple[Any, ...]:
    """Inputs with `size` for each dynamic axis but the batch."""
    torch = _torch()
    wide = any(array.dtype == np.float64 for array in arrays.values())
    draw = np.random.default_rng(size)
    inputs = []
    for declared in model.inputs:
        shape = (2 + size % 2, *(size if n is None else n for n in declared.shape))
        if declared.dtype == "int":
            inputs.append(torch.zeros(shape, dtype=torch.int64))
        else:
            inputs.append(torch.tensor(draw.normal(size=shape), dtype=torch.float64 if wide else torch.float32))
    return tuple(inputs)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingRuntime("PyTorch is not installed", remedy="Install normconvert[torch]") from None
    return torch
