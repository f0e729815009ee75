"""GRUs with norms or zoneout of public PyTorch code, written with torch alone; see `pytorch_cells`."""

from __future__ import annotations

import torch
from pytorch_cells import INPUTS, UNITS, Cell, parameter
from torch import Tensor, nn
from torch.nn import functional


class HasteGRU(Cell):
    states, zoneout = 1, 0.15

    def __init__(self) -> None:
        super().__init__()
        units = self.units
        self.kernel, self.recurrent_kernel = parameter(INPUTS, 3 * units), parameter(units, 3 * units)
        self.bias, self.recurrent_bias, self.gamma = parameter(3 * units), parameter(3 * units), parameter(2, 3 * units)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        (h,) = states
        width = (3 * self.units,)
        a = (functional.layer_norm(x @ self.kernel, width, self.gamma[0]) + self.bias).chunk(3, 1)
        b = (functional.layer_norm(h @ self.recurrent_kernel, width, self.gamma[1]) + self.recurrent_bias).chunk(3, 1)
        z, r = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
        new = z * h + (1 - z) * (a[2] + r * b[2]).tanh()
        return [self.zoneout * h + (1 - self.zoneout) * new]


class PlainHasteGRU(HasteGRU):
    def __init__(self) -> None:
        super().__init__()
        del self.gamma

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        (h,) = states
        a = (x @ self.kernel + self.bias).chunk(3, 1)
        b = (h @ self.recurrent_kernel + self.recurrent_bias).chunk(3, 1)
        z, r = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
        new = z * h + (1 - z) * (a[2] + r * b[2]).tanh()
        return [self.zoneout * h + (1 - self.zoneout) * new]


class InnerBiasGRU(Cell):
    states = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight_ih, self.weight_hh = parameter(3 * UNITS, INPUTS), parameter(3 * UNITS, UNITS)
        self.bias_ih, self.bias_hh = parameter(3 * UNITS), parameter(3 * UNITS)
        self.ln_ih, self.ln_hh = nn.LayerNorm(3 * UNITS), nn.LayerNorm(3 * UNITS)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        (h,) = states
        a = self.ln_ih(functional.linear(x, self.weight_ih, self.bias_ih)).chunk(3, 1)
        b = self.ln_hh(functional.linear(h, self.weight_hh, self.bias_hh)).chunk(3, 1)
        reset, update = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
        return [(1 - update) * (a[2] + reset * b[2]).tanh() + update * h]


class OutputNorm(nn.Module):
    """MAPPO's RNNLayer: a GRU, and a norm of what it gives that is not fed back."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(INPUTS, UNITS, num_layers=2, batch_first=True)
        self.norm = nn.LayerNorm(UNITS)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.norm(self.gru(x)[0])
        return outputs


class IcefallGRU(Cell):
    states = 1

    def __init__(self) -> None:
        super().__init__()
        units = self.units
        self.weight_ih, self.weight_hh = parameter(3 * units, INPUTS), parameter(3 * units, units)
        self.bias_ih, self.bias_hh = parameter(3 * units), parameter(3 * units)
        for name in "rin":
            self.add_module(f"layernorm_{name}", nn.LayerNorm(units))

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        (h,) = states
        a = functional.linear(x, self.weight_ih, self.bias_ih).chunk(3, 1)
        b = functional.linear(h, self.weight_hh, self.bias_hh).chunk(3, 1)
        reset, keep = self.layernorm_r(a[0] + b[0]).sigmoid(), self.layernorm_i(a[1] + b[1]).sigmoid()
        new = self.layernorm_n(a[2] + reset * b[2]).tanh()
        return [new + keep * (h - new)]


class DreamerV3(Cell):
    states = 1

    def __init__(self) -> None:
        super().__init__()
        width = 3 * self.units
        self.layers = nn.Sequential()
        self.layers.add_module("GRU_linear", nn.Linear(INPUTS + self.units, width, bias=False))
        self.layers.add_module("GRU_norm", nn.LayerNorm(width, eps=1e-3))

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        (h,) = states
        reset, candidate, update = self.layers(torch.cat([x, h], -1)).chunk(3, -1)
        candidate = (reset.sigmoid() * candidate).tanh()
        update = (update - 1).sigmoid()
        return [update * candidate + (1 - update) * h]


class Sheeprl(Cell):
    states = 1

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS + self.units, 3 * self.units, bias=bias)
        self.layer_norm = nn.LayerNorm(3 * self.units, eps=1e-3)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        (h,) = states
        reset, candidate, update = self.layer_norm(self.linear(torch.cat([h, x], -1))).chunk(3, -1)
        candidate = (reset.sigmoid() * candidate).tanh()
        update = (update - 1).sigmoid()
        return [update * candidate + (1 - update) * h]


class DreamerV2(Cell):
    states = 1

    def __init__(self) -> None:
        super().__init__()
        self._layer = nn.Linear(INPUTS + self.units, 3 * self.units)
        self._norm = nn.LayerNorm(3 * self.units)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        (h,) = states
        reset, candidate, update = self._norm(self._layer(torch.cat([x, h], -1))).chunk(3, -1)
        candidate = (reset.sigmoid() * candidate).tanh()
        update = (update - 1).sigmoid()
        return [update * candidate + (1 - update) * h]


class PydreamerLate(Cell):
    states = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight_ih, self.weight_hh = (nn.Linear(n, 3 * self.units, bias=False) for n in (INPUTS, self.units))
        self.lnorm = nn.LayerNorm(3 * self.units, eps=1e-3)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        (h,) = states
        reset, update, new = self.lnorm(self.weight_ih(x) + self.weight_hh(h)).chunk(3, 1)
        update = (update - 1).sigmoid()
        return [update * (reset.sigmoid() * new).tanh() + (1 - update) * h]


class Pydreamer(Cell):
    states = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight_ih, self.weight_hh = (nn.Linear(n, 3 * self.units, bias=False) for n in (INPUTS, self.units))
        for name in ("reset", "update", "newval"):
            self.add_module(f"ln_{name}", nn.LayerNorm(self.units, eps=1e-3))

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        (h,) = states
        a, b = self.weight_ih(x).chunk(3, 1), self.weight_hh(h).chunk(3, 1)
        reset, update = self.ln_reset(a[0] + b[0]).sigmoid(), self.ln_update(a[1] + b[1]).sigmoid()
        new = self.ln_newval(a[2] + reset * b[2]).tanh()
        return [update * new + (1 - update) * h]
