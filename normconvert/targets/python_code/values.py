"""What the code of an expression needs to know of a value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """A value's axes for one sample, and if it has a batch."""

    rank: int
    batched: bool

    @property
    def is_tensor(self) -> bool:
        """It is a tensor for certain, not a number of Python."""
        return self.batched or self.rank > 0


def widest(values: Iterable[Value]) -> Value:
    """The value that others broadcast to."""
    found = list(values)
    return Value(max(value.rank for value in found), any(value.batched for value in found))
