"""Recurrent modules of public PyTorch code, written from their descriptions with torch alone, and random weights.

A module reads `[batch, time, features]` and gives the same; its state dict has the names that the public code gives.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

UNITS, INPUTS = 5, 3


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Weights, scales, offsets and statistics that are nowhere neutral; the module in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        draw = torch.randn(tensor.shape, generator=generator) * 0.5
        last = name.rpartition(".")[2]
        if "var" in last:
            draw = draw.abs() + 0.3
        elif (
            last in ("gamma", "alpha", "gamma_h", "g_norm")
            or (last == "weight" and tensor.ndim == 1)
            or "gamma" in last
        ):
            draw = draw + 0.8
        tensor.data.copy_(draw)
    return module.eval()


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape))


class Cell(nn.Module):
    """A cell with the states h, or h and c, run over a sequence."""

    units = UNITS
    states = 2

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        raise AssertionError

    def start(self, x: Tensor) -> list[Tensor]:
        return [x.new_zeros(len(x), self.units) for _ in range(self.states)]

    def forward(self, x: Tensor) -> Tensor:
        states, outputs = self.start(x), []
        for number in range(x.shape[1]):
            states = self.step(x[:, number], states, number)
            outputs.append(states[0])
        return torch.stack(outputs, dim=1)


def both(forward: nn.Module, backward: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([forward(x), backward(x.flip(1)).flip(1)], dim=-1)


class Holder(nn.Module):
    """A module under another name."""

    def __init__(self, **members: nn.Module) -> None:
        super().__init__()
        for name, member in members.items():
            self.add_module(name, member)

    def forward(self, x: Tensor) -> Tensor:
        for member in self.children():
            x = member(x)
        return x


class Plain(nn.Module):
    """A module of torch.nn whose first output is the sequence."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.rnn(x)[0]
        return outputs
