"""Normalisation layers. Axes count the batch axis as 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from normconvert.ir.layers import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
    Standardization,
    UnitNormalization,
)
from normconvert.ir.model import Array

Weights = Mapping[str, Array]
Masks = Sequence["Array | None"]


def batch_normalization(layer: BatchNormalization, inputs: Sequence[Array], weights: Weights, masks: Masks) -> Array:
    """Statistics of each channel of one axis, stored or of the batch at hand."""
    (x,) = inputs
    axis = layer.axis % x.ndim
    along = {name: _spread(array, x.ndim, (axis,)) for name, array in weights.items()}
    if layer.source == "batch":
        others = tuple(a for a in range(x.ndim) if a != axis)
        along |= {"mean": x.mean(axis=others, keepdims=True), "variance": x.var(axis=others, keepdims=True)}
    return _affine((x - along["mean"]) / np.sqrt(along["variance"] + layer.epsilon), along)


def layer_normalization(layer: LayerNormalization, inputs: Sequence[Array], weights: Weights, masks: Masks) -> Array:
    """Statistics of each sample over some axes."""
    (x,) = inputs
    centred = x if layer.moments in ("rms", "uncentred") else x - x.mean(axis=layer.axes, keepdims=True)
    if layer.moments == "rms":
        spread = np.square(x).mean(axis=layer.axes, keepdims=True)
    else:
        spread = x.var(axis=layer.axes, keepdims=True)
    affine = {name: _spread(array, x.ndim, layer.axes) for name, array in weights.items()}
    return _affine(centred / np.sqrt(spread + layer.epsilon), affine)


def group_normalization(layer: GroupNormalization, inputs: Sequence[Array], weights: Weights, masks: Masks) -> Array:
    """Statistics of each sample over each group of channels."""
    (x,) = inputs
    axis = layer.axis % x.ndim
    grouped = x.reshape(*x.shape[:axis], layer.groups, -1, *x.shape[axis + 1 :])
    others = tuple(a for a in range(1, grouped.ndim) if a != axis)
    mean, variance = grouped.mean(axis=others, keepdims=True), grouped.var(axis=others, keepdims=True)
    normalised = ((grouped - mean) / np.sqrt(variance + layer.epsilon)).reshape(x.shape)
    return _affine(normalised, {name: _spread(array, x.ndim, (axis,)) for name, array in weights.items()})


def unit_normalization(layer: UnitNormalization, inputs: Sequence[Array], weights: Weights, masks: Masks) -> Array:
    """Length one over some axes."""
    (x,) = inputs
    return x / np.sqrt(np.maximum(np.square(x).sum(axis=layer.axes, keepdims=True), layer.epsilon))


def standardization(layer: Standardization, inputs: Sequence[Array], weights: Weights, masks: Masks) -> Array:
    """Known mean and variance of each feature."""
    (x,) = inputs
    deviation = np.maximum(np.sqrt(weights["variance"]), layer.epsilon)
    return weights["mean"] + x * deviation if layer.invert else (x - weights["mean"]) / deviation


def _affine(x: Array, weights: Weights) -> Array:
    if "gamma" in weights:
        x = x * weights["gamma"]
    return x + weights["beta"] if "beta" in weights else x


def _spread(array: Array, rank: int, axes: Sequence[int]) -> Array:
    """An array with the sizes of some axes, with axes of size 1 put in for the others."""
    sizes = dict(zip((axis % rank for axis in axes), array.shape, strict=True))
    return array.reshape([sizes.get(axis, 1) for axis in range(rank)])
