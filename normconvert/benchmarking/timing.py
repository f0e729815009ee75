"""Several programs timed in turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

LEAST_ROUNDS, MOST_ROUNDS = 7, 200
_WARM_UP = 2

Turn = Callable[[int], float]
"""Makes a number of calls, and gives the seconds they took together."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call.

    Attributes:
        median, low, high: over the rounds; low and high are the first and the third quartile.
        best: the fastest round.
        rounds: how often it had its turn.
        calls: how many calls one turn has; a turn's time is divided by that.
        times: of every round.
    """

    median: float
    low: float
    high: float
    best: float
    rounds: int
    calls: int
    times: tuple[float, ...]

    @classmethod
    def of(cls, times: Sequence[float], calls: int) -> Timing:
        """From the seconds per call of at least two rounds, each of so many calls."""
        low, middle, high = quantiles(times, n=4, method="inclusive")
        return cls(middle, low, high, min(times), len(times), calls, tuple(times))

    def over(self, other: Timing) -> float:
        """How many times as long as another program of the same rounds: the median of each round's ratio."""
        return median(one / two for one, two in zip(self.times, other.times, strict=True))


def in_turns(
    contenders: Mapping[str, Turn],
    *,
    seconds: float = 3.0,
    turn: float = 0.005,
    least: int = LEAST_ROUNDS,
    ready: Collection[str] = (),
) -> dict[str, Timing]:
    """Time programs in alternating rounds, each round beginning with another one.

    Every program is warmed up before, and is called as often as fits in a turn.

    Args:
        contenders: what to time, by name.
        seconds: how long all rounds together shall take, at most 200 rounds.
        turn: shortest length of a turn in seconds; quick calls are repeated to fill it.
        least: rounds that are made even where they take longer than that; at least 2.
        ready: those that have been called before and fill a turn with one call, so that they need no warming up.
    """
    if not contenders:
        return {}
    calls = {name: 1 if name in ready else _calls(make, turn) for name, make in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    end = time.perf_counter() + seconds
    done = 0
    while done < least or (time.perf_counter() < end and done < MOST_ROUNDS):
        first = done % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(contenders[name](calls[name]) / calls[name])
        done += 1
    return {name: Timing.of(found, calls[name]) for name, found in times.items()}


def repeated(call: Callable[[], object]) -> Turn:
    """A function of this process as what takes turns."""

    def turn(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - start

    return turn


def _calls(make: Turn, turn: float) -> int:
    """How many calls fill a turn; the first calls, which runtimes use to get ready, do not count."""
    make(_WARM_UP)
    return max(1, math.ceil(turn / max(make(1), 1e-7)))
