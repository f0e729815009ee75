"""Which sizes `bench_onnx` measures, in which order, and for how long each."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmark_cells import INPUTS
from benchmark_results import Key

UNITS = (128, 64, 256, 512)
"""In the order of measuring: if time runs out, the slowest are missing."""

Size = tuple[int, int, int]
"""Units, length, batch."""

FULL: list[Size] = list(itertools.product(UNITS, (20, 100, 784), (1, 8, 32, 64)))
DEFAULT: list[Size] = [
    *itertools.product((128,), (20, 100), (1, 8, 32, 64)),
    *itertools.product((128,), (784,), (1, 32)),
    *itertools.product((512,), (100,), (1, 8, 32)),
]

_OPERATIONS_PER_SECOND = 8e10
_SECONDS_PER_STEP = 1e-5
_SECONDS_PER_PAIR = 15
"""What a machine of today does; they only divide the time among the sizes."""

_CONTENDERS = 9
_LONG_CALL = 0.05
"""Seconds of a call from which on one is enough to be warm, and to fill a turn."""

_VERY_LONG_CALL, _FEWEST = 0.4, 2
"""Seconds of a call from which on there are no more rounds than these where the time is limited."""


@dataclass(frozen=True)
class Pace:
    """How long a size may take.

    Attributes:
        seconds: for all rounds of all contenders together.
        least: rounds that are made even where they take longer.
        slow: calls take so long that one is enough to be warm.
    """

    seconds: float
    least: int
    slow: bool


def call_seconds(size: Size) -> float:
    """About how long a call of one contender takes."""
    units, length, batch = size
    operations = 2 * batch * 4 * units * (units + INPUTS)
    return length * (_SECONDS_PER_STEP + operations / _OPERATIONS_PER_SECOND)


def steady(seconds: float, least: int) -> Callable[[Sequence[Key]], Pace | None]:
    """The same time for every size."""
    return lambda todo: Pace(seconds, least, slow=call_seconds(todo[0][2:]) > _LONG_CALL)


def within(minutes: float, least: int) -> Callable[[Sequence[Key]], Pace | None]:
    """The time that is left divided among the sizes that are left; None when there is none."""
    end = time.monotonic() + 60 * minutes

    def pace(todo: Sequence[Key]) -> Pace | None:
        left = end - time.monotonic()
        if left <= 0:
            return None
        rounds = [_CONTENDERS * call_seconds(key[2:]) for key in todo]
        exports = _SECONDS_PER_PAIR * len({(key[1], key[2]) for key in todo})
        # Of each size, the outputs are compared first, which is one more call of every contender.
        free = left - sum(rounds) - exports - 0.3 * len(todo)
        weights = [0.5 + least * each for each in rounds]
        share = free * weights[0] / sum(weights)
        call = call_seconds(todo[0][2:])
        fewest = _FEWEST if call > _VERY_LONG_CALL else least
        return Pace(min(max(share, 0.6), 6.0), fewest, slow=call > _LONG_CALL)

    return pace


def in_order(cells: Sequence[str], threads: Sequence[int], sizes: Sequence[Size]) -> list[Key]:
    """All of them: units by units, cell by cell, so that files of one cell and size are needed once."""
    units = sorted({size[0] for size in sizes}, key=UNITS.index)
    return [
        (each, cell, *size)
        for own, cell, each in itertools.product(units, cells, threads)
        for size in sizes
        if size[0] == own
    ]
