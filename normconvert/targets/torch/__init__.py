"""The PyTorch target: readable source with its weights, TorchScript, or an exported program."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import save_file

from normconvert.ir.model import Model
from normconvert.targets.torch.model_text import write_model
from normconvert.targets.torch.names import Observation


def write_folder(model: Model, folder: Path) -> None:
    """Write `model.py` and `model.safetensors`. PyTorch is not imported.

    Args:
        model: what to write.
        folder: an existing, empty folder.

    Raises:
        Unsupported: a layer has no PyTorch form.
    """
    written = write_model(model)
    (folder / "model.py").write_text(written.text, encoding="utf-8")
    save_file(written.arrays, folder / "model.safetensors")


def write_torchscript(model: Model, path: Path) -> None:
    """Write a TorchScript archive of the generated module in eval mode; batch and time stay dynamic.

    Raises:
        Unsupported: a layer has no PyTorch form.
        MissingRuntime: PyTorch is not installed.
    """
    from normconvert.targets.torch.programs import save_torchscript

    save_torchscript(model, path)


def write_exported(model: Model, path: Path) -> None:
    """Write a `torch.export` program (.pt2) of the generated module in eval mode; batch and time stay dynamic.

    Every recurrent layer becomes a `scan`: the exporter would unroll PyTorch's own layers, and freeze the time axis.

    Raises:
        Unsupported: a layer has no PyTorch form, or a size that must stay dynamic would be frozen.
        MissingRuntime: PyTorch is not installed.
    """
    from normconvert.targets.torch.programs import save_exported

    save_exported(model, path)


def observations(model: Model) -> dict[str, Observation]:
    """Where each value of the graph shows up in the generated module, by the value's name."""
    return write_model(model).observations
