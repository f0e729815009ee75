"""Cells in PyTorch: the generated module against the interpreter, for every feature a cell can have."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_cases import build, values_for, worst_error
from torch_cell_cases import (
    CASES,
    GRU_AFTER,
    INPUTS,
    MANY,
    PER_STEP,
    PLAIN,
    ROWS,
    UNITS,
    arrays,
    check,
    lstm,
    model_of,
    norms,
)

from normconvert import interpreter
from normconvert.errors import Unsupported
from normconvert.ir.cell import Cell, State
from normconvert.ir.layers import AnyLayer, Bidirectional, Recurrent
from normconvert.ir.model import Input, Model, Node
from normconvert.ir.norm import Norm
from normconvert.targets.torch import write_exported, write_folder

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_cell_equals_interpreter(name: str, sequences: bool, tmp_path: Path) -> None:
    case = CASES[name]
    layer = Recurrent(cell=case.cell, return_sequences=sequences, **case.options)
    check(model_of(layer, arrays(case.cell)), tmp_path / "model")


@pytest.mark.parametrize("zero_masked", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("sequences", [True, False])
def test_mask(zero_masked: bool, reverse: bool, sequences: bool, tmp_path: Path) -> None:
    cell = lstm(norms(**PER_STEP))
    layer = Recurrent(
        cell=cell, return_sequences=sequences, zero_masked=zero_masked, reverse=reverse, return_state=True
    )
    check(model_of(layer, arrays(cell), masked=True, states=("c0", "h0")), tmp_path / "model")


def test_mask_with_an_output_that_is_no_state(tmp_path: Path) -> None:
    layer = Recurrent(cell=MANY, return_sequences=True)
    check(model_of(layer, arrays(MANY), masked=True), tmp_path / "model")


def test_input_projection_is_out_of_the_loop(tmp_path: Path) -> None:
    cell = lstm(norms(**PER_STEP))
    text = check(model_of(Recurrent(cell=cell), arrays(cell)), tmp_path / "model")
    before, step = text.split("def before_steps")[1].split("def step")
    assert "self.norm_x.plain(x @ self.W_x, t)" in before
    assert "self.b" in before
    step = step.split("def forward")[0]
    assert "W_x" not in step
    assert "self.b" not in step


def test_layers_of_other_sizes_share_a_class(tmp_path: Path) -> None:
    small, large = lstm(norms(kind="layer")), lstm(norms(kind="layer"))
    large = Cell(
        equations=large.equations,
        dims={"units": 2 * UNITS},
        input_shapes={"x": (UNITS,)},
        states={"c": State((2 * UNITS,)), "h": State((2 * UNITS,))},
        parameters={"W_x": (UNITS, 8 * UNITS), "W_h": (2 * UNITS, 8 * UNITS), "b": (8 * UNITS,)},
        constants=large.constants,
        norms={
            name: Norm(kind="layer", features=2 * norm.features, epsilon=norm.epsilon)
            for name, norm in large.norms.items()
        },
    )
    layers: dict[str, AnyLayer] = {
        "one": Recurrent(cell=small, return_sequences=True),
        "two": Recurrent(cell=large, reverse=True),
    }
    model = Model(
        "two layers",
        (Input("x", (None, INPUTS)),),
        ("two",),
        layers,
        (Node("one", "one", ("x",)), Node("two", "two", ("one",))),
        {f"one.{name}": array for name, array in arrays(small).items()}
        | {f"two.{name}": array for name, array in arrays(large, 1).items()},
    )
    text = check(model, tmp_path / "model")
    assert text.count("class NormLstm") == 1
    assert "self.two = NormLstm(7, 14, reverse=True)" in text


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_cells_become_native_layers(name: str, sequences: bool, tmp_path: Path) -> None:
    cell, native = PLAIN[name]
    layer = Recurrent(cell=cell, return_sequences=sequences)
    text = check(model_of(layer, arrays(cell)), tmp_path / "one")
    assert f"self.rnn = {native})" in text

    both = Bidirectional(forward=layer, backward=Recurrent(cell=cell, return_sequences=sequences, reverse=True))
    weights = {
        f"{side}.{key}": a for n, side in enumerate(("forward", "backward")) for key, a in arrays(cell, n).items()
    }
    text = check(model_of(both, weights), tmp_path / "both")
    assert "bidirectional=True" in text


@pytest.mark.parametrize("merge", ["concat", "add", "multiply", "average", None])
@pytest.mark.parametrize("plain", [True, False])
def test_two_directions(merge: Any, plain: bool, tmp_path: Path) -> None:
    """With states given and returned; each direction of a normalised cell counts its own steps."""
    cell = lstm({} if plain else norms(**PER_STEP))
    forward, backward = (
        Recurrent(cell=cell, return_sequences=merge != "add", return_state=True, reverse=reverse)
        for reverse in (False, True)
    )
    layer = Bidirectional(forward=forward, backward=backward, merge=merge)
    weights = {
        f"{side}.{key}": a for n, side in enumerate(("forward", "backward")) for key, a in arrays(cell, n).items()
    }
    check(model_of(layer, weights, states=("a", "b", "c", "d")), tmp_path / "model")
    check(model_of(layer, weights, masked=True), tmp_path / "masked")


@pytest.mark.parametrize("cell", [lstm({}), GRU_AFTER, lstm(norms(**PER_STEP))], ids=["lstm", "gru", "normalised"])
def test_stateful(cell: Cell, tmp_path: Path) -> None:
    """States, and the count of time steps, go on from call to call until they are reset; scripted too."""
    model = model_of(Recurrent(cell=cell, return_sequences=True, stateful=True), arrays(cell))
    module = build(model, tmp_path / "model")
    chunks = [values_for(model, 3, time, seed=time)["x"] for time in (2, 1, 5)]
    for program in (module, torch.jit.script(module)):
        for _ in range(2):
            carried = interpreter.States()
            program.rnn.reset_states()
            for chunk in chunks:
                wanted = interpreter.run(model, {"x": chunk}, states=carried)["rnn"]
                np.testing.assert_allclose(
                    program(torch.tensor(chunk)).detach().numpy(), wanted, rtol=1e-11, atol=1e-13
                )
    with pytest.raises(Unsupported, match="layer rnn: an exported program cannot carry states"):
        write_exported(model, tmp_path / "model.pt2")


def test_layer_shared_by_masked_and_other_inputs(tmp_path: Path) -> None:
    cell = lstm({})
    model = model_of(Recurrent(cell=cell), arrays(cell), masked=True)
    nodes = (*model.nodes, Node("again", "rnn", ("x",)))
    model = replace(model, nodes=nodes, outputs=("rnn", "again"))
    check(model, tmp_path / "model")


def test_past_the_end_can_be_an_error(tmp_path: Path) -> None:
    cell = lstm(norms(**PER_STEP, past_end="error"))
    model = model_of(Recurrent(cell=cell), arrays(cell))
    module = build(model, tmp_path / "model")
    assert worst_error(model, module, values_for(model, 2, ROWS)) < 1e-12
    for program in (module, torch.jit.script(module)):
        with pytest.raises((IndexError, torch.jit.Error), match="4 time steps only"):
            program(torch.zeros(2, ROWS + 1, INPUTS, dtype=torch.float64))
    write_exported(model, tmp_path / "model.pt2")
    exported = torch.export.load(tmp_path / "model.pt2").module()
    assert worst_error(model, exported, values_for(model, 2, ROWS - 1), np.float32) < 1e-5
    with pytest.raises((RuntimeError, AssertionError)):
        exported(torch.zeros(2, ROWS + 1, INPUTS))


def test_generated_cells_are_clean(tmp_path: Path) -> None:
    """Linted with default rules and formatted, masked and stateful ones too."""
    uses: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"return_state": True, "dropout": 0.1, "recurrent_dropout": 0.2}, {"masked": True}),
        ({"stateful": True, "zero_masked": True}, {"masked": True}),
    ]
    for number, case in enumerate(CASES.values()):
        for use, (options, graph) in enumerate(uses):
            folder = tmp_path / f"model_{number}_{use}"
            folder.mkdir()
            write_folder(model_of(Recurrent(cell=case.cell, **options), arrays(case.cell), **graph), folder)
    ruff = [sys.executable, "-m", "ruff"]
    # TorchScript's zip takes no `strict`, which B905 asks for.
    rules = ["--select", "E4,E7,E9,F,I,W,B", "--ignore", "B905"]
    subprocess.run([*ruff, "check", "--isolated", *rules, str(tmp_path)], check=True)
    subprocess.run([*ruff, "format", "--isolated", "--line-length", "120", "--check", str(tmp_path)], check=True)
