"""What every kind of checkpoint offers: its variables by name, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from normconvert.ir.model import Array


@dataclass(frozen=True)
class Variable:
    """A stored variable.

    Attributes:
        name: its full name, `rnn/basic_lstm_cell/kernel`; partitions are joined to one variable.
        shape: of the whole variable.
        dtype: NumPy's name (`float32`, `bfloat16`, `int64`), or TensorFlow's for what is no number (`string`).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


def framework_of(checkpoint: Checkpoint) -> str:
    """Whose layouts the cells of a checkpoint have: `tf1` or `torch`."""
    return "torch" if checkpoint.format.startswith("pytorch") else "tf1"


def arrays_of(framework: str) -> str:
    """What a framework calls the arrays in its files."""
    return "tensors" if framework == "torch" else "variables"


class Checkpoint(Protocol):
    """An opened checkpoint. Opening reads names and shapes only."""

    @property
    def place(self) -> str:
        """How errors name it: the prefix without folders, `model.ckpt-100`."""
        ...

    @property
    def prefix(self) -> Path:
        """The path without `.index`: what `tf.train.Saver.restore` takes."""
        ...

    @property
    def meta(self) -> Path | None:
        """The graph's file beside it, if there is one."""
        ...

    @property
    def format(self) -> str:
        """`tf1-v2`, `tf1-v1`, or `arrays`."""
        ...

    @property
    def variables(self) -> Mapping[str, Variable]:
        """Every variable by name, in the file's order."""
        ...

    def load(self, name: str) -> Array:
        """A variable's value, read-only and mapped into memory where the file allows it; its checksum is verified.

        Raises:
            CorruptFile: a shard is missing, cut short, or fails its checksum; names the shard and the variable.
            Unsupported: the variable holds no numbers.
        """
        ...

    def sha256(self) -> str:
        """Hash of the checkpoint: of its index and data files in order, as hexadecimal digits.

        Raises:
            CorruptFile: a shard is missing.
        """
        ...
