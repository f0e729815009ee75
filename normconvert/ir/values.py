"""What is known of a value in a cell's equations before anything is computed: its shape and what it depends on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

Shape = tuple["int | None", ...]


@dataclass(frozen=True)
class Value:
    """A value's declaration.

    Attributes:
        shape: of one sample; None for a size that may change.
        batched: it depends on an input or a state.
        recurrent: it depends on a state.
    """

    shape: Shape
    batched: bool = False
    recurrent: bool = False


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The shape of `a + b` by NumPy's rule, or None where they do not fit; an unknown size fits everything."""
    length = max(len(a), len(b))
    pairs = zip((1,) * (length - len(a)) + a, (1,) * (length - len(b)) + b, strict=True)
    result: list[int | None] = []
    for m, n in pairs:
        if m is not None and n is not None and m != n and 1 not in (m, n):
            return None
        result.append(n if m == 1 else m if n in (1, None) or m is not None else None)
    return tuple(result)


def show(shape: Shape) -> str:
    """A shape for people: `[7, ?]`."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def suggestion(name: str, known: Iterable[str]) -> str:
    """What a mistyped name may have meant, or else what there is."""
    candidates = sorted(known)
    close = difflib.get_close_matches(name, candidates, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(candidates) or 'none'}"
