"""How two arrays are related: equal, cast, permuted, transposed, scaled, or how different."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from normconvert.ir.model import Array

Relation = Literal["equal", "cast", "rounded", "permuted", "transposed", "scaled", "different", "shape"]
"""`cast`: the same numbers in another dtype; `rounded`: the second is the first rounded to its dtype, or the other way
round; `different`: none of these; `shape`: shapes that have nothing to do with each other."""

_SLACK = 4
"""Last places by which a scaled array may be off: the product is rounded once, and the factor is itself rounded."""

_SAMPLE = 8
"""How many rows or columns are looked at before all are."""

_MAX_NAMED = 12
"""Longest permutation that is written out."""


@dataclass(frozen=True)
class Compared:
    """Two arrays.

    Attributes:
        relation: see `Relation`.
        detail: which axis, factor or dtype, in words; or empty.
        differing: how many numbers differ; None where the shapes differ.
        max_difference: the largest absolute difference; None where the shapes differ.
        max_relative: the same, relative to the largest number of both arrays.
        rows: of the first axis, those that differ.
        axis, order: of `permuted`, `b = a[order]` along this axis.
    """

    relation: Relation
    detail: str = ""
    differing: int | None = None
    max_difference: float | None = None
    max_relative: float | None = None
    rows: tuple[int, ...] = ()
    axis: int = 0
    order: tuple[int, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether all numbers are the same."""
        return self.relation in ("equal", "cast")


def compare_arrays(a: Array, b: Array) -> Compared:
    """Relate two arrays; the first relation that holds.

    Numbers are compared as they are: NaN equals NaN, and 0 is -0.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return Compared(*_of_other_shape(a, b))
    if _same(a, b):
        if a.dtype == b.dtype:
            return Compared("equal", "", 0, 0.0, 0.0)
        return Compared("cast", f"{a.dtype} as {b.dtype}", 0, 0.0, 0.0)
    x, y = a.astype(np.float64), b.astype(np.float64)
    unlike = ~((x == y) | (np.isnan(x) & np.isnan(y)))
    with np.errstate(all="ignore"):
        apart = np.abs(np.where(unlike, x - y, 0.0))
    largest = float(np.max(np.where(np.isnan(apart), np.inf, apart), initial=0.0))
    scale = max(_magnitude(x), _magnitude(y))
    rows = tuple(np.flatnonzero(unlike.reshape(len(unlike), -1).any(axis=1)).tolist()) if unlike.ndim > 1 else ()
    found = _of_same_shape(a, b)
    return replace(
        found,
        differing=int(np.count_nonzero(unlike)),
        max_difference=largest,
        max_relative=largest / scale if scale else np.inf,
        rows=rows,
    )


def _same(a: Array, b: Array) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype == b.dtype and a.tobytes() == b.tobytes():
        return True
    return bool(np.array_equal(a.astype(np.float64), b.astype(np.float64), equal_nan=True))


def _magnitude(array: Array) -> float:
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))


def _of_other_shape(a: Array, b: Array) -> tuple[Relation, str]:
    if a.ndim == 2 and _same(a.T, b):
        return "transposed", "rows and columns swapped"
    if a.size == b.size and _same(a.reshape(-1), b.reshape(-1)):
        return "transposed", "the same numbers in another shape"
    return "shape", ""


def _of_same_shape(a: Array, b: Array) -> Compared:
    rounded = _rounded(a, b)
    if rounded:
        return Compared("rounded", rounded)
    for axis in range(a.ndim if _same_numbers(a, b) else 0):
        order = permutation(a, b, axis)
        if order is not None:
            which = _AXES.get((a.ndim, axis), f"axis {axis}")
            return Compared("permuted", f"{which}{_order(order)}", axis=axis, order=tuple(order.tolist()))
    if a.ndim == 2 and a.shape[0] == a.shape[1] and _same(a.T, b):
        return Compared("transposed", "rows and columns swapped")
    return next(_scaled(a, b), Compared("different"))


_AXES = {(1, 0): "elements", (2, 0): "rows", (2, 1): "columns"}


def _order(order: Array) -> str:
    return f" {', '.join(map(str, order.tolist()))}" if len(order) <= _MAX_NAMED else ""


def _rounded(a: Array, b: Array) -> str:
    with np.errstate(all="ignore"):
        for wide, narrow in ((a, b), (b, a)):
            if wide.dtype.itemsize > narrow.dtype.itemsize and _same(wide.astype(narrow.dtype), narrow):
                return f"{wide.dtype} rounded to {narrow.dtype}"
    return ""


def _same_numbers(a: Array, b: Array) -> bool:
    """Whether two arrays may hold the same numbers in some order; a quick check that rules most others out."""
    kind = np.result_type(a, b)
    size = {2: np.uint16, 4: np.uint32, 8: np.uint64}.get(kind.itemsize)
    if size is None:
        return True
    first, second = (np.ascontiguousarray(each.astype(kind) + 0).view(size).sum(dtype=np.uint64) for each in (a, b))
    return bool(first == second)


def permutation(a: Array, b: Array, axis: int) -> Array | None:
    """The order `p` with `b = a[p]` along an axis, whose slices are then all different or equal at the same places.

    None where there is none.
    """
    if a.shape != b.shape or a.shape[axis] < 2:
        return None
    rows_a, rows_b = (np.ascontiguousarray(np.moveaxis(each, axis, 0).reshape(each.shape[axis], -1)) for each in (a, b))
    kind = np.result_type(rows_a, rows_b)
    keys_a, keys_b = ([row.tobytes() for row in rows.astype(kind) + 0] for rows in (rows_a, rows_b))
    if sorted(keys_a) != sorted(keys_b):
        return None
    left: dict[bytes, list[int]] = {}
    for place, key in enumerate(keys_a):
        left.setdefault(key, []).append(place)
    taken = {key: iter(places) for key, places in left.items()}
    return np.array([next(taken[key]) for key in keys_b])


def _scaled(a: Array, b: Array) -> Iterator[Compared]:
    """One factor for all numbers, or one for each row or column."""
    if a.size < 3 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return
    ways: list[tuple[tuple[int, ...], str, Any]] = [(tuple(range(a.ndim)), "", ...)]
    if a.ndim == 2 and min(a.shape) > 2:
        ways += [((1,), "each row", slice(_SAMPLE)), ((0,), "each column", (slice(None), slice(_SAMPLE)))]
    for axis, which, sample in ways:
        if _factors(a[sample], b[sample], axis) is None:
            continue
        factors = _factors(a, b, axis)
        if factors is not None:
            low, high = float(factors.min()), float(factors.max())
            words = f"{which} by its own factor, {low:.3g} to {high:.3g}" if which else f"by {low:.6g}"
            yield Compared("scaled", words)


def _factors(a: Array, b: Array, axis: tuple[int, ...]) -> Array | None:
    """The factors by which slices along some axes are scaled; None where they are not."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(all="ignore"):
        factors = np.sum(x * y, axis=axis, keepdims=True) / np.sum(x * x, axis=axis, keepdims=True)
    factors = np.where(np.isfinite(factors), factors, 0.0)
    slack = _SLACK * max(_last_place(a), _last_place(b))
    return factors if factors.all() and np.all(np.abs(y - factors * x) <= slack * np.abs(y)) else None


def _last_place(array: Array) -> float:
    kind: Any = array.dtype
    return float(np.finfo(kind).eps) if np.issubdtype(kind, np.floating) else 2.0**-8
