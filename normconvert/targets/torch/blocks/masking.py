"""Masks `[batch, time]`: true marks a real step."""

import torch
from torch import Tensor, nn


class Masking(nn.Module):
    """Zeroes the time steps whose features all equal `value`."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x * (x != self.value).any(dim=-1, keepdim=True)


class FeatureMask(nn.Module):
    """The steps of `[batch, time, features]` with any feature unlike `value`."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return (x != self.value).any(dim=-1)


class IndexMask(nn.Module):
    """The steps of `[batch, time]` unlike `value`."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x != self.value


class LengthMask(nn.Module):
    """The first `lengths` steps of a value `[batch, time, ...]`; lengths `[batch]` or `[batch, 1]`."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.arange(x.shape[1], device=x.device) < lengths.reshape(-1, 1)


class MergeMasks(nn.Module):
    """Step by step `and` or `or` of masks."""

    def __init__(self, operation: str = "and") -> None:
        super().__init__()
        self.operation = operation

    def forward(self, masks: list[Tensor]) -> Tensor:
        result = masks[0]
        for mask in masks[1:]:
            result = result & mask if self.operation == "and" else result | mask
        return result
