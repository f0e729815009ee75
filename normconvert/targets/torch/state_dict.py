"""The state dict target: tensors under the names that a user's existing PyTorch class has for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from normconvert.ir import layers
from normconvert.ir.layers import AnyLayer
from normconvert.ir.model import Array, Model
from normconvert.runtimes.torch_settings import import_torch
from normconvert.targets.layouts import record
from normconvert.targets.layouts.keeping import Names
from normconvert.targets.layouts.model import Naming, store_model, unknown_layer
from normconvert.targets.layouts.storing import STEP
from normconvert.targets.torch.class_names import tensor_name

_NAMES: dict[type, dict[str, str]] = {
    layers.Dense: {"kernel": "weight", "bias": "bias"},
    layers.Embedding: {"embeddings": "weight"},
    layers.BatchNormalization: {
        "gamma": "weight",
        "beta": "bias",
        "mean": "running_mean",
        "variance": "running_var",
    },
    layers.LayerNormalization: {"gamma": "weight", "beta": "bias"},
}


def _arrange(layer: AnyLayer, role: str, array: Array) -> tuple[str, Array]:
    known = {role: role} if isinstance(layer, layers.Formula) else _NAMES.get(type(layer))
    if known is None:
        raise unknown_layer(layer, "PyTorch")
    return known[role], _turned(layer, role, array)


def _turned(layer: AnyLayer, role: str, array: Array) -> Array:
    """A kernel transposed, which is its own inverse."""
    return array.T if isinstance(layer, layers.Dense) and role == "kernel" else array


NAMING = Naming("torch", ".", _arrange, _turned, tensor_name, lambda name, row: name.replace(STEP, str(row)))


def write_state_dict(
    model: Model, path: Path, *, layout: str = "", scope: str = "", names: Names | None = None
) -> None:
    """Write a state dict, which `load_state_dict` of the layout's class takes.

    Args:
        model: what to write.
        path: a `.pth` file, written by `torch.save`, or a `.safetensors` file, written without PyTorch.
        layout, scope, names: as in `targets.layouts.model.store_model`.

    Raises:
        MissingRuntime: PyTorch is not installed, and the file is not `.safetensors`.
        Unsupported, UsageError: as `store_model` says.
    """
    stored = store_model(model, NAMING, layout=layout, scope=scope, names=names)
    if is_safe(path):
        save_file({name: np.ascontiguousarray(array) for name, array in stored.tensors.items()}, path)
    else:
        torch = import_torch()
        torch.save({name: tensor_of(torch, array) for name, array in stored.tensors.items()}, path)
    record.write(stored.record, record.beside(path))


def is_safe(path: Path) -> bool:
    """Whether a state dict is a `.safetensors` file."""
    return path.name.lower().endswith(".safetensors")


def tensor_of(torch: Any, array: Array) -> Any:
    """A tensor of its own memory; bfloat16, which NumPy does not know, by its bits."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))
