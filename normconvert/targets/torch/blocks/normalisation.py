"""Normalisation layers."""

import torch
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalisation per channel of any axis, as in Keras.

    `momentum` weighs the old running value, the running variance is updated with the biased variance, and steps a
    mask `[batch, time]` hides do not count in the moments. `frozen` keeps the running statistics in training too;
    `from_batch` has none and normalises with the batch at hand in eval mode too.
    """

    def __init__(
        self,
        features: int,
        *,
        axis: int = -1,
        eps: float,
        momentum: float = 0.99,
        scale: bool = True,
        center: bool = True,
        frozen: bool = False,
        from_batch: bool = False,
    ) -> None:
        super().__init__()
        self.axis, self.eps, self.momentum = axis, eps, momentum
        self.frozen = frozen
        self.weight = nn.Parameter(torch.ones(features)) if scale else None
        self.bias = nn.Parameter(torch.zeros(features)) if center else None
        self.register_buffer("running_mean", None if from_batch else torch.zeros(features))
        self.register_buffer("running_var", None if from_batch else torch.ones(features))
        self.running_mean: Tensor | None
        self.running_var: Tensor | None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x.movedim(self.axis, -1)
        running_mean, running_var = self.running_mean, self.running_var
        if running_mean is None or running_var is None:
            mean, variance = self.moments(x, None)
        elif self.training and not self.frozen:
            mean, variance = self.moments(x, mask)
            with torch.no_grad():
                running_mean.lerp_(mean, 1 - self.momentum)
                running_var.lerp_(variance, 1 - self.momentum)
        else:
            mean, variance = running_mean, running_var
        y = (x - mean) / torch.sqrt(variance + self.eps)
        if self.weight is not None:
            y = y * self.weight
        if self.bias is not None:
            y = y + self.bias
        return y.movedim(-1, self.axis)

    def moments(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and biased variance over every axis but the last."""
        if mask is None:
            weight = torch.ones_like(x[..., :1])
        else:
            weight = mask.to(x.dtype).reshape(list(mask.shape) + [1] * (x.dim() - mask.dim()))
            weight = weight.expand(list(x.shape[:-1]) + [1])
        axes = list(range(x.dim() - 1))
        count = weight.sum()
        mean = (weight * x).sum(dim=axes) / count
        return mean, (weight * (x - mean) ** 2).sum(dim=axes) / count


class LayerNorm(nn.Module):
    """Normalisation of each sample over `axes`; weight and bias have the sizes of those axes.

    `moments`: `standard`; `rms` neither centres nor subtracts the mean in the variance; `uncentred` divides by the
    standard deviation without centring.
    """

    def __init__(
        self,
        shape: list[int],
        axes: list[int],
        *,
        eps: float,
        scale: bool = True,
        center: bool = True,
        moments: str = "standard",
    ) -> None:
        super().__init__()
        self.axes, self.eps, self.moments = axes, eps, moments
        self.weight = nn.Parameter(torch.ones(shape)) if scale else None
        self.bias = nn.Parameter(torch.zeros(shape)) if center else None

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=self.axes, keepdim=True)
        if self.moments == "rms":
            variance = x.square().mean(dim=self.axes, keepdim=True)
        else:
            variance = (x - mean).square().mean(dim=self.axes, keepdim=True)
        y = (x - mean if self.moments == "standard" else x) / torch.sqrt(variance + self.eps)
        if self.weight is not None:
            y = y * self.along_axes(self.weight, x)
        if self.bias is not None:
            y = y + self.along_axes(self.bias, x)
        return y

    def along_axes(self, value: Tensor, x: Tensor) -> Tensor:
        """A value over `axes`, with axes of size 1 between them so that it broadcasts against x."""
        shape = [1] * x.dim()
        for axis in self.axes:
            shape[axis] = x.shape[axis]
        return value.reshape(shape)


class GroupNorm(nn.Module):
    """Normalisation of each sample over all other axes and over groups of channels of `axis`."""

    def __init__(
        self, groups: int, channels: int, *, axis: int = -1, eps: float, scale: bool = True, center: bool = True
    ) -> None:
        super().__init__()
        self.groups, self.axis, self.eps = groups, axis, eps
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels)) if center else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(self.axis, 1)
        grouped = x.reshape(x.shape[0], self.groups, -1)
        mean = grouped.mean(dim=-1, keepdim=True)
        variance = (grouped - mean).square().mean(dim=-1, keepdim=True)
        y = ((grouped - mean) / torch.sqrt(variance + self.eps)).reshape(x.shape).movedim(1, -1)
        if self.weight is not None:
            y = y * self.weight
        if self.bias is not None:
            y = y + self.bias
        return y.movedim(-1, self.axis)


class UnitNorm(nn.Module):
    """`x / max(|x|, sqrt(eps))`, the norm taken over `axes`."""

    def __init__(self, axes: list[int], eps: float) -> None:
        super().__init__()
        self.axes, self.eps = axes, eps

    def forward(self, x: Tensor) -> Tensor:
        return x / x.square().sum(dim=self.axes, keepdim=True).clamp(min=self.eps).sqrt()


class Standardise(nn.Module):
    """`(x - mean) / max(sqrt(variance), eps)` with stored moments, or its inverse."""

    mean: Tensor
    variance: Tensor

    def __init__(self, shape: list[int], *, eps: float, invert: bool = False) -> None:
        super().__init__()
        self.eps, self.invert = eps, invert
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        deviation = torch.sqrt(self.variance).clamp(min=self.eps)
        return x * deviation + self.mean if self.invert else (x - self.mean) / deviation


def filled(values: list[float], like: Tensor) -> Tensor:
    """Numbers as a vector in the precision of `like`; TorchScript rounds `torch.tensor(...)` to float32."""
    result = like.new_empty([len(values)])
    for position, value in enumerate(values):
        result[position].fill_(value)
    return result


class Rescale(nn.Module):
    """`x * scale + offset`; one number, or one per channel."""

    def __init__(self, scale: list[float], offset: list[float]) -> None:
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x: Tensor) -> Tensor:
        return x * filled(self.scale, x) + filled(self.offset, x)


class PReLU(nn.Module):
    """`max(x, 0) + weight * min(x, 0)`; the weight broadcasts over one sample."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0) + self.weight * x.clamp(max=0)
