"""Sections E and F: weights computed from other weights, and regularisers that change inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.utils import parametrizations

from catalogue.entry import GRU, IN, LSTM, Entry, H, Weights, in_torch, layer, ln, quarters, sig

Result = tuple[Any, ...]
KERNELS = {"W_x": (IN, 4 * H), "W_h": (H, 4 * H)}


def torch_weight_norm(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    cell = torch.nn.LSTMCell(IN, H, dtype=torch.float64)
    with torch.no_grad():
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            getattr(cell, name).copy_(getattr(w, name))
        parametrizations.weight_norm(cell, "weight_hh")
        cell.parametrizations.weight_hh.original0.copy_(w.g)
        cell.parametrizations.weight_hh.original1.copy_(w.v)
        h, c = cell(x, (h, c))
    return h, h, c


def contrib_weight_norm(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    def normed(v: Any, g: Any) -> Any:
        return np.stack([g[k] * column / np.linalg.norm(column) for k, column in enumerate(v.T)], 1)

    i, j, f, o = quarters(x @ normed(w.V_x, w.norm_0) + h @ normed(w.V_h, w.norm_1) + w.bias)
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = sig(o) * np.tanh(c)
    return h, c, h


def lingvo_weight_norm(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    wm = w.wm / np.sqrt((w.wm * w.wm).sum(0)) * (1 + w.wn_scale)
    j, i, f, o = quarters(np.concatenate([x, h], 1) @ wm + w.b)
    c = sig(f) * c + sig(i) * np.tanh(j)
    h = sig(o) * np.tanh(c)
    return h, c, h


def spectral_norm(w: Weights, t: int, x: Any, h: Any) -> Result:
    sigma = torch.dot(w.weight_u, torch.mv(w.weight_orig, w.weight_v))
    h = torch.tanh(torch.nn.functional.linear(x, w.weight_ih) + torch.nn.functional.linear(h, w.weight_orig / sigma))
    return h, h


def zoned(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    """The states are mixed with the old ones, the output is not."""
    i, g, f, o = quarters(ln(x @ w.W_x, w.n_x) + h @ w.W_h + w.b)
    fresh_c = sig(f + 1) * c + sig(i) * np.tanh(g)
    fresh_h = sig(o) * np.tanh(fresh_c)
    return fresh_h, 0.9 * fresh_c + 0.1 * c, 0.8 * fresh_h + 0.2 * h


def zoned_output(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, g, f, o = quarters(x @ w.W_x + h @ w.W_h + w.b)
    fresh_c = sig(f + 1) * c + sig(i) * np.tanh(g)
    fresh_h = sig(o) * np.tanh(fresh_c)
    c, h = fresh_c + w.p_c * (c - fresh_c), fresh_h + w.p_h * (h - fresh_h)
    return h, c, h


def cosine(w: Weights, t: int, x: Any, h: Any) -> Result:
    def similarity(value: Any, kernel: Any) -> Any:
        lengths = np.linalg.norm(value, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)[None, :]
        return value @ kernel / lengths

    h = np.tanh(w.gamma_x * similarity(x, w.W_x) + w.gamma_h * similarity(h, w.W_h) + w.b)
    return h, h


ENTRIES = (
    Entry(
        "E torch weight norm",
        """
cell lstm(x; h, c):
    weight_hh = g * v / sqrt(sum(square(v), axis=1, keepdims=True))
    i, f, n, o = split(x @ transpose(weight_ih) + bias_ih + h @ transpose(weight_hh) + bias_hh, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(n)
    h = sigmoid(o) * tanh(c)
""",
        in_torch(torch_weight_norm),
        {"h": (H,), "c": (H,)},
        {"weight_ih": (4 * H, IN), "g": (4 * H, 1), "v": (4 * H, H), "bias_ih": (4 * H,), "bias_hh": (4 * H,)},
    ),
    Entry(
        "E contrib WeightNormLSTMCell",
        """
cell lstm(x; c, h):
    W_x = norm_0 * V_x / sqrt(sum(square(V_x), axis=0))
    W_h = norm_1 * V_h / sqrt(sum(square(V_h), axis=0))
    i, j, f, o = split(x @ W_x + h @ W_h + bias, 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(c)
""",
        contrib_weight_norm,
        LSTM,
        {"V_x": (IN, 4 * H), "V_h": (H, 4 * H), "norm_0": (4 * H,), "norm_1": (4 * H,), "bias": (4 * H,)},
        constants={"forget_bias": 0.7},
    ),
    Entry(
        "E lingvo WeightNormalizedLSTMCellSimple",
        """
cell lstm(x; c, h):
    scaled = wm / sqrt(sum(square(wm), axis=0)) * (1 + wn_scale)
    j, i, f, o = split(concat(x, h) @ scaled + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(c)
""",
        lingvo_weight_norm,
        LSTM,
        {"wm": (IN + H, 4 * H), "wn_scale": (4 * H,), "b": (4 * H,)},
    ),
    Entry(
        "E torch spectral norm",
        """
cell rnn(x; h):
    sigma = sum((weight_u @ weight_orig) * weight_v)
    h = tanh(x @ transpose(weight_ih) + h @ transpose(weight_orig / sigma))
""",
        in_torch(spectral_norm),
        GRU,
        {"weight_ih": (H, IN), "weight_orig": (H, H), "weight_u": (H,), "weight_v": (H,)},
    ),
    Entry(
        "F zoneout, output not zoned",
        """
cell zoneout_lstm(x; c, h) -> y:
    i, g, f, o = split(n_x(x @ W_x) + h @ W_h + b, 4)
    fresh = sigmoid(f + 1) * c + sigmoid(i) * tanh(g)
    y = sigmoid(o) * tanh(fresh)
    c = (1 - p_c) * fresh + p_c * c
    h = (1 - p_h) * y + p_h * h
""",
        zoned,
        LSTM,
        {**KERNELS, "b": (4 * H,)},
        {"n_x": layer(4 * H)},
        {"p_c": 0.1, "p_h": 0.2},
    ),
    Entry(
        "F zoneout, output zoned",
        """
cell zoneout_lstm(x; c, h):
    i, g, f, o = split(x @ W_x + h @ W_h + b, 4)
    fresh = sigmoid(f + 1) * c + sigmoid(i) * tanh(g)
    h = (1 - p_h) * (sigmoid(o) * tanh(fresh)) + p_h * h
    c = (1 - p_c) * fresh + p_c * c
""",
        zoned_output,
        LSTM,
        {**KERNELS, "b": (4 * H,)},
        constants={"p_c": 0.1, "p_h": 0.2},
    ),
    Entry(
        "E cosine norm",
        """
cell cosine_rnn(x; h):
    u = x @ W_x / (sqrt(sum(square(x), keepdims=True)) * sqrt(sum(square(W_x), axis=0)))
    v = h @ W_h / (sqrt(sum(square(h), keepdims=True)) * sqrt(sum(square(W_h), axis=0)))
    h = tanh(gamma_x * u + gamma_h * v + b)
""",
        cosine,
        GRU,
        {"W_x": (IN, H), "W_h": (H, H), "gamma_x": (H,), "gamma_h": (H,), "b": (H,)},
        learned=("h",),  # a state of zeros has no direction
    ),
)
