"""Cells of RETURNN and Sockeye, written with torch alone; see `pytorch_cells`."""

from __future__ import annotations

from pytorch_cells import INPUTS, UNITS, Cell, parameter
from torch import Tensor
from torch.nn import functional


class ReturnnLSTM(Cell):
    """RETURNN's LSTM, and its ZoneoutLSTM in another order of the gates, with zoneout of both states."""

    def __init__(self, order: str = "ifco", cell: float = 0.0, output: float = 0.0, forget_bias: float = 0.0) -> None:
        super().__init__()
        self.ff_weight, self.rec_weight = parameter(4 * UNITS, INPUTS), parameter(4 * UNITS, UNITS)
        self.bias = parameter(4 * UNITS)
        self.order, self.zoneout, self.forget_bias = order, (output, cell), forget_bias

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        gates = (x @ self.ff_weight.T + self.bias + h @ self.rec_weight.T).chunk(4, 1)
        i, f, g, o = (gates[self.order.index(letter)] for letter in "ifco")
        new_c = (f + self.forget_bias).sigmoid() * c + i.sigmoid() * g.tanh()
        new = (o.sigmoid() * new_c.tanh(), new_c)
        return [(1 - p) * now + p * old for p, now, old in zip(self.zoneout, new, (h, c), strict=True)]


class ReturnnNormed(Cell):
    """RETURNN's LayerNormVariantsLSTMCell, with the names of its variables: all norms but those of the gates."""

    def __init__(self, *, raw_output: bool = False) -> None:
        super().__init__()
        self.W_ff, self.W_re = parameter(INPUTS, 4 * UNITS), parameter(UNITS, 4 * UNITS)
        for name, features in (("input_below", 4 * UNITS), ("state_below", 4 * UNITS), ("new_c", UNITS)):
            self.register_parameter(f"gamma_{name}", parameter(features))
            if name != "state_below":
                self.register_parameter(f"beta_{name}", parameter(features))
        self.raw_output = raw_output

    def norm(self, name: str, x: Tensor) -> Tensor:
        beta = getattr(self, f"beta_{name}", None)
        return functional.layer_norm(x, x.shape[1:], getattr(self, f"gamma_{name}"), beta, 1e-12)

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        i, j, f, o = (self.norm("input_below", x @ self.W_ff) + self.norm("state_below", h @ self.W_re)).chunk(4, 1)
        raw = c * f.sigmoid() + i.sigmoid() * j.tanh()
        c = self.norm("new_c", raw)
        return [o.sigmoid() * (raw if self.raw_output else c).tanh(), c]


class Sockeye(Cell):
    """Sockeye's cells with layer normalisation; `late` as from 2018 on, with the biases inside the norms."""

    def __init__(self, gates: int, *, late: bool = False) -> None:
        super().__init__()
        self.states, self.gates, self.late = (2 if gates == 4 else 1), gates, late
        width = gates * UNITS
        for name, shape in (("i2h", (width, INPUTS)), ("h2h", (width, UNITS))):
            self.register_parameter(f"{name}_weight", parameter(*shape))
            self.register_parameter(f"{name}_bias", parameter(width))
        self.add_norms()

    def add_norms(self) -> None:
        width = self.gates * UNITS
        for name, features in (("i2h", width), ("h2h", width), *((("c", UNITS),) if self.gates == 4 else ())):
            for role in ("scale", "shift"):
                self.register_parameter(f"{name}_{role}", parameter(features))

    def norm(self, name: str, x: Tensor) -> Tensor:
        scale, shift = getattr(self, f"{name}_scale"), getattr(self, f"{name}_shift")
        return functional.layer_norm(x, x.shape[1:], scale, shift, 1e-6)

    def product(self, name: str, x: Tensor) -> Tensor:
        x, bias = x @ getattr(self, f"{name}_weight").T, getattr(self, f"{name}_bias")
        return self.norm(name, x + bias) if self.late else self.norm(name, x) + bias

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, a, b = states[0], self.product("i2h", x).chunk(self.gates, 1), self.product("h2h", states[0])
        b = b.chunk(self.gates, 1)
        if self.gates == 3:
            reset, update = (a[0] + b[0]).sigmoid(), (a[1] + b[1]).sigmoid()
            return [(1 - update) * (a[2] + reset * b[2]).tanh() + update * h]
        i, f, g, o = (one + other for one, other in zip(a, b, strict=True))
        c = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        return [o.sigmoid() * self.norm("c", c).tanh(), c]


class SockeyePerGate(Sockeye):
    """Sockeye's cells with a norm for each gate: the scale is what is called shift, and the other way round."""

    def add_norms(self) -> None:
        for name in "ifcos" if self.gates == 4 else "rzo":
            for role in ("scale", "shift"):
                self.register_parameter(f"{name}_{role}", parameter(UNITS))

    def norm(self, name: str, x: Tensor) -> Tensor:
        scale, shift = getattr(self, f"{name}_shift"), getattr(self, f"{name}_scale")
        return functional.layer_norm(x, x.shape[1:], scale, shift, 1e-6)

    def product(self, name: str, x: Tensor) -> Tensor:
        return x @ getattr(self, f"{name}_weight").T + getattr(self, f"{name}_bias")

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, a, b = states[0], self.product("i2h", x).chunk(self.gates, 1), self.product("h2h", states[0])
        b = b.chunk(self.gates, 1)
        if self.gates == 3:
            reset, update = self.norm("r", a[0] + b[0]).sigmoid(), self.norm("z", a[1] + b[1]).sigmoid()
            return [(1 - update) * self.norm("o", a[2] + reset * b[2]).tanh() + update * h]
        i, f, g, o = (self.norm(name, one + other) for name, one, other in zip("ifco", a, b, strict=True))
        c = f.sigmoid() * states[1] + i.sigmoid() * g.tanh()
        return [o.sigmoid() * self.norm("s", c).tanh(), c]
