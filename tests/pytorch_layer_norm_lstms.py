"""Layer-normalised LSTMs of public PyTorch code, written with torch alone; see `pytorch_cells`."""

from __future__ import annotations

import torch
from pytorch_cells import INPUTS, UNITS, Cell, Holder, both, parameter
from torch import Tensor, nn
from torch.nn import functional


class HasteLSTM(Cell):
    zoneout = 0.15

    def __init__(self) -> None:
        super().__init__()
        units = self.units
        self.kernel, self.recurrent_kernel = parameter(INPUTS, 4 * units), parameter(units, 4 * units)
        self.bias, self.gamma = parameter(4 * units), parameter(2, 4 * units)
        self.gamma_h, self.beta_h = parameter(units), parameter(units)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        width = (4 * self.units,)
        z = functional.layer_norm(x @ self.kernel, width, self.gamma[0])
        z = z + functional.layer_norm(h @ self.recurrent_kernel, width, self.gamma[1]) + self.bias
        i, g, f, o = z.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        new = o.sigmoid() * functional.layer_norm(c, (self.units,), self.gamma_h, self.beta_h).tanh()
        return [self.zoneout * h + (1 - self.zoneout) * new, c]


class PlainHasteLSTM(Cell):
    zoneout = 0.15

    def __init__(self) -> None:
        super().__init__()
        units = self.units
        self.kernel, self.recurrent_kernel = parameter(INPUTS, 4 * units), parameter(units, 4 * units)
        self.bias = parameter(4 * units)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        i, g, f, o = (x @ self.kernel + h @ self.recurrent_kernel + self.bias).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return [self.zoneout * h + (1 - self.zoneout) * o.sigmoid() * c.tanh(), c]


class InnerBias(nn.Module):
    """Stacks of subclasses of nn.LSTMCell with ln_ih, ln_hh and ln_ho: chenhuaizhen's, or that of PyTorch's issue."""

    class Side(Cell):
        def __init__(self, inputs: int, kind: str) -> None:
            super().__init__()
            self.weight_ih, self.weight_hh = parameter(4 * UNITS, inputs), parameter(4 * UNITS, UNITS)
            self.bias_ih, self.bias_hh = parameter(4 * UNITS), parameter(4 * UNITS)
            self.ln_ih, self.ln_hh, self.ln_ho = (nn.LayerNorm(n) for n in (4 * UNITS, 4 * UNITS, UNITS))
            self.kind = kind

        def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
            h, c = states
            z = self.ln_ih(functional.linear(x, self.weight_ih, self.bias_ih))
            z = z + self.ln_hh(functional.linear(h, self.weight_hh, self.bias_hh))
            if self.kind == "ifog":
                i, f, o, g = z.chunk(4, 1)
            else:
                i, f, g, o = z.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            last = self.ln_ho(c.tanh()) if self.kind == "tanh" else self.ln_ho(c).tanh()
            return [o.sigmoid() * last, c]

    def __init__(self, kind: str, *, directions: int = 2) -> None:
        super().__init__()
        widths = (INPUTS, directions * UNITS)
        self.hidden0 = nn.ModuleList(self.Side(width, kind) for width in widths)
        if directions == 2:
            self.hidden1 = nn.ModuleList(self.Side(width, kind) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        for number, ahead in enumerate(self.hidden0):
            x = both(ahead, self.hidden1[number], x) if hasattr(self, "hidden1") else ahead(x)
        return x


class FastCell(Cell):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        units = self.units
        self.weight_ih, self.weight_hh = parameter(4 * units, inputs), parameter(4 * units, units)
        self.layernorm_i, self.layernorm_h = nn.LayerNorm(4 * units), nn.LayerNorm(4 * units)
        self.layernorm_c = nn.LayerNorm(units)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        z = self.layernorm_i(x @ self.weight_ih.T) + self.layernorm_h(h @ self.weight_hh.T)
        i, f, g, o = z.chunk(4, 1)
        c = self.layernorm_c(f.sigmoid() * c + i.sigmoid() * g.tanh())
        return [o.sigmoid() * c.tanh(), c]


class FastBoth(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.directions = nn.ModuleList(Holder(cell=FastCell(inputs)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return both(*self.directions, x)


class Torchaudio(Cell):
    def __init__(self) -> None:
        super().__init__()
        units = self.units
        self.x2g, self.p2g = (nn.Linear(n, 4 * units, bias=False) for n in (INPUTS, units))
        self.g_norm, self.c_norm = nn.LayerNorm(4 * units, eps=1e-3), nn.LayerNorm(units, eps=1e-3)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        i, f, g, o = self.g_norm(self.x2g(x) + self.p2g(h)).chunk(4, 1)
        c = self.c_norm(i.sigmoid() * g.tanh() + f.sigmoid() * c)
        return [o.sigmoid() * c.tanh(), c]


class IcefallLSTM(Cell):
    def __init__(self) -> None:
        super().__init__()
        units = self.units
        self.weight_ih, self.weight_hh = parameter(4 * units, INPUTS), parameter(4 * units, units)
        self.bias_ih, self.bias_hh = parameter(4 * units), parameter(4 * units)
        for name in ("i", "f", "cx", "cy", "o"):
            self.add_module(f"layernorm_{name}", nn.LayerNorm(units))

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        z = functional.linear(x, self.weight_ih, self.bias_ih) + functional.linear(h, self.weight_hh, self.bias_hh)
        i, f, g, o = z.chunk(4, 1)
        new = self.layernorm_i(i).sigmoid() * self.layernorm_cx(g).tanh()
        c = self.layernorm_cy(self.layernorm_f(f).sigmoid() * c + new)
        return [self.layernorm_o(o).sigmoid() * c.tanh(), c]


class LstmsPth(Cell):
    class Norm(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.alpha, self.beta = parameter(1, features), parameter(1, features)

        def forward(self, x: Tensor) -> Tensor:
            x = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True) + 1e-6)
            return self.alpha * x + self.beta

    def __init__(self, *, preactivation: bool = True) -> None:
        super().__init__()
        units = self.units
        self.i2h, self.h2h = nn.Linear(INPUTS, 4 * units), nn.Linear(units, 4 * units)
        self.ln_cell = self.Norm(units)
        self.preactivation = preactivation
        if preactivation:
            self.ln_i2h, self.ln_h2h = self.Norm(4 * units), self.Norm(4 * units)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        a, b = self.i2h(x), self.h2h(h)
        if self.preactivation:
            a, b = self.ln_i2h(a), self.ln_h2h(b)
        i, f, o, g = (a + b).chunk(4, 1)
        c = self.ln_cell(f.sigmoid() * c + i.sigmoid() * g.tanh())
        return [o.sigmoid() * c.tanh(), c]


class DIEngine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = (INPUTS, UNITS, UNITS)
        self.wx = nn.ParameterList(parameter(size, 4 * UNITS) for size in sizes[:2])
        self.wh = nn.ParameterList(parameter(UNITS, 4 * UNITS) for _ in range(2))
        self.bias = parameter(2, 4 * UNITS)
        self.norm = nn.ModuleList(nn.LayerNorm(4 * UNITS) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in range(2):
            h, c, outputs = x.new_zeros(len(x), UNITS), x.new_zeros(len(x), UNITS), []
            for number in range(x.shape[1]):
                z = self.norm[2 * layer](x[:, number] @ self.wx[layer]) + self.norm[2 * layer + 1](h @ self.wh[layer])
                i, f, o, u = (z + self.bias[layer]).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * u.tanh()
                h = o.sigmoid() * c.tanh()
                outputs.append(h)
            x = torch.stack(outputs, dim=1)
        return x
