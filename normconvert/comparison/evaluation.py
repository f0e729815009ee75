"""Two cells evaluated at the same random points, where their equations cannot be shown to be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from normconvert.errors import NormconvertError
from normconvert.interpreter.cell import step
from normconvert.ir.cell import Cell
from normconvert.ir.model import Array

POINTS = 8
"""Inputs and states of each size, in one batch."""

SIZES = (0.01, 1.0, 5.0, 100.0)
"""Spread of inputs and states: near zero, ordinary, and such that reach limits."""

TOLERANCE = 1e-9
"""Largest difference in float64, relative to the largest value, of two ways to compute the same."""

_FREE = 4
"""Length that stands for a free size."""


@dataclass(frozen=True)
class Evaluated:
    """What came of it.

    Attributes:
        points: how many were evaluated.
        difference: the largest, relative to the largest value.
    """

    points: int
    difference: float

    @property
    def agrees(self) -> bool:
        """Whether they are the same but for rounding."""
        return self.difference <= TOLERANCE

    def __str__(self) -> str:
        if self.agrees:
            return f"agree at {self.points} random points, to {self.difference:.1g}"
        return f"differ by {self.difference:.2g} at {self.points} random points"


def evaluate_cells(
    a: Cell, weights_a: Mapping[str, Array], b: Cell, weights_b: Mapping[str, Array], order: Sequence[str]
) -> Evaluated | None:
    """Evaluate both with their own arrays, in float64; None where they do not take the same inputs and states.

    Args:
        a, b: the cells.
        weights_a, weights_b: their arrays by names relative to the layer.
        order: for each state of `a` the name of the same one of `b`.
    """
    inputs = list(zip(a.parsed().inputs, b.parsed().inputs, strict=False))
    shapes = [(a.input_shapes[one], b.input_shapes[other]) for one, other in inputs]
    shapes += [(a.states[one].shape, b.states[other].shape) for one, other in zip(a.states, order, strict=True)]
    if len(a.input_shapes) != len(b.input_shapes) or any(not _fits(*pair) for pair in shapes):
        return None
    exact_a, exact_b = ({name: array.astype(np.float64) for name, array in w.items()} for w in (weights_a, weights_b))
    random = np.random.default_rng(17)
    worst, points = 0.0, 0
    for time_step, size in product(_steps(a, b), SIZES):
        drawn = [random.normal(0, size, (POINTS, *_free(*pair))) for pair in shapes]
        xs, states = drawn[: len(inputs)], drawn[len(inputs) :]
        named = [dict(zip([pair[side] for pair in inputs], xs, strict=True)) for side in (0, 1)]
        try:
            with np.errstate(all="ignore"):
                shown, left = step(a, named[0], dict(zip(a.states, states, strict=True)), exact_a, time_step)
                seen, right = step(b, named[1], dict(zip(order, states, strict=True)), exact_b, time_step)
        except (NormconvertError, ValueError):
            return None
        pairs = [*zip(shown, seen, strict=False), *((left[x], right[y]) for x, y in zip(a.states, order, strict=True))]
        worst = max([worst, *(apart(x, y) for x, y in pairs)])
        points += POINTS
    return Evaluated(points, worst)


def _fits(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> bool:
    return len(a) == len(b) and all(None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=True))


def _free(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(one or other or _FREE for one, other in zip(a, b, strict=True))


def _steps(a: Cell, b: Cell) -> Iterator[int]:
    """The first two steps, and where something differs per step, the last ones and one past them."""
    norms = [norm for cell in (a, b) for norm in cell.norms.values() if norm.steps is not None]
    rows = [norm.steps for norm in norms if norm.steps is not None]
    past = all(norm.past_end != "error" for norm in norms)
    yield from sorted({0, 1, *(n - 1 for n in rows), *(n for n in rows if past)} if rows else {0})


def apart(a: Array, b: Array) -> float:
    """The largest difference relative to the largest value; infinite where only one is a number."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    scale = max(1e-30, float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b))))
    return float(np.max(np.where(np.isfinite(difference), difference, np.inf), initial=0.0)) / scale
