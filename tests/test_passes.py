"""Rewrites of equations: what is hoisted, how joined products are split, which cells are recognised as plain ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normconvert.interpreter.cell import step
from normconvert.ir.cell import Cell, State
from normconvert.ir.checking import analyse
from normconvert.ir.expressions import Equations
from normconvert.ir.model import Array
from normconvert.ir.norm import Norm
from normconvert.ir.printer import print_equations, print_expression
from normconvert.passes.fused import Fused, fuse
from normconvert.passes.hoist import hoist
from normconvert.passes.prune import prune
from normconvert.passes.recognise import recognise
from normconvert.passes.split_products import split_products

INPUTS, UNITS = 3, 7


def cell_of(body: str, parameters: dict[str, tuple[int, ...]], states: str = "h", **constants: float) -> Cell:
    lines = "".join(f"    {line.strip()}\n" for line in body.strip().splitlines())
    return Cell(
        equations=f"cell some(x; {', '.join(states)}):\n{lines}",
        dims={"units": UNITS},
        input_shapes={"x": (INPUTS,)},
        states={name: State((UNITS,)) for name in states},
        parameters=parameters,
        constants=constants,
    )


def shapes(count: int, *biases: str) -> dict[str, tuple[int, ...]]:
    return {"W": (INPUTS, count * UNITS), "U": (UNITS, count * UNITS), **dict.fromkeys(biases, (count * UNITS,))}


def arrays(cell: Cell) -> dict[str, Array]:
    draw = np.random.default_rng(3)
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in cell.weight_shapes().items()}


LSTM = """
z = x @ W + h @ U + b
i, j, f, o = split(z, 4)
c = sigmoid(f + bias_f) * c + sigmoid(i) * tanh(j)
h = sigmoid(o) * tanh(c)
"""
JOINED = LSTM.replace("x @ W + h @ U", "concat(h, x) @ W")
SLICED = """
f = sigmoid(x @ W[:, 0:units] + h @ U[:, 0:units] + b[0:units])
i = sigmoid(h @ U[:, units:2*units] + b[units:2*units] + x @ W[:, units:2*units])
zo = (x @ W + b + h @ U)[2*units:]
o = sigmoid(zo[:units])
write = tanh(zo[units:]) * i
new = c * f + write
h = tanh(new) * o
c = new
"""
GRU = """
x_z, x_r, x_n = split(x @ W + b, 3)
h_z, h_r, h_n = split(h @ U + b_h, 3)
z = sigmoid(x_z + h_z)
r = sigmoid(x_r + h_r)
n = tanh(x_n + r * h_n)
"""
RECOGNISED: dict[str, tuple[Cell, str | None]] = {
    "lstm": (cell_of(LSTM, shapes(4, "b"), "ch", bias_f=0.7), "LSTM"),
    "lstm on joined values": (
        cell_of(JOINED, {"W": (INPUTS + UNITS, 4 * UNITS), "b": (4 * UNITS,)}, "ch", bias_f=1.0),
        "LSTM",
    ),
    "lstm by slices, gates f i o g": (cell_of(SLICED, shapes(4, "b"), "ch"), "LSTM"),
    "gru, gate keeps": (cell_of(GRU + "h = z * h + (1 - z) * n", shapes(3, "b", "b_h")), "GRU"),
    "gru, gate keeps, factored": (cell_of(GRU + "h = n + z * (h - n)", shapes(3, "b", "b_h")), "GRU"),
    "gru, gate writes": (cell_of(GRU + "h = z * n + h - h * z", shapes(3, "b", "b_h")), "GRU"),
    "rnn": (cell_of("h = tanh(h @ U + (x @ W + b))", shapes(1, "b")), "tanh"),
    "rnn, relu, scaled": (cell_of("h = relu(0.5 * (x @ W) - h @ U)", shapes(1)), "relu"),
    "no: reset before": (
        cell_of(
            """
            z = sigmoid(x @ W[:, 0:units] + h @ U[:, 0:units])
            r = sigmoid(x @ W[:, units:2*units] + h @ U[:, units:2*units])
            n = tanh(x @ W[:, 2*units:] + (r * h) @ U[:, 2*units:])
            h = z * h + (1 - z) * n
            """,
            shapes(3),
        ),
        None,
    ),
    "no: reset on the whole candidate": (
        cell_of(GRU.replace("x_n + r * h_n", "r * (x_n + h_n)") + "h = z * h + (1 - z) * n", shapes(3, "b", "b_h")),
        None,
    ),
    "no: hard sigmoid": (
        cell_of(LSTM.replace("sigmoid(o)", "hard_sigmoid(o, 0.2)"), shapes(4, "b"), "ch", bias_f=0.7),
        None,
    ),
    "no: peephole": (cell_of(LSTM.replace("f + bias_f", "f + p * c"), {**shapes(4, "b"), "p": (UNITS,)}, "ch"), None),
    "no: raw cell in the output": (cell_of(LSTM.replace("tanh(c)", "c"), shapes(4, "b"), "ch", bias_f=0.7), None),
    "no: output of the old cell": (
        cell_of(
            LSTM.replace("h = sigmoid(o) * tanh(c)", "h = sigmoid(o) * tanh(sigmoid(i) * tanh(j))"),
            shapes(4, "b"),
            "ch",
            bias_f=0.7,
        ),
        None,
    ),
    "no: coupled gates": (
        cell_of(LSTM.replace("sigmoid(i)", "(1 - sigmoid(f))"), shapes(4, "b"), "ch", bias_f=0.7),
        None,
    ),
    "no: forget gate of another function": (
        cell_of(LSTM.replace("sigmoid(f + bias_f)", "tanh(f + bias_f)"), shapes(4, "b"), "ch", bias_f=0.7),
        None,
    ),
    "no: clipped cell": (
        cell_of(LSTM.replace("tanh(c)", "tanh(clip(c, -3, 3))"), shapes(4, "b"), "ch", bias_f=0.7),
        None,
    ),
    "no: input gate scaled": (
        cell_of(LSTM.replace("sigmoid(i)", "0.5 * sigmoid(i)"), shapes(4, "b"), "ch", bias_f=0.7),
        None,
    ),
    "no: one gate for both terms": (cell_of(GRU + "h = z * h + z * n", shapes(3, "b", "b_h")), None),
    "no: weights of the terms sum to 2": (cell_of(GRU + "h = z * h + (2 - z) * n", shapes(3, "b", "b_h")), None),
    "no: zoneout": (cell_of("h = 0.9 * tanh(x @ W + h @ U) + 0.1 * h", shapes(1)), None),
    "no: gates of another input": (
        cell_of(
            GRU.replace("z = sigmoid(x_z + h_z)", "z = sigmoid(x_z + h_z + h)") + "h = z * h + (1 - z) * n",
            shapes(3, "b", "b_h"),
        ),
        None,
    ),
}


@pytest.mark.parametrize("name", RECOGNISED)
def test_recognise(name: str) -> None:
    cell, kind = RECOGNISED[name]
    found = recognise(cell)
    assert (found.kind if found else None) == kind


def test_a_norm_is_never_plain() -> None:
    cell = RECOGNISED["rnn"][0]
    normed = Cell(
        equations="cell some(x; h):\n    h = tanh(norm(x @ W) + h @ U + b)",
        dims=cell.dims,
        input_shapes=cell.input_shapes,
        states=cell.states,
        parameters=cell.parameters,
        norms={"norm": Norm(kind="layer", features=UNITS, epsilon=0.1)},
    )
    assert recognise(normed) is None


def native_step(fused: Fused, x: Array, h: Array, c: Array) -> tuple[Array, ...]:
    """One step of PyTorch's layers, from the formulas of its documentation, in float64."""

    def sigmoid(u: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-u)))

    wide = {name: array.astype(np.float64) for name, array in fused.arrays.items()}
    gates = 4 if fused.kind == "LSTM" else 3 if fused.kind == "GRU" else 1
    zeros = np.zeros(gates * UNITS)
    a = x @ wide["weight_ih"].T + wide.get("bias_ih", zeros)
    b = h @ wide["weight_hh"].T + wide.get("bias_hh", zeros)
    if fused.kind == "LSTM":
        i, f, g, o = np.split(a + b, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    if fused.kind == "GRU":
        (a_r, a_z, a_n), (b_r, b_z, b_n) = np.split(a, 3, axis=-1), np.split(b, 3, axis=-1)
        n = np.tanh(a_n + sigmoid(a_r + b_r) * b_n)
        z = sigmoid(a_z + b_z)
        return ((1 - z) * n + z * h,)
    return (np.tanh(a + b) if fused.kind == "tanh" else np.maximum(a + b, 0),)


@pytest.mark.parametrize("name", [name for name, (_, kind) in RECOGNISED.items() if kind])
def test_native_arrays_compute_the_same_step(name: str) -> None:
    assert_native_step_is_the_same(RECOGNISED[name][0])


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations("ifgo"),
    functions=st.tuples(*[st.sampled_from(["sigmoid", "tanh"])] * 4),
    forget_bias=st.sampled_from([0.0, 0.7, -2.0]),
)
def test_an_lstm_is_recognised_whatever_its_order(
    order: list[str], functions: tuple[str, ...], forget_bias: float
) -> None:
    """And nothing else is: the gates must be sigmoids, and one of the two written factors a tanh."""
    forget, write, candidate, output = functions
    cell = cell_of(
        f"{', '.join(order)} = split(x @ W + h @ U + b, 4)\n"
        f"c = {forget}(f + bias_f) * c + {write}(i) * {candidate}(g)\n"
        f"h = {output}(o) * tanh(c)",
        shapes(4, "b"),
        "ch",
        bias_f=forget_bias,
    )
    plain = forget == output == "sigmoid" and {write, candidate} == {"sigmoid", "tanh"}
    assert (recognise(cell) is not None) == plain
    if plain:
        assert_native_step_is_the_same(cell)


def assert_native_step_is_the_same(cell: Cell) -> None:
    """To 1e-14 in float64 although the arrays are float32: nothing was rounded, not even b + 0.7."""
    weights = arrays(cell)
    plain = recognise(cell)
    assert plain is not None
    fused = fuse(plain, INPUTS, UNITS, weights)
    assert fused is not None
    assert all(array.dtype == np.float32 for array in fused.arrays.values())
    draw = np.random.default_rng(4)
    x, h, c = draw.normal(size=(5, INPUTS)), draw.normal(size=(5, UNITS)), draw.normal(size=(5, UNITS))
    states = {"h": h, "c": c} if len(cell.states) == 2 else {"h": h}
    wide = {key: array.astype(np.float64) for key, array in weights.items()}
    _, wanted = step(cell, {"x": x}, states, wide, 0)
    for state, found in zip(fused.states, native_step(fused, x, h, c), strict=True):
        np.testing.assert_allclose(found, wanted[state], rtol=1e-13, atol=1e-14)


def test_what_float32_cannot_hold_is_not_fused() -> None:
    """Three tenths of a kernel are no float32; the cell stays a cell rather than be rounded."""
    cell = cell_of("h = tanh(0.3 * (x @ W) + h @ U)", shapes(1))
    plain = recognise(cell)
    assert plain is not None
    assert fuse(plain, INPUTS, UNITS, arrays(cell)) is None


def evaluate(cell: Cell, equations: Equations) -> dict[str, Array]:
    """The next states with other equations in the cell's place."""
    import msgspec

    other = msgspec.structs.replace(cell, equations=print_equations(equations))
    draw = np.random.default_rng(5)
    states = {name: draw.normal(size=(4, UNITS)) for name in cell.states}
    weights = {name: array.astype(np.float64) for name, array in arrays(cell).items()}
    return step(other, {"x": draw.normal(size=(4, INPUTS))}, states, weights, 0)[1]


def test_split_products() -> None:
    cell = RECOGNISED["lstm on joined values"][0]
    split = split_products(cell)
    assert print_expression(split.body[0].value) == "h @ W[0:7] + x @ W[7:10] + b"
    before, after = evaluate(cell, cell.parsed()), evaluate(cell, split)
    for name in before:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-13)


def test_split_products_follows_a_name() -> None:
    cell = cell_of("xh = concat(x, h)\nh = tanh(xh @ W)", {"W": (INPUTS + UNITS, UNITS)})
    assert print_expression(split_products(cell).body[1].value) == "tanh(x @ W[0:3] + h @ W[3:10])"


def test_hoist() -> None:
    cell = cell_of(
        """
        gain = exp(g)
        p = tanh(x @ W) * gain
        i, j = split(x @ V, 2)
        h = relu(p * (h @ U) + (x @ W) / 2 + i) * (x @ W) / 2 - j
        """,
        {"W": (INPUTS, UNITS), "U": (UNITS, UNITS), "V": (INPUTS, 2 * UNITS), "g": (UNITS,)},
    )
    parts = hoist(cell.parsed(), analyse(cell))
    assert [equation.targets for equation in parts.fixed] == [("gain",)]
    assert [equation.targets for equation in parts.before] == [("p",), ("i", "j"), ("h_x",), ("h_x2",)]
    assert print_expression(parts.before[2].value) == "x @ W / 2"
    assert print_expression(parts.step[0].value) == "relu(p * (h @ U) + h_x + i) * h_x2 / 2 - j"
    assert parts.carried == ("p", "i", "j", "h_x", "h_x2")
    assert "x" not in parts.carried


def test_hoist_keeps_the_function() -> None:
    cell = RECOGNISED["lstm"][0]
    parts = hoist(cell.parsed(), analyse(cell))
    whole = Equations("some", ("x",), ("c", "h"), ("h'",), (*parts.fixed, *parts.before, *parts.step))
    before, after = evaluate(cell, cell.parsed()), evaluate(cell, whole)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_value_the_states_do_not_touch_needs_no_step() -> None:
    """A next state that is an input is carried past the loop's body as it is."""
    cell = cell_of("m = x @ W\nh = tanh(m + h @ U + m)", {"W": (INPUTS, UNITS), "U": (UNITS, UNITS)}, "hm")
    parts = hoist(cell.parsed(), analyse(cell))
    assert [equation.targets for equation in parts.step] == [("h'",)]
    assert parts.carried == ("m'",)


def test_prune() -> None:
    """What is read only by what nobody reads goes too."""
    cell = cell_of("xh = concat(x, h)\nq = xh @ W\nr = tanh(q)\nh = tanh(x @ V)", {"W": (10, 2), "V": (3, 7)})
    assert [equation.targets for equation in prune(cell.parsed()).body] == [("h'",)]
    lstm = RECOGNISED["lstm"][0].parsed()
    assert prune(lstm) == lstm
