"""Normalised cells of lingvo, RETURNN and ADNC, one step each, in raw ops under their own names.

The equations and names are those of the sources that the family files name. Each function has the signature of
`tf1_oracle.TfCell`; the sizes are those of that module.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tf1_ln_cells import ln, normalised
from tf1_oracle import INPUTS, TfCell, Variables
from tf1_plain_cells import CELL, PROJECTED, H, Result, TfCase, clipped, joined, linear, sigmoid, split, tanh, tf

FILTERS = 3
CAP = 0.4
"""Some cells reach it, most do not."""


def named_var(v: Variables) -> Variables:
    """Every variable of lingvo is called `var`, which is no variance here."""

    def variable(name: str, shape: Any, value: Any = None) -> Any:
        random = np.random.default_rng(sum(map(ord, name))).normal(0.0, 0.5, shape)
        return v(name, shape, random if value is None else value)

    return variable


def less_one(v: Variables, name: str, size: int) -> Any:
    """A scale less 1, to which 1 can be added exactly: we keep the scale itself, in the file's float32."""
    steps = np.random.default_rng(sum(map(ord, name))).integers(-600, 900, size)
    return v(name, [size], steps / 1024)


def lingvo_simple(projection: bool) -> TfCell:
    """LayerNormalizedLSTMCellSimple."""

    def cell(v: Variables, x: Any, states: Any, t: Any) -> Result:
        m, c = states
        v = named_var(v)
        gates = linear(v, joined(x, m), 4 * H, ("wm/var", ""))
        gates = ln(v, gates, ("ln_scale/var", ""), 1e-8, pieces=4) + v("b/var", [4 * H])
        i_i, i_g, f_g, o_g = split(gates, 4)
        c = clipped(sigmoid(f_g + 0.7) * c + sigmoid(i_g) * tanh(i_i), CAP)
        m = sigmoid(o_g) * tanh(c)
        if projection:
            m = m @ v("w_proj/var", [H, PROJECTED])
        return m, (m, c)

    return cell


def lingvo_deprecated(v: Variables, x: Any, states: Any, t: Any) -> Result:
    """LayerNormalizedLSTMCell: offsets, then scales less 1, in one tensor."""
    m, c = states
    v = named_var(v)
    offsets, scales = split(less_one(v, "b/var", 8 * H), 2)
    gates = split(linear(v, joined(x, m), 4 * H, ("wm/var", "")), 4)
    i_i, i_g, f_g, o_g = (
        normalised(gate, 1e-8, scale + 1.0, offset)
        for gate, scale, offset in zip(gates, split(scales, 4), split(offsets, 4), strict=True)
    )
    c = clipped(sigmoid(f_g) * c + sigmoid(i_g) * tanh(i_i), CAP)
    m = sigmoid(o_g) * tanh(c)
    return m, (m, c)


def lingvo_lean(full: bool) -> TfCell:
    """LayerNormalizedLSTMCellLean; `full`: with a projection, a bias and a cap, else without a norm of the cell."""

    def cell(v: Variables, x: Any, states: Any, t: Any) -> Result:
        m, c = states
        v = named_var(v)

        def norm(value: Any, name: str) -> Any:
            return normalised(value, 1e-8, less_one(v, f"ln_scale_{name}/var", H) + 1.0, v(f"bias_{name}/var", [H]))

        gates = split(linear(v, joined(x, m), 4 * H, ("wm/var", "")), 4)
        gates = [norm(gate, name) for gate, name in zip(gates, ("i_i", "i_g", "f_g", "o_g"), strict=True)]
        if full:
            gates = [gate + bias for gate, bias in zip(gates, split(v("b/var", [4 * H]), 4), strict=True)]
        i_i, i_g, f_g, o_g = gates
        c = sigmoid(f_g) * c + sigmoid(i_g) * tanh(i_i)
        c = clipped(c, CAP) if full else c
        m = sigmoid(o_g) * tanh(norm(c, "c") if full else c)
        if full:
            m = m @ v("w_proj/var", [H, PROJECTED])
        return m, (m, c)

    return cell


def lingvo_weight_norm(v: Variables, x: Any, states: Any, t: Any) -> Result:
    m, c = states
    v = named_var(v)
    wm = v("wm/var", [INPUTS + H, 4 * H])
    kernel = wm * tf().math.rsqrt(tf().reduce_sum(wm * wm, 0)) * (v("wn_scale/var", [4 * H]) + 1.0)
    i_i, i_g, f_g, o_g = split(joined(x, m) @ kernel + v("b/var", [4 * H]), 4)
    c = clipped(sigmoid(f_g + 0.7) * c + sigmoid(i_g) * tanh(i_i), CAP)
    m = sigmoid(o_g) * tanh(c)
    return m, (m, c)


def lingvo_coupled(norm: bool) -> TfCell:
    """LSTMCellSimple or LayerNormalizedLSTMCellSimple with couple_input_forget_gates."""

    def cell(v: Variables, x: Any, states: Any, t: Any) -> Result:
        m, c = states
        v = named_var(v)
        gates = linear(v, joined(x, m), 3 * H, ("wm/var", ""))
        gates = ln(v, gates, ("ln_scale/var", ""), 1e-8, pieces=3) if norm else gates
        i_i, f_g, o_g = split(gates + v("b/var", [3 * H]), 3)
        forget = sigmoid(f_g + 0.7)
        c = clipped(forget * c + (1.0 - forget) * tanh(i_i), CAP)
        m = sigmoid(o_g) * tanh(c)
        return (m @ v("w_proj/var", [H, PROJECTED]), (m @ v("w_proj/var", [H, PROJECTED]), c)) if norm else (m, (m, c))

    return cell


def lingvo_double_projection(v: Variables, x: Any, states: Any, t: Any) -> Result:
    m, c = states
    v = named_var(v)

    def norm(value: Any, name: str) -> Any:
        return normalised(value, 1e-8, less_one(v, f"ln_scale_{name}/var", H) + 1.0, v(f"bias_{name}/var", [H]))

    mixed = joined(x, m) @ v("w_input_proj/var", [INPUTS + PROJECTED, H + 2])
    i_g, i_i, f_g, o_g = (norm(mixed @ v(f"wm_{name}/var", [H + 2, H]), name) for name in ("i_g", "i_i", "f_g", "o_g"))
    c = sigmoid(f_g) * c + sigmoid(i_g) * tanh(i_i)
    m = (sigmoid(o_g) * tanh(norm(c, "c"))) @ v("w_output_proj/var", [H, PROJECTED])
    return m, (m, c)


def lingvo_gru(full: bool) -> TfCell:
    """GRUCell; `full`: with norms, biases and a projection."""

    def cell(v: Variables, x: Any, states: Any, t: Any) -> Result:
        m, c = states
        v = named_var(v)

        def gate(name: str, memory: Any, size: int) -> Any:
            value = joined(x, memory) @ v(f"w_{name}/var", [INPUTS + int(m.shape[-1]), size])
            if not full:
                return value
            return normalised(value, 1e-8, less_one(v, f"b{name}_ln_scale/var", size) + 1.0, v(f"b_{name}/var", [size]))

        r, u = sigmoid(gate("r", m, int(m.shape[-1]))), sigmoid(gate("u", m, H))
        c = clipped((1.0 - u) * c + u * tanh(gate("n", r * m, H)), CAP)
        m = c @ v("w_proj/var", [H, PROJECTED]) if full else c
        return m, (m, c)

    return cell


def conv_lstm(axes: int) -> TfCell:
    """contrib ConvLSTMCell over so many axes."""

    def cell(v: Variables, x: Any, states: Any, t: Any) -> Result:
        c, h = states
        both = joined(x, h)
        kernel = v("kernel", [*(3, 2)[:axes], int(both.shape[-1]), 4 * FILTERS])
        value = tf().nn.convolution(both, kernel, padding="SAME") + v("biases", [4 * FILTERS])
        i, j, f, o = split(value, 4)
        c = sigmoid(f + 0.7) * c + sigmoid(i) * tanh(j)
        h = tanh(c) * sigmoid(o)
        return h, (c, h)

    return cell


def conv_gru(*, normalize: bool) -> TfCell:
    """A ConvGRUCell; contrib's layer_norm takes its moments over the whole image, and has a scale per channel."""

    def cell(v: Variables, x: Any, states: Any, t: Any) -> Result:
        (h,) = states

        def convolved(value: Any, scope: str, size: int) -> Any:
            y = tf().nn.convolution(value, v(f"{scope}/kernel", [3, 2, int(value.shape[-1]), size]), padding="SAME")
            return y if normalize else y + v(f"{scope}/bias", [size])

        def norm(value: Any, scope: str) -> Any:
            if not normalize:
                return value
            mean, variance = tf().nn.moments(value, [1, 2, 3], keepdims=True)
            offset, scale = v(f"{scope}/beta", [FILTERS]), v(f"{scope}/gamma", [FILTERS])
            return tf().nn.batch_normalization(value, mean, variance, offset, scale, 1e-12)

        r, u = split(convolved(joined(x, h), "gates", 2 * FILTERS), 2)
        r, u = sigmoid(norm(r, "gates/LayerNorm")), sigmoid(norm(u, "gates/LayerNorm_1"))
        n = norm(convolved(joined(x, r * h), "candidate", FILTERS), "candidate/LayerNorm")
        h = u * h + (1 - u) * tanh(n)
        return h, (h,)

    return cell


def returnn(norms: str, *, concat: bool = False, raw_output: bool = False) -> TfCell:
    """LayerNormVariantsLSTMCell; `norms` names those that are on."""
    on = norms.split()

    def cell(v: Variables, x: Any, states: Any, t: Any) -> Result:
        c, h = states

        def norm(value: Any, name: str) -> Any:
            offset = "" if name == "state_below" else f"beta_{name}"
            return ln(v, value, (f"gamma_{name}", offset), 1e-12) if name in on else value

        if concat:
            gates = joined(x, h) @ v("W_ff_re", [INPUTS + H, 4 * H])
        else:
            gates = norm(x @ v("W_ff", [INPUTS, 4 * H]), "input_below")
            gates = gates + norm(h @ v("W_re", [H, 4 * H]), "state_below")
        gates = norm(gates, "lstm_in")
        if not {"input_below", "lstm_in", "i_gate"} & set(on):
            gates = gates + v("bias_ff", [4 * H])
        i, j, f, o = (norm(gate, f"{name}_gate") for gate, name in zip(split(gates, 4), "ijfo", strict=True))
        raw = c * sigmoid(f) + sigmoid(i) * tanh(j)
        c = norm(raw, "new_c")
        h = norm(sigmoid(o) * tanh(raw if raw_output else c), "new_h")
        return h, (c, h)

    return cell


def adnc(norm: bool) -> TfCell:
    """CustomLSTMCell; `norm` says which of its two forms."""

    def cell(v: Variables, x: Any, states: Any, t: Any) -> Result:
        (c,) = states
        suffix = "ln_controller_0" if norm else "controller_0"
        ifco = x @ v("w_ifco_controller_0", [INPUTS, 4 * H])
        if norm:
            ifco = ln(v, ifco, ("ln_w_ifco/scale", "ln_w_ifco/beta"), 1e-6)
        ifco = ifco + v(f"b_ifco_{suffix}", [4 * H])
        gates = sigmoid(ifco[:, : 3 * H])
        c = gates[:, :H] * c + gates[:, H : 2 * H] * tanh(ifco[:, 3 * H :])
        output = ln(v, c, ("ln_out_act/scale", "ln_out_act/beta"), 1e-6) if norm else c
        return gates[:, 2 * H :] * tanh(output), (c,)

    return cell


_CAP: dict[str, Any] = {"constants.cell_value_cap": CAP}
_BIASED: dict[str, Any] = {**_CAP, "constants.forget_gate_bias": 0.7}
_LINGVO, _LEAN, _RETURNN = "lingvo_layer_norm_lstm", "lingvo_lean_layer_norm_lstm", "returnn_layer_norm_lstm"
_WN, _ADNC, _SCOPE, _REC = "lingvo_weight_norm_lstm", "adnc_layer_norm_lstm", "fprop/rnn/cell", "lstm0/rec"
_GATES = "i_gate j_gate f_gate o_gate"

CASES: dict[str, TfCase] = {
    "lingvo simple": TfCase(_LINGVO, "simple", _SCOPE, lingvo_simple(projection=False), CELL, _BIASED),
    "lingvo simple, projection": TfCase(
        _LINGVO, "simple", _SCOPE, lingvo_simple(projection=True), (PROJECTED, H), _BIASED
    ),
    "lingvo deprecated": TfCase(_LINGVO, "deprecated", _SCOPE, lingvo_deprecated, CELL, _CAP),
    "lingvo lean": TfCase(_LEAN, "tf1", _SCOPE, lingvo_lean(full=False), CELL),
    "lingvo lean, all": TfCase(_LEAN, "tf1", _SCOPE, lingvo_lean(full=True), (PROJECTED, H), _CAP),
    "lingvo weight norm": TfCase(_WN, "tf1", _SCOPE, lingvo_weight_norm, CELL, _BIASED),
    "lingvo coupled": TfCase("lingvo_coupled_lstm", "tf1", _SCOPE, lingvo_coupled(norm=False), CELL, _BIASED),
    "lingvo coupled, norm": TfCase(
        "lingvo_coupled_lstm", "tf1", _SCOPE, lingvo_coupled(norm=True), (PROJECTED, H), _BIASED
    ),
    "lingvo double projection": TfCase(
        "lingvo_double_projection_lstm", "tf1", _SCOPE, lingvo_double_projection, (PROJECTED, H)
    ),
    "lingvo gru": TfCase("lingvo_gru", "tf1", _SCOPE, lingvo_gru(full=False), CELL, _CAP),
    "lingvo gru, all": TfCase("lingvo_gru", "tf1", _SCOPE, lingvo_gru(full=True), (PROJECTED, H), _CAP),
    "conv lstm": TfCase(
        "contrib_conv_lstm_1d", "tf1", "rnn/conv_lstm_cell", conv_lstm(1), ((7, FILTERS), (7, FILTERS)),
        {"constants.forget_bias": 0.7}, features=(7, 2), dims={"rows": 7},
    ),
    "conv lstm over images": TfCase(
        "contrib_conv_lstm_2d", "tf1", "rnn/conv_2d_lstm_cell", conv_lstm(2), ((5, 4, FILTERS), (5, 4, FILTERS)),
        {"constants.forget_bias": 0.7}, features=(5, 4, 2), dims={"rows": 5, "columns": 4},
    ),
    "conv gru, layer norm": TfCase(
        "layer_norm_conv_gru_2d", "contrib", "rnn/conv_gru_cell", conv_gru(normalize=True), ((5, 4, FILTERS),),
        features=(5, 4, 2), dims={"rows": 5, "columns": 4},
    ),
    "conv gru, biases": TfCase(
        "layer_norm_conv_gru_2d", "contrib", "rnn/conv_gru_cell", conv_gru(normalize=False), ((5, 4, FILTERS),),
        features=(5, 4, 2), dims={"rows": 5, "columns": 4},
    ),
    "returnn": TfCase(_RETURNN, "tf1", _REC, returnn(""), CELL),
    "returnn, global": TfCase(_RETURNN, "tf1", _REC, returnn("input_below state_below"), CELL),
    "returnn, all": TfCase(
        _RETURNN, "tf1", _REC, returnn(f"input_below state_below {_GATES} new_c new_h"), CELL, ambiguous=True
    ),
    "returnn, joined": TfCase(
        _RETURNN, "with_concat", _REC, returnn("lstm_in new_c", concat=True), CELL, ambiguous=True
    ),
    "rnmt": TfCase(
        "returnn_rnmt_lstm", "tf1", _REC, returnn(f"{_GATES} new_c", raw_output=True), CELL, ambiguous=True
    ),
    "rnmt, joined": TfCase(
        "returnn_rnmt_lstm", "with_concat", _REC, returnn(f"{_GATES} new_c", concat=True, raw_output=True), CELL,
        ambiguous=True,
    ),
    "adnc": TfCase(_ADNC, "tf1", "controller/controller_0/controller_0", adnc(norm=True), (H,)),
    "adnc, no norm": TfCase(_ADNC, "tf1", "controller/controller_0/cell_controller_0", adnc(norm=False), (H,)),
}  # fmt: skip
"""Cells by name; each layout of these toolkits' normalised families is among them."""
