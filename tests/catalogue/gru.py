"""Section D: normalised gated recurrent units."""

from __future__ import annotations

from typing import Any

import numpy as np

from catalogue.entry import GRU, IN, LSTM, B, Entry, H, P, Weights, gate_wise, layer, ln, part, quarters, sig
from normconvert.ir.norm import Norm

Result = tuple[Any, ...]
KERNELS = {"W_x": (IN, 3 * H), "W_h": (H, 3 * H)}


def dreamer(w: Weights, t: int, x: Any, h: Any) -> Result:
    reset, cand, update = quarters(ln(np.concatenate([x, h], 1) @ w.kernel + w.bias, w.norm, 1e-3))
    update = sig(update + w.update_bias)
    h = update * np.tanh(sig(reset) * cand) + (1 - update) * h
    return h, h


def embodied(w: Weights, t: int, x: Any, h: Any) -> Result:
    both = np.concatenate([h, x], 1)
    both = both / np.sqrt((both**2).mean(1, keepdims=True) + 1e-4) * w.norm.gamma
    reset, cand, update = quarters(both @ w.kernel + w.bias)
    update = sig(update - 1)
    h = update * np.tanh(sig(reset) * cand) + (1 - update) * h
    return h, h


def skip_thoughts(w: Weights, t: int, x: Any, h: Any) -> Result:
    z, r = quarters(sig(ln(h @ w.gates_h, w.n_gh, 1e-12) + ln(x @ w.gates_x, w.n_gx, 1e-12)))
    candidate = np.tanh(ln(x @ w.cand_w, w.n_w, 1e-12) + r * ln(h @ w.cand_u, w.n_u, 1e-12))
    h = (1 - z) * h + z * candidate
    return h, h


def lingvo(w: Weights, t: int, x: Any, m: Any, c: Any) -> Result:
    both = np.concatenate([x, m], 1)
    r, u = sig(ln(both @ w.w_r, w.n_r, 1e-8)), sig(ln(both @ w.w_u, w.n_u, 1e-8))
    n = np.tanh(ln(np.concatenate([x, r * m], 1) @ w.w_n, w.n_n, 1e-8))
    c = np.minimum(w.cap, np.maximum(-w.cap, (1 - u) * c + u * n))
    return c, c, c


def sockeye(w: Weights, t: int, x: Any, h: Any) -> Result:
    i_r, i_z, i_n = quarters(ln(x @ w.W_x, w.i2h, 1e-6) + w.b_x)
    h_r, h_z, h_n = quarters(ln(h @ w.W_h, w.h2h, 1e-6) + w.b_h)
    z = sig(i_z + h_z)
    h = (1 - z) * np.tanh(i_n + sig(i_r + h_r) * h_n) + z * h
    return h, h


def sockeye_per_gate(w: Weights, t: int, x: Any, h: Any) -> Result:
    i_r, i_z, i_n = quarters(x @ w.W_x + w.b_x)
    h_r, h_z, h_n = quarters(h @ w.W_h + w.b_h)
    r, z = sig(ln(i_r + h_r, w.n_r, 1e-6)), sig(ln(i_z + h_z, w.n_z, 1e-6))
    h = (1 - z) * np.tanh(ln(i_n + r * h_n, w.n_n, 1e-6)) + z * h
    return h, h


def elektrisches_schaf(w: Weights, t: int, x: Any, h: Any) -> Result:
    bare = Weights()
    z, r = quarters(sig(ln(x @ w.W_g + h @ w.U_g + w.b_g, bare)))
    h = (1 - z) * h + z * np.tanh(ln(x @ w.W_n + (r * h) @ w.U_n + w.b_n, bare))
    return h, h


def twice_on_the_candidate(w: Weights, t: int, x: Any, h: Any) -> Result:
    i_r, i_z, i_n = quarters(ln(x @ w.W_x, w.n_ih))
    h_r, h_z, h_n = quarters(ln(h @ w.W_h, w.n_hh))
    z = sig(i_z + h_z)
    h = (1 - z) * np.tanh(ln(i_n, w.n_in) + sig(i_r + h_r) * ln(h_n, w.n_hn)) + z * h
    return h, h


def biases_inside(w: Weights, t: int, x: Any, h: Any) -> Result:
    i_r, i_z, i_n = quarters(ln(x @ w.W_x + w.b_x, w.ln_ih))
    h_r, h_z, h_n = quarters(ln(h @ w.W_h + w.b_h, w.ln_hh))
    z = sig(i_z + h_z)
    h = (1 - z) * np.tanh(i_n + sig(i_r + h_r) * h_n) + z * h
    return h, h


def before_the_product(w: Weights, t: int, x: Any, h: Any) -> Result:
    r, u = quarters(sig(x @ w.W_g + ln(h, w.ln_h) @ w.U_g + w.b_g))
    h = u * h + (1 - u) * np.tanh(x @ w.W_n + ln(r * h, w.ln_rh) @ w.U_n + w.b_n)
    return h, h


def output_becomes_state(w: Weights, t: int, x: Any, h: Any) -> Result:
    p_r, p_z, p_n = quarters(x @ w.W_x + w.b_x)
    q_r, q_z, q_n = quarters(h @ w.W_h + w.b_h)
    z = sig(p_z + q_z)
    h = np.tanh(ln((1 - z) * np.tanh(p_n + sig(p_r + q_r) * q_n) + z * h, w.ln))
    return h, h


def conv_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    """A layer norm over all places and channels of a sample; windows written out by hand."""

    def conv(value: Any, kernel: Any) -> Any:
        padded = np.pad(value, ((0, 0), (1, 1), (0, 0)))
        return sum(padded[:, k : k + value.shape[1]] @ kernel[k] for k in range(3))

    def norm(value: Any, n: Weights) -> Any:
        flat = value.reshape(B, -1)
        scaled = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-12)
        return scaled.reshape(value.shape) * n.gamma + n.beta

    both = np.concatenate([x, h], 2)
    r = sig(norm(conv(both, w.W_g)[..., :CHANNELS], w.ln_r))
    u = sig(norm(conv(both, w.W_g)[..., CHANNELS:], w.ln_u))
    h = u * h + (1 - u) * np.tanh(conv(np.concatenate([x, r * h], 2), w.W_n))
    return h, h


def lingvo_per_gate_lstm(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    """lingvo DoubleProjectionLSTMCell with two output projections."""
    j, i, f, o = gate_wise(np.concatenate([x, h], 1) @ w.wm, w.ln, 1e-8)
    c = sig(f) * c + sig(i) * np.tanh(j)
    m = sig(o) * np.tanh(c)
    h = m @ w.w_proj_recurrent
    return m @ w.w_proj_output, c, h


def sru(w: Weights, t: int, x: Any, c: Any) -> Result:
    """lingvo SRUCell: every gate normalised, the cell's value normalised and carried."""
    candidate, f, r = (x @ w.W_x)[:, :H], (x @ w.W_x)[:, H : 2 * H], (x @ w.W_x)[:, 2 * H : 3 * H]
    f, r = sig(ln(f, part(w.n_gates, 0), 1e-8)), sig(ln(r, part(w.n_gates, 1), 1e-8))
    c = ln(f * c + (1 - f) * candidate, w.n_c, 1e-8)
    return r * np.tanh(c) + (1 - r) * (x @ w.W_skip), c


CHANNELS, LENGTH = 2, 7
SPLIT_THREE = """    p_r, p_z, p_n = split(%s, 3)
    q_r, q_z, q_n = split(%s, 3)
    z = sigmoid(p_z + q_z)
    n = tanh(p_n + sigmoid(p_r + q_r) * q_n)
"""

KEEPS = "    h = (1 - z) * n + z * h\n"

ENTRIES = (
    Entry(
        "D1 dreamerv2",
        """
cell gru(x; h):
    r, n, u = split(norm(concat(x, h) @ kernel + bias), 3)
    u = sigmoid(u + update_bias)
    h = u * tanh(sigmoid(r) * n) + (1 - u) * h
""",
        dreamer,
        GRU,
        {"kernel": (IN + H, 3 * H), "bias": (3 * H,)},
        {"norm": layer(3 * H, 1e-3)},
        {"update_bias": -1.0},
    ),
    Entry(
        "D6 embodied GRU, RMS norm before the linear map",
        """
cell gru(x; h):
    r, n, u = split(norm(concat(h, x)) @ kernel + bias, 3)
    u = sigmoid(u - 1)
    h = u * tanh(sigmoid(r) * n) + (1 - u) * h
""",
        embodied,
        GRU,
        {"kernel": (H + IN, 3 * H), "bias": (3 * H,)},
        {"norm": Norm(kind="rms", features=H + IN, epsilon=1e-4, beta=False)},
    ),
    Entry(
        "D7 skip_thoughts LayerNormGRUCell",
        """
cell gru(x; h):
    z, r = split(n_gh(h @ gates_h) + n_gx(x @ gates_x), 2)
    n = tanh(n_w(x @ cand_w) + sigmoid(r) * n_u(h @ cand_u))
    z = sigmoid(z)
    h = (1 - z) * h + z * n
""",
        skip_thoughts,
        GRU,
        {"gates_h": (H, 2 * H), "gates_x": (IN, 2 * H), "cand_w": (IN, H), "cand_u": (H, H)},
        {"n_gh": layer(2 * H, 1e-12), "n_gx": layer(2 * H, 1e-12), "n_w": layer(H, 1e-12), "n_u": layer(H, 1e-12)},
    ),
    Entry(
        "D11 lingvo GRUCell, capped",
        """
cell gru(x; m, c) -> m:
    r = sigmoid(n_r(concat(x, m) @ w_r))
    u = sigmoid(n_u(concat(x, m) @ w_u))
    n = tanh(n_n(concat(x, r * m) @ w_n))
    c = clip((1 - u) * c + u * n, -cap, cap)
    m = c
""",
        lingvo,
        {"m": (H,), "c": (H,)},
        {"w_r": (IN + H, H), "w_u": (IN + H, H), "w_n": (IN + H, H)},
        {name: layer(H, 1e-8) for name in ("n_r", "n_u", "n_n")},
        {"cap": 0.5},
    ),
    Entry(
        "D12 Sockeye LayerNormGRUCell",
        "cell gru(x; h):\n" + SPLIT_THREE % ("i2h(x @ W_x) + b_x", "h2h(h @ W_h) + b_h") + KEEPS,
        sockeye,
        GRU,
        {**KERNELS, "b_x": (3 * H,), "b_h": (3 * H,)},
        {"i2h": layer(3 * H, 1e-6), "h2h": layer(3 * H, 1e-6)},
    ),
    Entry(
        "D12 Sockeye LayerNormPerGateGRUCell",
        """
cell gru(x; h):
    p_r, p_z, p_n = split(x @ W_x + b_x, 3)
    q_r, q_z, q_n = split(h @ W_h + b_h, 3)
    z = sigmoid(n_z(p_z + q_z))
    h = (1 - z) * tanh(n_n(p_n + sigmoid(n_r(p_r + q_r)) * q_n)) + z * h
""",
        sockeye_per_gate,
        GRU,
        {**KERNELS, "b_x": (3 * H,), "b_h": (3 * H,)},
        {name: layer(H, 1e-6) for name in ("n_r", "n_z", "n_n")},
    ),
    Entry(
        "D13 ElektrischesSchaf, no scale and offset",
        """
cell gru(x; h):
    z, r = split(ln_g(x @ W_g + h @ U_g + b_g), 2)
    n = tanh(ln_n(x @ W_n + (sigmoid(r) * h) @ U_n + b_n))
    z = sigmoid(z)
    h = (1 - z) * h + z * n
""",
        elektrisches_schaf,
        GRU,
        {"W_g": (IN, 2 * H), "U_g": (H, 2 * H), "b_g": (2 * H,), "W_n": (IN, H), "U_n": (H, H), "b_n": (H,)},
        {"ln_g": layer(2 * H, gamma=False, beta=False), "ln_n": layer(H, gamma=False, beta=False)},
    ),
    Entry(
        "D14 second norm on the candidate",
        """
cell gru(x; h):
    p_r, p_z, p_n = split(n_ih(x @ W_x), 3)
    q_r, q_z, q_n = split(n_hh(h @ W_h), 3)
    z = sigmoid(p_z + q_z)
    h = (1 - z) * tanh(n_in(p_n) + sigmoid(p_r + q_r) * n_hn(q_n)) + z * h
""",
        twice_on_the_candidate,
        GRU,
        KERNELS,
        {"n_ih": layer(3 * H), "n_hh": layer(3 * H), "n_in": layer(H), "n_hn": layer(H)},
    ),
    Entry(
        "D15 biases inside",
        "cell gru(x; h):\n" + SPLIT_THREE % ("ln_ih(x @ W_x + b_x)", "ln_hh(h @ W_h + b_h)") + KEEPS,
        biases_inside,
        GRU,
        {**KERNELS, "b_x": (3 * H,), "b_h": (3 * H,)},
        {"ln_ih": layer(3 * H), "ln_hh": layer(3 * H)},
    ),
    Entry(
        "D16 norm of the state before the product",
        """
cell gru(x; h):
    r, u = split(x @ W_g + ln_h(h) @ U_g + b_g, 2)
    n = tanh(x @ W_n + ln_rh(sigmoid(r) * h) @ U_n + b_n)
    u = sigmoid(u)
    h = u * h + (1 - u) * n
""",
        before_the_product,
        GRU,
        {"W_g": (IN, 2 * H), "U_g": (H, 2 * H), "b_g": (2 * H,), "W_n": (IN, H), "U_n": (H, H), "b_n": (H,)},
        {"ln_h": layer(H), "ln_rh": layer(H)},
    ),
    Entry(
        "D17 normalised output becomes the state",
        "cell gru(x; h):\n"
        + SPLIT_THREE % ("x @ W_x + b_x", "h @ W_h + b_h")
        + "    h = tanh(ln((1 - z) * n + z * h))\n",
        output_becomes_state,
        GRU,
        {**KERNELS, "b_x": (3 * H,), "b_h": (3 * H,)},
        {"ln": layer(H)},
    ),
    Entry(
        "D19 ConvGRU, layer norm over all places and channels",
        """
cell conv_gru(x; h):
    r, u = split(conv(concat(x, h), W_g, padding="same"), 2)
    n = tanh(conv(concat(x, sigmoid(ln_r(r)) * h), W_n, padding="same"))
    u = sigmoid(ln_u(u))
    h = u * h + (1 - u) * n
""",
        conv_gru,
        {"h": (LENGTH, CHANNELS)},
        {"W_g": (3, IN + CHANNELS, 2 * CHANNELS), "W_n": (3, IN + CHANNELS, CHANNELS)},
        {"ln_r": layer(CHANNELS, 1e-12, pooled=True), "ln_u": layer(CHANNELS, 1e-12, pooled=True)},
        inputs={"x": (LENGTH, IN)},
    ),
    Entry(
        "C13 lingvo DoubleProjectionLSTMCell",
        """
cell lstm(x; c, h) -> y:
    j, i, f, o = split(ln(concat(x, h) @ wm), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(j)
    m = sigmoid(o) * tanh(c)
    h = m @ w_proj_recurrent
    y = m @ w_proj_output
""",
        lingvo_per_gate_lstm,
        {**LSTM, "h": (P,)},
        {"wm": (IN + P, 4 * H), "w_proj_recurrent": (H, P), "w_proj_output": (H, P + 1)},
        {"ln": layer(4 * H, 1e-8, groups=4)},
    ),
    Entry(
        "C13 lingvo SRUCell",
        """
cell sru(x; c) -> y:
    p = x @ W_x
    f, r = split(n_gates(p[units:3*units]), 2)
    f = sigmoid(f)
    r = sigmoid(r)
    c = n_c(f * c + (1 - f) * p[0:units])
    y = r * tanh(c) + (1 - r) * (x @ W_skip)
""",
        sru,
        {"c": (H,)},
        {"W_x": (IN, 3 * H), "W_skip": (IN, H)},
        {"n_gates": layer(2 * H, 1e-8, groups=2), "n_c": layer(H, 1e-8)},
    ),
)
