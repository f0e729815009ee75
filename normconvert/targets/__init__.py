"""What a model can be written as. The modules that write are imported when they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from normconvert.errors import UsageError
from normconvert.ir.model import Model

Write = Callable[..., None]
"""Takes the model, where to write it, and the target's own options by keyword."""


@dataclass(frozen=True)
class Target:
    """A kind of artefact.

    Attributes:
        name: as given to `--to`, and in the name of a pair such as `keras-to-torch`.
        title: what it is.
        suffix: what its file names end in; empty for a folder.
        other_suffixes: what they may end in too, where the target is asked for by name.
        module, function: what writes it; takes the model, and an empty folder or the name of a file.
        options: names of the options it takes besides.
    """

    name: str
    title: str
    suffix: str
    module: str
    function: str
    options: tuple[str, ...] = ()
    other_suffixes: tuple[str, ...] = ()

    def write(self, model: Model, path: Path, **options: object) -> None:
        """Write a model.

        Raises:
            UsageError: the target has no such option, or not this value of it.
            Unsupported: the model has something the target cannot say.
            MissingRuntime: the framework that writes it is not installed.
        """
        for name in options:
            if name not in self.options:
                raise UsageError(f"--{name} says nothing about {self.title}")
        if not self.suffix:
            path.mkdir()
        writer: Write = getattr(import_module(self.module), self.function)
        writer(model, path, **options)

    def may_be_called(self, path: Path) -> bool:
        """Whether a file of this kind may have this name."""
        return bool(self.suffix) and path.name.lower().endswith((self.suffix, *self.other_suffixes))

    def default_name(self, stem: str) -> str:
        """Name of the artefact made from a source named `stem`."""
        return f"{stem}{self.suffix}" if self.suffix else f"{stem}-{self.name}"


_ALL = (
    Target(
        "torch",
        "readable PyTorch: a folder with model.py and its weights",
        "",
        "normconvert.targets.torch",
        "write_folder",
    ),
    Target("torchscript", "a TorchScript archive", ".ts.pt", "normconvert.targets.torch", "write_torchscript"),
    Target("export", "a program saved by torch.export", ".pt2", "normconvert.targets.torch", "write_exported"),
    Target(
        "onnx",
        "an ONNX file",
        ".onnx",
        "normconvert.targets.onnx",
        "write_onnx",
        ("opset", "streaming", "dtype", "quantize"),
    ),
    Target("keras", "a Keras 3 file", ".keras", "normconvert.targets.keras", "write_keras"),
    Target("keras-h5", "a Keras 3 file in HDF5", ".h5", "normconvert.targets.keras", "write_keras"),
    Target("tf", "a TensorFlow SavedModel", "", "normconvert.targets.keras", "write_saved_model"),
    Target(
        "tf1",
        "a TF1 checkpoint",
        "",
        "normconvert.targets.tf1",
        "write_checkpoint",
        ("layout", "scope", "names"),
    ),
    Target(
        "state-dict",
        "a PyTorch state dict in a named layout",
        ".pth",
        "normconvert.targets.torch.state_dict",
        "write_state_dict",
        ("layout", "scope", "names"),
        (".safetensors",),
    ),
    Target("ir", "the intermediate format", ".safetensors", "normconvert.ir.file", "save"),
)
TARGETS = {target.name: target for target in _ALL}
"""Every target by its name."""


def target(name: str) -> Target:
    """A target by name; UsageError lists the known ones."""
    if name not in TARGETS:
        raise UsageError(f"there is no target {name}", remedy=f"Known targets: {', '.join(TARGETS)}")
    return TARGETS[name]


def by_suffix(path: Path) -> Target | None:
    """The target whose files end as this path does."""
    return next((each for each in _ALL if each.suffix and path.name.lower().endswith(each.suffix)), None)
