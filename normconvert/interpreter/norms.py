"""Normalisation of one value at one time step, as declared by `ir.norm.Norm`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normconvert.errors import UsageError
from normconvert.ir.model import Array
from normconvert.ir.norm import Norm


def normalise(
    norm: Norm,
    value: Array,
    weights: Mapping[str, Array],
    time_step: int | Array,
    moments: tuple[Array, Array] | None = None,
) -> Array:
    """`gamma * (value - mean) / s + beta`.

    Args:
        norm: the declaration.
        value: `[batch, ..., features]`.
        weights: gamma, beta, mean, variance, those the norm has.
        time_step: picks the row of what differs per time step; an integer, or `[batch]` of them.
        moments: mean and variance to use instead of those of this step (moments over the whole sequence).

    Raises:
        UsageError: a step lies past the last row, and the norm declares that an error.
    """
    step = np.asarray(time_step)
    step = step.reshape(step.shape + (1,) * (value.ndim - 2) * step.ndim)  # rows then broadcast against the value
    row = step_row(norm, step)
    if moments is None:
        moments = population(norm, weights, row) if norm.has_population else batch_moments(norm, value)
    mean, variance = moments
    epsilon = value.dtype.type(norm.epsilon)
    if norm.epsilon_placement == "inside":
        deviation = np.sqrt(variance + epsilon)
    elif norm.epsilon_placement == "outside":
        deviation = np.sqrt(variance) + epsilon
    else:
        deviation = np.sqrt(variance + epsilon) + epsilon
    result = (value - mean) / deviation
    if norm.gamma:
        result = result * _affine(norm, weights["gamma"], row)
    if norm.beta:
        result = result + _affine(norm, weights["beta"], row)
    if norm.steps is not None and norm.past_end == "bypass":
        return np.where((step < norm.steps)[..., None], result, value)
    return result


def step_row(norm: Norm, step: Array) -> Array:
    """The row of per-step statistics for each time step; past the end of a bypassed norm, any.

    Raises:
        UsageError: there is no such row.
    """
    if norm.steps is None:
        return step
    if step.size and step.min() < 0:
        raise UsageError(f"time steps are counted from 0, {step.min()} is none")
    if norm.past_end == "modulo":
        return np.asarray(step % norm.steps)
    if norm.past_end == "error" and step.size and step.max() >= norm.steps:
        raise UsageError(
            f"the model has statistics for {norm.steps} time steps and none for step {step.max()}",
            remedy=f"Use sequences of at most {norm.steps} steps",
        )
    return np.minimum(step, norm.steps - 1)


def population(norm: Norm, weights: Mapping[str, Array], row: Array) -> tuple[Array, Array]:
    """The stored mean and variance for a row, or for one of each sample."""
    mean, variance = weights["mean"], weights["variance"]
    if norm.positions:
        row = row.reshape(row.shape[:1])  # a row has the axes of the value already
    return (mean[row], variance[row]) if norm.scope == "per_step" else (mean, variance)


def batch_moments(norm: Norm, value: Array) -> tuple[Array, Array]:
    """Mean and variance of the value at hand, shaped to broadcast against it.

    Batch norms pool the batch and every axis but the features, or the batch alone where each position has moments of
    its own; layer norms the features of each group, and `pooled` norms everything else as well.
    """
    if norm.kind == "batch":
        axes = tuple(range(value.ndim if norm.pooled else value.ndim - len(norm.shape)))
        return _moments(value, axes, norm)
    if norm.pooled:
        return _moments(value, tuple(range(1, value.ndim)), norm)
    grouped = value.reshape(*value.shape[:-1], norm.groups, norm.features // norm.groups)
    mean, variance = _moments(grouped, (-1,), norm)
    return _spread(mean, grouped, value), _spread(variance, grouped, value)


def _moments(value: Array, axes: tuple[int, ...], norm: Norm) -> tuple[Array, Array]:
    if norm.kind == "rms":
        square = np.mean(value * value, axis=axes, keepdims=True)
        return np.zeros_like(square), square
    mean = np.mean(value, axis=axes, keepdims=True)
    return mean, np.var(value, axis=axes, keepdims=True, ddof=int(norm.unbiased))


def _spread(moment: Array, grouped: Array, value: Array) -> Array:
    """A moment per group, repeated for each feature of the group."""
    return np.broadcast_to(moment, grouped.shape).reshape(value.shape)


def _affine(norm: Norm, weight: Array, row: Array) -> Array:
    return weight[row] if norm.affine_per_step else weight
