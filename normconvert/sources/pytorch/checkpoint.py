"""A PyTorch file as a checkpoint: the same protocol as those of TensorFlow, so that all that reads one reads both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from normconvert.errors import UsageError
from normconvert.ir.model import Array
from normconvert.sources.pytorch.entries import Aside, Entry, state_dict
from normconvert.sources.pytorch.parametrisations import materialised
from normconvert.sources.pytorch.paths import as_scopes
from normconvert.sources.pytorch.pickled_values import module_types
from normconvert.sources.pytorch.shards import content_of, shards
from normconvert.sources.tf1.checkpoint import Variable
from normconvert.sources.tf1.files import mapped
from normconvert.sources.tf1.roles import MOVING_AVERAGE
from normconvert.sources.tf1.stored import lookup


@dataclass(frozen=True)
class TorchFile:
    """An opened PyTorch file; see `Checkpoint`. Names are paths with slashes, see `paths`.

    Attributes:
        entries: by path.
        aside: stored tensors that are no part of the model.
        types: class of each module of a TorchScript archive by its path, in the archive's order.
        stored: shape and type of each tensor in the file that is, by its name there.
    """

    prefix: Path
    format: str
    entries: Mapping[str, Entry]
    aside: tuple[Aside, ...]
    stored: Mapping[str, tuple[tuple[int, ...], str]]
    types: Mapping[str, str] = field(default_factory=dict)
    meta: None = None
    variables: Mapping[str, Variable] = field(init=False)

    def __post_init__(self) -> None:
        variables = {name: Variable(name, entry.shape, entry.dtype) for name, entry in self.entries.items()}
        object.__setattr__(self, "variables", variables)

    @property
    def place(self) -> str:
        """How errors name it."""
        return self.prefix.name

    def load(self, name: str) -> Array:
        """A tensor's value; see `Checkpoint.load`. The archive's checksum of it is verified, where it has one."""
        lookup(self.variables, name, self.place)
        return self.entries[name].load()

    def sha256(self) -> str:
        """Hash of the file, or of an index and the files that it names, one after the other."""
        found = sha256(mapped(self.prefix).data)
        for shard in shards(self.prefix):
            found.update(mapped(shard).data)
        return found.hexdigest()


def open_torch(path: Path) -> TorchFile:
    """Opens a PyTorch file: names and shapes are read, values only when asked for.

    Args:
        path: what `torch.save`, `torch.jit.save` or safetensors wrote.

    Raises:
        CorruptFile: it is damaged, or loading it would run code.
        Unsupported: it is a whole pickled model, or has no tensors.
    """
    try:
        content = content_of(path)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None
    found = state_dict(content.value, path.name)
    stored = {entry.parts[0]: (entry.shape, entry.dtype) for entry in found.entries.values()}
    entries = as_scopes(materialised(found.entries))
    return TorchFile(path, content.format, entries, found.aside, stored, _types(content.value))


def _types(value: Any) -> dict[str, str]:
    return {path.replace(".", "/"): name for path, name in module_types(value)}


def raw_tensors(path: Path, *, ema: bool = False) -> dict[str, Array]:
    """The model's tensors as they are stored, under the names of its state dict: parametrisations are not applied.

    Args:
        path: as for `open_torch`.
        ema: moving averages in the places of the tensors that have one.
    """
    entries = state_dict(content_of(path).value, path.name).entries
    averages = {name.removesuffix(f".{MOVING_AVERAGE}"): name for name in entries if name.endswith(MOVING_AVERAGE)}
    chosen = {name: averages.get(name, name) if ema else name for name in entries if name not in averages.values()}
    return {name: entries[stored].load() for name, stored in chosen.items()}
