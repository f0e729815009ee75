"""Sections A and B: batch statistics at inference, other cells with batch norms, norms over whole sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from catalogue.entry import (
    GRU,
    IN,
    LSTM,
    ROWS,
    B,
    Entry,
    H,
    Weights,
    at,
    batch,
    frozen,
    in_torch,
    layer,
    per_step,
    quarters,
    sig,
)

Result = tuple[Any, ...]
KERNELS = {"W_x": (IN, 4 * H), "W_h": (H, 4 * H)}
GRU_KERNELS = {"W_x": (IN, 3 * H), "W_h": (H, 3 * H)}


def of_batch(u: Any, epsilon: float) -> Any:
    """Batch normalisation with the moments of the batch at hand."""
    return F.batch_norm(torch.from_numpy(u), None, None, training=True, eps=epsilon).numpy()


def of_batch_outside(u: Any, n: Weights, epsilon: float) -> Any:
    return n.gamma * (u - u.mean(0)) / (u.std(0) + epsilon) + n.beta


def gru_per_step(w: Weights, t: int, x: Any, h: Any) -> Result:
    names = ("bn_gx", "bn_gh", "bn_cx", "bn_ch", "bn_c")
    gx, gh, cx, ch, both = (at(getattr(w, name), t) for name in names)
    r, u = quarters(sig(frozen(x @ w.W_g, gx) + frozen(h @ w.R_g, gh) + w.b + 1))
    h = u * h + (1 - u) * np.tanh(frozen(frozen(x @ w.W_c, cx) + r * frozen(h @ w.R_c, ch), both))
    return h, h


def contrib_inside(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, j, f, o = quarters(frozen(x @ w.W_x, w.xh, 1e-3) + frozen(h @ w.W_h, w.hh, 1e-3) + w.bias)
    c = c * sig(f) + sig(i) * np.tanh(j)
    h = np.tanh(frozen(c, w.c_norm, 1e-3)) * sig(o)
    return h, c, h


def scale_only(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    pre = of_batch(x @ w.W_x, 1e-3) * w.bn_x.gamma + of_batch(h @ w.W_h, 1e-3) * w.bn_h.gamma
    i, j, f, o = quarters(pre)
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = sig(o) * np.tanh(of_batch(c, 1e-3) * w.bn_c.gamma)
    return h, c, h


def multiplicative(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    wx, rh = of_batch_outside(x @ w.W_x, w.bn_x, 1e-6), of_batch_outside(h @ w.W_h, w.bn_h, 1e-6)
    f, i, o, g = quarters(w.MI_alpha * rh * wx + w.MI_beta_h * rh + w.MI_beta_x * wx + w.b)
    c = of_batch_outside(sig(f + w.forget_bias) * c + sig(i) * np.tanh(g), w.bn_c, 1e-6)
    h = sig(o) * np.tanh(c)
    return h, c, h


def batch_named_layer_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    px, ph = of_batch_outside(x @ w.W_x, w.bn_x, 1e-8), of_batch_outside(h @ w.W_h, w.bn_h, 1e-8)
    z = sig(px[:, :H] + ph[:, :H] + w.forget_bias)
    r = sig(px[:, H : 2 * H] + ph[:, H : 2 * H])
    h = z * h + (1 - z) * np.tanh(px[:, 2 * H :] + r * ph[:, 2 * H :])
    return h, h


def qiita(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    def norm(u: Any) -> Any:
        mean = u.sum(0) / B
        return (u - mean) / np.sqrt(((u - mean) ** 2).sum(0) / B + 1e-10)

    i, f, o, g = quarters(w.bn_x.gamma * norm(x @ w.W_x) + w.bn_h.gamma * norm(h @ w.W_h) + w.b)
    c = w.bn_c.gamma * norm(sig(f + w.forget_bias) * c + sig(i) * np.tanh(g)) + w.bn_c.beta
    h = sig(o) * np.tanh(c)
    return h, c, h


def input_projection(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    mean, variance = w.bn.mean[0], w.bn.variance[0]  # one scalar for all features
    pre = w.bn.gamma * (x @ w.W_x - mean) / np.sqrt(variance + 1e-3) + w.bn.beta + h @ w.W_h + w.b_h
    j, i, f, o = quarters(pre)
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = np.tanh(c) * sig(o)
    return h, c, h


def input_projection_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    r, u = quarters(sig(frozen(x @ w.W_g, w.bn_g, 1e-3) + h @ w.R_g + w.b_g))
    candidate = np.tanh(frozen(x @ w.W_c, w.bn_c, 1e-3) + (r * h) @ w.R_c + w.b_c)
    h = u * h + (1 - u) * candidate
    return h, h


def reset_only(w: Weights, t: int, x: Any, h: Any) -> Result:
    r = sig(frozen(x @ w.W_r + h @ w.R_r, at(w.bn_r, t)))
    u = sig(x @ w.W_u + h @ w.R_u)
    h = u * h + (1 - u) * np.tanh(x @ w.W_c + (r * h) @ w.R_c)
    return h, h


def norms_of_norms(w: Weights, t: int, x: Any, h: Any) -> Result:
    u, r = quarters(sig(frozen(x @ w.W_g, w.bn_x, 1e-3) + frozen(h @ w.R_g, w.bn_s, 1e-3) + w.b))
    inner = r * frozen(h @ w.R_c, w.bn_is, 1e-3) + frozen(x @ w.W_c, w.bn_ix, 1e-3) + w.b_c
    candidate = frozen(inner, w.bn_c, 1e-3)
    h = u * h + (1 - u) * candidate / (1 + abs(candidate))
    return h, h


def tiramisu(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    z = x @ w.W_x + h @ w.W_h + w.b
    z = w.bn.gamma * (z - z.mean()) / np.sqrt(z.var() + 1e-7) + w.bn.beta
    i, f, g, o = quarters(z)
    c = sig(f) * c + sig(i) * np.tanh(g)
    h = sig(o) * np.tanh(c)
    return h, c, h


def sonnet_default(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, j, f, o = quarters(of_batch(h @ w.W_h, 1e-3) * w.bn_h.gamma + x @ w.W_x + w.b)
    c = sig(f + w.forget_bias) * c + sig(i) * np.tanh(j)
    h = sig(o) * np.tanh(c)
    return h, h, c


def gates_of_input(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    names = ("xi", "xf", "xc", "xo")
    px = [frozen(x @ kernel, getattr(w, name)) for kernel, name in zip(quarters(w.W_x), names, strict=True)]
    i, f, g, o = (p + r for p, r in zip(px, quarters(h @ w.W_h), strict=True))
    c = sig(f) * c + sig(i) * np.tanh(g)
    h = sig(o) * np.tanh(c)
    return h, c, h


def mappo(w: Weights, t: int, x: Any, m: Any, h: Any) -> Result:
    cell = torch.nn.GRUCell(IN, H, dtype=torch.float64)
    values = (w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh)
    with torch.no_grad():
        for parameter, value in zip(cell.parameters(), values, strict=True):
            parameter.copy_(value)
        h = cell(x, h * m)
        return F.layer_norm(h, (H,), w.norm.gamma, w.norm.beta, 1e-5), h


def laurent(w: Weights, t: int, x: Any, h: Any) -> Result:
    frames = (w.sequence @ w.W_x).reshape(-1, H)
    u = (x @ w.W_x - frames.mean(0)) / np.sqrt(frames.var(0) + 1e-5)
    h = np.tanh(u * w.bn.gamma + w.bn.beta + h @ w.W_h)
    return h, h


def deep_speech(w: Weights, t: int, x: Any, h: Any) -> Result:
    x = F.batch_norm(x, w.bn.mean, w.bn.variance, w.bn.gamma, w.bn.beta)
    h = torch.relu(x @ w.W_x + h @ w.W_h)
    return h, h


def conv_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    """Channels last; PyTorch convolves channels first."""

    def conv(value: Any, kernel: Any) -> Any:
        moved, kernel = value.permute(0, 2, 1), kernel.permute(2, 1, 0)
        return F.conv1d(moved, kernel, padding=1).permute(0, 2, 1)

    def norm(value: Any, n: Weights) -> Any:
        row = min(t, ROWS - 1)
        return (value - n.mean[row]) / (n.variance[row] + 1e-5).sqrt() * n.gamma + n.beta

    r, u = torch.sigmoid(norm(conv(x, w.W_g), w.bn_x) + norm(conv(h, w.R_g), w.bn_h)).chunk(2, -1)
    h = u * h + (1 - u) * torch.tanh(norm(conv(x, w.W_c), w.bn_cx) + conv(r * h, w.R_c))
    return h, h


def conv_gru_per_position(w: Weights, t: int, x: Any, h: Any) -> Result:
    """The positions are features of the norm: each has a mean and a variance, and shares gamma and beta."""

    def conv(value: Any, kernel: Any) -> Any:
        return F.conv1d(value.permute(0, 2, 1), kernel.permute(2, 1, 0), padding=1).permute(0, 2, 1)

    def norm(value: Any, n: Weights) -> Any:
        mean, variance = n.mean.flatten(), n.variance.flatten()
        gamma, beta = n.gamma.repeat(LENGTH), n.beta.repeat(LENGTH)
        return F.batch_norm(value.flatten(1), mean, variance, gamma, beta, eps=1e-3).reshape(value.shape)

    r, u = torch.sigmoid(norm(conv(x, w.W_g), w.bn_g) + conv(h, w.R_g) + w.b_g).chunk(2, -1)
    h = u * h + (1 - u) * torch.tanh(norm(conv(x, w.W_c), w.bn_c) + conv(r * h, w.R_c) + w.b_c)
    return h, h


def equal_statistics(weights: dict[str, Any]) -> None:
    for name in ("bn.mean", "bn.variance"):
        weights[name][...] = weights[name][0]


LENGTH, CHANNELS = 7, 2
SPACE = {"x": (LENGTH, IN)}

ENTRIES = (
    Entry(
        "A7 GRU, one variable per step",
        """
cell bngru(x; h):
    r, u = split(bn_gx(x @ W_g) + bn_gh(h @ R_g) + b, 2)
    u = sigmoid(u + 1)
    n = tanh(bn_c(bn_cx(x @ W_c) + sigmoid(r + 1) * bn_ch(h @ R_c)))
    h = u * h + (1 - u) * n
""",
        gru_per_step,
        GRU,
        {"W_g": (IN, 2 * H), "R_g": (H, 2 * H), "b": (2 * H,), "W_c": (IN, H), "R_c": (H, H)},
        {
            "bn_gx": per_step(2 * H, beta=False, past_end="error"),
            "bn_gh": per_step(2 * H, beta=False, past_end="error"),
            "bn_cx": per_step(H, past_end="error"),
            "bn_ch": per_step(H, past_end="error"),
            "bn_c": per_step(H, past_end="error"),
        },
        time=ROWS,
    ),
    Entry(
        "A9 contrib batch_norm inside",
        """
cell bnlstm(x; c, h):
    i, j, f, o = split(xh(x @ W_x) + hh(h @ W_h) + bias, 4)
    c = c * sigmoid(f) + sigmoid(i) * tanh(j)
    h = tanh(c_norm(c)) * sigmoid(o)
""",
        contrib_inside,
        LSTM,
        {**KERNELS, "bias": (4 * H,)},
        {"xh": batch(4 * H, 1e-3), "hh": batch(4 * H, 1e-3), "c_norm": batch(H, 1e-3)},
    ),
    Entry(
        "A11 scale only, statistics of the batch",
        """
cell bnlstm(x; c, h):
    i, j, f, o = split(bn_x(x @ W_x) + bn_h(h @ W_h), 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(bn_c(c))
""",
        scale_only,
        LSTM,
        KERNELS,
        {
            "bn_x": batch(4 * H, 1e-3, beta=False, source="batch"),
            "bn_h": batch(4 * H, 1e-3, beta=False, source="batch"),
            "bn_c": batch(H, 1e-3, beta=False, source="batch"),
        },
        {"forget_bias": 0.7},
    ),
    Entry(
        "A11 batch norm named layer norm, multiplicative integration",
        """
cell lstm_ln(x; c, h):
    p = bn_x(x @ W_x)
    q = bn_h(h @ W_h)
    f, i, o, g = split(MI_alpha * q * p + MI_beta_h * q + MI_beta_x * p + b, 4)
    c = bn_c(sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(g))
    h = sigmoid(o) * tanh(c)
""",
        multiplicative,
        LSTM,
        {**KERNELS, "b": (4 * H,), "MI_alpha": (4 * H,), "MI_beta_h": (4 * H,), "MI_beta_x": (4 * H,)},
        {
            name: batch(size, 1e-6, source="batch", epsilon_placement="outside")
            for name, size in (("bn_x", 4 * H), ("bn_h", 4 * H), ("bn_c", H))
        },
        {"forget_bias": 0.7},
    ),
    Entry(
        "A11 GRU, batch norm named layer norm",
        """
cell gru_ln(x; h):
    p_z, p_r, p_n = split(bn_x(x @ W_x), 3)
    q_z, q_r, q_n = split(bn_h(h @ W_h), 3)
    z = sigmoid(p_z + q_z + forget_bias)
    h = z * h + (1 - z) * tanh(p_n + sigmoid(p_r + q_r) * q_n)
""",
        batch_named_layer_gru,
        GRU,
        GRU_KERNELS,
        {name: batch(3 * H, 1e-8, source="batch", epsilon_placement="outside") for name in ("bn_x", "bn_h")},
        {"forget_bias": 0.7},
    ),
    Entry(
        "A11 Qiita 2018-05-29",
        """
cell lstm(x; c, h):
    i, f, o, g = split(bn_x(x @ W_x) + bn_h(h @ W_h) + b, 4)
    c = bn_c(sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(g))
    h = sigmoid(o) * tanh(c)
""",
        qiita,
        LSTM,
        {**KERNELS, "b": (4 * H,)},
        {
            "bn_x": batch(4 * H, 1e-10, beta=False, source="batch"),
            "bn_h": batch(4 * H, 1e-10, beta=False, source="batch"),
            "bn_c": batch(H, 1e-10, source="batch"),
        },
        {"forget_bias": 0.7},
    ),
    Entry(
        "A12 input projection only, one scalar mean and variance",
        """
cell bn_lstm(x; c, h):
    j, i, f, o = split(bn(x @ W_x) + h @ W_h + b_h, 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = tanh(c) * sigmoid(o)
""",
        input_projection,
        LSTM,
        {**KERNELS, "b_h": (4 * H,)},
        {"bn": batch(4 * H, 1e-3, pooled=True)},
        {"forget_bias": 0.7},
        adjust=equal_statistics,
    ),
    Entry(
        "A12 GRU, input projection only",
        """
cell bn_gru(x; h):
    r, u = split(bn_g(x @ W_g) + h @ R_g + b_g, 2)
    u = sigmoid(u)
    n = tanh(bn_c(x @ W_c) + (sigmoid(r) * h) @ R_c + b_c)
    h = u * h + (1 - u) * n
""",
        input_projection_gru,
        GRU,
        {"W_g": (IN, 2 * H), "R_g": (H, 2 * H), "b_g": (2 * H,), "W_c": (IN, H), "R_c": (H, H), "b_c": (H,)},
        {"bn_g": batch(2 * H, 1e-3), "bn_c": batch(H, 1e-3)},
    ),
    Entry(
        "A12 ConvGRU, input convolution only, statistics per position",
        """
cell bn_conv_gru(x; h):
    r, u = split(bn_g(conv(x, W_g, padding="same")) + (conv(h, R_g, padding="same") + b_g), 2)
    u = sigmoid(u)
    n = tanh(bn_c(conv(x, W_c, padding="same")) + (conv(sigmoid(r) * h, R_c, padding="same") + b_c))
    h = u * h + (1 - u) * n
""",
        in_torch(conv_gru_per_position),
        {"h": (LENGTH, CHANNELS)},
        {
            "W_g": (3, IN, 2 * CHANNELS),
            "R_g": (3, CHANNELS, 2 * CHANNELS),
            "b_g": (2 * CHANNELS,),
            "W_c": (3, IN, CHANNELS),
            "R_c": (3, CHANNELS, CHANNELS),
            "b_c": (CHANNELS,),
        },
        {"bn_g": batch(2 * CHANNELS, 1e-3, positions=(LENGTH,)), "bn_c": batch(CHANNELS, 1e-3, positions=(LENGTH,))},
        inputs=dict(SPACE),
    ),
    Entry(
        "A13 reset gate only",
        """
cell bn_gru(x; h):
    r = sigmoid(bn_r(x @ W_r + h @ R_r))
    u = sigmoid(x @ W_u + h @ R_u)
    h = u * h + (1 - u) * tanh(x @ W_c + (r * h) @ R_c)
""",
        reset_only,
        GRU,
        {
            "W_r": (IN, H),
            "W_u": (IN, H),
            "W_c": (IN, H),
            "R_r": (H, H),
            "R_u": (H, H),
            "R_c": (H, H),
        },
        {"bn_r": per_step(H, beta=False)},
    ),
    Entry(
        "A13 norms of norms, softsign",
        """
cell bn_gru(x; h):
    u, r = split(bn_x(x @ W_g) + bn_s(h @ R_g) + b, 2)
    n = softsign(bn_c(sigmoid(r) * bn_is(h @ R_c) + bn_ix(x @ W_c) + b_c))
    u = sigmoid(u)
    h = u * h + (1 - u) * n
""",
        norms_of_norms,
        GRU,
        {"W_g": (IN, 2 * H), "R_g": (H, 2 * H), "b": (2 * H,), "W_c": (IN, H), "R_c": (H, H), "b_c": (H,)},
        {
            **{name: batch(2 * H, 1e-3) for name in ("bn_x", "bn_s")},
            **{name: batch(H, 1e-3) for name in ("bn_ix", "bn_is", "bn_c")},
        },
    ),
    Entry(
        "A14 TiramisuASR, one scalar from the batch",
        """
cell bn_lstm(x; c, h):
    i, f, g, o = split(bn(x @ W_x + h @ W_h + b), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
""",
        tiramisu,
        LSTM,
        {**KERNELS, "b": (4 * H,)},
        {"bn": batch(4 * H, 1e-7, source="batch", pooled=True)},
    ),
    Entry(
        "A17 Sonnet v1 default: recurrent term, statistics of the batch",
        """
cell sonnet_batch_norm_lstm(x; h, c):
    i, j, f, o = split(bn_h(h @ W_h) + x @ W_x + b, 4)
    c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(c)
""",
        sonnet_default,
        {"h": (H,), "c": (H,)},
        {**KERNELS, "b": (4 * H,)},
        {"bn_h": batch(4 * H, 1e-3, beta=False, source="batch", scope="per_step")},
        {"forget_bias": 0.7},
    ),
    Entry(
        "A20 Theano, one norm per gate of the input projection",
        """
cell lstm(x; c, h):
    p_i, p_f, p_c, p_o = split(x @ W_x, 4)
    i, f, g, o = split(concat(xi(p_i), xf(p_f), xc(p_c), xo(p_o)) + h @ W_h, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
""",
        gates_of_input,
        LSTM,
        KERNELS,
        {name: batch(H, scope="sequence") for name in ("xi", "xf", "xc", "xo")},
    ),
    Entry(
        "A2 BNConvGRU",
        """
cell bn_conv_gru(x; h):
    r, u = split(bn_x(conv(x, W_g, padding="same")) + bn_h(conv(h, R_g, padding="same")), 2)
    n = tanh(bn_cx(conv(x, W_c, padding="same")) + conv(sigmoid(r) * h, R_c, padding="same"))
    u = sigmoid(u)
    h = u * h + (1 - u) * n
""",
        in_torch(conv_gru),
        {"h": (LENGTH, CHANNELS)},
        {
            "W_g": (3, IN, 2 * CHANNELS),
            "R_g": (3, CHANNELS, 2 * CHANNELS),
            "W_c": (3, IN, CHANNELS),
            "R_c": (3, CHANNELS, CHANNELS),
        },
        {"bn_x": per_step(2 * CHANNELS), "bn_h": per_step(2 * CHANNELS), "bn_cx": per_step(CHANNELS)},
        inputs=dict(SPACE),
    ),
    Entry(
        "B MAPPO: mask, GRU, layer norm of the output only",
        """
cell gru(x, m; h) -> y:
    p_r, p_z, p_n = split(x @ transpose(weight_ih) + bias_ih, 3)
    q_r, q_z, q_n = split((h * m) @ transpose(weight_hh) + bias_hh, 3)
    z = sigmoid(p_z + q_z)
    n = tanh(p_n + sigmoid(p_r + q_r) * q_n)
    h = (1 - z) * n + z * (h * m)
    y = norm(h)
""",
        in_torch(mappo),
        GRU,
        {"weight_ih": (3 * H, IN), "weight_hh": (3 * H, H), "bias_ih": (3 * H,), "bias_hh": (3 * H,)},
        {"norm": layer(H)},
        inputs={"x": (IN,), "m": (1,)},
        binary=("m",),
    ),
    Entry(
        "B Laurent et al. 2015, statistics of the sequence at hand",
        """
cell rnn(x; h):
    h = tanh(bn(x @ W_x) + h @ W_h)
""",
        laurent,
        GRU,
        {"W_x": (IN, H), "W_h": (H, H)},
        {"bn": batch(H, source="batch", scope="sequence")},
    ),
    Entry(
        "B Deep Speech 2 code: norm of the layer's input",
        """
cell rnn(x; h):
    h = relu(bn(x) @ W_x + h @ W_h)
""",
        in_torch(deep_speech),
        GRU,
        {"W_x": (IN, H), "W_h": (H, H)},
        {"bn": batch(IN, scope="sequence")},
    ),
)
