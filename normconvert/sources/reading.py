"""What a reader did with a file: each stored array, each assumption, and a recipe that says it all."""

from __future__ import annotations

from dataclasses import dataclass

from normconvert.ir.model import Model


@dataclass(frozen=True)
class TensorUse:
    """One stored array.

    Attributes:
        name: its path in the file.
        shape, dtype: as stored.
        used_as: the weight of the model it became (with the part of it in parentheses), or empty.
        ignored: why it was left out, or empty.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    used_as: str = ""
    ignored: str = ""


@dataclass(frozen=True)
class Assumption:
    """Something the file does not say.

    Attributes:
        sentence: what was assumed.
        source: where the assumption comes from.
    """

    sentence: str
    source: str


@dataclass(frozen=True)
class Plan:
    """How a file is read.

    Attributes:
        tensors: every stored array, in the file's order.
        assumptions: what the file does not say.
        recipe: TOML that reads the same file the same way, to be edited.
    """

    tensors: tuple[TensorUse, ...]
    assumptions: tuple[Assumption, ...]
    recipe: str


@dataclass(frozen=True)
class ReadResult:
    """A model and how it was read."""

    model: Model
    plan: Plan
