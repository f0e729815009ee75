"""Arrays of two layers, as the same places of the equations read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from normconvert.comparison.arrays import Compared, compare_arrays
from normconvert.comparison.records import TensorPair
from normconvert.comparison.terms import Range
from normconvert.ir.model import Array

_NEUTRAL = {"gamma": 1.0, "beta": 0.0, "bias": 0.0}
"""What an array that a layer lacks would hold."""


@dataclass(frozen=True)
class Piece:
    """Elements of an array of the one that stand where elements of an array of the other do.

    Attributes:
        a, b: names of the arrays.
        ranges_a, ranges_b: of the last axes; all of the others.
    """

    a: str
    b: str
    ranges_a: tuple[Range, ...]
    ranges_b: tuple[Range, ...]


@dataclass(frozen=True)
class Total:
    """Sums of arrays that stand in the same place.

    Attributes:
        a, b: names of the arrays.
        value_a, value_b: the sums, exact.
        dtype: the smallest type that one of the arrays is stored in.
    """

    a: str
    b: str
    value_a: Array
    value_b: Array
    dtype: np.dtype[Any]

    @property
    def equal(self) -> bool:
        """Whether they are the same when they are rounded to that type."""
        return np.array_equal(self.value_a.astype(self.dtype), self.value_b.astype(self.dtype), equal_nan=True)


class Arrays:
    """The arrays of two layers.

    Args:
        a, b: by names relative to the layer.
        statistics: names in `a` of running statistics.
        stepped: names in `a` of what has a row per time step.
        gates: names of the blocks of a parameter's last axis, by their number.
    """

    def __init__(
        self,
        a: Mapping[str, Array],
        b: Mapping[str, Array],
        statistics: Iterable[str] = (),
        stepped: Iterable[str] = (),
        gates: Mapping[int, tuple[str, ...]] | None = None,
    ) -> None:
        self.a, self.b = a, b
        self.statistics, self.stepped = set(statistics), set(stepped)
        self.gates = gates or {}

    def by_name(self) -> Iterator[TensorPair]:
        """Arrays of the same name, and those of one layer alone."""
        for name, array in self.a.items():
            if name in self.b:
                yield self.pair(name, name, _cropped(array, self.b[name], name in self.stepped))
            else:
                yield self.lone(name, True)
        for name in self.b:
            if name not in self.a:
                yield self.lone(name, False)

    def by_pieces(
        self, pieces: Iterable[Piece], totals: Iterable[Total], norms: tuple[set[str], set[str]]
    ) -> Iterator[TensorPair]:
        """Arrays as the equations pair their elements; others are not read, but for those of norms and initial states.

        Args:
            pieces: elements that stand in the same place.
            totals: sums that do.
            norms: names of those that the equations of both call.
        """
        grouped: dict[str, list[Piece]] = {}
        for piece in pieces:
            grouped.setdefault(piece.a, []).append(piece)
        used = {piece.b for piece in pieces}
        for name in self.a:
            if name in grouped:
                yield self._arranged(name, grouped[name])
        summed: dict[tuple[str, str], list[Total]] = {}
        for total in totals:
            summed.setdefault((total.a, total.b), []).append(total)
        for (a, b), found in summed.items():
            yield self._summed(a, b, found)
        in_sums = {name for total in totals for names in (total.a, total.b) for name in names.split(" + ")}
        for name in self.a:
            if name not in grouped and name not in in_sums:
                yield self.lone(name, True, read=_owner(name) in norms[0])
        for name in self.b:
            if name not in used and name not in in_sums:
                yield self.lone(name, False, read=_owner(name) in norms[1])

    def pair(self, a: str, b: str, found: Compared, arrangement: str = "", *, moved: bool = False) -> TensorPair:
        """The record of two arrays; `moved` if the same numbers are stored elsewhere."""
        one = self.a[a]
        stored = [self.b[name] for name in b.split(", ")]
        relation: str = "permuted" if moved and found.relation == "equal" else found.relation
        detail = found.detail
        if found.relation == "permuted" and found.axis == one.ndim - 1 and not arrangement:
            arrangement = _gates_of(found.order, self.gates)
            detail = "" if arrangement else detail
        return TensorPair(
            a=a,
            b=b,
            shape_a=one.shape,
            shape_b=stored[0].shape,
            dtype_a=str(one.dtype),
            dtype_b=str(stored[0].dtype),
            relation=relation,
            same=found.equal,
            arrangement=arrangement,
            detail=detail,
            statistic=a in self.statistics,
            steps=found.rows if a in self.stepped and not found.equal else (),
            numbers=int(one.size),
            differing=found.differing,
            max_difference=found.max_difference,
            max_relative=found.max_relative,
        )

    def lone(self, name: str, first: bool, *, read: bool = True) -> TensorPair:
        """The record of an array of one layer alone; it makes no difference if it does nothing, or is not read."""
        array = (self.a if first else self.b)[name]
        neutral = _NEUTRAL.get(name.rpartition(".")[2])
        idle = neutral is not None and bool(np.all(array == neutral))
        idle = idle or (name.startswith("initial.") and not array.any())
        words = (
            f"all {array.flat[0]:g}, which changes nothing" if idle else "" if read else "the equations do not read it"
        )
        empty: tuple[int, ...] = ()
        return TensorPair(
            a=name if first else "",
            b="" if first else name,
            shape_a=array.shape if first else empty,
            shape_b=empty if first else array.shape,
            dtype_a=str(array.dtype) if first else "",
            dtype_b="" if first else str(array.dtype),
            relation="only in a" if first else "only in b",
            same=idle or not read,
            detail=words,
            statistic=first and name in self.statistics,
            numbers=int(array.size),
        )

    def _summed(self, a: str, b: str, totals: list[Total]) -> TensorPair:
        """The record of sums; they are the same if they are so when stored."""
        one, other = (
            np.concatenate([np.ravel(value) for value in values])
            for values in ([total.value_a for total in totals], [total.value_b for total in totals])
        )
        found, size = compare_arrays(one, other), one.size
        rounded = not found.equal and all(total.equal for total in totals)
        if rounded:
            found = replace(found, relation="rounded", detail=f"equal when rounded to {totals[0].dtype}")
        return TensorPair(
            a=a,
            b=b,
            shape_a=(size,),
            shape_b=(size,),
            dtype_a="float64",
            dtype_b="float64",
            relation=found.relation,
            same=found.equal or rounded,
            arrangement="sums" if " + " in a + b else "",
            detail=found.detail,
            numbers=size,
            differing=found.differing,
            max_difference=found.max_difference,
            max_relative=found.max_relative,
        )

    def _arranged(self, name: str, pieces: list[Piece]) -> TensorPair:
        """One array of the first layer against the same places of the second."""
        own = self.a[name]
        others = list(dict.fromkeys(piece.b for piece in pieces))
        shown = ", ".join(others)
        straight = len(others) == 1 and all(piece.ranges_a == piece.ranges_b for piece in pieces)
        read = np.zeros(own.shape, bool)
        for piece in pieces:
            read[_index(piece.ranges_a)] = True
        if straight and read.all():
            return self.pair(name, shown, _cropped(own, self.b[others[0]], name in self.stepped))
        kind = np.result_type(*(self.b[other] for other in others))
        filled = np.array(own.astype(np.result_type(own, kind))).astype(kind)
        for piece in pieces:
            part = self.b[piece.b][_index(piece.ranges_b)]
            place = _index(piece.ranges_a)
            if filled[place].shape != part.shape:
                return self.pair(name, shown, Compared("shape"), _arrangement(pieces, own.shape, self.gates))
            filled[place] = part
        words = "in part" if straight else _arrangement(pieces, own.shape, self.gates)
        return self.pair(name, shown, compare_arrays(own, filled), words, moved=not straight)


def _owner(name: str) -> str:
    """The norm whose array it is, or `initial`; the array itself."""
    return name.partition(".")[0]


def _cropped(a: Array, b: Array, stepped: bool) -> Compared:
    """Two arrays; of a different number of time steps, the common ones."""
    if not stepped or a.shape == b.shape or a.shape[1:] != b.shape[1:]:
        return compare_arrays(a, b)
    common = min(len(a), len(b))
    found = compare_arrays(a[:common], b[:common])
    detail = f"{len(a)} and {len(b)} steps; the common ones are {'equal' if found.equal else 'not equal'}"
    return Compared("shape", detail, found.differing, found.max_difference, found.max_relative, found.rows)


def _gates_of(order: tuple[int, ...], gates: Mapping[int, tuple[str, ...]]) -> str:
    """A permutation of whole gates by their names; empty for any other."""
    for count, names in gates.items():
        size = len(order) // count
        starts = order[::size] if size * count == len(order) else ()
        blocks = tuple(start + place for start in starts for place in range(size))
        if blocks == order and all(start % size == 0 for start in starts):
            return f"gates {', '.join(names)} | {', '.join(names[start // size] for start in starts)}"
    return ""


def _index(ranges: tuple[Range, ...]) -> Any:
    return (..., *(slice(*each) for each in ranges))


def _arrangement(pieces: list[Piece], shape: tuple[int, ...], gates: Mapping[int, tuple[str, ...]]) -> str:
    """How the second stores what the first has: the order of gates, or that it is in parts."""
    columns = sorted({piece.ranges_a[-1] for piece in pieces})
    count = len(columns)
    others = {piece.b for piece in pieces}
    sizes = {stop - start for start, stop in columns}
    if count > 1 and len(sizes) == 1 and count * sizes.pop() == shape[-1]:
        names = dict(zip(columns, gates.get(count, tuple(map(str, range(count)))), strict=True))
        order = sorted(pieces, key=lambda piece: (piece.b, piece.ranges_b[-1]))
        theirs = list(dict.fromkeys(names[piece.ranges_a[-1]] for piece in order))
        mine = list(names.values())
        if mine != theirs:
            return f"gates {', '.join(mine)} | {', '.join(theirs)}"
    return "in parts" if len(others) > 1 else "other places"
