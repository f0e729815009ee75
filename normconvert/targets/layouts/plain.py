"""A plain LSTM, GRU or RNN as a family writes it, found by algebra: the order of gates and summands does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np

from normconvert.cells import Family, family
from normconvert.errors import NormconvertError
from normconvert.ir.cell import Cell
from normconvert.ir.model import Array
from normconvert.passes.fused import Fused, fuse
from normconvert.passes.recognise import recognise

_CANONICAL = {"LSTM": "lstm", "GRU": "gru_reset_after", "tanh": "simple_rnn", "relu": "simple_rnn"}
_SAME_GATE = {"j": "g", "u": "z", "c": "n"}
"""Other names for the candidate of an LSTM, and for gates of a GRU."""


def as_plain(cell: Cell, weights: Mapping[str, Array], wanted: Family) -> tuple[Cell, dict[str, Array]] | None:
    """The cell in the equations of a family, if both are the same plain cell and no array has to be rounded."""
    fused = _fused(cell, weights)
    if fused is None:
        return None
    known = family(_CANONICAL[fused.kind])
    functions = {"functions.activation": "relu"} if fused.kind == "relu" else {}
    built, arrays = known.build("torch", fused.arrays, settings=functions)
    single = _with_one_bias(arrays, fused)
    if wanted.name == known.name:
        return (built, arrays) if single is None else _rebuilt(known, fused, single) or (built, arrays)
    return None if single is None else _in_gates(wanted, fused, single)


def _fused(cell: Cell, weights: Mapping[str, Array]) -> Fused | None:
    plain = recognise(cell)
    inputs = cell.input_shapes[cell.parsed().inputs[0]]
    if plain is None or inputs[0] is None:
        return None
    return fuse(plain, inputs[0], next(iter(cell.states.values())).shape[0], weights)


def _with_one_bias(arrays: Mapping[str, Array], fused: Fused) -> dict[str, Array] | None:
    """The two biases as one, where their sum is exact and the kind of cell allows it."""
    if fused.kind == "GRU" or "b" not in arrays:
        return dict(arrays)
    exact = arrays["b"].astype(np.float64) + arrays["b_h"].astype(np.float64)
    total = exact.astype(arrays["b"].dtype)
    kept = {name: array for name, array in arrays.items() if name not in ("b", "b_h")}
    return {**kept, "b": total} if np.array_equal(total.astype(np.float64), exact) else None


def _rebuilt(known: Family, fused: Fused, arrays: Mapping[str, Array]) -> tuple[Cell, dict[str, Array]] | None:
    """The cell of the canonical family, with one bias in place of two where the second is zero."""
    if fused.kind == "GRU" or "bias_hh" not in fused.arrays or fused.arrays["bias_hh"].any():
        return None
    functions = {"functions.activation": "relu"} if fused.kind == "relu" else {}
    return known.build("keras", known.store("keras", _NO_CELL, arrays), settings=functions)


def _in_gates(wanted: Family, fused: Fused, arrays: Mapping[str, Array]) -> tuple[Cell, dict[str, Array]] | None:
    """The cell of a family with the same gates in another order, if that computes the same."""
    canonical = family(_CANONICAL[fused.kind]).gates
    own = tuple(_SAME_GATE.get(gate, gate) for gate in wanted.gates)
    if sorted(own) != sorted(canonical) or not {"W_x", "W_h"} <= wanted.parameters.keys():
        return None
    turned = {name: _permuted(array, canonical, own) for name, array in arrays.items()}
    for layout in wanted.layouts:
        neutral = {f"constants.{name}": 0.0 for name in wanted.constants if name == "forget_bias"}
        try:
            tensors = wanted.store(layout, _NO_CELL, turned)
            cell, found = wanted.build(layout, tensors, settings=neutral)
        except (NormconvertError, KeyError):
            continue
        other = _fused(cell, found)
        if other is not None and _same(other, fused):
            return cell, found
    return None


def _permuted(array: Array, gates: tuple[str, ...], order: tuple[str, ...]) -> Array:
    if not gates:
        return array
    blocks = np.split(array, len(gates), axis=-1)
    return np.concatenate([blocks[gates.index(gate)] for gate in order], axis=-1)


def _same(a: Fused, b: Fused) -> bool:
    """Whether two plain cells are the same function: equal matrices, equal sums of biases."""
    if a.kind != b.kind:
        return False
    matrices = all(np.array_equal(a.arrays[name], b.arrays[name]) for name in ("weight_ih", "weight_hh"))
    if a.kind == "GRU":
        return matrices and all(np.array_equal(a.arrays[n], b.arrays[n]) for n in ("bias_ih", "bias_hh") if a.bias)
    sums = [
        reduce(np.add, (each.arrays[n].astype(np.float64) for n in ("bias_ih", "bias_hh"))) if each.bias else 0.0
        for each in (a, b)
    ]
    return matrices and bool(np.all(np.asarray(sums[0]) == np.asarray(sums[1])))


_NO_CELL = Cell(equations="cell none(x; h):\n    h = x", dims={}, input_shapes={})
"""`Family.store` reads the arrays alone."""
