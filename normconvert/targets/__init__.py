"""What a model can be written as. The modules that write are imported when they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from normconvert.errors import UsageError
from normconvert.ir.model import Model

Write = Callable[[Model, Path], None]


@dataclass(frozen=True)
class Target:
    """A kind of artefact.

    Attributes:
        name: as given to `--to`, and in the name of a pair such as `keras-to-torch`.
        title: what it is.
        suffix: what its file names end in; empty for a folder.
        module, function: what writes it; takes the model, and an empty folder or the name of a file.
    """

    name: str
    title: str
    suffix: str
    module: str
    function: str

    def write(self, model: Model, path: Path) -> None:
        """Write a model.

        Raises:
            Unsupported: the model has something the target cannot say.
            MissingRuntime: the framework that writes it is not installed.
        """
        if not self.suffix:
            path.mkdir()
        writer: Write = getattr(import_module(self.module), self.function)
        writer(model, path)

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
