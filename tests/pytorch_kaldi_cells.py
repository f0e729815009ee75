"""Recurrent layers of SpeechBrain and pytorch-kaldi, written with torch alone; see `pytorch_cells`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pytorch_cells import INPUTS, UNITS, Cell, parameter
from torch import Tensor, nn


class LiGRU(nn.Module):
    """SpeechBrain's LiGRU, and with `affine` its SLiGRU: both directions as one batch, of twice the size."""

    class Layer(Cell):
        states = 1

        def __init__(self, inputs: int, norm: str) -> None:
            super().__init__()
            self.w, self.u = (nn.Linear(n, 2 * self.units, bias=False) for n in (inputs, self.units))
            self.norm = nn.BatchNorm1d(2 * self.units) if norm == "batch" else nn.LayerNorm(2 * self.units)
            self.register_buffer("h_init", torch.zeros(1, self.units))
            self.register_buffer("drop_masks", torch.ones(16, self.units))
            self.register_buffer("drop_mask_te", torch.ones(1))

        def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
            (h,) = states
            a, z = (self.norm(self.w(x)) + self.recurrent(h)).chunk(2, 1)
            z = z.sigmoid()
            return [z * h + (1 - z) * a.relu()]

        def recurrent(self, h: Tensor) -> Tensor:
            return self.u(h)

    class StableLayer(Layer):
        """SLiGRU's: the recurrent term is normalised too, and the masks are not stored."""

        def __init__(self, inputs: int, norm: str, *, affine: bool) -> None:
            super().__init__(inputs, norm)
            del self.drop_masks
            self.layer_norm = nn.LayerNorm(2 * self.units, elementwise_affine=affine)

        def recurrent(self, h: Tensor) -> Tensor:
            return self.layer_norm(self.u(h))

    def __init__(self, norm: str, *, affine: bool | None = None) -> None:
        super().__init__()
        widths = (INPUTS, 2 * UNITS)
        if affine is None:
            self.rnn = nn.ModuleList(self.Layer(width, norm) for width in widths)
        else:
            self.rnn = nn.ModuleList(self.StableLayer(width, norm, affine=affine) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.rnn:
            ahead, back = layer(torch.cat([x, x.flip(1)])).chunk(2)
            x = torch.cat([ahead, back.flip(1)], dim=-1)
        return x


KALDI_GATES = {"lstm": ("fx", "ix", "ox", "cx"), "gru": ("h", "z", "r")}


KALDI_GATES |= {"ligru": ("h", "z"), "minimal": ("h", "z"), "rnn": ("h",)}


class Kaldi(nn.Module):
    """pytorch-kaldi's recurrent layers at test time, the mask the constant 1 - p."""

    class Norm(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.gamma, self.beta = parameter(features), parameter(features)

        def forward(self, x: Tensor) -> Tensor:
            return self.gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.beta

    def __init__(
        self,
        kind: str,
        *,
        batch: bool,
        layer: bool,
        layers: int = 1,
        bidirectional: bool = False,
        drop: float = 0.2,
        input_norms: bool = False,
        act: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.drop, self.act = drop, act or (torch.tanh if kind in ("lstm", "gru") else torch.relu)
        if input_norms:
            self.ln0, self.bn0 = self.Norm(INPUTS), nn.BatchNorm1d(INPUTS, momentum=0.05)
        self.kind, self.batch, self.layer, self.bidirectional = kind, batch, layer, bidirectional
        widths = [INPUTS] + [UNITS * (2 if bidirectional else 1)] * (layers - 1)
        for gate in KALDI_GATES[kind]:
            bias = not batch and not layer
            self.add_module(f"w{gate}", nn.ModuleList(nn.Linear(width, UNITS, bias=bias) for width in widths))
            recurrent = nn.ModuleList(nn.Linear(UNITS, UNITS, bias=False) for _ in widths)
            self.add_module(f"u{gate.replace('x', 'h')}", recurrent)
            self.add_module(f"bn_w{gate}", nn.ModuleList(nn.BatchNorm1d(UNITS) for _ in widths))
        self.ln = nn.ModuleList(self.Norm(UNITS) for _ in widths)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "ln0"):
            x = self.bn0(self.ln0(x).flatten(0, 1)).view(x.shape)
        for number in range(len(self.ln)):
            if not self.bidirectional:
                x = self.run(x, number)
                continue
            ahead, back = self.run(torch.cat([x, x.flip(1)]), number).chunk(2)
            x = torch.cat([ahead, back.flip(1)], dim=-1)
        return x

    def run(self, x: Tensor, number: int) -> Tensor:
        parts = {}
        for gate in KALDI_GATES[self.kind]:
            value = getattr(self, f"w{gate}")[number](x)
            if self.batch:
                value = getattr(self, f"bn_w{gate}")[number](value.flatten(0, 1)).view(value.shape)
            parts[gate] = value
        u = {gate: getattr(self, f"u{gate.replace('x', 'h')}")[number] for gate in parts}
        h = c = x.new_zeros(len(x), UNITS)
        outputs = []
        for step in range(x.shape[1]):
            p = {gate: value[:, step] for gate, value in parts.items()}
            if self.kind == "lstm":
                f, i, o = ((p[gate] + u[gate](h)).sigmoid() for gate in ("fx", "ix", "ox"))
                c = i * self.act(p["cx"] + u["cx"](h)) * (1 - self.drop) + f * c
                h = o * self.act(c)
            elif self.kind == "rnn":
                h = self.act(p["h"] + u["h"](h)) * (1 - self.drop)
            else:
                z = (p["z"] + u["z"](h)).sigmoid()
                if self.kind == "gru":
                    candidate = self.act(p["h"] + u["h"]((p["r"] + u["r"](h)).sigmoid() * h))
                else:
                    candidate = self.act(p["h"] + u["h"](z * h if self.kind == "minimal" else h))
                h = z * h + (1 - z) * candidate * (1 - self.drop)
            h = self.ln[number](h) if self.layer else h
            outputs.append(h)
        return torch.stack(outputs, dim=1)
