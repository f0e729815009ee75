"""Section G: the plain cells of TensorFlow 1, PyTorch and Keras, which the normalised ones build on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from catalogue.entry import GRU, IN, LSTM, Entry, H, P, Weights, in_torch, layer, ln, quarters, sig

Result = tuple[Any, ...]
KERNELS = {"W_x": (IN, 4 * H), "W_h": (H, 4 * H), "b": (4 * H,)}


def basic_lstm(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, j, f, o = quarters(np.concatenate([x, h], 1) @ w.kernel + w.bias)
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = np.tanh(c) * sig(o)
    return h, c, h


def lstm_cell(w: Weights, t: int, x: Any, c: Any, m: Any) -> Result:
    i, j, f, o = quarters(np.concatenate([x, m], 1) @ w.kernel + w.bias)
    c = sig(f + w.forget_bias + w.w_f_diag * c) * c + sig(i + w.w_i_diag * c) * np.tanh(j)
    c = np.clip(c, -w.cell_clip, w.cell_clip)
    m = np.clip((sig(o + w.w_o_diag * c) * np.tanh(c)) @ w.projection, -w.proj_clip, w.proj_clip)
    return m, c, m


def tf_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    r, u = quarters(sig(np.concatenate([x, h], 1) @ w.gates_kernel + w.gates_bias))
    h = u * h + (1 - u) * np.tanh(np.concatenate([x, r * h], 1) @ w.candidate_kernel + w.candidate_bias)
    return h, h


def filled(cell: Any, *values: Any) -> Any:
    with torch.no_grad():
        for parameter, value in zip(cell.parameters(), values, strict=True):
            parameter.copy_(value)
    return cell


def torch_lstm(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    cell = filled(torch.nn.LSTMCell(IN, H, dtype=torch.float64), w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh)
    with torch.no_grad():
        h, c = cell(x, (h, c))
    return h, h, c


def torch_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    cell = filled(torch.nn.GRUCell(IN, H, dtype=torch.float64), w.weight_ih, w.weight_hh, w.bias_ih, w.bias_hh)
    with torch.no_grad():
        h = cell(x, h)
    return h, h


def conv_lstm(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    both = torch.cat([x, h], -1).permute(0, 3, 1, 2)
    z = F.conv2d(both, w.kernel.permute(3, 2, 0, 1), w.biases, padding=1).permute(0, 2, 3, 1)
    i, j, f, o = z.chunk(4, -1)
    c = c * torch.sigmoid(f + w.forget_bias) + torch.sigmoid(i) * torch.tanh(j)
    h = torch.tanh(c) * torch.sigmoid(o)
    return h, c, h


def keras_hard(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, f, g, o = quarters(x @ w.W_x + h @ w.W_h + w.b)
    i, f, o = (np.minimum(np.maximum(0.2 * u + 0.5, 0.0), 1.0) for u in (i, f, o))
    c = f * c + i * np.tanh(g)
    h = o * np.tanh(c)
    return h, h, c


def keras_hard_3(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, f, g, o = (x @ w.W_x + h @ w.W_h + w.b).chunk(4, 1)
    i, f, o = F.hardsigmoid(i), F.hardsigmoid(f), F.hardsigmoid(o)
    c = f * c + i * torch.tanh(g)
    h = o * torch.tanh(c)
    return h, h, c


def keras_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    """reset_after=False: gates z, r, h."""
    kernels, recurrents, biases = quarters(w.W_x), quarters(w.W_h), quarters(w.b[None])
    z = sig(x @ kernels[0] + h @ recurrents[0] + biases[0])
    r = sig(x @ kernels[1] + h @ recurrents[1] + biases[1])
    h = z * h + (1 - z) * np.tanh(x @ kernels[2] + (r * h) @ recurrents[2] + biases[2])
    return h, h


def sonnet_layer_norm(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, j, f, o = quarters(ln(np.concatenate([x, h], 1) @ w.w_gates, w.layer_norm) + w.b_gates)
    c = sig(f + w.forget_bias) * c + sig(i) * np.tanh(j)
    h = (sig(o) * np.tanh(c)) @ w.w_h_projection
    return h, h, c


TORCH = {"weight_hh": (4 * H, H), "bias_ih": (4 * H,), "bias_hh": (4 * H,)}
HARD = """
cell lstm(x; h, c):
    i, f, g, o = split(x @ W_x + h @ W_h + b, 4)
    c = hard_sigmoid(f, SLOPE) * c + hard_sigmoid(i, SLOPE) * tanh(g)
    h = hard_sigmoid(o, SLOPE) * tanh(c)
"""
ROWS, COLUMNS, FILTERS = 5, 4, 2

ENTRIES = (
    Entry(
        "G1 BasicLSTMCell",
        """
cell basic_lstm_cell(x; c, h):
    i, j, f, o = split(concat(x, h) @ kernel + bias, 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = tanh(c) * sigmoid(o)
""",
        basic_lstm,
        LSTM,
        {"kernel": (IN + H, 4 * H), "bias": (4 * H,)},
        constants={"forget_bias": 0.7},
    ),
    Entry(
        "G1 LSTMCell, peepholes, projection, both clips",
        """
cell lstm_cell(x; c, m) -> m:
    i, j, f, o = split(concat(x, m) @ kernel + bias, 4)
    f = sigmoid(f + forget_bias + w_f_diag * c)
    c = clip(f * c + sigmoid(i + w_i_diag * c) * tanh(j), -cell_clip, cell_clip)
    m = clip((sigmoid(o + w_o_diag * c) * tanh(c)) @ projection, -proj_clip, proj_clip)
""",
        lstm_cell,
        {"c": (H,), "m": (P,)},
        {
            "kernel": (IN + P, 4 * H),
            "bias": (4 * H,),
            "projection": (H, P),
            "w_f_diag": (H,),
            "w_i_diag": (H,),
            "w_o_diag": (H,),
        },
        constants={"forget_bias": 0.7, "cell_clip": 0.5, "proj_clip": 0.2},
    ),
    Entry(
        "G1 GRUCell",
        """
cell gru_cell(x; h):
    r, u = split(concat(x, h) @ gates_kernel + gates_bias, 2)
    n = tanh(concat(x, sigmoid(r) * h) @ candidate_kernel + candidate_bias)
    u = sigmoid(u)
    h = u * h + (1 - u) * n
""",
        tf_gru,
        GRU,
        {
            "gates_kernel": (IN + H, 2 * H),
            "gates_bias": (2 * H,),
            "candidate_kernel": (IN + H, H),
            "candidate_bias": (H,),
        },
    ),
    Entry(
        "G1 ConvLSTMCell",
        """
cell conv_lstm_cell(x; c, h):
    i, j, f, o = split(conv(concat(x, h), kernel, padding="same") + biases, 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = tanh(c) * sigmoid(o)
""",
        in_torch(conv_lstm),
        {"c": (ROWS, COLUMNS, FILTERS), "h": (ROWS, COLUMNS, FILTERS)},
        {"kernel": (3, 3, IN + FILTERS, 4 * FILTERS), "biases": (4 * FILTERS,)},
        constants={"forget_bias": 0.7},
        inputs={"x": (ROWS, COLUMNS, IN)},
    ),
    Entry(
        "G2 Keras LSTM, hard sigmoid of Keras 1 and 2",
        HARD.replace("SLOPE", "0.2"),
        keras_hard,
        {"h": (H,), "c": (H,)},
        KERNELS,
    ),
    Entry(
        "G2 Keras LSTM, hard sigmoid of Keras 3",
        HARD.replace("SLOPE", "0.16666666666666666"),
        in_torch(keras_hard_3),
        {"h": (H,), "c": (H,)},
        KERNELS,
    ),
    Entry(
        "G2 Keras GRU, reset before the product",
        """
cell gru(x; h):
    p = x @ W_x + b
    q = h @ W_h[:, 0:2*units]
    z = sigmoid(p[0:units] + q[0:units])
    r = sigmoid(p[units:2*units] + q[units:])
    h = z * h + (1 - z) * tanh(p[2*units:] + (r * h) @ W_h[:, 2*units:])
""",
        keras_gru,
        GRU,
        {"W_x": (IN, 3 * H), "W_h": (H, 3 * H), "b": (3 * H,)},
    ),
    Entry(
        "G3 torch.nn.LSTM",
        """
cell lstm(x; h, c):
    i, f, g, o = split(x @ transpose(weight_ih) + bias_ih + h @ transpose(weight_hh) + bias_hh, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
""",
        in_torch(torch_lstm),
        {"h": (H,), "c": (H,)},
        {"weight_ih": (4 * H, IN), **TORCH},
    ),
    Entry(
        "G3 torch.nn.GRU",
        """
cell gru(x; h):
    p_r, p_z, p_n = split(x @ transpose(weight_ih) + bias_ih, 3)
    q_r, q_z, q_n = split(h @ transpose(weight_hh) + bias_hh, 3)
    z = sigmoid(p_z + q_z)
    h = (1 - z) * tanh(p_n + sigmoid(p_r + q_r) * q_n) + z * h
""",
        in_torch(torch_gru),
        GRU,
        {"weight_ih": (3 * H, IN), "weight_hh": (3 * H, H), "bias_ih": (3 * H,), "bias_hh": (3 * H,)},
    ),
    Entry(
        "A17 Sonnet v1 LSTM with layer norm and projection",
        """
cell lstm(x; h, c):
    i, j, f, o = split(layer_norm(concat(x, h) @ w_gates) + b_gates, 4)
    c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
    h = (sigmoid(o) * tanh(c)) @ w_h_projection
""",
        sonnet_layer_norm,
        {"h": (P,), "c": (H,)},
        {"w_gates": (IN + P, 4 * H), "b_gates": (4 * H,), "w_h_projection": (H, P)},
        {"layer_norm": layer(4 * H)},
        {"forget_bias": 0.7},
    ),
)
