"""Convolution, pooling and resampling of `[batch, *space, channels]`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normconvert.targets.torch.blocks.functions import window_padding


class Conv1d(nn.Conv1d):
    """`nn.Conv1d` over `[batch, time, channels]`; `pad` is `valid`, `causal`, or TensorFlow's `same`."""

    def __init__(
        self,
        inputs: int,
        filters: int,
        window: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        pad: str = "valid",
    ) -> None:
        super().__init__(inputs, filters, window, stride, dilation=dilation, groups=groups, bias=bias)
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        before, after = window_padding(x.shape[1], self.kernel_size[0], self.stride[0], self.dilation[0], self.pad)
        x = F.pad(x.transpose(1, 2), (before, after))
        x = F.conv1d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return x.transpose(1, 2)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` over `[batch, height, width, channels]`; `pad` is `valid` or TensorFlow's `same`."""

    def __init__(
        self,
        inputs: int,
        filters: int,
        window: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        bias: bool = True,
        pad: str = "valid",
    ) -> None:
        super().__init__(inputs, filters, window, stride, dilation=dilation, groups=groups, bias=bias)
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = window_padding(x.shape[1], self.kernel_size[0], self.stride[0], self.dilation[0], self.pad)
        left, right = window_padding(x.shape[2], self.kernel_size[1], self.stride[1], self.dilation[1], self.pad)
        x = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
        x = F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return x.permute(0, 2, 3, 1)


class ConvTranspose1d(nn.Module):
    """Transposed convolution of `[batch, time, channels]`, cut or zero-padded to the length TensorFlow gives.

    The full result has `(n - 1) * stride + reach` steps; `crop` of them are dropped at the start, and the end is
    cut or padded until `(n - 1) * stride + size` are left. The bias is added to every step.
    """

    def __init__(
        self, inputs: int, filters: int, window: int, *, stride: int, dilation: int, crop: int, size: int, bias: bool
    ) -> None:
        super().__init__()
        self.stride, self.dilation, self.crop, self.size = stride, dilation, crop, size
        self.reach = dilation * (window - 1) + 1
        self.weight = nn.Parameter(torch.empty(inputs, filters, window))
        self.bias = nn.Parameter(torch.empty(filters)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv_transpose1d(x.transpose(1, 2), self.weight, stride=self.stride, dilation=self.dilation)
        y = F.pad(y, (-self.crop, self.size - self.reach + self.crop)).transpose(1, 2)
        return y if self.bias is None else y + self.bias


class ConvTranspose2d(nn.Module):
    """Transposed convolution of `[batch, height, width, channels]`; see `ConvTranspose1d` for `crop` and `size`."""

    def __init__(
        self,
        inputs: int,
        filters: int,
        window: tuple[int, int],
        *,
        stride: tuple[int, int],
        dilation: tuple[int, int],
        crop: tuple[int, int],
        size: tuple[int, int],
        bias: bool,
    ) -> None:
        super().__init__()
        self.stride, self.dilation = stride, dilation
        ends = [n - d * (w - 1) - 1 + c for n, d, w, c in zip(size, dilation, window, crop, strict=True)]
        self.pads = [-crop[1], ends[1], -crop[0], ends[0]]
        self.weight = nn.Parameter(torch.empty(inputs, filters, *window))
        self.bias = nn.Parameter(torch.empty(filters)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv_transpose2d(x.permute(0, 3, 1, 2), self.weight, stride=self.stride, dilation=self.dilation)
        y = F.pad(y, self.pads).permute(0, 2, 3, 1)
        return y if self.bias is None else y + self.bias


class Pool1d(nn.Module):
    """Maximum or average over windows of `[batch, time, channels]`; padding does not count in the average."""

    def __init__(self, operation: str, window: int, stride: int, pad: str = "valid") -> None:
        super().__init__()
        self.operation, self.window, self.stride, self.pad = operation, window, stride, pad

    def forward(self, x: Tensor) -> Tensor:
        before, after = window_padding(x.shape[1], self.window, self.stride, 1, self.pad)
        x = x.transpose(1, 2)
        if self.operation == "max":
            # As planes of one column: torch.export freezes the length that F.max_pool1d reads.
            planes = F.pad(x, (before, after), value=-float("inf")).unsqueeze(-1)
            y = F.max_pool2d(planes, (self.window, 1), (self.stride, 1)).squeeze(-1)
        else:
            real = F.pad(torch.ones_like(x), (before, after))
            total = F.avg_pool1d(F.pad(x, (before, after)), self.window, self.stride)
            y = total / F.avg_pool1d(real, self.window, self.stride)
        return y.transpose(1, 2)


class Pool2d(nn.Module):
    """Maximum or average over windows of `[batch, height, width, channels]`; padding does not count in the average."""

    def __init__(self, operation: str, window: tuple[int, int], stride: tuple[int, int], pad: str = "valid") -> None:
        super().__init__()
        self.operation, self.window, self.stride, self.pad = operation, window, stride, pad

    def forward(self, x: Tensor) -> Tensor:
        top, bottom = window_padding(x.shape[1], self.window[0], self.stride[0], 1, self.pad)
        left, right = window_padding(x.shape[2], self.window[1], self.stride[1], 1, self.pad)
        pads = [left, right, top, bottom]
        x = x.permute(0, 3, 1, 2)
        if self.operation == "max":
            y = F.max_pool2d(F.pad(x, pads, value=-float("inf")), self.window, self.stride)
        else:
            real = F.pad(torch.ones_like(x), pads)
            y = F.avg_pool2d(F.pad(x, pads), self.window, self.stride) / F.avg_pool2d(real, self.window, self.stride)
        return y.permute(0, 2, 3, 1)


class GlobalAveragePooling(nn.Module):
    """Mean over the axes between batch and channels; of `[batch, time, channels]` with a mask, over the real steps."""

    def __init__(self, keepdims: bool = False) -> None:
        super().__init__()
        self.keepdims = keepdims

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        axes = list(range(1, x.dim() - 1))
        if mask is None or x.dim() != 3:
            return x.mean(dim=axes, keepdim=self.keepdims)
        real = mask.unsqueeze(-1)
        total = torch.where(real, x, torch.zeros_like(x)).sum(dim=1, keepdim=self.keepdims)
        return total / real.to(x.dtype).sum(dim=1, keepdim=self.keepdims)


class GlobalMaxPooling(nn.Module):
    """Maximum over the axes between batch and channels."""

    def __init__(self, keepdims: bool = False) -> None:
        super().__init__()
        self.keepdims = keepdims

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=list(range(1, x.dim() - 1)), keepdim=self.keepdims)


class UpSampling(nn.Module):
    """Each element of `[batch, *space, channels]` repeated along the space axes."""

    def __init__(self, factors: list[int]) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        for axis, factor in enumerate(self.factors):
            x = x.repeat_interleave(factor, dim=axis + 1)
        return x


class LinearUpSampling(nn.Module):
    """`[batch, *space, channels]` interpolated between the centres of its elements, one or two space axes."""

    def __init__(self, factors: list[float]) -> None:
        super().__init__()
        self.factors = factors
        self.mode = "linear" if len(factors) == 1 else "bilinear"

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x.movedim(-1, 1), scale_factor=self.factors, mode=self.mode, align_corners=False)
        return x.movedim(1, -1)


class ZeroPadding(nn.Module):
    """Zeros before and after the space axes; `pads` as in `F.pad`, the last axis first."""

    def __init__(self, pads: list[int]) -> None:
        super().__init__()
        self.pads = pads

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads)
