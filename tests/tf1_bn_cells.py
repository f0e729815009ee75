"""Batch-normalised cells of public TF1 code, one step each, written in raw TensorFlow ops under their own names.

The equations and names are those of the sources that the family files name. Each function has the signature of
`tf1_oracle.TfCell`; the sizes are those of that module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tf1_oracle import INPUTS, STEPS, UNITS, TfCell, Variables

H = UNITS
PROJECTED = 2
Result = tuple[Any, tuple[Any, ...]]


def _tf() -> Any:
    import tensorflow as tf

    return tf


def split(value: Any, pieces: int) -> Any:
    return _tf().split(value, pieces, axis=-1)


def sigmoid(value: Any) -> Any:
    return _tf().sigmoid(value)


def tanh(value: Any) -> Any:
    return _tf().tanh(value)


def normalised(x: Any, mean: Any, variance: Any, offset: Any, scale: Any, epsilon: float) -> Any:
    return _tf().nn.batch_normalization(x, mean, variance, offset, scale, epsilon)


def shared(
    v: Variables,
    scope: str,
    x: Any,
    epsilon: float,
    names: tuple[str | None, str | None, str, str] = ("scale", "offset", "pop_mean", "pop_var"),
    shape: tuple[int, ...] = (),
) -> Any:
    """One row of statistics for all steps; `shape` stands before the features of the statistics."""
    size = int(x.shape[-1])
    scale, offset, mean, variance = names
    statistics = [*shape, size]
    return normalised(
        x,
        v(f"{scope}/{mean}", statistics),
        v(f"{scope}/{variance}", statistics),
        None if offset is None else v(f"{scope}/{offset}", [size]),
        None if scale is None else v(f"{scope}/{scale}", [size]),
        epsilon,
    )


def per_step(
    v: Variables,
    scope: str,
    x: Any,
    t: Any,
    epsilon: float,
    names: tuple[str, str | None, str, str] = ("scale", "offset", "pop_mean", "pop_var"),
) -> Any:
    """A row of statistics per step, the last one from then on."""
    tf = _tf()
    size = int(x.shape[-1])
    scale, offset, mean, variance = names
    row = tf.minimum(t, STEPS - 1)
    return normalised(
        x,
        tf.gather(v(f"{scope}/{mean}", [STEPS, size]), row),
        tf.gather(v(f"{scope}/{variance}", [STEPS, size]), row),
        None if offset is None else v(f"{scope}/{offset}", [size]),
        v(f"{scope}/{scale}", [size]),
        epsilon,
    )


def of_batch(x: Any, scale: Any, offset: Any, epsilon: float) -> Any:
    """The moments of the batch at hand."""
    mean, variance = _tf().nn.moments(x, [0])
    return normalised(x, mean, variance, offset, scale, epsilon)


def of_batch_outside(x: Any, scale: Any, offset: Any, epsilon: float) -> Any:
    mean, variance = _tf().nn.moments(x, [0])
    return scale * (x - mean) / (_tf().sqrt(variance) + epsilon) + offset


def kernels(v: Variables, x: Any, h: Any, columns: int = 4 * H) -> tuple[Any, Any]:
    return x @ v("W_xh", [INPUTS, columns]), h @ v("W_hh", [int(h.shape[-1]), columns])


def olavhn(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    c, h = states
    xh, hh = kernels(v, x, h)
    hidden = shared(v, "xh", xh, 1e-3) + shared(v, "hh", hh, 1e-3) + v("bias", [4 * H])
    i, j, f, o = split(hidden, 4)
    c = c * sigmoid(f) + sigmoid(i) * tanh(j)
    h = tanh(shared(v, "c", c, 1e-3)) * sigmoid(o)
    return h, (c, h)


def contrib_inside(scale: str | None) -> TfCell:
    names = (scale, "beta", "moving_mean", "moving_variance")

    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        c, h = states
        xh, hh = kernels(v, x, h)
        hidden = shared(v, "xh", xh, 1e-3, names) + shared(v, "hh", hh, 1e-3, names) + v("bias", [4 * H])
        i, j, f, o = split(hidden, 4)
        c = c * sigmoid(f) + sigmoid(i) * tanh(j)
        h = tanh(shared(v, "c", c, 1e-3, names)) * sigmoid(o)
        return h, (c, h)

    return cell


NO_OFFSET = ("scale", None, "pop_mean", "pop_var")


def phan(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    c, h = states
    xh, hh = kernels(v, x, h)
    f, i, o, j = split(per_step(v, "hh", hh, t, 1e-5) + per_step(v, "xh", xh, t, 1e-5, NO_OFFSET), 4)
    c = c * sigmoid(f) + sigmoid(i) * tanh(j)
    h = tanh(per_step(v, "c", c, t, 1e-5)) * sigmoid(o)
    return h, (c, h)


def phan_relu(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    relu = _tf().nn.relu
    c, h = states
    xh, hh = kernels(v, x, h)
    f, i, o, j = split(per_step(v, "hh", hh, t, 1e-5) + per_step(v, "xh", xh, t, 1e-5, NO_OFFSET), 4)
    c = c * sigmoid(f) + sigmoid(i) * relu(j)
    h = relu(per_step(v, "c", c, t, 1e-5)) * sigmoid(o)
    return h, (c, h)


def phan_input(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    c, h = states
    xh, hh = kernels(v, x, h)
    f, i, o, j = split(per_step(v, "xh", xh, t, 1e-5, NO_OFFSET) + hh, 4)
    c = c * sigmoid(f) + sigmoid(i) * tanh(j)
    h = tanh(per_step(v, "c", c, t, 1e-5)) * sigmoid(o)
    return h, (c, h)


def bypass(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    """The last row of the statistics is never read."""
    c, h = states
    names = ("scale", "offset", "pop_mean_all", "pop_var_all")

    def norm(scope: str, value: Any, offset: str | None = "offset") -> Any:
        result = per_step(v, scope, value, t, 1e-7, (names[0], offset, *names[2:]))
        return _tf().where(_tf().less(t, STEPS - 1), result, value)

    xh, hh = kernels(v, x, h)
    f, i, o, j = split(norm("hh", hh) + norm("xh", xh, None), 4)
    c = c * sigmoid(f + 1.0) + sigmoid(i) * tanh(j)
    h = tanh(norm("c", c)) * sigmoid(o)
    return h, (c, h)


def in_time(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    c, h = states
    xh, hh = kernels(v, x, h)
    hidden = per_step(v, "xh", xh, t, 1e-3) + per_step(v, "hh", hh, t, 1e-3) + v("bias", [4 * H])
    i, j, f, o = split(hidden, 4)
    c = c * sigmoid(f) + sigmoid(i) * tanh(j)
    h = tanh(per_step(v, "new_c", c, t, 1e-3)) * sigmoid(o)
    return h, (c, h)


def variable_per_step(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    c, h = states

    def norm(letter: str, value: Any, beta: Any = None) -> Any:
        size = [int(value.shape[-1])]
        mean, variance = (v(f"BNLSTM-Stats-T{t}/{letter}{role}", size) for role in ("mean", "var"))
        return normalised(value, mean, variance, beta, v(f"LSTMBatchNorm/{letter}gamma", size), 1e-5)

    xh, hh = x @ v("BasicLSTMCell/W", [INPUTS, 4 * H]), h @ v("BasicLSTMCell/H", [H, 4 * H])
    i, j, f, o = split(norm("x", xh) + norm("h", hh) + v("BasicLSTMCell/b", [4 * H]), 4)
    c = c * sigmoid(f + 1.0) + sigmoid(i) * tanh(j)
    h = tanh(norm("c", c, v("LSTMBatchNorm/cbeta", [H]))) * sigmoid(o)
    return h, (c, h)


def gru_variable_per_step(full: bool) -> TfCell:
    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        (h,) = states

        def norm(prefix: str, value: Any, beta: bool) -> Any:
            size = [int(value.shape[-1])]
            mean, variance = (v(f"BNGRU-Stats-T{t}/{prefix}{role}", size) for role in ("mean", "var"))
            offset = v(f"GRUBatchNorm/{prefix}beta", size) if beta else None
            return normalised(value, mean, variance, offset, v(f"GRUBatchNorm/{prefix}gamma", size), 1e-5)

        xh, hh = x @ v("GRUCell/W", [INPUTS, 2 * H]), h @ v("GRUCell/H", [H, 2 * H])
        gates = norm("x", xh, False) + norm("h", hh, False) + v("GRUCell/B", [2 * H]) + 1.0
        r, u = split(sigmoid(gates), 2)
        nx, nh = x @ v("GRUCell/Wh", [INPUTS, H]), h @ v("GRUCell/Hh", [H, H])
        if full:
            nx, nh = norm("hx_", nx, True), norm("hh_", nh, True)
        h = u * h + (1 - u) * tanh(norm("m", nx + r * nh, True))
        return h, (h,)

    return cell


def ponyai(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    c, h = states

    def norm(scope: str, value: Any) -> Any:
        shape = [STEPS, int(value.shape[-1])]
        scale, offset, mean, variance = (
            _tf().gather(v(f"{scope}/{role}", shape), t) for role in ("scale", "offset", "pop_mean", "pop_var")
        )
        return normalised(value, mean, variance, offset, scale, 1e-5)

    xh, hh = x @ v("W_XH", [INPUTS, 4 * H]), h @ v("W_HH", [H, 4 * H])
    f, i, o, g = split(norm("batch_norm_w_xh", xh) + norm("batch_norm_w_hh", hh) + v("bias", [4 * H]), 4)
    c = c * sigmoid(f + 1.0) + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(norm("lstm_cell_state", c))
    return h, (c, h)


POPULATION = ("scale", "offset", "population_mean", "population_var")


def khalife(peepholes: bool, projected: bool, clip: float | None = None) -> TfCell:
    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        c, h = states
        xh, hh = kernels(v, x, h)
        i, j, f, o = split(
            shared(v, "xh", xh, 1e-3, POPULATION) + shared(v, "hh", hh, 1e-3, POPULATION) + v("B", [4 * H]), 4
        )
        f, i, o, c = peeped(v, f, i, o, j, c, peepholes, clip)
        h = o(c) * tanh(shared(v, "cell", c, 1e-3, POPULATION))
        if projected:
            h = h @ v("W_P", [H, PROJECTED])
        return h, (c, h)

    return cell


def peeped(
    v: Variables, f: Any, i: Any, o: Any, j: Any, c: Any, peepholes: bool, clip: float | None
) -> tuple[Any, Any, Callable[[Any], Any], Any]:
    """Gates with or without peepholes, and the new cell; the output gate sees the new cell."""
    w_f, w_i, w_o = (v(f"W_{gate}_DIAG".replace("DIAG", "diag"), [H]) if peepholes else 0.0 for gate in "FIO")
    c = c * sigmoid(f + 1.0 + w_f * c) + sigmoid(i + w_i * c) * tanh(j)
    if clip is not None:
        c = _tf().clip_by_value(c, -clip, clip)
    return f, i, lambda new: sigmoid(o + w_o * new), c


def tamamori(norms: str, peepholes: bool = False, projected: bool = False, clip: float | None = None) -> TfCell:
    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        c, h = states

        def norm(letter: str, scope: str, value: Any) -> Any:
            return per_step(v, scope, value, t, 1e-3, POPULATION) if letter in norms else value

        xh, hh = kernels(v, x, h)
        i, j, f, o = split(norm("x", "xh", xh) + norm("h", "hh", hh) + v("B", [4 * H]), 4)
        f, i, o, c = peeped(v, f, i, o, j, c, peepholes, clip)
        h = o(c) * tanh(norm("c", "cell", c))
        return (h @ v("W_P", [H, PROJECTED]) if projected else h), (c, h)

    return cell


def per_gate(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    c, h = states
    both = _tf().concat([x, h], 1) @ v("Linear/Matrix", [INPUTS + H, 4 * H])
    i, j, f, o = (shared(v, gate, part, 1e-3) for gate, part in zip("ijfo", split(both, 4), strict=True))
    c = c * sigmoid(f + 1.0) + sigmoid(i) * tanh(j)
    h = tanh(shared(v, "new_h", c, 1e-3)) * sigmoid(o)
    return h, (c, h)


def scale_only(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    c, h = states
    xh = of_batch(x @ v("x/Linear/W", [INPUTS, 4 * H]), v("x/BatchNorm/gamma", [4 * H]), None, 1e-3)
    hh = of_batch(h @ v("h/Linear/W", [H, 4 * H]), v("h/BatchNorm/gamma", [4 * H]), None, 1e-3)
    i, j, f, o = split(xh + hh, 4)
    c = c * sigmoid(f + 1.0) + sigmoid(i) * tanh(j)
    h = tanh(of_batch(c, v("BatchNorm/gamma", [H]), None, 1e-3)) * sigmoid(o)
    return h, (c, h)


def ln_cell(normed: bool, multiplicative: bool) -> TfCell:
    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        c, h = states

        def norm(value: Any, name: str) -> Any:
            if not normed:
                return value
            head, _, tail = name.rpartition("/")
            size = [int(value.shape[-1])]
            return of_batch_outside(value, v(f"{head}/gamma_{tail}", size), v(f"{head}/beta_{tail}", size), 1e-6)

        p = norm(x @ v("input_weight_matrix/W_x", [INPUTS, 4 * H]), "input_weight_matrix/wx")
        q = norm(h @ v("hidden_hidden_matrix/W_h", [H, 4 * H]), "hidden_hidden_matrix/wh")
        if multiplicative:
            alpha = v("MI_alpha", [4 * H])
            beta_x = v("input_weight_matrix/MI_beta_x", [4 * H])
            beta_h = v("hidden_hidden_matrix/MI_beta_h", [4 * H])
            total = alpha * q * p + beta_h * q + beta_x * p + v("concat_bias", [4 * H])
        else:
            total = q + p + v("concat_bias", [4 * H])
        f, i, o, g = split(total, 4)
        c = norm(sigmoid(f + 1.0) * c + sigmoid(i) * tanh(g), "context_normalizing/c")
        h = sigmoid(o) * tanh(c)
        return h, (c, h)

    return cell


def ln_gru(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    (h,) = states

    def norm(value: Any, name: str) -> Any:
        head, _, tail = name.rpartition("/")
        size = [int(value.shape[-1])]
        return of_batch_outside(value, v(f"{head}/gamma_{tail}", size), v(f"{head}/beta_{tail}", size), 1e-8)

    p = norm(x @ v("input_weight_matrix/W_x", [INPUTS, 2 * H]), "input_weight_matrix/wx")
    q = norm(h @ v("hidden_hidden_matrix/W_h", [H, 2 * H]), "hidden_hidden_matrix/wh")
    z, r = split(q + p + v("concat_bias", [2 * H]), 2)
    z = sigmoid(z + 1.0)
    ux = norm(x @ v("candidate_matrix/U_x", [INPUTS, H]), "candidate_matrix/ux")
    uh = norm(h @ v("candidate_matrix/U_h", [H, H]), "candidate_matrix/uh")
    h = z * h + (1 - z) * tanh(ux + sigmoid(r) * uh)
    return h, (h,)


def qiita(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    c, h = states
    xh = of_batch(x @ v("w_x", [INPUTS, 4 * H]), v("gamma_x", [4 * H]), None, 1e-10)
    hh = of_batch(h @ v("w_h", [H, 4 * H]), v("gamma_h", [4 * H]), None, 1e-10)
    i, f, o, g = split(xh + hh + v("b", [4 * H]), 4)
    c = of_batch(sigmoid(f + 0.7) * c + sigmoid(i) * tanh(g), v("gamma_c", [H]), v("beta_c", [H]), 1e-10)
    h = sigmoid(o) * tanh(c)
    return h, (c, h)


def input_lstm(row: tuple[int, ...]) -> TfCell:
    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        c, h = states
        xh = shared(v, "gates/bn_x", x @ v("gates/mul_x/weights", [INPUTS, 4 * H]), 1e-3, POPULATION, row)
        hh = h @ v("gates/muk_h/weights", [H, 4 * H]) + v("gates/muk_h/biases", [4 * H])
        j, i, f, o = split(xh + hh, 4)
        c = c * sigmoid(f + 1.0) + sigmoid(i) * tanh(j)
        h = sigmoid(o) * tanh(c)
        return h, (c, h)

    return cell


def input_gru(row: tuple[int, ...]) -> TfCell:
    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        (h,) = states
        xh = shared(v, "gates/bn_x", x @ v("gates/mul_x/weights", [INPUTS, 2 * H]), 1e-3, POPULATION, row)
        hh = h @ v("gates/muk_h/weights", [H, 2 * H]) + v("gates/muk_h/biases", [2 * H])
        r, u = split(sigmoid(xh + hh), 2)
        nx = shared(v, "candidate/bn_x_c", x @ v("candidate/muk_x_c/weights", [INPUTS, H]), 1e-3, POPULATION, row)
        nh = (r * h) @ v("candidate/muk_rh/weights", [H, H]) + v("candidate/muk_rh/biases", [H])
        h = u * h + (1 - u) * tanh(nx + nh)
        return h, (h,)

    return cell


def reset_only(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    (h,) = states
    concat = _tf().concat
    r, u = split(concat([x, h], 1) @ v("gates/weights", [INPUTS + H, 2 * H]), 2)
    r, u = sigmoid(per_step(v, "gates/r", r, t, 1e-5, NO_OFFSET)), sigmoid(u)
    n = tanh(concat([x, r * h], 1) @ v("candidate/weights", [INPUTS + H, H]))
    h = u * h + (1 - u) * n
    return h, (h,)


def gru_contrib(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
    (h,) = states
    names = ("gamma", "beta", "moving_mean", "moving_variance")

    def norm(scope: str, value: Any) -> Any:
        return shared(v, f"{scope}/BatchNorm", value, 1e-3, names)

    xh, sh = kernels(v, x, h, 2 * H)
    u, r = split(norm("xh", xh) + norm("sh", sh) + v("xs_bias", [2 * H]), 2)
    ixh, ish = norm("ixh", x @ v("W_ixh", [INPUTS, H])), norm("ish", h @ v("W_ish", [H, H]))
    n = _tf().nn.softsign(norm("r_", sigmoid(r) * ish + ixh + v("ixs_bias", [H])))
    h = sigmoid(u) * h + (1 - sigmoid(u)) * n
    return h, (h,)


def sonnet(
    flags: str, *, peepholes: bool = False, clips: bool = False, local: bool = False, sets: str = "one"
) -> TfCell:
    """BatchNormLSTM; `sets` is `one`, or how several are numbered: `ascending`, `tf_case`."""

    def statistics(v: Variables, letter: str, size: int, t: Any) -> tuple[Any, Any]:
        step = min(int(t), STEPS - 1)
        number = {"one": 0, "ascending": step, "tf_case": 0 if step == STEPS - 1 else STEPS - step}[sets]
        if sets == "tf_case":
            v(f"batch_norm_{letter}/batch_norm_1/moving_mean", [1, size])  # made, never read
            v(f"batch_norm_{letter}/batch_norm_1/moving_variance", [1, size])
        scope = f"batch_norm_{letter}/batch_norm" + (f"_{number}" if number else "")
        return v(f"{scope}/moving_mean", [1, size]), v(f"{scope}/moving_variance", [1, size])

    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        h, c = states
        if clips:
            h, c = _tf().clip_by_value(h, -0.3, 0.3), _tf().clip_by_value(c, -0.4, 0.4)

        def norm(letter: str, value: Any) -> Any:
            if letter not in flags:
                return value
            size = int(value.shape[-1])
            beta = v("beta_c", [size]) if letter == "c" else None
            gamma = v(f"gamma_{letter}", [size])
            mean, variance = statistics(v, letter, size, t)
            return of_batch(value, gamma, beta, 1e-3) if local else normalised(value, mean, variance, beta, gamma, 1e-3)

        if {"h", "x"} & set(flags):
            gates = norm("h", h @ v("w_gates_H", [H, 4 * H])) + norm("x", x @ v("w_gates_X", [INPUTS, 4 * H]))
        else:
            gates = _tf().concat([x, h], 1) @ v("w_gates", [INPUTS + H, 4 * H])
        i, j, f, o = split(gates + v("b_gates", [4 * H]), 4)
        if peepholes:
            f, i = f + v("w_f_diag", [H]) * c, i + v("w_i_diag", [H]) * c
        c = sigmoid(f + 1.0) * c + sigmoid(i) * tanh(j)
        y = norm("c", c)
        if peepholes:
            y = y + y * v("w_o_diag", [H])
        h = sigmoid(o) * tanh(y)
        return h, (h, c)

    return cell


ROWS, COLUMNS, FILTERS, WINDOW = 4, 5, 2, 3
SPACE = (ROWS, COLUMNS)
SLICES = 6


def conv_gru(use_bias: bool) -> TfCell:
    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        (h,) = states
        tf = _tf()

        def conv(name: str, value: Any, filters: int) -> Any:
            kernel = v(name, [WINDOW, WINDOW, int(value.shape[-1]), filters])
            return tf.nn.convolution(value, kernel, padding="SAME")

        def norm(scope: str, value: Any) -> Any:
            return per_step(v, scope, value, t, 1e-5, NO_OFFSET)

        rux = norm("gates/rux", conv("gates/kernel_x", x, 2 * FILTERS))
        ruh = norm("gates/ruh", conv("gates/kernel_h", h, 2 * FILTERS))
        r, u = split(rux + ruh, 2)
        if use_bias:
            r, u = r + v("gates/bias_r", [FILTERS]), u + v("gates/bias_u", [FILTERS])
        r, u = sigmoid(r), sigmoid(u)
        hx = norm("candidate/hx", conv("candidate/kernel_x", x, FILTERS))
        hh = norm("candidate/hh", conv("candidate/kernel_h", r * h, FILTERS))
        n = hx + hh + (v("candidate/bias", [FILTERS]) if use_bias else 0.0)
        h = u * h + (1 - u) * tanh(n)
        return h, (h,)

    return cell


def conv_on_input(x: Any, v: Variables, place: str, norm: str, filters: int, *, training: bool) -> Any:
    """A convolution without bias, and a norm with a mean and a variance per pixel and filter."""
    y = convolved(x, v, place, filters)
    if training:
        return of_batch(y, v(f"{norm}/scale", [filters]), v(f"{norm}/offset", [filters]), 1e-3)
    return shared(v, norm, y, 1e-3, POPULATION, (1, *map(int, y.shape[1:-1])))


def conv_on_state(h: Any, v: Variables, place: str, filters: int) -> Any:
    """A convolution with a bias."""
    return convolved(h, v, place, filters) + v(f"{place}/biases", [filters])


def convolved(value: Any, v: Variables, place: str, filters: int) -> Any:
    """A convolution of images or volumes."""
    volume = len(value.shape) == 5
    kernel = v(f"{place}/weights", [WINDOW, 2, *([3] if volume else []), int(value.shape[-1]), filters])
    if volume:
        return _tf().nn.conv3d(value, kernel, [1] * 5, padding="SAME")
    return _tf().nn.conv2d(value, kernel, strides=1, padding="SAME")


def input_conv_gru(training: bool) -> TfCell:
    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        (h,) = states
        on_input = conv_on_input(x, v, "gates/conv_x", "gates/bn_x", 2 * FILTERS, training=training)
        r, u = split(sigmoid(on_input + conv_on_state(h, v, "gates/conv_h", 2 * FILTERS)), 2)
        n = conv_on_input(x, v, "candidate/conv_x_c", "candidate/bn_x_c", FILTERS, training=training)
        h = u * h + (1 - u) * tanh(n + conv_on_state(r * h, v, "candidate/conv_rh", FILTERS))
        return h, (h,)

    return cell


def input_conv_lstm(training: bool) -> TfCell:
    def cell(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Result:
        c, h = states
        on_input = conv_on_input(x, v, "gates/conv_x", "gates/bn_x", 4 * FILTERS, training=training)
        j, i, f, o = split(on_input + conv_on_state(h, v, "gates/conv_h", 4 * FILTERS), 4)
        c = c * sigmoid(f + 1.0) + sigmoid(i) * tanh(j)
        h = sigmoid(o) * tanh(c)
        return h, (c, h)

    return cell


@dataclass(frozen=True)
class BnCell:
    """A cell to check.

    Attributes:
        family, layout: in the catalogue.
        cell: in TensorFlow.
        scope: of its variables.
        states: sizes of its states.
        settings: what the user must say.
        shapes: batch and time of the sequences to run.
        features: of the input.
        dims: sizes that the tensors do not tell.
        ambiguous: its variables fit other cells too, so that the user must name the family.
    """

    family: str
    layout: str
    cell: TfCell
    scope: str = "rnn/BNLSTMCell"
    states: tuple[int | tuple[int, ...], ...] = (H, H)
    settings: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[tuple[int, int], ...] = ((1, STEPS - 1), (3, STEPS), (2, STEPS + 3))
    features: tuple[int, ...] = (INPUTS,)
    dims: dict[str, int] = field(default_factory=dict)
    ambiguous: bool = False


WITHIN = ((1, STEPS - 1), (3, STEPS))
"""Sequences that have rows of statistics for every step."""

BATCHES = ((6, STEPS - 1), (7, STEPS + 2))
LOCAL = {"norms.*.source": "batch"}
STORED = {"norms.*.source": "population"}
ERROR = {"norms.*.past_end": "error"}

CELLS = {
    "olavhn": BnCell("bn_lstm_shared", "olavhn", olavhn),
    "olavhn below a stack": BnCell("bn_lstm_shared", "olavhn", olavhn, scope="rnn/multi_rnn_cell/cell_1/BNLSTMCell"),
    "contrib": BnCell("bn_lstm_shared", "contrib", contrib_inside("gamma")),
    "contrib unscaled": BnCell("bn_lstm_shared", "contrib_unscaled", contrib_inside(None)),
    # The random statistics of these two happen to speak clearly for another order of the gates.
    "phan": BnCell("bn_lstm_per_step", "phan", phan, scope="frame_rnn_layer/fw/BNLSTMCell", ambiguous=True),
    "phan with relu": BnCell(
        "bn_lstm_per_step",
        "phan",
        phan_relu,
        settings={"functions.activation": "relu"},
        shapes=((4, STEPS), (5, STEPS + 3)),
    ),
    "phan, input only": BnCell("bn_lstm_per_step_input", "phan", phan_input),
    "bypass": BnCell("bn_lstm_per_step", "bypass", bypass, ambiguous=True),
    "in time": BnCell("bn_lstm_per_step", "in_time", in_time),
    "variable per step": BnCell(
        "bn_lstm_per_step", "variable_per_step", variable_per_step, "model", settings=ERROR, shapes=WITHIN[1:]
    ),
    "ponyai": BnCell("bn_lstm_per_step_affine", "ponyai", ponyai, "bn_lstm", shapes=WITHIN),
    "khalife": BnCell("bn_lstm_peephole", "khalife", khalife(False, False)),
    "khalife, all": BnCell(
        "bn_lstm_peephole",
        "khalife",
        khalife(True, True, 0.6),
        states=(H, PROJECTED),
        settings={"constants.cell_clip": 0.6},
    ),
    "tamamori": BnCell("bn_lstm_per_step_flags", "tamamori", tamamori("xhc")),
    "tamamori, two norms": BnCell("bn_lstm_per_step_flags", "tamamori", tamamori("hc", True)),
    "tamamori, all": BnCell(
        "bn_lstm_per_step_flags",
        "tamamori",
        tamamori("xhc", True, True, 0.6),
        settings={"constants.cell_clip": 0.6},
    ),
    "gru, variable per step": BnCell(
        "bn_gru_per_step", "variable_per_step", gru_variable_per_step(True), "m", (H,), ERROR, WITHIN[1:]
    ),
    "gru, variable per step, simple": BnCell(
        "bn_gru_per_step", "variable_per_step", gru_variable_per_step(False), "m", (H,), ERROR, WITHIN[1:]
    ),
    "per gate": BnCell("bn_lstm_per_gate", "per_gate", per_gate),
    "scale only": BnCell("bn_lstm_of_batch", "scale_only", scale_only, shapes=BATCHES),
    "ln_cell": BnCell("bn_lstm_of_batch_carried", "ln_cell", ln_cell(True, False), "LSTM", shapes=BATCHES),
    "ln_cell, multiplicative": BnCell("bn_lstm_multiplicative", "ln_cell", ln_cell(True, True), "LSTM", shapes=BATCHES),
    "ln_cell, multiplicative only": BnCell("bn_lstm_multiplicative", "ln_cell", ln_cell(False, True), "LSTM"),
    "ln_cell, gru": BnCell("bn_gru_of_batch", "ln_cell", ln_gru, "LN_GRU", (H,), shapes=BATCHES),
    "qiita": BnCell(
        "bn_lstm_of_batch_carried",
        "qiita",
        qiita,
        "lstm",
        settings={"constants.forget_bias": 0.7},
        shapes=BATCHES,
    ),
    "input, pooled": BnCell("bn_lstm_input", "pooled", input_lstm(()), "rnn"),
    "input, per feature": BnCell("bn_lstm_input", "per_feature", input_lstm((1,)), "rnn"),
    "input gru, pooled": BnCell("bn_gru_input", "pooled", input_gru(()), "rnn", (H,)),
    "input gru, per feature": BnCell("bn_gru_input", "per_feature", input_gru((1,)), "rnn", (H,)),
    "reset only": BnCell("bn_gru_reset", "reset_only", reset_only, "rnn/gru_cell", (H,)),
    "gru, contrib": BnCell("bn_gru_shared", "contrib", gru_contrib, "rnn/BNGRUCell", (H,)),
    "sonnet": BnCell("bn_lstm_sonnet", "sonnet", sonnet("h"), "batch_norm_lstm", settings=STORED),
    "sonnet, batch": BnCell(
        "bn_lstm_sonnet", "sonnet", sonnet("h", local=True), "batch_norm_lstm", (H, H), LOCAL, BATCHES
    ),
    "sonnet, all": BnCell(
        "bn_lstm_sonnet",
        "sonnet",
        sonnet("hxc", peepholes=True, clips=True),
        "batch_norm_lstm",
        settings={**STORED, "constants.hidden_clip": 0.3, "constants.cell_clip": 0.4},
    ),
    "sonnet, cell only": BnCell("bn_lstm_sonnet", "sonnet_cell_only", sonnet("c"), "batch_norm_lstm", settings=STORED),
    "sonnet, ascending": BnCell(
        "bn_lstm_sonnet_indexed",
        "ascending",
        sonnet("hxc", sets="ascending"),
        "batch_norm_lstm",
        settings=STORED,
        ambiguous=True,
    ),
    "sonnet, tf_case": BnCell(
        "bn_lstm_sonnet_indexed",
        "tf_case",
        sonnet("hc", sets="tf_case"),
        "batch_norm_lstm",
        settings=STORED,
        ambiguous=True,
    ),
    "input conv gru": BnCell(
        "bn_conv_gru_input_2d",
        "per_pixel",
        input_conv_gru(False),
        "rnn",
        ((*SPACE, FILTERS),),
        shapes=((1, 2), (3, 4)),
        features=(*SPACE, INPUTS),
    ),
    "input conv lstm": BnCell(
        "bn_conv_lstm_input_2d",
        "per_pixel",
        input_conv_lstm(False),
        "rnn",
        ((*SPACE, FILTERS),) * 2,
        shapes=((1, 2), (3, 4)),
        features=(*SPACE, INPUTS),
    ),
    "input conv gru, volumes": BnCell(
        "bn_conv_gru_input_3d",
        "per_voxel",
        input_conv_gru(False),
        "rnn",
        ((*SPACE, SLICES, FILTERS),),
        shapes=((2, 3),),
        features=(*SPACE, SLICES, INPUTS),
    ),
    "input conv lstm, volumes": BnCell(
        "bn_conv_lstm_input_3d",
        "per_voxel",
        input_conv_lstm(False),
        "rnn",
        ((*SPACE, SLICES, FILTERS),) * 2,
        shapes=((2, 3),),
        features=(*SPACE, SLICES, INPUTS),
    ),
    "conv gru": BnCell(
        "bn_conv_gru_per_step_2d",
        "phan",
        conv_gru(False),
        "conv",
        ((*SPACE, FILTERS),),
        shapes=((1, STEPS - 1), (2, STEPS + 1)),
        features=(*SPACE, INPUTS),
        dims={"rows": ROWS, "columns": COLUMNS},
    ),
    "conv gru with biases": BnCell(
        "bn_conv_gru_per_step_2d",
        "phan",
        conv_gru(True),
        "conv",
        ((*SPACE, FILTERS),),
        shapes=((2, STEPS),),
        features=(*SPACE, INPUTS),
        dims={"rows": ROWS, "columns": COLUMNS},
    ),
}
