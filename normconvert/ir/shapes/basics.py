"""What the shape rules share: shapes, and the stored arrays of one layer asked for by name and shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normconvert.errors import CorruptFile, UsageError
from normconvert.ir.model import Array

Shape = tuple["int | None", ...]
"""Sizes of the axes; None for one that may change."""

Inputs = Sequence[Shape]


@dataclass(frozen=True)
class Stored:
    """The arrays whose names begin with a prefix (a layer's name, then perhaps a direction)."""

    prefix: str
    weights: Mapping[str, Array]

    def shape(self, name: str, *expected: int | None) -> tuple[int, ...]:
        """The shape of an array that must have the expected one; None stands for any size.

        Raises:
            CorruptFile: the array is missing or has another shape.
        """
        tensor = f"{self.prefix}.{name}"
        found = self.any_shape(name)
        fits = len(found) == len(expected) and all(e in (None, f) for e, f in zip(expected, found, strict=True))
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in expected)
            raise CorruptFile(f"the tensor {tensor} has shape {list(found)}, its layer needs [{wanted}]")
        return found

    def any_shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array; CorruptFile if it is missing."""
        tensor = f"{self.prefix}.{name}"
        if tensor not in self.weights:
            raise CorruptFile(f"the tensor {tensor} is missing")
        return tuple(self.weights[tensor].shape)

    def within(self, part: str) -> Stored:
        """The arrays of a part of the layer."""
        return Stored(f"{self.prefix}.{part}", self.weights)


Rule = Callable[[Any, Inputs, Stored], Shape]
"""The shape of a layer's output from the layer, the shapes of its inputs and its arrays; the batch axis comes first."""


def show(shape: Shape) -> str:
    """A shape for people: `[?, 7]`."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def unify(a: Shape, b: Shape) -> Shape | None:
    """What both shapes say together; None if they contradict each other."""
    if len(a) != len(b) or any(m != n and None not in (m, n) for m, n in zip(a, b, strict=True)):
        return None
    return tuple(n if m is None else m for m, n in zip(a, b, strict=True))


def axis_of(axis: int, shape: Shape) -> int:
    """An axis counted from the front; UsageError if the value has none such."""
    if not -len(shape) <= axis < len(shape):
        raise UsageError(f"axis {axis} of a value with {len(shape)} axes")
    return axis % len(shape)


def one(inputs: Inputs, rank: int | None = None, least: int = 1) -> Shape:
    """The only input; UsageError if it has not the number of axes (with batch) that the layer needs."""
    if len(inputs) != 1:
        raise UsageError(f"the layer takes one input, the node gives {len(inputs)}")
    (shape,) = inputs
    if len(shape) < least or (rank is not None and len(shape) != rank):
        needed = f"at least {least}" if rank is None else str(rank)
        raise UsageError(f"the input {show(shape)} has {len(shape)} axes, the layer needs {needed}")
    return shape


def changed(shape: Shape, axis: int, size: int | None) -> Shape:
    """The shape with another size of one axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])
