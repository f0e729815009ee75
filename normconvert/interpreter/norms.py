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
    time_step: int,
    moments: tuple[Array, Array] | None = None,
) -> Array:
    """`gamma * (value - mean) / s + beta`.

    Args:
        norm: the declaration.
        value: `[batch, ..., features]`.
        weights: gamma, beta, mean, variance, those the norm has.
        time_step: picks the row of what differs per time step.
        moments: mean and variance to use instead of those of this step (moments over the whole sequence).

    Raises:
        UsageError: the step lies past the last row, and the norm declares that an error.
    """
    row = step_row(norm, time_step)
    if row is None:
        return value
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
    return result


def step_row(norm: Norm, time_step: int) -> int | None:
    """The row of per-step statistics for a time step; None where the norm is bypassed."""
    if norm.steps is None or time_step < norm.steps:
        return time_step
    match norm.past_end:
        case "last":
            return norm.steps - 1
        case "modulo":
            return time_step % norm.steps
        case "bypass":
            return None
    raise UsageError(
        f"the model has statistics for {norm.steps} time steps and none for step {time_step}",
        remedy=f"Use sequences of at most {norm.steps} steps",
    )


def population(norm: Norm, weights: Mapping[str, Array], row: int) -> tuple[Array, Array]:
    """The stored mean and variance for a row."""
    mean, variance = weights["mean"], weights["variance"]
    return (mean[row], variance[row]) if norm.scope == "per_step" else (mean, variance)


def batch_moments(norm: Norm, value: Array) -> tuple[Array, Array]:
    """Mean and variance of the value at hand, shaped to broadcast against it.

    Batch norms pool the batch and every axis but the features, layer norms the features of each group, and
    `pooled` norms everything else as well.
    """
    if norm.kind == "batch":
        axes = tuple(range(value.ndim if norm.pooled else value.ndim - 1))
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


def _affine(norm: Norm, weight: Array, row: int) -> Array:
    return weight[row] if norm.affine_per_step else weight
