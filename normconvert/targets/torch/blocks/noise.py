"""What is random in training and the identity in eval mode."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SharedDropout(nn.Module):
    """Dropout whose draw is shared along some axes (one mask for all time steps: axis 1)."""

    def __init__(self, rate: float, shared_axes: list[int]) -> None:
        super().__init__()
        self.rate, self.shared_axes = rate, shared_axes

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        shape = list(x.shape)
        for axis in self.shared_axes:
            shape[axis] = 1
        return x * F.dropout(torch.ones(shape, dtype=x.dtype, device=x.device), self.rate)


class GaussianDropout(nn.Module):
    """Multiplies by N(1, rate / (1 - rate)) in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.deviation = (rate / (1 - rate)) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.deviation * torch.randn_like(x)) if self.training else x


class GaussianNoise(nn.Module):
    """Adds N(0, deviation^2) in training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        return x + self.deviation * torch.randn_like(x) if self.training else x
