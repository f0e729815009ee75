"""Cells in PyTorch: the generated module against the interpreter, for every feature a cell can have."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normconvert import interpreter
from normconvert.ir.cell import Cell, State
from normconvert.ir.layers import AnyLayer, Bidirectional, Recurrent
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.ir.norm import Norm
from normconvert.targets.torch import write_folder

torch = pytest.importorskip("torch")

INPUTS, UNITS, ROWS = 3, 7, 4
_modules = itertools.count()

LSTM = """cell {name}(x; c, h):
    z = {x} + {h} + b
    i, j, f, o = split(z, 4)
    c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh({c})
"""


@dataclass(frozen=True)
class Case:
    """A cell and how it is used."""

    cell: Cell
    options: dict[str, Any] = field(default_factory=dict)


def lstm(norms: dict[str, Norm], **constants: float) -> Cell:
    """An LSTM in gate order i, j, f, o whose products and cell state go through the norms that are declared."""

    def call(norm: str, text: str) -> str:
        return f"{norm}({text})" if norm in norms else text

    text = LSTM.format(
        name="norm_lstm", x=call("norm_x", "x @ W_x"), h=call("norm_h", "h @ W_h"), c=call("norm_c", "c")
    )
    return Cell(
        equations=text,
        dims={"units": UNITS},
        input_shapes={"x": (INPUTS,)},
        states={"c": State((UNITS,)), "h": State((UNITS,))},
        parameters={"W_x": (INPUTS, 4 * UNITS), "W_h": (UNITS, 4 * UNITS), "b": (4 * UNITS,)},
        constants={"forget_bias": 0.7, **constants},
        norms=norms,
    )


def norms(**common: Any) -> dict[str, Norm]:
    """The three norms of an LSTM."""
    sizes = {"norm_x": 4 * UNITS, "norm_h": 4 * UNITS, "norm_c": UNITS}
    return {name: Norm(features=size, **{"epsilon": 0.01, **common}) for name, size in sizes.items()}


def arrays(cell: Cell, seed: int = 0) -> dict[str, Array]:
    """Random weights, none of them neutral."""
    draw = np.random.default_rng(seed)
    found = {name: 0.6 * draw.normal(size=shape) for name, shape in cell.weight_shapes().items()}
    for name in found:
        if name.endswith((".gamma", ".variance")):
            found[name] = 0.4 + draw.random(found[name].shape)
    return {name: array.astype(np.float32) for name, array in found.items()}


def model_of(layer: AnyLayer, weights: dict[str, Array], *, inputs: int = INPUTS, outputs: int = 1, **node: Any) -> Model:
    """A model of one recurrent layer."""
    names = [node_value("rnn", n) for n in range(outputs)]
    given = [Input("x", (None, inputs))]
    given += [Input("mask", (None,))] if node.get("masks") else []
    given += [Input(name, (UNITS,)) for name in node.get("states", ())]
    return Model(
        name="one layer",
        inputs=tuple(given),
        outputs=tuple(names),
        layers={"rnn": layer},
        nodes=(Node("rnn", "rnn", ("x",), **node),),
        weights={f"rnn.{name}": array for name, array in weights.items()},
    )


def node_value(name: str, output: int) -> str:
    return name if output == 0 else f"{name}:{output}"


def build(model: Model, folder: Path) -> Any:
    """The generated module in float64."""
    folder.mkdir()
    write_folder(model, folder)
    spec = importlib.util.spec_from_file_location(f"generated_{next(_modules)}", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load().double()


def compare(model: Model, module: Any, batch: int, time: int, seed: int = 1) -> float:
    """The largest relative error of the module against the interpreter in float64."""
    draw = np.random.default_rng(seed)
    values = {}
    for declared in model.inputs:
        values[declared.name] = draw.normal(size=(batch, *(n or time for n in declared.shape)))
        if declared.name == "mask":
            values["mask"] = draw.random((batch, time)) < 0.6
    wanted = interpreter.run(model, values, np.float64)
    with torch.no_grad():
        results = module(*(torch.tensor(value) for value in values.values()))
    results = results if isinstance(results, tuple) else (results,)
    worst = 0.0
    for (name, expected), result in zip(wanted.items(), results, strict=True):
        assert result.shape == expected.shape, name
        assert np.isfinite(expected).all()
        worst = max(worst, float(np.abs(result.numpy() - expected).max() / max(np.abs(expected).max(), 1e-3)))
    return worst


PER_STEP = {"kind": "batch", "scope": "per_step", "steps": ROWS}
CASES = {
    "no norm": Case(lstm({})),
    "batch norm, shared": Case(lstm(norms(kind="batch"))),
    "batch norm, per step": Case(lstm(norms(**PER_STEP))),
    "modulo": Case(lstm(norms(**PER_STEP, past_end="modulo", affine_per_step=True))),
    "bypass": Case(lstm(norms(**PER_STEP, past_end="bypass"))),
    "batch at hand": Case(lstm(norms(kind="batch", source="batch", unbiased=True))),
    "batch at hand, pooled": Case(lstm(norms(kind="batch", source="batch", pooled=True))),
    "batch at hand, affine per step": Case(lstm(norms(kind="batch", source="batch", affine_per_step=True, steps=ROWS))),
    "layer norm": Case(lstm(norms(kind="layer"))),
    "layer norm per gate, unbiased": Case(
        lstm({**norms(kind="layer", unbiased=True, epsilon_placement="outside"), "norm_x": Norm(
            kind="layer", features=4 * UNITS, groups=4, epsilon=0.02, epsilon_placement="both", beta=False)})
    ),
    "rms norm": Case(lstm(norms(kind="rms", beta=False))),
    "rms norm with offset": Case(lstm(norms(kind="rms"))),
    "offset only": Case(lstm(norms(kind="layer", gamma=False))),
    "reverse": Case(lstm(norms(**PER_STEP)), {"reverse": True}),
    "states out": Case(lstm(norms(**PER_STEP)), {"return_state": True}),
}


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_cell_equals_interpreter(name: str, sequences: bool, tmp_path: Path) -> None:
    case = CASES[name]
    layer = Recurrent(cell=case.cell, return_sequences=sequences, **case.options)
    outputs = 3 if layer.return_state else 1
    model = model_of(layer, arrays(case.cell), outputs=outputs)
    module = build(model, tmp_path / "model")
    for batch, time in ((2, 6), (5, 3), (3, 11)):
        assert compare(model, module, batch, time) < 1e-12
    assert compare(model, torch.jit.script(module), 4, 5) < 1e-12


@pytest.mark.parametrize("zero_masked", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("sequences", [True, False])
def test_mask(zero_masked: bool, reverse: bool, sequences: bool, tmp_path: Path) -> None:
    cell = lstm(norms(**PER_STEP))
    layer = Recurrent(cell=cell, return_sequences=sequences, zero_masked=zero_masked, reverse=reverse, return_state=True)
    model = model_of(layer, arrays(cell), outputs=3, masks=("mask",), states=("c0", "h0"))
    module = build(model, tmp_path / "model")
    assert max(compare(model, module, 5, 8), compare(model, module, 3, 4)) < 1e-12
    assert compare(model, torch.jit.script(module), 4, 5) < 1e-12
