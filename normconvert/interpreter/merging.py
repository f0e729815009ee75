"""Layers that combine several values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce

import numpy as np

from normconvert.ir import layers
from normconvert.ir.model import Array

Inputs = Sequence[Array]
Weights = Mapping[str, Array]
Masks = Sequence["Array | None"]

_OPERATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "average": np.add,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def merge(layer: layers.Merge, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Values combined element by element; a value with fewer axes gets more after its batch axis."""
    rank = max(x.ndim for x in inputs)
    aligned = [x.reshape(x.shape[0], *(1,) * (rank - x.ndim), *x.shape[1:]) for x in inputs]
    result = reduce(_OPERATIONS[layer.operation], aligned)
    return result / len(inputs) if layer.operation == "average" else result


def concatenate(layer: layers.Concatenate, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Values joined along an axis."""
    return np.concatenate(inputs, axis=layer.axis)


def dot(layer: layers.Dot, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """One axis of each of two values multiplied and summed."""
    a, b = (_unit(x, axis) if layer.normalize else x for x, axis in zip(inputs, layer.axes, strict=True))
    # Index letters: 0 is the batch, 1 the summed axis, 2... the axes of a, then those of b.
    rest_a, rest_b = list(range(2, a.ndim)), list(range(a.ndim, a.ndim + b.ndim - 2))
    letters_a, letters_b = [0, *rest_a], [0, *rest_b]
    letters_a.insert(layer.axes[0] % a.ndim, 1)
    letters_b.insert(layer.axes[1] % b.ndim, 1)
    result = np.einsum(a, letters_a, b, letters_b, [0, *rest_a, *rest_b])
    return result if rest_a or rest_b else result[:, None]


def _unit(x: Array, axis: int) -> Array:
    return x / np.maximum(np.sqrt(np.square(x).sum(axis=axis, keepdims=True)), 1e-12)
