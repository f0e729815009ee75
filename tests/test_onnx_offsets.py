"""Constants beside a layer norm: in the file they are part of its beta, and the function stays."""

from __future__ import annotations

from typing import Any

import pytest
from torch_cell_cases import INPUTS, UNITS, arrays, lstm, model_of, norms

from normconvert.ir.cell import Cell, State
from normconvert.ir.layers import Recurrent
from normconvert.ir.norm import Norm

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_cases import body, check, operators  # noqa: E402

SIZES = ((2, 1), (3, 9), (5, 4))
LAYER = {"kind": "layer"}


def cell(equations: str, parameters: dict[str, tuple[int, ...]], **declared: Norm) -> Cell:
    """A cell with the state h of 7 units on 3 inputs, its update bias 0.7."""
    return Cell(
        equations=equations,
        dims={"units": UNITS},
        input_shapes={"x": (INPUTS,)},
        states={"h": State((UNITS,))},
        parameters=parameters,
        constants={"offset": 0.7} if "offset" in equations else {},
        norms=declared,
    )


def norm(gates: int, **options: Any) -> Norm:
    return Norm(features=gates * UNITS, epsilon=0.01, **{"kind": "layer", **options})


GATES = {"W_x": (INPUTS, 3 * UNITS), "W_h": (UNITS, 3 * UNITS)}
GRU = """cell ln_gru(x; h):
    p_z, p_r, p_n = split(ln_x(x @ W_x) + b, 3)
    u_z, u_r, u_n = split(ln_h(h @ W_h), 3)
    z = sigmoid(p_z + u_z)
    n = tanh(p_n + sigmoid(p_r + u_r) * u_n)
    h = z * h + (1 - z) * n
"""
DREAMER = """cell dreamer(x; h):
    r, n, u = split(ln(x @ W_x + h @ W_h), 3)
    z = sigmoid(u - offset)
    h = z * tanh(sigmoid(r) * n) + (1 - z) * h
"""
ONLY_STATE = """cell only_state(x; h):
    h = tanh(x @ W_x + ln(h @ W_h) + b)
"""
TWICE = """cell twice(x; h):
    n = ln(x @ W_x + h @ W_h)
    h = tanh(n + offset) * sigmoid(n)
"""
OVERLAPPING = """cell overlapping(x; h):
    n = ln(x @ W_x + h @ W_h)
    h = tanh(n[:units] + offset) * sigmoid(n[1:units + 1] + b)
"""
SCALED = """cell scaled(x; h):
    n = ln(x @ W_x + h @ W_h)
    h = tanh(n * 0.3 + offset) - offset * h
"""
NARROW = """cell narrow(x; h):
    h = tanh(ln_x(x @ W_x) + ln_1(h @ W_1) + b) - tanh(ln_2(h @ W_1) + b)
"""
ONE = {"W_x": (INPUTS, UNITS), "W_h": (UNITS, UNITS)}
CELLS = {
    "LSTM": lstm(norms(**LAYER)),
    "LSTM without beta": lstm(norms(**LAYER, beta=False)),
    "LSTM, norm of the state alone": lstm({"norm_h": norm(4)}),
    "LSTM, norms per gate": lstm(norms(**LAYER) | {"norm_x": norm(4, groups=4), "norm_h": norm(4, groups=4)}),
    "LSTM, gamma and beta per step": lstm(norms(**LAYER, steps=4, affine_per_step=True)),
    "LSTM, batch statistics": lstm(norms(kind="batch", source="batch")),
    "GRU": cell(GRU, {**GATES, "b": (3 * UNITS,)}, ln_x=norm(3), ln_h=norm(3)),
    "Dreamer": cell(DREAMER, GATES, ln=norm(3)),
    "only state": cell(ONLY_STATE, {**ONE, "b": (UNITS,)}, ln=norm(1)),
    "only state, RMS": cell(ONLY_STATE, {**ONE, "b": (UNITS,)}, ln=norm(1, kind="rms", beta=False)),
    "read twice": cell(TWICE, ONE, ln=norm(1)),
    "overlapping": cell(
        OVERLAPPING, {"W_x": (INPUTS, 2 * UNITS), "W_h": (UNITS, 2 * UNITS), "b": (UNITS,)}, ln=norm(2)
    ),
    "one feature": cell(
        NARROW,
        {"W_x": (INPUTS, UNITS), "W_1": (UNITS, 1), "b": (UNITS,)},
        ln_x=norm(1),
        ln_1=Norm(kind="rms", features=1, epsilon=0.5),
        ln_2=Norm(kind="layer", features=1, epsilon=0.5),
    ),
    "scaled": cell(SCALED, ONE, ln=norm(1)),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_the_function_stays(name: str, reverse: bool) -> None:
    own = CELLS[name]
    sequences = not reverse
    check(model_of(Recurrent(cell=own, return_sequences=sequences, reverse=reverse), arrays(own)), SIZES)
    check(model_of(Recurrent(cell=own, return_sequences=sequences, reverse=reverse), arrays(own), masked=True), SIZES)


def written(name: str) -> Any:
    own = CELLS[name]
    return check(model_of(Recurrent(cell=own, return_sequences=True), arrays(own)))


def test_nothing_is_added_to_the_sequence() -> None:
    for name in ("LSTM", "LSTM without beta", "GRU"):
        proto = written(name)
        assert "Add" not in operators(proto), name
        assert operators(proto).count("LayerNormalization") == 1, name


def test_one_beta_is_left_of_two() -> None:
    for name, inputs in (("LSTM", 2), ("GRU", 3)):
        (scan,) = (node for node in written(name).graph.node if node.op_type == "Scan")
        (graph,) = (attribute.g for attribute in scan.attribute if attribute.name == "body")
        norms_of_the_state = [node for node in graph.node if node.op_type == "LayerNormalization"]
        assert len(norms_of_the_state[0].input) == inputs, name


def test_the_body_adds_no_constant() -> None:
    assert body(written("Dreamer")).count("Add") == 1
    assert "Add" not in operators(written("LSTM, norm of the state alone"))
    assert "Add" not in operators(written("only state"))
