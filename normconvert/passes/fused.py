"""The arrays of a plain cell as native LSTM, GRU and RNN layers take them, where these can be had without rounding.

Needs: what `recognise` found, and the arrays of the cell. Keeps: the function. Names and order of gates are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from normconvert.ir.model import Array
from normconvert.passes.polynomial import Block, Polynomial, Product
from normconvert.passes.recognise import Kind, PlainCell


@dataclass(frozen=True)
class Fused:
    """A plain cell's arrays under PyTorch's names, without `_l0`.

    Attributes:
        kind: which of PyTorch's layers.
        inputs, units: its sizes.
        bias: whether it has biases.
        arrays: weight_ih `[gates * units, inputs]`, weight_hh, bias_ih, bias_hh.
        states: the cell's names of (h, c) or (h,).
    """

    kind: Kind
    inputs: int
    units: int
    bias: bool
    arrays: dict[str, Array]
    states: tuple[str, ...]


def fuse(plain: PlainCell, inputs: int, units: int, weights: Mapping[str, Array]) -> Fused | None:
    """Arrays for PyTorch's layer; None where one would have to be rounded.

    A bias that is a sum (two stored ones and a forget bias) is exact to about 1e-15 nevertheless: PyTorch adds two
    bias vectors, and the second takes what the first rounds away.
    """
    wide = any(array.dtype == np.float64 for array in weights.values())
    dtype = np.dtype(np.float64 if wide else np.float32)
    outer = list(plain.gates)
    inner: list[Polynomial | None] = [None] * len(outer)
    recurrent = list(outer)
    if plain.recurrent_candidate is not None:
        inner[-1] = recurrent[-1] = plain.recurrent_candidate
    weight_ih = [_matrix(gate, True, (units, inputs), weights) for gate in outer]
    weight_hh = [_matrix(gate, False, (units, units), weights) for gate in recurrent]
    biases = [_biases(a, b, units, weights, dtype) for a, b in zip(outer, inner, strict=True)]
    arrays = {
        "weight_ih": np.concatenate(weight_ih),
        "weight_hh": np.concatenate(weight_hh),
        "bias_ih": np.concatenate([bias[0] for bias in biases]),
        "bias_hh": np.concatenate([bias[1] for bias in biases]),
    }
    if not all(np.array_equal(array.astype(dtype).astype(np.float64), array) for array in arrays.values()):
        return None
    bias = any(_has_bias(gate) for gate in [*outer, *(gate for gate in inner if gate is not None)])
    if not bias:
        del arrays["bias_ih"], arrays["bias_hh"]
    cast = {name: array.astype(dtype) for name, array in arrays.items()}
    return Fused(plain.kind, inputs, units, bias, cast, plain.states)


def _has_bias(gate: Polynomial) -> bool:
    return bool(gate.constant()) or any(isinstance(atom, Block) for atom in gate.atoms())


def _matrix(gate: Polynomial, of_input: bool, shape: tuple[int, int], weights: Mapping[str, Array]) -> Array:
    """The sum of the gate's products with the input or with the state, `[units, inputs]`."""
    total = np.zeros(shape, np.float64)
    for monomial, factor in gate.terms:
        for atom, _ in monomial:
            if isinstance(atom, Product) and atom.is_input == of_input:
                block = weights[atom.parameter][slice(*atom.rows), slice(*atom.columns)]
                total += factor * block.T.astype(np.float64)
    return total


def _biases(
    outer: Polynomial, inner: Polynomial | None, units: int, weights: Mapping[str, Array], dtype: np.dtype[np.generic]
) -> tuple[Array, Array]:
    """The two bias vectors of a gate; `inner` is what the reset gate multiplies."""
    first, constant = _bias_terms(outer, weights)
    if inner is not None:
        second, inner_constant = _bias_terms(inner, weights)
        return sum(first, np.full(units, constant)), sum(second, np.full(units, inner_constant))
    if len(first) <= 2 and not constant:
        padded = [*(np.broadcast_to(term, (units,)) for term in first), np.zeros(units), np.zeros(units)]
        return padded[0], padded[1]
    total = sum(first, np.full(units, constant))
    high = total.astype(dtype).astype(np.float64)
    return high, (total - high).astype(dtype).astype(np.float64)


def _bias_terms(gate: Polynomial, weights: Mapping[str, Array]) -> tuple[list[Array], float]:
    """Each stored bias times its factor, ordered by name, and the number added to them."""
    terms: dict[str, Array] = {}
    for monomial, factor in gate.terms:
        for atom, _ in monomial:
            if isinstance(atom, Block):
                block = weights[atom.parameter][atom.start : atom.stop].astype(np.float64)
                terms[f"{atom.parameter}:{atom.start}"] = factor * block
    return [terms[name] for name in sorted(terms)], gate.constant()
