"""The arithmetic of windows that slide along an axis: how much is padded, how many places there are."""

from __future__ import annotations

from normconvert.errors import UsageError

PADDINGS = ("valid", "same", "causal")


def extent(window: int, dilation: int) -> int:
    """Steps from the first to the last element that a window reads, both counted."""
    return dilation * (window - 1) + 1


def padding_amounts(size: int, window: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    """Elements added before and after an axis; `same` follows TensorFlow (the odd one goes after).

    Raises:
        UsageError: the padding is none of `valid`, `same`, `causal`.
    """
    reach = extent(window, dilation)
    match padding:
        case "valid":
            return 0, 0
        case "causal":
            return reach - 1, 0
        case "same":
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            return total // 2, total - total // 2
    raise UsageError(f"padding {padding!r} is not known", remedy=f"Use one of {', '.join(PADDINGS)}")


def window_length(size: int | None, window: int, stride: int, dilation: int, padding: str) -> int | None:
    """Places of a window along an axis: None if the axis's size is not known, 0 if the axis is too short."""
    if size is None:
        return None
    padded = size + sum(padding_amounts(size, window, stride, dilation, padding))
    return max((padded - extent(window, dilation)) // stride + 1, 0)


def transposed_length(
    size: int, window: int, stride: int, dilation: int, padding: str, output_padding: int | None
) -> int:
    """Length that a transposed convolution gives, as stated for `ir.layers.TransposedConvolution`."""
    reach = extent(window, dilation)
    if output_padding is not None:
        trimmed = 2 * (reach // 2) if padding == "same" else 0
        return (size - 1) * stride + reach - trimmed + output_padding
    return size * stride if padding == "same" else (size - 1) * stride + max(reach, stride)
