"""Section A: LSTMs with batch normalisation inside the recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F  # noqa: N812

from catalogue.entry import IN, LSTM, ROWS, Entry, H, P, Weights, at, batch, frozen, in_torch, per_step, quarters, sig

KERNELS = {"W_x": (IN, 4 * H), "W_h": (H, 4 * H)}
Result = tuple[Any, ...]


def cooijmans(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    g, f, i, o = quarters(frozen(h @ w.W_h, at(w.bn_a, t)) + frozen(x @ w.W_x, at(w.bn_b, t)))
    c = sig(f) * c + sig(i) * np.tanh(g)
    h = sig(o) * np.tanh(frozen(c, at(w.bn_c, t)))
    return h, c, h


def cooijmans_joined(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    g, f, i, o = quarters(frozen(np.hstack([h, x]) @ np.vstack([w.W_h, w.W_x]), at(w.bn, t)))
    c = frozen(sig(f) * c + sig(i) * np.tanh(g), at(w.bn_c, t))
    h = sig(o) * np.tanh(c)
    return h, c, h


def olavhn(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, j, f, o = quarters(frozen(x @ w.W_x, w.xh, 1e-3) + frozen(h @ w.W_h, w.hh, 1e-3) + w.bias)
    c = c * sig(f) + sig(i) * np.tanh(j)
    h = np.tanh(frozen(c, w.c_norm, 1e-3)) * sig(o)
    return h, c, h


def seqsleepnet(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    f, i, o, j = quarters(frozen(x @ w.W_x, at(w.xh, t)) + frozen(h @ w.W_h, at(w.hh, t)))
    c = c * sig(f) + sig(i) * np.tanh(j)
    h = np.tanh(frozen(c, at(w.c_norm, t))) * sig(o)
    return h, c, h


def seqsleepnet_no_recurrent(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    f, i, o, j = quarters(frozen(x @ w.W_x, at(w.xh, t)) + h @ w.W_h)
    c = c * sig(f) + sig(i) * np.tanh(j)
    h = np.tanh(frozen(c, at(w.c_norm, t))) * sig(o)
    return h, c, h


def seqsleepnet_bypass(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    def norm(u: Any, n: Weights) -> Any:
        return frozen(u, at(n, t), 1e-7) if t < ROWS else u

    f, i, o, j = quarters(norm(x @ w.W_x, w.xh) + norm(h @ w.W_h, w.hh))
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = np.tanh(norm(c, w.c_norm)) * sig(o)
    return h, c, h


def ponyai(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    def norm(u: Any, n: Weights) -> Any:
        return n.gamma[t] * (u - n.mean[t]) / np.sqrt(n.variance[t] + 1e-5) + n.beta[t]

    f, i, o, g = quarters(norm(x @ w.W_x, w.bn_x) + norm(h @ w.W_h, w.bn_h) + w.b)
    c = sig(f + 1) * c + sig(i) * np.tanh(g)
    h = sig(o) * np.tanh(norm(c, w.bn_c))
    return h, c, h


def ilampard(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    both = np.concatenate([h, x], 1)
    both = 0.1 * (both - w.bn_input.mean[t]) / np.sqrt(w.bn_input.variance[t] + 1e-5)
    f, i, o, g = np.split(np.tile(both, (4, 1)) @ w.W + w.b, 4, axis=0)
    c = sig(f) * c + sig(i) * np.tanh(g)
    c = 0.1 * (c - w.bn_c.mean[t]) / np.sqrt(w.bn_c.variance[t] + 1e-5)
    h = sig(o) * np.tanh(c)
    return h, c, h


def khalife(w: Weights, t: int, x: Any, c: Any, m: Any) -> Result:
    i, j, f, o = quarters(frozen(x @ w.W_x, w.xh, 1e-3) + frozen(m @ w.W_h, w.hh, 1e-3) + w.B)
    c = c * sig(f + w.forget_bias + w.w_f * c) + sig(i + w.w_i * c) * np.tanh(j)
    c = np.clip(c, -w.cell_clip, w.cell_clip)
    m = (sig(o + w.w_o * c) * np.tanh(frozen(c, w.cell, 1e-3))) @ w.W_p
    return m, c, m


def flagged(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, j, f, o = quarters(x @ w.W_x + frozen(h @ w.W_h, at(w.bn_h, t)) + w.b)
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = sig(o) * np.tanh(frozen(c, at(w.bn_c, t)))
    return h @ w.W_p, c, h


def variables_per_step(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    assert t < ROWS
    i, j, f, o = quarters(frozen(x @ w.W_x, at(w.bn_x, t)) + frozen(h @ w.W_h, at(w.bn_h, t)) + w.b)
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = sig(o) * np.tanh(frozen(c, at(w.bn_c, t)))
    return h, c, h


def per_gate_sum(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    gates = []
    for name, kernel, recurrent in zip("ijfo", quarters(w.W_x), quarters(w.W_h), strict=True):
        gates.append(frozen(x @ kernel + h @ recurrent, getattr(w, f"bn_{name}"), 1e-3))
    i, j, f, o = gates
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = sig(o) * np.tanh(frozen(c, w.new_h, 1e-3))
    return h, c, h


def jihunchoi(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    def norm(u: Any, n: Weights) -> Any:
        row = min(t, ROWS - 1)
        return F.batch_norm(u, n.mean[row], n.variance[row], n.gamma, n.beta, training=False, eps=1e-5)

    f, i, o, g = (norm(h @ w.weight_hh, w.bn_hh) + norm(x @ w.weight_ih, w.bn_ih) + w.bias).split(H, dim=1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * norm(c, w.bn_c).tanh()
    return h, c, h


def jihunchoi_fork(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    def norm(u: Any, n: Weights) -> Any:
        return F.batch_norm(u, n.mean[t], n.variance[t])

    pre = w.bn_ih.gamma * norm(x @ w.W_ih, w.bn_ih) + w.bn_hh.gamma * norm(h @ w.W_hh, w.bn_hh) + w.lbias
    i, f, g, o = pre.chunk(4, 1)
    c = w.bn_c.gamma * norm(f.sigmoid() * c + i.sigmoid() * g.tanh(), w.bn_c) + w.bn_c.beta
    h = o.sigmoid() * c.tanh()
    return h, c, h


def hellozgy(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    def norm(u: Any, n: Weights) -> Any:
        return F.batch_norm(u, n.mean, n.variance, getattr(n, "gamma", None), getattr(n, "beta", None))

    i, f, o, g = (norm(x @ w.W_x, w.bn_ih) + norm(h @ w.W_h, w.bn_hh) + w.bias).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * norm(c, w.bn_c).tanh()
    return h, c, h


def sonnet(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    h, c = np.clip(h, -w.hidden_clip, w.hidden_clip), np.clip(c, -w.cell_clip, w.cell_clip)
    i, j, f, o = quarters(frozen(h @ w.W_h, at(w.bn_h, t), 1e-3) + frozen(x @ w.W_x, at(w.bn_x, t), 1e-3) + w.b)
    f, i = f + w.w_f_diag * c, i + w.w_i_diag * c
    c = sig(f + w.forget_bias) * c + sig(i) * np.tanh(j)
    output = frozen(c, at(w.bn_c, t), 1e-3)
    h = sig(o) * np.tanh(output + output * w.w_o_diag)
    return h, h, c


def iassael(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    clone = t % ROWS
    x_norm, h_norm, c_norm = (at(n, clone) for n in (w.bn_x, w.bn_h, w.bn_c))
    i, f, o, g = quarters(frozen(x @ w.W_x + w.b_x, x_norm) + frozen(h @ w.W_h + w.b_h, h_norm))
    c = sig(f) * c + sig(i) * np.tanh(g)
    h = sig(o) * np.tanh(frozen(c, c_norm))
    return h, c, h


def musyoku(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    """Gates are interleaved: column 4 u + k of the kernel is gate k of unit u."""
    row = min(t, ROWS - 1)
    pre = w.bn_x.gamma * (x @ w.W_x - w.bn_x.mean[row]) / np.sqrt(w.bn_x.variance[row]) + w.b
    if t > 0:
        pre = pre + w.bn_h.gamma[1] * (h @ w.W_h - w.bn_h.mean[row]) / np.sqrt(w.bn_h.variance[row])
    g, i, f, o = pre[:, 0::4], pre[:, 1::4], pre[:, 2::4], pre[:, 3::4]
    c = sig(f) * c + sig(i) * np.tanh(g)
    cell = w.bn_c.gamma * (c - w.bn_c.mean[row]) / np.sqrt(w.bn_c.variance[row]) + w.bn_c.beta
    h = sig(o) * np.tanh(cell)
    return h, c, h


def constant_gamma(weights: dict[str, Any]) -> None:
    for name in ("bn_input.gamma", "bn_c.gamma"):
        weights[name][...] = 0.1


def skip_first_row(weights: dict[str, Any]) -> None:
    gamma = weights["bn_h.gamma"]
    gamma[1:] = gamma[1]
    gamma[0] = 0


BODY = """
    c = sigmoid(f) * c + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(c_norm(c))
"""

ENTRIES = (
    Entry(
        "A0 cooijmanstim",
        """
cell recurrent_batch_norm(x; c, h):
    g, f, i, o = split(bn_a(h @ W_h) + bn_b(x @ W_x), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(bn_c(c))
""",
        cooijmans,
        LSTM,
        KERNELS,
        {"bn_a": per_step(4 * H), "bn_b": per_step(4 * H, beta=False), "bn_c": per_step(H)},
        learned=("c", "h"),
    ),
    Entry(
        "A0 cooijmanstim, one norm on the sum, normalised cell carried",
        """
cell recurrent_batch_norm_joined(x; c, h):
    g, f, i, o = split(bn(h @ W_h + x @ W_x), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    c = bn_c(c)
    h = sigmoid(o) * tanh(c)
""",
        cooijmans_joined,
        LSTM,
        KERNELS,
        {"bn": per_step(4 * H), "bn_c": per_step(H)},
    ),
    Entry(
        "A1 OlavHN",
        "cell bnlstm(x; c, h):\n    i, j, f, o = split(xh(x @ W_x) + hh(h @ W_h) + bias, 4)" + BODY,
        olavhn,
        LSTM,
        {**KERNELS, "bias": (4 * H,)},
        {"xh": batch(4 * H, 1e-3), "hh": batch(4 * H, 1e-3), "c_norm": batch(H, 1e-3)},
    ),
    Entry(
        "A2 SeqSleepNet",
        "cell bnlstm(x; c, h):\n    f, i, o, j = split(xh(x @ W_x) + hh(h @ W_h), 4)" + BODY,
        seqsleepnet,
        LSTM,
        KERNELS,
        {"xh": per_step(4 * H, beta=False), "hh": per_step(4 * H), "c_norm": per_step(H)},
    ),
    Entry(
        "A2 recurrent norm commented out",
        "cell bnlstm(x; c, h):\n    f, i, o, j = split(xh(x @ W_x) + h @ W_h, 4)" + BODY,
        seqsleepnet_no_recurrent,
        LSTM,
        KERNELS,
        {"xh": per_step(4 * H, beta=False), "c_norm": per_step(H)},
    ),
    Entry(
        "A2 bypassed past the end",
        """
cell bnlstm(x; c, h):
    f, i, o, j = split(xh(x @ W_x) + hh(h @ W_h), 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = tanh(c_norm(c)) * sigmoid(o)
""",
        seqsleepnet_bypass,
        LSTM,
        KERNELS,
        {
            "xh": per_step(4 * H, 1e-7, beta=False, past_end="bypass"),
            "hh": per_step(4 * H, 1e-7, past_end="bypass"),
            "c_norm": per_step(H, 1e-7, past_end="bypass"),
        },
        {"forget_bias": 0.7},
    ),
    Entry(
        "A3 liangsun-ponyai",
        """
cell bn_lstm(x; c, h):
    f, i, o, g = split(bn_x(x @ W_x) + bn_h(h @ W_h) + b, 4)
    c = sigmoid(f + 1) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(bn_c(c))
""",
        ponyai,
        LSTM,
        {**KERNELS, "b": (4 * H,)},
        {
            name: per_step(size, affine_per_step=True, past_end="error")
            for name, size in (("bn_x", 4 * H), ("bn_h", 4 * H), ("bn_c", H))
        },
        time=ROWS,
    ),
    Entry(
        "A4 iLampard",
        """
cell batch_norm_lstm(x; c, h):
    a = bn_input(concat(h, x)) @ W + b
    c = bn_c(sigmoid(a) * c + sigmoid(a) * tanh(a))
    h = sigmoid(a) * tanh(c)
""",
        ilampard,
        LSTM,
        {"W": (H + IN, H), "b": (H,)},
        {
            "bn_input": per_step(H + IN, beta=False, past_end="error"),
            "bn_c": per_step(H, beta=False, past_end="error"),
        },
        adjust=constant_gamma,
        time=ROWS,
    ),
    Entry(
        "A5 Khalife, peepholes, projection, clipping",
        """
cell bn_lstm(x; c, m) -> m:
    i, j, f, o = split(xh(x @ W_x) + hh(m @ W_h) + B, 4)
    c = c * sigmoid(f + forget_bias + w_f * c) + sigmoid(i + w_i * c) * tanh(j)
    c = clip(c, -cell_clip, cell_clip)
    m = (sigmoid(o + w_o * c) * tanh(cell(c))) @ W_p
""",
        khalife,
        {"c": (H,), "m": (P,)},
        {"W_x": (IN, 4 * H), "W_h": (P, 4 * H), "B": (4 * H,), "w_f": (H,), "w_i": (H,), "w_o": (H,), "W_p": (H, P)},
        {"xh": batch(4 * H, 1e-3), "hh": batch(4 * H, 1e-3), "cell": batch(H, 1e-3)},
        {"forget_bias": 0.7, "cell_clip": 0.6},
    ),
    Entry(
        "A6 flags, recurrent value before the projection",
        """
cell bn_lstm(x; c, h) -> y:
    i, j, f, o = split(x @ W_x + bn_h(h @ W_h) + b, 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(bn_c(c))
    y = h @ W_p
""",
        flagged,
        LSTM,
        {**KERNELS, "b": (4 * H,), "W_p": (H, P)},
        {"bn_h": per_step(4 * H), "bn_c": per_step(H)},
        {"forget_bias": 0.7},
    ),
    Entry(
        "A7 one variable per step",
        """
cell bnlstm(x; c, h):
    i, j, f, o = split(bn_x(x @ W_x) + bn_h(h @ W_h) + b, 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(bn_c(c))
""",
        variables_per_step,
        LSTM,
        {**KERNELS, "b": (4 * H,)},
        {
            "bn_x": per_step(4 * H, beta=False, past_end="error"),
            "bn_h": per_step(4 * H, beta=False, past_end="error"),
            "bn_c": per_step(H, past_end="error"),
        },
        {"forget_bias": 0.7},
        time=ROWS,
    ),
    Entry(
        "A8 per gate, on the sum",
        """
cell bnlstm(x; c, h):
    i, j, f, o = split(x @ W_x + h @ W_h, 4)
    c = c * sigmoid(bn_f(f) + forget_bias) + sigmoid(bn_i(i)) * tanh(bn_j(j))
    h = sigmoid(bn_o(o)) * tanh(new_h(c))
""",
        per_gate_sum,
        LSTM,
        KERNELS,
        {name: batch(H, 1e-3) for name in ("bn_i", "bn_j", "bn_f", "bn_o", "new_h")},
        {"forget_bias": 0.7},
    ),
    Entry(
        "A15 jihunchoi",
        """
cell bnlstm(x; c, h):
    f, i, o, g = split(bn_hh(h @ weight_hh) + bn_ih(x @ weight_ih) + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(bn_c(c))
""",
        in_torch(jihunchoi),
        LSTM,
        {"weight_ih": (IN, 4 * H), "weight_hh": (H, 4 * H), "bias": (4 * H,)},
        {"bn_ih": per_step(4 * H), "bn_hh": per_step(4 * H), "bn_c": per_step(H)},
    ),
    Entry(
        "A15 fork with a list of norms, normalised cell carried",
        """
cell bnlstm(x; c, h):
    i, f, g, o = split(bn_ih(x @ W_ih) + bn_hh(h @ W_hh) + lbias, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    c = bn_c(c)
    h = sigmoid(o) * tanh(c)
""",
        in_torch(jihunchoi_fork),
        LSTM,
        {"W_ih": (IN, 4 * H), "W_hh": (H, 4 * H), "lbias": (4 * H,)},
        {
            "bn_ih": per_step(4 * H, beta=False, past_end="error"),
            "bn_hh": per_step(4 * H, beta=False, past_end="error"),
            "bn_c": per_step(H, past_end="error"),
        },
        time=ROWS,
    ),
    Entry(
        "A16 hellozgy",
        """
cell bnlstm(x; c, h):
    i, f, o, g = split(bn_ih(x @ W_x) + bn_hh(h @ W_h) + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(bn_c(c))
""",
        in_torch(hellozgy),
        LSTM,
        {**KERNELS, "bias": (4 * H,)},
        {
            "bn_ih": batch(4 * H, gamma=False, beta=False),
            "bn_hh": batch(4 * H, gamma=False, beta=False),
            "bn_c": batch(H),
        },
        learned=("c", "h"),
    ),
    Entry(
        "A17 Sonnet v1, indexed statistics, peepholes, clipped previous state",
        """
cell sonnet_batch_norm_lstm(x; h, c):
    h_prev = clip(h, -hidden_clip, hidden_clip)
    c_prev = clip(c, -cell_clip, cell_clip)
    i, j, f, o = split(bn_h(h_prev @ W_h) + bn_x(x @ W_x) + b, 4)
    f = f + w_f_diag * c_prev
    i = i + w_i_diag * c_prev
    c = sigmoid(f + forget_bias) * c_prev + sigmoid(i) * tanh(j)
    y = bn_c(c)
    h = sigmoid(o) * tanh(y + y * w_o_diag)
""",
        sonnet,
        {"h": (H,), "c": (H,)},
        {**KERNELS, "b": (4 * H,), "w_f_diag": (H,), "w_i_diag": (H,), "w_o_diag": (H,)},
        {
            "bn_h": per_step(4 * H, 1e-3, beta=False),
            "bn_x": per_step(4 * H, 1e-3, beta=False),
            "bn_c": per_step(H, 1e-3),
        },
        {"forget_bias": 0.7, "hidden_clip": 0.3, "cell_clip": 0.4},
    ),
    Entry(
        "A18 iassael, statistics used round and round",
        """
cell bnlstm(x; c, h):
    i, f, o, g = split(bn_x(x @ W_x + b_x) + bn_h(h @ W_h + b_h), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(bn_c(c))
""",
        iassael,
        LSTM,
        {**KERNELS, "b_x": (4 * H,), "b_h": (4 * H,)},
        {
            "bn_x": per_step(4 * H, past_end="modulo"),
            "bn_h": per_step(4 * H, past_end="modulo"),
            "bn_c": per_step(H, past_end="modulo"),
        },
    ),
    Entry(
        "A19 musyoku, interleaved gates, no recurrent term at the first step",
        """
cell recurrent_batch_norm(x; c, h):
    z = bn_x(x @ W_x) + b + bn_h(h @ W_h)
    g, i, f, o = split(reshape(z, shape=(-1, 4)), 4)
    c = sigmoid(reshape(f, shape=-1)) * c + sigmoid(reshape(i, shape=-1)) * tanh(reshape(g, shape=-1))
    h = sigmoid(reshape(o, shape=-1)) * tanh(bn_c(c))
""",
        musyoku,
        LSTM,
        {**KERNELS, "b": (4 * H,)},
        {
            "bn_x": per_step(4 * H, 0.0, beta=False),
            "bn_h": per_step(4 * H, 0.0, beta=False, affine_per_step=True),
            "bn_c": per_step(H, 0.0),
        },
        adjust=skip_first_row,
    ),
)
