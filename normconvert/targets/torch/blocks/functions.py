"""Elementwise functions that PyTorch lacks, or computes with a shortcut that float64 can see."""

import torch
import torch.nn.functional as F
from torch import Tensor


def capped_relu(x: Tensor, slope: float, limit: float, threshold: float) -> Tensor:
    """`limit` from limit on, x above threshold, else `slope * (x - threshold)`."""
    return torch.where(x > threshold, x, slope * (x - threshold)).masked_fill(x >= limit, limit)


def hard_sigmoid(x: Tensor, slope: float, offset: float) -> Tensor:
    """`clip(slope * x + offset, 0, 1)`."""
    return torch.clamp(slope * x + offset, 0.0, 1.0)


def softplus(x: Tensor) -> Tensor:
    """`log(1 + exp(x))`, without the linear shortcut that `F.softplus` takes above 20."""
    return torch.logaddexp(x, torch.zeros_like(x))


def squareplus(x: Tensor, b: float) -> Tensor:
    """`(x + sqrt(x^2 + b)) / 2`."""
    return (x + torch.sqrt(x * x + b)) / 2


def sparse_plus(x: Tensor) -> Tensor:
    """0 up to -1, x from 1 on, `(x + 1)^2 / 4` between."""
    return torch.where(x >= 1, x, (x.clamp(min=-1) + 1) ** 2 / 4)


def sparse_sigmoid(x: Tensor) -> Tensor:
    """`clip((x + 1) / 2, 0, 1)`."""
    return torch.clamp((x + 1) / 2, 0.0, 1.0)


def sparsemax(x: Tensor, dim: int) -> Tensor:
    """Euclidean projection onto the simplex along an axis (Martins and Astudillo, 2016)."""
    ordered = torch.sort(x, dim=dim, descending=True).values.transpose(dim, -1)
    count = torch.arange(1, ordered.shape[-1] + 1, device=x.device)
    total = torch.cumsum(ordered, dim=-1)
    support = (1 + count * ordered > total).sum(dim=-1, keepdim=True)
    threshold = (total.gather(-1, support - 1) - 1) / support
    return (x - threshold.transpose(dim, -1)).clamp(min=0)


def conv_channels_last(x: Tensor, kernel: Tensor, strides: list[int], dilation: list[int], padding: str) -> Tensor:
    """Convolution of `[..., *space, channels]` with a kernel `[*window, channels, filters]`, one to three space axes.

    `same` pads as TensorFlow does, the odd element at the end; `causal` pads before.
    """
    rank = len(strides)
    sizes = list(x.shape)
    lead, sample = sizes[: len(sizes) - rank - 1], sizes[len(sizes) - rank - 1 :]
    pads: list[int] = []
    for n in range(rank):  # `pad` takes the last axis first
        before, after = window_padding(sample[n], kernel.shape[n], strides[n], dilation[n], padding)
        pads = [before, after] + pads
    images = F.pad(x.reshape([-1] + sample).movedim(-1, 1), pads)
    windows = kernel.movedim(-1, 0).movedim(-1, 1)
    if rank == 1:
        result = F.conv1d(images, windows, stride=strides, dilation=dilation)
    elif rank == 2:
        result = F.conv2d(images, windows, stride=strides, dilation=dilation)
    else:
        result = F.conv3d(images, windows, stride=strides, dilation=dilation)
    result = result.movedim(1, -1)
    return result.reshape(lead + list(result.shape)[1:])


def window_padding(size: int, window: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    """Elements to add before and after an axis of `size` for a sliding window, as TensorFlow counts them."""
    reach = dilation * (window - 1) + 1
    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return reach - 1, 0
    total = (-(-size // stride) - 1) * stride + reach - size
    if reach < stride:
        total = max(total, 0)
    return total // 2, total - total // 2
