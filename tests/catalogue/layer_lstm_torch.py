"""Sections C and D: PyTorch cells, evaluated with PyTorch's own modules and functions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from catalogue.entry import GRU, IN, LSTM, Entry, H, P, Weights, batch, in_torch, layer

Result = tuple[Any, ...]
IH, HH = {"weight_ih": (4 * H, IN)}, {"weight_hh": (4 * H, H)}
HC = {"h": (H,), "c": (H,)}


def norm(u: Any, n: Weights, epsilon: float = 1e-5) -> Any:
    return F.layer_norm(u, u.shape[-1:], n.gamma, getattr(n, "beta", None), epsilon)


def unbiased(u: Any, n: Weights, epsilon: float) -> Any:
    """The standard deviation divides by n - 1; epsilon is added to it."""
    return n.gamma * (u - u.mean(-1, keepdim=True)) / (u.std(-1, keepdim=True) + epsilon) + n.beta


def fastrnns(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, f, g, o = (norm(F.linear(x, w.weight_ih), w.ln_i) + norm(F.linear(h, w.weight_hh), w.ln_h)).chunk(4, 1)
    c = norm(f.sigmoid() * c + i.sigmoid() * g.tanh(), w.ln_c)
    h = o.sigmoid() * c.tanh()
    return h, h, c


def fastrnns_decomposed(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    def plain(u: Any, n: Weights) -> Any:
        mean, std = u.mean(-1, keepdim=True), u.std(-1, keepdim=True, unbiased=False)
        return (u - mean) / std * n.gamma + n.beta

    i, f, g, o = (plain(F.linear(x, w.weight_ih), w.ln_i) + plain(F.linear(h, w.weight_hh), w.ln_h)).chunk(4, 1)
    c = plain(f.sigmoid() * c + i.sigmoid() * g.tanh(), w.ln_c)
    h = o.sigmoid() * c.tanh()
    return h, h, c


def torchaudio(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, f, g, o = norm(F.linear(x, w.x2g) + F.linear(h, w.p2g), w.g_norm, 1e-3).chunk(4, 1)
    c = norm(f.sigmoid() * c + i.sigmoid() * g.tanh(), w.c_norm, 1e-3)
    h = o.sigmoid() * c.tanh()
    return h, h, c


def icefall(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    gates = F.linear(x, w.weight_ih, w.bias_ih) + F.linear(h, w.weight_hh, w.bias_hh)
    i, f, g, o = gates.chunk(4, 1)
    i, f, o = (torch.sigmoid(norm(u, n)) for u, n in ((i, w.ln_i), (f, w.ln_f), (o, w.ln_o)))
    c = norm(f * c + i * torch.tanh(norm(g, w.ln_cx)), w.ln_cy)
    h = F.linear(o * c.tanh(), w.weight_hr)
    return h, h, c


def icefall_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    x_r, x_z, x_n = F.linear(x, w.weight_ih, w.bias_ih).chunk(3, 1)
    h_r, h_z, h_n = F.linear(h, w.weight_hh, w.bias_hh).chunk(3, 1)
    r, z = torch.sigmoid(norm(x_r + h_r, w.ln_r)), torch.sigmoid(norm(x_z + h_z, w.ln_i))
    n = torch.tanh(norm(x_n + r * h_n, w.ln_n))
    h = n + z * (h - n)
    return h, h


def di_engine(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    i, f, o, u = (norm(x @ w.wx, w.norm_0) + norm(h @ w.wh, w.norm_1) + w.bias).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * u.tanh()
    h = o.sigmoid() * c.tanh()
    return h, h, c


def chenhuaizhen(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    gates = norm(F.linear(x, w.weight_ih, w.bias_ih), w.ln_ih) + norm(F.linear(h, w.weight_hh, w.bias_hh), w.ln_hh)
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * norm(c.tanh(), w.ln_ho)
    return h, h, c


def lstms_pth(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    def scaled(u: Any, n: Weights) -> Any:
        return n.gamma * (u - u.mean(1, keepdim=True)) / torch.sqrt(u.var(1, keepdim=True) + 1e-6) + n.beta

    pre = scaled(F.linear(x, w.i2h_weight, w.i2h_bias), w.ln_i2h)
    pre = pre + scaled(F.linear(h, w.h2h_weight, w.h2h_bias), w.ln_h2h)
    i, f, o, g = pre.chunk(4, 1)
    c = scaled(f.sigmoid() * c + i.sigmoid() * g.tanh(), w.ln_cell)
    h = o.sigmoid() * c.tanh()
    return h, h, c


def unbiased_outside(w: Weights, t: int, x: Any, h: Any, c: Any) -> Result:
    pre = unbiased(x @ w.W_x, w.ln_x, 1e-6) + unbiased(h @ w.W_h, w.ln_h, 1e-6)
    i, f, o, g = pre.chunk(4, 1)
    c = unbiased(torch.sigmoid(f + w.forget_gate_bias) * c + i.sigmoid() * g.tanh(), w.ln_c, 1e-6)
    h = o.sigmoid() * c.tanh()
    return h, h, c


def sheeprl(w: Weights, t: int, x: Any, h: Any) -> Result:
    reset, cand, update = norm(F.linear(torch.cat((h, x), -1), w.linear), w.layer_norm, 1e-3).chunk(3, -1)
    cand = torch.tanh(torch.sigmoid(reset) * cand)
    update = torch.sigmoid(update - 1)
    h = update * cand + (1 - update) * h
    return h, h


def pydreamer_late(w: Weights, t: int, x: Any, h: Any) -> Result:
    reset, update, newval = norm(F.linear(x, w.weight_ih) + F.linear(h, w.weight_hh), w.lnorm, 1e-3).chunk(3, 1)
    update = torch.sigmoid(update + w.update_bias)
    h = update * torch.tanh(torch.sigmoid(reset) * newval) + (1 - update) * h
    return h, h


def pydreamer(w: Weights, t: int, x: Any, h: Any) -> Result:
    i_r, i_u, i_n = F.linear(x, w.weight_ih).chunk(3, 1)
    h_r, h_u, h_n = F.linear(h, w.weight_hh).chunk(3, 1)
    reset = torch.sigmoid(norm(i_r + h_r, w.ln_reset, 1e-3))
    update = torch.sigmoid(norm(i_u + h_u, w.ln_update, 1e-3))
    h = (1 - update) * h + update * torch.tanh(norm(i_n + reset * h_n, w.ln_newval, 1e-3))
    return h, h


def speechbrain(w: Weights, t: int, x: Any, h: Any) -> Result:
    bn = F.batch_norm(F.linear(x, w.w_weight), w.norm.mean, w.norm.variance, w.norm.gamma, w.norm.beta)
    a, z = (bn + F.linear(h, w.u_weight)).chunk(2, 1)
    z = z.sigmoid()
    h = z * h + (1 - z) * a.relu()
    return h, h


def speechbrain_stabilised(w: Weights, t: int, x: Any, h: Any) -> Result:
    a, z = (norm(F.linear(x, w.w_weight), w.norm) + norm(F.linear(h, w.u_weight), w.recurrent_norm)).chunk(2, 1)
    z = z.sigmoid()
    h = z * h + (1 - z) * a.relu()
    return h, h


def kaldi_ligru(w: Weights, t: int, x: Any, h: Any) -> Result:
    """At test time the drop mask is the constant 1 - p; the new state is normalised and carried."""

    def bn(u: Any, n: Weights) -> Any:
        return F.batch_norm(u, n.mean, n.variance, n.gamma, n.beta)

    z = torch.sigmoid(bn(F.linear(x, w.wz), w.bn_wz) + F.linear(h, w.uz))
    candidate = F.relu(bn(F.linear(x, w.wh), w.bn_wh) + F.linear(h, w.uh)) * (1 - w.p)
    h = unbiased(z * h + (1 - z) * candidate, w.ln, 1e-6)
    return h, h


def kaldi_lstm(w: Weights, t: int, x: Any, c: Any, h: Any) -> Result:
    def bn(u: Any, n: Weights) -> Any:
        return F.batch_norm(u, n.mean, n.variance, n.gamma, n.beta)

    f, i, o, g = (
        bn(F.linear(x, getattr(w, f"w{k}x")), getattr(w, f"bn_w{k}x")) + F.linear(h, getattr(w, f"u{k}h"))
        for k in "fioc"
    )
    c = i.sigmoid() * g.tanh() * (1 - w.p) + f.sigmoid() * c
    h = o.sigmoid() * c.tanh()
    return h, c, h


def minimal_gru(w: Weights, t: int, x: Any, h: Any) -> Result:
    z = torch.sigmoid(F.linear(x, w.wz, w.bz) + F.linear(h, w.uz))
    h = z * h + (1 - z) * torch.tanh(F.linear(x, w.wh, w.bh) + F.linear(z * h, w.uh)) * (1 - w.p)
    return h, h


STANDARD = "    c = sigmoid(f) * c + sigmoid(i) * tanh(g)\n    h = sigmoid(o) * tanh(c)\n"
CARRIED = "    c = %s(sigmoid(f) * c + sigmoid(i) * tanh(g))\n    h = sigmoid(o) * tanh(c)\n"
FASTRNNS = """
cell lstm(x; h, c):
    i, f, g, o = split(ln_i(x @ transpose(weight_ih)) + ln_h(h @ transpose(weight_hh)), 4)
"""
LIGRU = {"w_weight": (2 * H, IN), "u_weight": (2 * H, H)}
BIASES = {"bias_ih": (4 * H,), "bias_hh": (4 * H,)}

ENTRIES = (
    Entry(
        "C10 fastrnns, NeMo ln_lstm",
        FASTRNNS + CARRIED % "ln_c",
        in_torch(fastrnns),
        HC,
        {**IH, **HH},
        {"ln_i": layer(4 * H), "ln_h": layer(4 * H), "ln_c": layer(H)},
    ),
    Entry(
        "C10 fastrnns decomposed, no epsilon",
        FASTRNNS + CARRIED % "ln_c",
        in_torch(fastrnns_decomposed),
        HC,
        {**IH, **HH},
        {"ln_i": layer(4 * H, 0.0), "ln_h": layer(4 * H, 0.0), "ln_c": layer(H, 0.0)},
        learned=("h", "c"),  # without epsilon a state of zeros gives 0 / 0
    ),
    Entry(
        "C11 torchaudio",
        """
cell lstm(x; h, c):
    i, f, g, o = split(g_norm(x @ transpose(x2g) + h @ transpose(p2g)), 4)
"""
        + CARRIED % "c_norm",
        in_torch(torchaudio),
        HC,
        {"x2g": (4 * H, IN), "p2g": (4 * H, H)},
        {"g_norm": layer(4 * H, 1e-3), "c_norm": layer(H, 1e-3)},
    ),
    Entry(
        "C12 icefall LayerNormLSTM, projection",
        """
cell lstm(x; h, c):
    i, f, g, o = split(x @ transpose(weight_ih) + bias_ih + h @ transpose(weight_hh) + bias_hh, 4)
    c = ln_cy(sigmoid(ln_f(f)) * c + sigmoid(ln_i(i)) * tanh(ln_cx(g)))
    h = (sigmoid(ln_o(o)) * tanh(c)) @ transpose(weight_hr)
""",
        in_torch(icefall),
        {"h": (P,), "c": (H,)},
        {**IH, "weight_hh": (4 * H, P), **BIASES, "weight_hr": (P, H)},
        {name: layer(H) for name in ("ln_i", "ln_f", "ln_cx", "ln_cy", "ln_o")},
    ),
    Entry(
        "C12 icefall LayerNormGRU",
        """
cell gru(x; h):
    p_r, p_z, p_n = split(x @ transpose(weight_ih) + bias_ih, 3)
    q_r, q_z, q_n = split(h @ transpose(weight_hh) + bias_hh, 3)
    n = tanh(ln_n(p_n + sigmoid(ln_r(p_r + q_r)) * q_n))
    h = n + sigmoid(ln_i(p_z + q_z)) * (h - n)
""",
        in_torch(icefall_gru),
        GRU,
        {"weight_ih": (3 * H, IN), "weight_hh": (3 * H, H), "bias_ih": (3 * H,), "bias_hh": (3 * H,)},
        {name: layer(H) for name in ("ln_r", "ln_i", "ln_n")},
    ),
    Entry(
        "C16 DI-engine",
        "cell lstm(x; h, c):\n    i, f, o, g = split(norm_0(x @ wx) + norm_1(h @ wh) + bias, 4)\n" + STANDARD,
        in_torch(di_engine),
        HC,
        {"wx": (IN, 4 * H), "wh": (H, 4 * H), "bias": (4 * H,)},
        {"norm_0": layer(4 * H), "norm_1": layer(4 * H)},
    ),
    Entry(
        "C16 chenhuaizhen, norm after the tanh",
        """
cell lstm(x; h, c):
    z = ln_ih(x @ transpose(weight_ih) + bias_ih) + ln_hh(h @ transpose(weight_hh) + bias_hh)
    i, f, g, o = split(z, 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * ln_ho(tanh(c))
""",
        in_torch(chenhuaizhen),
        HC,
        {**IH, **HH, **BIASES},
        {"ln_ih": layer(4 * H), "ln_hh": layer(4 * H), "ln_ho": layer(H)},
    ),
    Entry(
        "C16 lstms.pth, unbiased variance",
        """
cell lstm(x; h, c):
    z = ln_i2h(x @ transpose(i2h_weight) + i2h_bias) + ln_h2h(h @ transpose(h2h_weight) + h2h_bias)
    i, f, o, g = split(z, 4)
"""
        + CARRIED % "ln_cell",
        in_torch(lstms_pth),
        HC,
        {"i2h_weight": (4 * H, IN), "i2h_bias": (4 * H,), "h2h_weight": (4 * H, H), "h2h_bias": (4 * H,)},
        {
            "ln_i2h": layer(4 * H, 1e-6, unbiased=True),
            "ln_h2h": layer(4 * H, 1e-6, unbiased=True),
            "ln_cell": layer(H, 1e-6, unbiased=True),
        },
    ),
    Entry(
        "C16 unbiased deviation, epsilon outside, negative forget bias",
        """
cell lstm(x; h, c):
    i, f, o, g = split(ln_x(x @ W_x) + ln_h(h @ W_h), 4)
    c = ln_c(sigmoid(f + forget_gate_bias) * c + sigmoid(i) * tanh(g))
    h = sigmoid(o) * tanh(c)
""",
        in_torch(unbiased_outside),
        HC,
        {"W_x": (IN, 4 * H), "W_h": (H, 4 * H)},
        {
            name: layer(size, 1e-6, unbiased=True, epsilon_placement="outside")
            for name, size in (("ln_x", 4 * H), ("ln_h", 4 * H), ("ln_c", H))
        },
        {"forget_gate_bias": -1.0},
    ),
    Entry(
        "D3 sheeprl LayerNormGRUCell",
        """
cell gru(x; h):
    r, n, u = split(layer_norm(concat(h, x) @ transpose(linear)), 3)
    u = sigmoid(u - 1)
    h = u * tanh(sigmoid(r) * n) + (1 - u) * h
""",
        in_torch(sheeprl),
        GRU,
        {"linear": (3 * H, H + IN)},
        {"layer_norm": layer(3 * H, 1e-3)},
    ),
    Entry(
        "D4 pydreamer NormGRUCellLateReset",
        """
cell gru(x; h):
    r, u, n = split(lnorm(x @ transpose(weight_ih) + h @ transpose(weight_hh)), 3)
    u = sigmoid(u + update_bias)
    h = u * tanh(sigmoid(r) * n) + (1 - u) * h
""",
        in_torch(pydreamer_late),
        GRU,
        {"weight_ih": (3 * H, IN), "weight_hh": (3 * H, H)},
        {"lnorm": layer(3 * H, 1e-3)},
        {"update_bias": -1.0},
    ),
    Entry(
        "D5 pydreamer NormGRUCell",
        """
cell gru(x; h):
    p_r, p_u, p_n = split(x @ transpose(weight_ih), 3)
    q_r, q_u, q_n = split(h @ transpose(weight_hh), 3)
    u = sigmoid(ln_update(p_u + q_u))
    n = tanh(ln_newval(p_n + sigmoid(ln_reset(p_r + q_r)) * q_n))
    h = (1 - u) * h + u * n
""",
        in_torch(pydreamer),
        GRU,
        {"weight_ih": (3 * H, IN), "weight_hh": (3 * H, H)},
        {name: layer(H, 1e-3) for name in ("ln_reset", "ln_update", "ln_newval")},
    ),
    Entry(
        "D SpeechBrain LiGRU",
        """
cell ligru(x; h):
    a, z = split(norm(x @ transpose(w_weight)) + h @ transpose(u_weight), 2)
    z = sigmoid(z)
    h = z * h + (1 - z) * relu(a)
""",
        in_torch(speechbrain),
        GRU,
        LIGRU,
        {"norm": batch(2 * H, scope="sequence")},
    ),
    Entry(
        "D SpeechBrain SLiGRU",
        """
cell ligru(x; h):
    a, z = split(norm(x @ transpose(w_weight)) + recurrent_norm(h @ transpose(u_weight)), 2)
    z = sigmoid(z)
    h = z * h + (1 - z) * relu(a)
""",
        in_torch(speechbrain_stabilised),
        GRU,
        LIGRU,
        {"norm": layer(2 * H), "recurrent_norm": layer(2 * H)},
    ),
    Entry(
        "D pytorch-kaldi liGRU, layer norm of the state, candidate times 1 - p",
        """
cell ligru(x; h):
    z = sigmoid(bn_wz(x @ transpose(wz)) + h @ transpose(uz))
    n = relu(bn_wh(x @ transpose(wh)) + h @ transpose(uh)) * (1 - p)
    h = ln(z * h + (1 - z) * n)
""",
        in_torch(kaldi_ligru),
        GRU,
        {"wz": (H, IN), "wh": (H, IN), "uz": (H, H), "uh": (H, H)},
        {
            "bn_wz": batch(H, scope="sequence"),
            "bn_wh": batch(H, scope="sequence"),
            "ln": layer(H, 1e-6, unbiased=True, epsilon_placement="outside"),
        },
        {"p": 0.2},
    ),
    Entry(
        "F pytorch-kaldi LSTM, non-inverted dropout",
        """
cell lstm(x; c, h):
    f = sigmoid(bn_wfx(x @ transpose(wfx)) + h @ transpose(ufh))
    i = sigmoid(bn_wix(x @ transpose(wix)) + h @ transpose(uih))
    o = sigmoid(bn_wox(x @ transpose(wox)) + h @ transpose(uoh))
    g = tanh(bn_wcx(x @ transpose(wcx)) + h @ transpose(uch))
    c = i * g * (1 - p) + f * c
    h = o * tanh(c)
""",
        in_torch(kaldi_lstm),
        LSTM,
        {**{f"w{k}x": (H, IN) for k in "fioc"}, **{f"u{k}h": (H, H) for k in "fioc"}},
        {f"bn_w{k}x": batch(H) for k in "fioc"},
        {"p": 0.2},
    ),
    Entry(
        "D pytorch-kaldi minimalGRU",
        """
cell minimal_gru(x; h):
    z = sigmoid(x @ transpose(wz) + bz + h @ transpose(uz))
    n = tanh(x @ transpose(wh) + bh + (z * h) @ transpose(uh)) * (1 - p)
    h = z * h + (1 - z) * n
""",
        in_torch(minimal_gru),
        GRU,
        {"wz": (H, IN), "bz": (H,), "uz": (H, H), "wh": (H, IN), "bh": (H,), "uh": (H, H)},
        constants={"p": 0.2},
    ),
)
