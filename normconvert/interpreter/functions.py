"""The functions of the equation language in NumPy: what each of them means.

Arrays have their batch axis first, axes are NumPy's. The result has the dtype of the argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from normconvert.interpreter.convolution import convolve
from normconvert.ir.layers import Activation, Padding
from normconvert.ir.model import Array


def activate(activation: Activation | None, x: Array) -> Array:
    """Apply an activation to a whole array; None is the identity."""
    if activation is None:
        return x
    function = FUNCTIONS[activation.function]
    if activation.function in ALONG_AXIS:
        return function(x, *activation.parameters, axis=activation.axis)
    return function(x, *activation.parameters)


def sigmoid(x: Array) -> Array:
    """`1 / (1 + exp(-x))`, with the exponential of a negative number only, so that it cannot overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def relu(x: Array) -> Array:
    """`max(x, 0)`."""
    return np.maximum(x, 0)


def capped_relu(x: Array, slope: float = 0.0, limit: float = math.inf, threshold: float = 0.0) -> Array:
    """Keras's general ReLU."""
    below = slope * (x - threshold)
    return np.where(x >= limit, _like(x, limit), np.where(x > threshold, x, below))


def leaky_relu(x: Array, slope: float) -> Array:
    """`x` above zero, `slope * x` below."""
    return np.where(x >= 0, x, slope * x)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """Exponential linear unit."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def celu(x: Array, alpha: float = 1.0) -> Array:
    """Continuously differentiable exponential linear unit."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def selu(x: Array) -> Array:
    """Scaled exponential linear unit (Klambauer et al. 2017)."""
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


def erf(x: Array) -> Array:
    """The error function; NumPy has none, so element by element."""
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


def gelu(x: Array) -> Array:
    """Gaussian error linear unit, exact."""
    return x * (1 + erf(x / math.sqrt(2))) / 2


def gelu_tanh(x: Array) -> Array:
    """Gaussian error linear unit, the approximation by tanh."""
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def silu(x: Array) -> Array:
    """`x * sigmoid(x)`."""
    return x * sigmoid(x)


def softplus(x: Array) -> Array:
    """`log(1 + exp(x))`."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def mish(x: Array) -> Array:
    """`x * tanh(softplus(x))`."""
    return x * np.tanh(softplus(x))


def softsign(x: Array) -> Array:
    """`x / (1 + |x|)`."""
    return x / (1 + np.abs(x))


def log_sigmoid(x: Array) -> Array:
    """`log(sigmoid(x))`."""
    return -softplus(-x)


def hard_sigmoid(x: Array, slope: float, offset: float = 0.5) -> Array:
    """`slope * x + offset`, limited to 0 and 1."""
    return np.clip(slope * x + offset, 0, 1)


def hard_silu(x: Array) -> Array:
    """`x * hard_sigmoid(x, 1/6, 1/2)`."""
    return x * hard_sigmoid(x, 1 / 6)


def hard_tanh(x: Array) -> Array:
    """`x`, limited to -1 and 1."""
    return np.clip(x, -1, 1)


def hard_shrink(x: Array, threshold: float = 0.5) -> Array:
    """`x` where it is further than `threshold` from zero, else 0."""
    return np.where(np.abs(x) > threshold, x, _like(x, 0))


def soft_shrink(x: Array, threshold: float = 0.5) -> Array:
    """`x` moved by `threshold` towards zero."""
    return np.sign(x) * np.maximum(np.abs(x) - threshold, 0)


def tanh_shrink(x: Array) -> Array:
    """`x - tanh(x)`."""
    return x - np.tanh(x)


def threshold(x: Array, limit: float, value: float = 0.0) -> Array:
    """`x` above `limit`, else `value`."""
    return np.where(x > limit, x, _like(x, value))


def squareplus(x: Array, b: float = 4.0) -> Array:
    """`(x + sqrt(x^2 + b)) / 2`."""
    return (x + np.sqrt(x * x + b)) / 2


def sparse_plus(x: Array) -> Array:
    """0 up to -1, `x` from 1, a parabola between."""
    return np.where(x >= 1, x, np.square(np.maximum(x, -1) + 1) / 4)


def sparse_sigmoid(x: Array) -> Array:
    """`(x + 1) / 2`, limited to 0 and 1."""
    return np.clip((x + 1) / 2, 0, 1)


def clip(x: Array, low: float, high: float) -> Array:
    """`x`, limited to `low` and `high`."""
    return np.minimum(np.maximum(x, low), high)


def softmax(x: Array, axis: int = -1) -> Array:
    """`exp(x) / sum(exp(x))`; the largest element is subtracted first."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """`log(softmax(x))`."""
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def sparsemax(x: Array, axis: int = -1) -> Array:
    """Euclidean projection onto the simplex (Martins and Astudillo 2016)."""
    z = np.moveaxis(x, axis, -1)
    descending = -np.sort(-z, axis=-1)
    excess = np.cumsum(descending, axis=-1) - 1
    count = np.arange(1, z.shape[-1] + 1, dtype=x.dtype)
    support = (count * descending > excess).sum(axis=-1, keepdims=True)
    tau = np.take_along_axis(excess, support - 1, axis=-1) / support.astype(x.dtype)
    return np.moveaxis(np.maximum(z - tau, 0), -1, axis)


def glu(x: Array, axis: int = -1) -> Array:
    """The first half of an axis times the sigmoid of the second."""
    a, b = split(x, 2, axis=axis)
    return a * sigmoid(b)


def split(x: Array, pieces: float, axis: int = -1) -> list[Array]:
    """Equal pieces of an axis."""
    return list(np.split(x, int(pieces), axis=axis))


def concat(*arrays: Array, axis: int = -1) -> Array:
    """Arrays joined along an axis."""
    return np.concatenate(arrays, axis=axis)


def transpose(x: Array) -> Array:
    """The last two axes swapped."""
    return np.swapaxes(x, -1, -2)


def reshape(x: Array, shape: int | Sequence[int]) -> Array:
    """Each sample in another shape, the batch axis kept."""
    return x.reshape(x.shape[0], *([shape] if isinstance(shape, int) else shape))


def conv(
    x: Array,
    kernel: Array,
    strides: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
) -> Array:
    """Convolution of `[batch, *space, channels]` with `[*window, channels, filters]`."""
    rank = kernel.ndim - 2
    return convolve(x, kernel, _each(strides, rank), _each(dilation, rank), padding)


def _each(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _like(x: Array, value: float) -> Array:
    return np.asarray(value, dtype=x.dtype)


ALONG_AXIS = {"softmax", "log_softmax", "sparsemax", "cumsum", "sum", "mean", "max", "min", "glu", "split", "concat"}
"""The functions that take `axis`."""

PER_SAMPLE = {"reshape", "conv"}
"""The functions that take the first axis of their first array for the batch, whatever it is."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": relu,
    "capped_relu": capped_relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "celu": celu,
    "selu": selu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": silu,
    "mish": mish,
    "softplus": softplus,
    "softsign": softsign,
    "log_sigmoid": log_sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": hard_silu,
    "hard_tanh": hard_tanh,
    "hard_shrink": hard_shrink,
    "soft_shrink": soft_shrink,
    "tanh_shrink": tanh_shrink,
    "threshold": threshold,
    "squareplus": squareplus,
    "sparse_plus": sparse_plus,
    "sparse_sigmoid": sparse_sigmoid,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "square": np.square,
    "abs": np.abs,
    "clip": clip,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "sparsemax": sparsemax,
    "cumsum": np.cumsum,
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "glu": glu,
    "split": split,
    "concat": concat,
    "transpose": transpose,
    "reshape": reshape,
    "conv": conv,
}
"""One implementation per name of `ir.functions.FUNCTIONS`: arrays, then numbers, then keyword options."""
