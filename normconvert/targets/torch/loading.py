"""A written state dict as PyTorch loads it, to be proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from normconvert.ir.model import Array, Model
from normconvert.runtimes.interpreted import Interpreted
from normconvert.runtimes.torch_settings import import_torch, versions
from normconvert.targets.layouts import record
from normconvert.targets.layouts.model import restore_model
from normconvert.targets.torch.state_dict import NAMING, is_safe


def runner(model: Model, path: Path) -> Interpreted:
    """The model with the tensors of a state dict.

    Args:
        model: what the state dict is compared with.
        path: an artefact of this target.

    Raises:
        MissingRuntime: PyTorch is not installed, and the file is not `.safetensors`.
        NotEquivalent: it was written from another model.
    """
    told = record.read(record.beside(path))
    safe = is_safe(path)
    return Interpreted(
        restore_model(model, told, loaded(path), NAMING),
        f"the state dict as {'safetensors' if safe else 'torch.load'} reads it, in the interpreter",
        {} if safe else versions(),
        told.notes,
    )


def loaded(path: Path) -> dict[str, Array]:
    """The tensors of a state dict, by `torch.load` with `weights_only=True` or by safetensors.

    Raises:
        MissingRuntime: PyTorch is not installed, and the file is not `.safetensors`.
    """
    if is_safe(path):
        return load_file(path)
    torch = import_torch()
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return {name: _array(torch, tensor) for name, tensor in tensors.items()}


def _array(torch: Any, tensor: Any) -> Array:
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())
