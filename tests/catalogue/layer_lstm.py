"""Section C: LSTMs with layer normalisation, from TensorFlow, Keras, Theano, MXNet and CUDA code."""

from __future__ import annotations

from typing import Any

import numpy as np

from catalogue.entry import GRU, IN, LSTM, Entry, H, P, Weights, gate_wise, layer, ln, part, quarters, sig

KERNELS = {"W_x": (IN, 4 * H), "W_h": (H, 4 * H)}
Result = tuple[Any, ...]


def contrib(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, j, f, o = quarters(np.concatenate([x, h], 1) @ w.kernel)
    g = np.tanh(ln(j, w.transform, 1e-12))
    c = c * sig(ln(f, w.forget, 1e-12) + w.forget_bias) + sig(ln(i, w.input, 1e-12)) * g
    c = ln(c, w.state, 1e-12)
    h = np.tanh(c) * sig(ln(o, w.output, 1e-12))
    return h, c, h


def contrib_peepholes(w: Weights, t: int, x: Any, c: Any, m: Any) -> Result:
    i, j, f, o = quarters(np.concatenate([x, m], 1) @ w.kernel)
    i, j = ln(i, w.input, 1e-12), ln(j, w.transform, 1e-12)
    f, o = ln(f, w.forget, 1e-12), ln(o, w.output, 1e-12)
    c = sig(f + w.forget_bias + w.w_f_diag * c) * c + sig(i + w.w_i_diag * c) * np.tanh(j)
    c = np.clip(ln(c, w.state, 1e-12), -w.cell_clip, w.cell_clip)
    m = (sig(o + w.w_o_diag * c) * np.tanh(c)) @ w.projection
    return m, c, m


def coupled(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    j, f, o = quarters(np.concatenate([x, h], 1) @ w.W)
    keep = sig(ln(f, w.forget, 1e-12) + w.forget_bias + w.W_F_diag * c)
    c = ln(keep * c + (1 - keep) * np.tanh(ln(j, w.transform, 1e-12)), w.state, 1e-12)
    h = sig(ln(o, w.output, 1e-12) + w.W_O_diag * c) * np.tanh(c)
    return h, c, h


def addons(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, f, g, o = quarters(ln(x @ w.W_x, w.kernel_norm, 1e-3) + ln(h @ w.W_h, w.recurrent_norm, 1e-3) + w.bias)
    c = ln(sig(f) * c + sig(i) * np.tanh(g), w.state_norm, 1e-3)
    h = sig(o) * np.tanh(c)
    return h, h, c


def addons_simple(w: Weights, t: int, x: Any, h: Any) -> Result:
    h = np.tanh(ln(x @ w.W_x + h @ w.W_h, w.layernorm, 1e-5) + w.bias)
    return h, h


def baselines(w: Weights, t: int, x: Any, m: Any, c: Any, h: Any) -> Result:
    c, h = c * (1 - m), h * (1 - m)
    i, f, o, u = quarters(ln(x @ w.wx, w.ln_x) + ln(h @ w.wh, w.ln_h) + w.b)
    c = sig(f) * c + sig(i) * np.tanh(u)
    h = sig(o) * np.tanh(ln(c, w.ln_c))
    return h, c, h


def sketch_rnn(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, j, f, o = gate_wise(x @ w.W_xh + h @ w.W_hh, w.ln_all, 1e-3)
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = np.tanh(ln(c, w.ln_c, 1e-3)) * sig(o)
    return h, h, c


def supercell(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, j, f, o = gate_wise(x @ w.W_xh + h @ w.W_hh_i + w.bias, w.ln, 1e-3)
    c = c * sig(f + w.forget_bias) + sig(i) * np.tanh(j)
    h = np.tanh(ln(c, w.ln_c, 1e-3)) * sig(o)
    return h, c, h


def kiros(w: Weights, t: int, x: Any, m: Any, c: Any, h: Any) -> Result:
    i, f, o, u = quarters(ln(x @ w.W + w.b, w.n1) + ln(h @ w.U, w.n2) + w.b)
    fresh = sig(f) * c + sig(i) * np.tanh(u)
    c = m * fresh + (1 - m) * c
    h = m * (sig(o) * np.tanh(ln(c, w.n3))) + (1 - m) * h
    return h, c, h


def kiros_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    r, u = quarters(sig(ln(x @ w.W + w.b, w.n1) + ln(h @ w.U, w.n3)))
    candidate = np.tanh(r * ln(h @ w.Ux, w.n4) + ln(x @ w.Wx + w.bx, w.n2))
    h = u * h + (1 - u) * candidate
    return h, h


def pbhatia(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, j, f, o = quarters(ln(x @ w.out_1, w.n1) + ln(h @ w.out_2, w.n2))
    c = c * sig(f) + sig(i) * np.tanh(j)
    h = np.tanh(c) * sig(o)
    return h, c, h


def pbhatia_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    r, u = quarters(sig(ln(x @ w.out_1, w.n1) + ln(h @ w.out_2, w.n2)))
    h = u * h + (1 - u) * np.tanh(ln(x @ w.out_3, w.n3) + r * ln(h @ w.out_4, w.n4))
    return h, h


def binbose(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    """implementation=1: the first norms act on the recurrent term, epsilon counts twice."""

    def norm(u: Any, n: Weights) -> Any:
        return (u - u.mean(1, keepdims=True)) / (np.sqrt(u.var(1, keepdims=True) + 1e-7) + 1e-7) * n.gamma + n.beta

    def hard(u: Any) -> Any:
        return np.maximum(0, np.minimum(1, u / 5 + 0.5))

    xs, hs = quarters(x @ w.kernel + w.bias), quarters(h @ w.recurrent_kernel)
    i, f, g, o = (norm(hs[k], part(w.ln1, k)) + norm(xs[k], part(w.ln2, k)) for k in range(4))
    c = hard(f) * c + hard(i) * np.tanh(g)
    h = hard(o) * np.tanh(norm(c, w.ln3))
    return h, h, c


def haste(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, g, f, o = quarters(ln(x @ w.kernel, w.ln_x) + ln(h @ w.recurrent_kernel, w.ln_h) + w.bias)
    c = sig(f) * c + sig(i) * np.tanh(g)
    fresh = sig(o) * np.tanh(ln(c, w.ln_c))
    h = fresh + w.zoneout * (h - fresh)
    return h, c, h


def haste_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    z, r, g = zip(
        quarters(ln(x @ w.kernel, w.ln_x) + w.bias),
        quarters(ln(h @ w.recurrent_kernel, w.ln_h) + w.recurrent_bias),
        strict=True,
    )
    update = sig(z[0] + z[1])
    fresh = update * h + (1 - update) * np.tanh(g[0] + sig(r[0] + r[1]) * g[1])
    h = (1 - w.zoneout) * fresh + w.zoneout * h
    return h, h


def haste_indrnn(w: Weights, t: int, x: Any, h: Any) -> Result:
    h = np.tanh(ln(x @ w.kernel, w.ln_x) + h * w.recurrent_scale + w.bias)
    return h, h


def lingvo_deprecated(w: Weights, t: int, x: Any, m: Any, c: Any) -> Result:
    j, i, f, o = gate_wise(np.concatenate([x, m], 1) @ w.wm, w.ln, 1e-8)
    c = np.clip(sig(f) * c + sig(i) * np.tanh(j), -10 * w.cap, 10 * w.cap)
    m = sig(o) * np.tanh(c)
    return m, m, c


def lingvo_simple(w: Weights, t: int, x: Any, m: Any, c: Any) -> Result:
    pre = np.concatenate([x, m], 1) @ w.wm
    j, f, o = (n + b for n, b in zip(gate_wise(pre, w.ln, 1e-8), quarters(w.b[None]), strict=True))
    keep = sig(f + w.forget_gate_bias)
    c = np.clip(keep * c + (1 - keep) * np.tanh(j), -w.cell_value_cap, w.cell_value_cap)
    m = (sig(o) * np.tanh(c)) @ w.w_proj
    return m, m, c


def lingvo_lean(w: Weights, t: int, x: Any, m: Any, c: Any) -> Result:
    pre = quarters(np.concatenate([x, m], 1) @ w.wm)
    names = ("i_i", "i_g", "f_g", "o_g")
    j, i, f, o = (ln(u, getattr(w, name), 1e-8) for u, name in zip(pre, names, strict=True))
    c = np.clip(sig(f) * c + sig(i) * np.tanh(j), -w.cap, w.cap)
    m = sig(o) * np.tanh(ln(c, w.c_norm, 1e-8))
    return m, m, c


def rnmt_plus(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, j, f, o = (
        ln(u, getattr(w, f"{n}_gate"), 1e-12) for n, u in zip("ijfo", quarters(x @ w.W_ff + h @ w.W_re), strict=True)
    )
    raw = sig(f) * c + sig(i) * np.tanh(j)
    h = sig(o) * np.tanh(raw)
    return h, ln(raw, w.new_c, 1e-12), h


def returnn_global(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    i, j, f, o = quarters(ln(x @ w.W_ff, w.input_below, 1e-12) + ln(h @ w.W_re, w.state_below, 1e-12))
    c = ln(sig(f) * c + sig(i) * np.tanh(j), w.new_c, 1e-12)
    h = ln(sig(o) * np.tanh(c), w.new_h, 1e-12)
    return h, c, h


def sockeye_early(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    pre = ln(x @ w.i2h_weight.T, w.i2h, 1e-6) + w.i2h_bias + ln(h @ w.h2h_weight.T, w.h2h, 1e-6) + w.h2h_bias
    i, f, g, o = quarters(pre)
    c = sig(f) * c + sig(i) * np.tanh(g)
    h = sig(o) * np.tanh(ln(c, w.c_norm, 1e-6))
    return h, h, c


def sockeye_late(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, f, g, o = quarters(
        ln(x @ w.i2h_weight.T + w.i2h_bias, w.i2h, 1e-6) + ln(h @ w.h2h_weight.T + w.h2h_bias, w.h2h, 1e-6)
    )
    c = sig(f) * c + sig(i) * np.tanh(g)
    h = sig(o) * np.tanh(ln(c, w.c_norm, 1e-6))
    return h, h, c


def sockeye_per_gate(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    pre = quarters(x @ w.i2h_weight.T + w.i2h_bias + h @ w.h2h_weight.T + w.h2h_bias)
    i, f, g, o = (ln(u, getattr(w, f"{name}_norm"), 1e-6) for u, name in zip(pre, "ifco", strict=True))
    c = sig(f) * c + sig(i) * np.tanh(g)
    h = sig(o) * np.tanh(ln(c, w.s_norm, 1e-6))
    return h, h, c


def kmedian(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, f, g, o = (
        np.clip(0.2 * u + 0.5, 0, 1) if k != 2 else np.tanh(u)
        for k, u in enumerate(gate_wise(x @ w.W_x + h @ w.W_h + w.b, w.ln, 1e-5))
    )
    c = f * c + i * g
    h = o * np.tanh(c)
    return h, h, c


SOCKEYE = {"i2h_weight": (4 * H, IN), "i2h_bias": (4 * H,), "h2h_weight": (4 * H, H), "h2h_bias": (4 * H,)}
HC = {"h": (H,), "c": (H,)}
MC = {"m": (H,), "c": (H,)}
STANDARD = """    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(%s)
"""

ENTRIES = (
    Entry(
        "C1 contrib LayerNormBasicLSTMCell",
        """
cell layer_norm_basic_lstm_cell(x; c, h):
    i, j, f, o = split(concat(x, h) @ kernel, 4)
    c = c * sigmoid(forget(f) + forget_bias) + sigmoid(input(i)) * tanh(transform(j))
    c = state(c)
    h = tanh(c) * sigmoid(output(o))
""",
        contrib,
        LSTM,
        {"kernel": (IN + H, 4 * H)},
        {name: layer(H, 1e-12) for name in ("input", "transform", "forget", "output", "state")},
        {"forget_bias": 0.7},
    ),
    Entry(
        "C2 contrib LayerNormLSTMCell, peepholes, clip, projection",
        """
cell layer_norm_lstm_cell(x; c, m) -> m:
    i, j, f, o = split(concat(x, m) @ kernel, 4)
    f = sigmoid(forget(f) + forget_bias + w_f_diag * c)
    c = f * c + sigmoid(input(i) + w_i_diag * c) * tanh(transform(j))
    c = clip(state(c), -cell_clip, cell_clip)
    m = (sigmoid(output(o) + w_o_diag * c) * tanh(c)) @ projection
""",
        contrib_peepholes,
        {"c": (H,), "m": (P,)},
        {"kernel": (IN + P, 4 * H), "w_f_diag": (H,), "w_i_diag": (H,), "w_o_diag": (H,), "projection": (H, P)},
        {name: layer(H, 1e-12) for name in ("input", "transform", "forget", "output", "state")},
        {"forget_bias": 0.7, "cell_clip": 0.8},
    ),
    Entry(
        "C2 contrib CoupledInputForgetGateLSTMCell",
        """
cell coupled_input_forget_gate_lstm_cell(x; c, h):
    j, f, o = split(concat(x, h) @ W, 3)
    f = sigmoid(forget(f) + forget_bias + W_F_diag * c)
    c = state(f * c + (1 - f) * tanh(transform(j)))
    h = sigmoid(output(o) + W_O_diag * c) * tanh(c)
""",
        coupled,
        LSTM,
        {"W": (IN + H, 3 * H), "W_F_diag": (H,), "W_O_diag": (H,)},
        {name: layer(H, 1e-12) for name in ("transform", "forget", "output", "state")},
        {"forget_bias": 0.7},
    ),
    Entry(
        "C3 TensorFlow Addons LayerNormLSTMCell",
        """
cell layer_norm_lstm(x; h, c):
    i, f, g, o = split(kernel_norm(x @ W_x) + recurrent_norm(h @ W_h) + bias, 4)
    c = state_norm(sigmoid(f) * c + sigmoid(i) * tanh(g))
    h = sigmoid(o) * tanh(c)
""",
        addons,
        HC,
        {**KERNELS, "bias": (4 * H,)},
        {"kernel_norm": layer(4 * H, 1e-3), "recurrent_norm": layer(4 * H, 1e-3), "state_norm": layer(H, 1e-3)},
    ),
    Entry(
        "C3 TensorFlow Addons LayerNormSimpleRNNCell",
        """
cell layer_norm_simple_rnn(x; h):
    h = tanh(layernorm(x @ W_x + h @ W_h) + bias)
""",
        addons_simple,
        GRU,
        {"W_x": (IN, H), "W_h": (H, H), "bias": (H,)},
        {"layernorm": layer(H, 1e-5, beta=False)},
    ),
    Entry(
        "C4 baselines lnlstm, episode mask",
        """
cell lnlstm(x, m; c, h):
    c = c * (1 - m)
    h = h * (1 - m)
    i, f, o, u = split(ln_x(x @ wx) + ln_h(h @ wh) + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(u)
    h = sigmoid(o) * tanh(ln_c(c))
""",
        baselines,
        LSTM,
        {"wx": (IN, 4 * H), "wh": (H, 4 * H), "b": (4 * H,)},
        {"ln_x": layer(4 * H), "ln_h": layer(4 * H), "ln_c": layer(H)},
        inputs={"x": (IN,), "m": (1,)},
        binary=("m",),
    ),
    Entry(
        "C5 sketch-rnn LayerNormLSTMCell",
        """
cell layer_norm_lstm(x; h, c):
    i, j, f, o = split(ln_all(x @ W_xh + h @ W_hh), 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = tanh(ln_c(c)) * sigmoid(o)
""",
        sketch_rnn,
        HC,
        {"W_xh": (IN, 4 * H), "W_hh": (H, 4 * H)},
        {"ln_all": layer(4 * H, 1e-3, groups=4), "ln_c": layer(H, 1e-3)},
        {"forget_bias": 0.7},
    ),
    Entry(
        "C5 supercell LSTMCell",
        """
cell lstm(x; c, h):
    i, j, f, o = split(ln(x @ W_xh + h @ W_hh_i + bias), 4)
    c = c * sigmoid(f + forget_bias) + sigmoid(i) * tanh(j)
    h = tanh(ln_c(c)) * sigmoid(o)
""",
        supercell,
        LSTM,
        {"W_xh": (IN, 4 * H), "W_hh_i": (H, 4 * H), "bias": (4 * H,)},
        {"ln": layer(4 * H, 1e-3, groups=4), "ln_c": layer(H, 1e-3)},
        {"forget_bias": 0.7},
    ),
    Entry(
        "C6 Kiros lnlstm, one bias in two places, mask",
        """
cell lnlstm(x, m; c, h):
    i, f, o, u = split(n1(x @ W + b) + n2(h @ U) + b, 4)
    c = m * (sigmoid(f) * c + sigmoid(i) * tanh(u)) + (1 - m) * c
    h = m * (sigmoid(o) * tanh(n3(c))) + (1 - m) * h
""",
        kiros,
        LSTM,
        {"W": (IN, 4 * H), "U": (H, 4 * H), "b": (4 * H,)},
        {"n1": layer(4 * H), "n2": layer(4 * H), "n3": layer(H)},
        inputs={"x": (IN,), "m": (1,)},
        binary=("m",),
    ),
    Entry(
        "C6 Kiros lngru",
        """
cell lngru(x; h):
    r, u = split(n1(x @ W + b) + n3(h @ U), 2)
    n = tanh(sigmoid(r) * n4(h @ Ux) + n2(x @ Wx + bx))
    u = sigmoid(u)
    h = u * h + (1 - u) * n
""",
        kiros_gru,
        GRU,
        {"W": (IN, 2 * H), "U": (H, 2 * H), "b": (2 * H,), "Wx": (IN, H), "Ux": (H, H), "bx": (H,)},
        {"n1": layer(2 * H), "n2": layer(H), "n3": layer(2 * H), "n4": layer(H)},
    ),
    Entry(
        "C7 pbhatia LNLSTM",
        """
cell ln_basic_lstm_cell(x; c, h):
    i, j, f, o = split(n1(x @ out_1) + n2(h @ out_2), 4)
    c = c * sigmoid(f) + sigmoid(i) * tanh(j)
    h = tanh(c) * sigmoid(o)
""",
        pbhatia,
        LSTM,
        {"out_1": (IN, 4 * H), "out_2": (H, 4 * H)},
        {"n1": layer(4 * H), "n2": layer(4 * H)},
    ),
    Entry(
        "C7 pbhatia LNGRU",
        """
cell ln_gru_cell(x; h):
    r, u = split(n1(x @ out_1) + n2(h @ out_2), 2)
    n = tanh(n3(x @ out_3) + sigmoid(r) * n4(h @ out_4))
    u = sigmoid(u)
    h = u * h + (1 - u) * n
""",
        pbhatia_gru,
        GRU,
        {"out_1": (IN, 2 * H), "out_2": (H, 2 * H), "out_3": (IN, H), "out_4": (H, H)},
        {"n1": layer(2 * H), "n2": layer(2 * H), "n3": layer(H), "n4": layer(H)},
    ),
    Entry(
        "C8 Binbose, epsilon twice, hard sigmoid",
        """
cell lstm(x; h, c):
    i, f, g, o = split(ln1(h @ recurrent_kernel) + ln2(x @ kernel + bias), 4)
    c = hard_sigmoid(f, 0.2) * c + hard_sigmoid(i, 0.2) * tanh(g)
    h = hard_sigmoid(o, 0.2) * tanh(ln3(c))
""",
        binbose,
        HC,
        {"kernel": (IN, 4 * H), "recurrent_kernel": (H, 4 * H), "bias": (4 * H,)},
        {
            "ln1": layer(4 * H, 1e-7, groups=4, epsilon_placement="both"),
            "ln2": layer(4 * H, 1e-7, groups=4, epsilon_placement="both"),
            "ln3": layer(H, 1e-7, epsilon_placement="both"),
        },
    ),
    Entry(
        "C9 haste LayerNormLSTM, zoneout",
        """
cell layer_norm_lstm(x; c, h):
    i, g, f, o = split(ln_x(x @ kernel) + ln_h(h @ recurrent_kernel) + bias, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = (1 - zoneout) * (sigmoid(o) * tanh(ln_c(c))) + zoneout * h
""",
        haste,
        LSTM,
        {"kernel": (IN, 4 * H), "recurrent_kernel": (H, 4 * H), "bias": (4 * H,)},
        {"ln_x": layer(4 * H, beta=False), "ln_h": layer(4 * H, beta=False), "ln_c": layer(H)},
        {"zoneout": 0.15},
    ),
    Entry(
        "C9 haste LayerNormGRU, zoneout",
        """
cell layer_norm_gru(x; h):
    p_z, p_r, p_g = split(ln_x(x @ kernel) + bias, 3)
    q_z, q_r, q_g = split(ln_h(h @ recurrent_kernel) + recurrent_bias, 3)
    z = sigmoid(p_z + q_z)
    g = tanh(p_g + sigmoid(p_r + q_r) * q_g)
    h = (1 - zoneout) * (z * h + (1 - z) * g) + zoneout * h
""",
        haste_gru,
        GRU,
        {"kernel": (IN, 3 * H), "recurrent_kernel": (H, 3 * H), "bias": (3 * H,), "recurrent_bias": (3 * H,)},
        {"ln_x": layer(3 * H, beta=False), "ln_h": layer(3 * H, beta=False)},
        {"zoneout": 0.15},
    ),
    Entry(
        "C9 haste LayerNormIndRNN",
        "cell indrnn(x; h):\n    h = tanh(ln_x(x @ kernel) + recurrent_scale * h + bias)\n",
        haste_indrnn,
        GRU,
        {"kernel": (IN, H), "recurrent_scale": (H,), "bias": (H,)},
        {"ln_x": layer(H, beta=False)},
    ),
    Entry(
        "C13 lingvo LayerNormalizedLSTMCell, capped",
        """
cell lstm(x; m, c) -> m:
    j, i, f, o = split(ln(concat(x, m) @ wm), 4)
    c = clip(sigmoid(f) * c + sigmoid(i) * tanh(j), -10 * cap, 10 * cap)
    m = sigmoid(o) * tanh(c)
""",
        lingvo_deprecated,
        MC,
        {"wm": (IN + H, 4 * H)},
        {"ln": layer(4 * H, 1e-8, groups=4)},
        {"cap": 0.05},
    ),
    Entry(
        "C13 lingvo LayerNormalizedLSTMCellSimple, coupled gates, projection",
        """
cell lstm(x; m, c) -> m:
    j, f, o = split(ln(concat(x, m) @ wm) + b, 3)
    f = sigmoid(f + forget_gate_bias)
    c = clip(f * c + (1 - f) * tanh(j), -cell_value_cap, cell_value_cap)
    m = (sigmoid(o) * tanh(c)) @ w_proj
""",
        lingvo_simple,
        {"m": (P,), "c": (H,)},
        {"wm": (IN + P, 3 * H), "b": (3 * H,), "w_proj": (H, P)},
        {"ln": layer(3 * H, 1e-8, groups=3, beta=False)},
        {"forget_gate_bias": 0.7, "cell_value_cap": 0.5},
    ),
    Entry(
        "C13 lingvo LayerNormalizedLSTMCellLean",
        """
cell lstm(x; m, c) -> m:
    j, i, f, o = split(concat(x, m) @ wm, 4)
    c = clip(sigmoid(f_g(f)) * c + sigmoid(i_g(i)) * tanh(i_i(j)), -cap, cap)
    m = sigmoid(o_g(o)) * tanh(c_norm(c))
""",
        lingvo_lean,
        MC,
        {"wm": (IN + H, 4 * H)},
        {name: layer(H, 1e-8) for name in ("i_i", "i_g", "f_g", "o_g", "c_norm")},
        {"cap": 0.5},
    ),
    Entry(
        "C14 RETURNN RNMT+: normalised cell carried, raw in the output",
        """
cell lstm(x; c, h):
    i, j, f, o = split(x @ W_ff + h @ W_re, 4)
    raw = sigmoid(f_gate(f)) * c + sigmoid(i_gate(i)) * tanh(j_gate(j))
    h = sigmoid(o_gate(o)) * tanh(raw)
    c = new_c(raw)
""",
        rnmt_plus,
        LSTM,
        {"W_ff": (IN, 4 * H), "W_re": (H, 4 * H)},
        {name: layer(H, 1e-12) for name in ("i_gate", "j_gate", "f_gate", "o_gate", "new_c")},
    ),
    Entry(
        "C14 RETURNN global, cell and hidden norm",
        """
cell lstm(x; c, h):
    i, j, f, o = split(input_below(x @ W_ff) + state_below(h @ W_re), 4)
    c = new_c(sigmoid(f) * c + sigmoid(i) * tanh(j))
    h = new_h(sigmoid(o) * tanh(c))
""",
        returnn_global,
        LSTM,
        {"W_ff": (IN, 4 * H), "W_re": (H, 4 * H)},
        {
            "input_below": layer(4 * H, 1e-12),
            "state_below": layer(4 * H, 1e-12, beta=False),
            "new_c": layer(H, 1e-12),
            "new_h": layer(H, 1e-12),
        },
    ),
    Entry(
        "C15 Sockeye, early: biases after the norms",
        """
cell lstm(x; h, c):
    z = i2h(x @ transpose(i2h_weight)) + i2h_bias + h2h(h @ transpose(h2h_weight)) + h2h_bias
    i, f, g, o = split(z, 4)
"""
        + STANDARD % "c_norm(c)",
        sockeye_early,
        HC,
        SOCKEYE,
        {"i2h": layer(4 * H, 1e-6), "h2h": layer(4 * H, 1e-6), "c_norm": layer(H, 1e-6)},
    ),
    Entry(
        "C15 Sockeye, later: biases before the norms",
        """
cell lstm(x; h, c):
    z = i2h(x @ transpose(i2h_weight) + i2h_bias) + h2h(h @ transpose(h2h_weight) + h2h_bias)
    i, f, g, o = split(z, 4)
"""
        + STANDARD % "c_norm(c)",
        sockeye_late,
        HC,
        SOCKEYE,
        {"i2h": layer(4 * H, 1e-6), "h2h": layer(4 * H, 1e-6), "c_norm": layer(H, 1e-6)},
    ),
    Entry(
        "C15 Sockeye per gate",
        """
cell lstm(x; h, c):
    i, f, g, o = split(x @ transpose(i2h_weight) + i2h_bias + h @ transpose(h2h_weight) + h2h_bias, 4)
    c = sigmoid(f_norm(f)) * c + sigmoid(i_norm(i)) * tanh(c_norm(g))
    h = sigmoid(o_norm(o)) * tanh(s_norm(c))
""",
        sockeye_per_gate,
        HC,
        SOCKEYE,
        {name: layer(H, 1e-6) for name in ("i_norm", "f_norm", "c_norm", "o_norm", "s_norm")},
    ),
    Entry(
        "C16 kmedian, scale only",
        """
cell lstm(x; h, c):
    i, f, g, o = split(ln(x @ W_x + h @ W_h + b), 4)
    c = hard_sigmoid(f, 0.2) * c + hard_sigmoid(i, 0.2) * tanh(g)
    h = hard_sigmoid(o, 0.2) * tanh(c)
""",
        kmedian,
        HC,
        {**KERNELS, "b": (4 * H,)},
        {"ln": layer(4 * H, groups=4, beta=False)},
    ),
)
