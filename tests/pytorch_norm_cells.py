"""Recurrent modules with batch normalisation of public PyTorch code, written with torch alone; see `pytorch_cells`."""

from __future__ import annotations

import torch
from pytorch_cells import INPUTS, UNITS, Cell, both, parameter
from torch import Tensor, nn
from torch.nn import functional


class StepNorm(nn.Module):
    """jihunchoi's SeparatedBatchNorm1d: a buffer per time step."""

    def __init__(self, features: int, steps: int) -> None:
        super().__init__()
        self.weight, self.bias, self.steps = parameter(features), parameter(features), steps
        for step in range(steps):
            self.register_buffer(f"running_mean_{step}", torch.zeros(features))
            self.register_buffer(f"running_var_{step}", torch.ones(features))

    def forward(self, x: Tensor, step: int) -> Tensor:
        step = min(step, self.steps - 1)
        mean, variance = getattr(self, f"running_mean_{step}"), getattr(self, f"running_var_{step}")
        return functional.batch_norm(x, mean, variance, self.weight, self.bias, self.training)


class Jihunchoi(Cell):
    def __init__(self, inputs: int, steps: int | None = 4) -> None:
        super().__init__()
        units = self.units
        self.weight_ih, self.weight_hh = parameter(inputs, 4 * units), parameter(units, 4 * units)
        self.bias = parameter(4 * units)
        self.steps = steps
        for name, features in (("ih", 4 * units), ("hh", 4 * units), ("c", units)):
            self.add_module(f"bn_{name}", nn.BatchNorm1d(features) if steps is None else StepNorm(features, steps))

    def norm(self, name: str, x: Tensor, number: int) -> Tensor:
        norm = getattr(self, f"bn_{name}")
        return norm(x) if self.steps is None else norm(x, number)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        z = self.norm("ih", x @ self.weight_ih, number) + self.norm("hh", h @ self.weight_hh, number) + self.bias
        f, i, o, g = z.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return [o.sigmoid() * self.norm("c", c, number).tanh(), c]


class JihunchoiStack(nn.Module):
    def __init__(self, steps: int | None = 4) -> None:
        super().__init__()
        self.cell_0, self.cell_1 = Jihunchoi(INPUTS, steps), Jihunchoi(UNITS, steps)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell_1(self.cell_0(x))


class Hellozgy(nn.Module):
    class Side(Cell):
        def __init__(self) -> None:
            super().__init__()
            units = self.units
            self.weight_ih, self.weight_hh = parameter(INPUTS, 4 * units), parameter(units, 4 * units)
            self.bias = parameter(4 * units)
            self.bn_ih, self.bn_hh = (nn.BatchNorm1d(4 * units, affine=False) for _ in range(2))
            self.bn_c = nn.BatchNorm1d(units)
            self.first: tuple[Tensor, Tensor] | None = None

        def start(self, x: Tensor) -> list[Tensor]:
            assert self.first is not None
            return [state.expand(len(x), -1) for state in self.first]

        def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
            h, c = states
            z = self.bn_ih(x @ self.weight_ih) + self.bn_hh(h @ self.weight_hh) + self.bias
            i, f, o, g = z.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            return [o.sigmoid() * self.bn_c(c).tanh(), c]

    def __init__(self, directions: int = 2) -> None:
        super().__init__()
        self.lstm_f = self.Side()
        if directions == 2:
            self.lstm_b = self.Side()
        self.h0, self.c0 = parameter(directions, 1, UNITS), parameter(directions, 1, UNITS)

    def forward(self, x: Tensor) -> Tensor:
        self.lstm_f.first = (self.h0[0], self.c0[0])
        if not hasattr(self, "lstm_b"):
            return self.lstm_f(x)
        self.lstm_b.first = (self.h0[1], self.c0[1])
        return both(self.lstm_f, self.lstm_b, x)


class ModuleListCell(Cell):
    def __init__(self, inputs: int, steps: int) -> None:
        super().__init__()
        units = self.units
        self.W_ih, self.W_hh, self.lbias = (
            parameter(inputs, 4 * units),
            parameter(units, 4 * units),
            parameter(4 * units),
        )
        for name, features in (("ih", 4 * units), ("hh", 4 * units), ("c", units)):
            norms = [nn.BatchNorm1d(features, affine=False) for _ in range(steps)]
            self.add_module(f"bn_{name}_list", nn.ModuleList(norms))
            self.register_parameter(f"bn_{name}_gamma", parameter(features))
        self.bn_c_beta = parameter(units)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        z = self.bn_ih_list[number](x @ self.W_ih) * self.bn_ih_gamma
        z = z + self.bn_hh_list[number](h @ self.W_hh) * self.bn_hh_gamma + self.lbias
        i, f, g, o = z.chunk(4, 1)
        c = self.bn_c_list[number](f.sigmoid() * c + i.sigmoid() * g.tanh()) * self.bn_c_gamma + self.bn_c_beta
        return [o.sigmoid() * c.tanh(), c]


class ModuleListStack(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.lstm_cell_1, self.lstm_cell_2 = ModuleListCell(INPUTS, steps), ModuleListCell(UNITS, steps)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm_cell_2(self.lstm_cell_1(x))


class PhysioEx(nn.Module):
    class Side(Cell):
        def __init__(self) -> None:
            super().__init__()
            units = self.units
            self.weight_ih, self.weight_hh = parameter(4 * units, INPUTS), parameter(4 * units, units)
            self.bias = parameter(4 * units)
            self.bn_ih, self.bn_hh, self.bn_c = (nn.BatchNorm1d(n) for n in (4 * units, 4 * units, units))

        def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
            h, c = states
            z = self.bn_ih(x @ self.weight_ih.T) + self.bn_hh(h @ self.weight_hh.T) + self.bias
            i, f, g, o = z.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            return [o.sigmoid() * self.bn_c(c).tanh(), c]

    def __init__(self) -> None:
        super().__init__()
        self.fwd, self.bwd = self.Side(), self.Side()

    def forward(self, x: Tensor) -> Tensor:
        return both(self.fwd, self.bwd, x)
