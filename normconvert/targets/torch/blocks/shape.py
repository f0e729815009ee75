"""Modules that rearrange or combine values."""

import torch
from torch import Tensor, nn


class Reshape(nn.Module):
    """Each sample to `shape`, at most one entry -1."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape([x.shape[0]] + self.shape)


class Permute(nn.Module):
    """Reorders axes; `order` lists them all, the batch axis 0 first."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


class RepeatVector(nn.Module):
    """`[batch, features]` to `[batch, times, features]`."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1).repeat(1, self.times, 1)


class Reverse(nn.Module):
    """Turns an axis around."""

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(self.axis)


class FoldTime(nn.Module):
    """`[batch, time, ...]` to `[batch * time, ...]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1)


class UnfoldTime(nn.Module):
    """`[batch * time, ...]` back to `[batch, time, ...]`, sizes taken from the value before `FoldTime`."""

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return x.reshape([before.shape[0], before.shape[1]] + list(x.shape[1:]))


def aligned(values: list[Tensor]) -> list[Tensor]:
    """Values with the same number of axes: those with fewer get more after their batch axis."""
    rank = max([value.dim() for value in values])
    return [value.reshape([value.shape[0]] + [1] * (rank - value.dim()) + list(value.shape[1:])) for value in values]


class Add(nn.Module):
    """Sum of values, broadcast."""

    def forward(self, values: list[Tensor]) -> Tensor:
        values = aligned(values)
        result = values[0]
        for value in values[1:]:
            result = result + value
        return result


class Subtract(nn.Module):
    """First value minus the others, broadcast."""

    def forward(self, values: list[Tensor]) -> Tensor:
        values = aligned(values)
        result = values[0]
        for value in values[1:]:
            result = result - value
        return result


class Multiply(nn.Module):
    """Product of values, broadcast."""

    def forward(self, values: list[Tensor]) -> Tensor:
        values = aligned(values)
        result = values[0]
        for value in values[1:]:
            result = result * value
        return result


class Average(nn.Module):
    """Mean of values, broadcast."""

    def forward(self, values: list[Tensor]) -> Tensor:
        values = aligned(values)
        result = values[0]
        for value in values[1:]:
            result = result + value
        return result / len(values)


class Maximum(nn.Module):
    """Largest of values, broadcast."""

    def forward(self, values: list[Tensor]) -> Tensor:
        values = aligned(values)
        result = values[0]
        for value in values[1:]:
            result = torch.maximum(result, value)
        return result


class Minimum(nn.Module):
    """Smallest of values, broadcast."""

    def forward(self, values: list[Tensor]) -> Tensor:
        values = aligned(values)
        result = values[0]
        for value in values[1:]:
            result = torch.minimum(result, value)
        return result


class Concatenate(nn.Module):
    """Values joined along an axis."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, values: list[Tensor]) -> Tensor:
        return torch.cat(values, dim=self.axis)


class Dot(nn.Module):
    """Sum of products of two values over one axis of each, as in Keras; of unit vectors with `normalize`."""

    def __init__(self, axes: tuple[int, int], normalize: bool = False) -> None:
        super().__init__()
        self.axes, self.normalize = axes, normalize

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if self.normalize:
            a = a / a.square().sum(dim=self.axes[0], keepdim=True).sqrt().clamp(min=1e-12)
            b = b / b.square().sum(dim=self.axes[1], keepdim=True).sqrt().clamp(min=1e-12)
        a, b = a.movedim(self.axes[0], -1), b.movedim(self.axes[1], -1)
        sizes = list(a.shape[1:-1]) + list(b.shape[1:-1])
        result = a.flatten(1, -2) if a.dim() > 2 else a.unsqueeze(1)
        other = b.flatten(1, -2) if b.dim() > 2 else b.unsqueeze(1)
        product = result @ other.transpose(1, 2)
        return product.reshape([a.shape[0]] + (sizes if len(sizes) > 0 else [1]))
