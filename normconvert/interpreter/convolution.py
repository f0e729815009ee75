"""Layers that slide windows along the space axes: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from normconvert.errors import UsageError
from normconvert.ir.layers import Padding
from normconvert.ir.model import Array
from normconvert.ir.windows import extent, padding_amounts, transposed_length


def windows(
    x: Array,
    window: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: Padding,
    fill: float = 0.0,
) -> Array:
    """What each window sees: `[batch, *space, channels]` to `[batch, *places, *window, channels]`.

    Raises:
        UsageError: an axis is shorter than the window.
    """
    rank = len(window)
    space = range(1, rank + 1)
    amounts = [padding_amounts(x.shape[1 + i], window[i], strides[i], dilation[i], padding) for i in range(rank)]
    padded = np.pad(x, [(0, 0), *amounts, (0, 0)], constant_values=fill)
    extents = tuple(extent(w, d) for w, d in zip(window, dilation, strict=True))
    for axis, reach in zip(space, extents, strict=True):
        if padded.shape[axis] < reach:
            raise UsageError(
                f"the input has {x.shape[axis]} elements along axis {axis}, the window needs {reach}",
                remedy="Give a longer sequence",
            )
    seen = sliding_window_view(padded, extents, axis=tuple(space))
    places = [slice(None, None, stride) for stride in strides]
    inside = [slice(None, None, step) for step in dilation]
    index = (slice(None), *places, slice(None), *inside)
    return np.moveaxis(seen[index], rank + 1, -1)


def convolve(
    x: Array, kernel: Array, strides: Sequence[int], dilation: Sequence[int], padding: Padding, groups: int = 1
) -> Array:
    """Convolution of `[batch, *space, channels]` with `[*window, channels / groups, filters]`."""
    rank = kernel.ndim - 2
    seen = windows(x, kernel.shape[:rank], strides, dilation, padding)
    summed = (tuple(range(1 + rank, 2 + 2 * rank)), tuple(range(rank + 1)))
    parts = zip(np.split(seen, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
    return np.concatenate([np.tensordot(part, filters, summed) for part, filters in parts], axis=-1)


def convolve_depthwise(
    x: Array, kernel: Array, strides: Sequence[int], dilation: Sequence[int], padding: Padding
) -> Array:
    """Each channel of `[batch, *space, channels]` with its own windows `[*window, channels, multiplier]`."""
    rank = kernel.ndim - 2
    seen = windows(x, kernel.shape[:rank], strides, dilation, padding)
    places = seen.shape[: rank + 1]
    channels, multiplier = kernel.shape[rank:]
    flat = seen.reshape(*places, -1, channels)
    result = np.einsum("...wc,wcm->...cm", flat, kernel.reshape(-1, channels, multiplier))
    return result.reshape(*places, channels * multiplier)


def convolve_transposed(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: Padding,
    output_padding: Sequence[int] | None,
) -> Array:
    """The gradient of a convolution: `[batch, *space, channels]` with `[*window, filters, channels]`."""
    rank = kernel.ndim - 2
    window, space = kernel.shape[:rank], x.shape[1 : rank + 1]
    extra = output_padding or (None,) * rank
    lengths = [transposed_length(space[i], window[i], strides[i], dilation[i], padding, extra[i]) for i in range(rank)]
    full = [
        max((n - 1) * s + extent(w, d), length)
        for n, s, w, d, length in zip(space, strides, window, dilation, lengths, strict=True)
    ]
    result = np.zeros((x.shape[0], *full, kernel.shape[rank]), dtype=x.dtype)
    for offset in np.ndindex(*window):
        reached = (
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, n, s in zip(offset, dilation, space, strides, strict=True)
        )
        index = (slice(None), *reached)
        result[index] += x @ kernel[offset].T
    # What the convolution's padding would have covered is cut off.
    cut = [padding_amounts(lengths[i], window[i], strides[i], dilation[i], padding)[0] for i in range(rank)]
    kept = (slice(None), *(slice(before, before + length) for before, length in zip(cut, lengths, strict=True)))
    return result[kept]


def pool(x: Array, operation: str, window: Sequence[int], strides: Sequence[int], padding: Padding) -> Array:
    """Maximum or average of each window over `[batch, *space, channels]`; padding counts for neither."""
    rank = len(window)
    inside = tuple(range(1 + rank, 1 + 2 * rank))
    dilation = (1,) * rank
    if operation == "max":
        return windows(x, window, strides, dilation, padding, fill=-np.inf).max(axis=inside)
    real = windows(np.ones_like(x[:1, ..., :1]), window, strides, dilation, padding).sum(axis=inside)
    return windows(x, window, strides, dilation, padding).sum(axis=inside) / real
