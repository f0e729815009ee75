"""Our own Keras files and SavedModels, read back without the code beside them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras_round_trips import assert_equal, joined, read_back
from test_cell_families import sizes_for, stored_tensors, told_by
from torch_cell_cases import CASES, arrays, both_arrays, model_of

from normconvert import cells, interpreter
from normconvert.errors import CorruptFile, NormconvertError, Unsupported
from normconvert.ir.layers import Activation, Apply, Bidirectional, Dense, Recurrent
from normconvert.ir.model import Input, Model, Node
from normconvert.ir.norm import Norm
from normconvert.sources import read
from normconvert.targets.keras import write_keras, write_saved_model
from normconvert.targets.keras.program import program

pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.usefixtures("workers_in_this_process")


def is_written(model: Model) -> bool:
    """Whether every recurrent layer becomes one written from its equations."""
    specs = program(model).layers.values()
    return all(spec.source or spec.kind in ("BothDirections", "StepMask") for spec in specs)


def of_families() -> dict[str, Model]:
    """A layer of every cell family, every second one in two directions."""
    models = {}
    for number, name in enumerate(sorted(set(cells.names()) - OF_KERAS)):
        chosen, layout = cells.family(name), next(iter(cells.family(name).layouts))
        sizes = {**sizes_for(chosen, lambda _: 2), "inputs": 3, "units": 5, "steps": 4}
        tensors = stored_tensors(chosen, layout, told_by(chosen, layout, sizes, set()), set())
        image = dict.fromkeys(("rows", "columns", "state_rows", "state_columns"), 2) if "conv" in name else {}
        cell, weights = chosen.build(layout, tensors, dims=image)
        one = Recurrent(cell=cell, return_sequences=True)
        both = Bidirectional(forward=one, backward=Recurrent(cell=cell, return_sequences=True, reverse=True))
        two = {f"{side}.{key}": array for side in ("forward", "backward") for key, array in weights.items()}
        models[name] = model_of(both, two) if number % 2 else model_of(one, weights)
    return models


OF_KERAS = {"conv_lstm_1d", "conv_lstm_2d"}
"""Families with options that only a Keras file gives; they are Keras's own layers, which other tests read."""


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_every_family_of_cells(suffix: str, tmp_path: Path) -> None:
    """A cell that Keras has comes back as Keras stores it: the same function, and unchanged by a second journey."""
    models = of_families()
    if suffix == ".h5":  # some of them
        models = dict(list(models.items())[::4])
    written = {name: model for name, model in models.items() if is_written(model)}
    assert len(written) > (45 if suffix == ".keras" else 10)
    model = joined(written)
    assert_equal(read_back(model, tmp_path, suffix), model)
    native = joined({name: model for name, model in models.items() if name not in written})
    once = read_back(native, tmp_path, suffix)
    assert_equal(read_back(once, tmp_path, suffix), once)
    values = torch_cases.values_for(native, 2, 5)
    results = (interpreter.run(each, values, np.float64).values() for each in (native, once))
    for wanted, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@st.composite
def recurrent_models(draw: st.DrawFn) -> Model:
    """A normalised cell with drawn norms and statistics, in one direction or two, with masks and states."""
    case = CASES[draw(st.sampled_from(sorted(CASES)))]
    cell = case.cell
    momentum, epsilon = draw(st.floats(0, 1)), draw(st.floats(1e-9, 1))
    changed = {
        name: Norm(
            **{**{f: getattr(norm, f) for f in norm.__struct_fields__}, "momentum": momentum, "epsilon": epsilon}
        )
        for name, norm in cell.norms.items()
    }
    fields = {field: getattr(cell, field) for field in cell.__struct_fields__}
    cell = type(cell)(**{**fields, "norms": changed})
    layer = Recurrent(
        cell=cell,
        reverse=draw(st.booleans()),
        return_sequences=draw(st.booleans()),
        return_state=draw(st.booleans()),
        zero_masked=draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.25])),
        recurrent_dropout=draw(st.sampled_from([0.0, 0.1])),
        trainable=draw(st.booleans()),
    )
    masked, seed = draw(st.booleans()), draw(st.integers(0, 99))
    states = tuple(f"s{n}" for n in range(len(cell.states))) if draw(st.booleans()) else ()
    if draw(st.booleans()):
        return model_of(layer, arrays(cell, seed), masked=masked, states=states)
    merge = draw(st.sampled_from(["concat", "add", "multiply", "average", None]))
    kept = {field: getattr(layer, field) for field in layer.__struct_fields__ if field != "reverse"}
    forward, backward = (Recurrent(**{**kept, "reverse": reverse, "trainable": True}) for reverse in (False, True))
    both = Bidirectional(forward=forward, backward=backward, merge=merge, trainable=layer.trainable)
    return model_of(both, both_arrays(cell), masked=masked, states=tuple(f"{d}{s}" for d in "fb" for s in states))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(models=st.lists(recurrent_models(), min_size=4, max_size=4), suffix=st.sampled_from([".keras", ".h5"]))
def test_any_normalised_layer_comes_back_as_it_was(models: list[Model], suffix: str, tmp_path: Path) -> None:
    masks = suffix == ".keras"  # Keras does not load them from HDF5
    kept = {str(n): each for n, each in enumerate(models) if is_written(each) and (masks or len(each.nodes) == 1)}
    if kept:
        assert_equal(read_back(joined(kept), tmp_path, suffix), joined(kept))


def test_every_layer_computes_the_same(tmp_path: Path) -> None:
    """Explicit masks among them: one value that several layers read as their mask."""
    unsupported = ("heads, nothing hidden",)
    model = joined({n: torch_cases.model_of(c) for n, c in torch_cases.CASES.items() if n not in unsupported})
    again = read_back(model, tmp_path)
    assert [(each.name, each.shape) for each in again.inputs] == [(each.name, each.shape) for each in model.inputs]
    values = torch_cases.values_for(model, 3, 7)
    wanted, found = (interpreter.run(each, values, np.float64).values() for each in (model, again))
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_activations_that_keras_does_not_have(tmp_path: Path) -> None:
    """Their registered names say what they compute."""
    activations = [
        Activation("hard_sigmoid", (0.2, 0.5)),
        Activation("hard_sigmoid", (0.02, 5.0)),
        Activation("capped_relu", (-0.1, 6.5, 0.25)),
        Activation("leaky_relu", (0.017,)),
        Activation("softmax", axis=1),
    ]
    layers: dict[str, Any] = {f"apply_{n}": Apply(activation=each) for n, each in enumerate(activations)}
    layers["dense"] = Dense(activation=activations[0])
    layers["gru"] = Recurrent(cell=random_gru()[0], return_sequences=True)
    weights = {"dense.kernel": np.full((3, 2), 0.3, np.float32), "dense.bias": np.full(2, -0.1, np.float32)}
    weights |= {f"gru.{name}": array for name, array in random_gru()[1].items()}
    nodes = tuple(Node(name, name, ("x",)) for name in layers)
    model = Model("functions", (Input("x", (None, 3)),), tuple(layers), layers, nodes, weights)
    assert_equal(read_back(model, tmp_path), model)


def random_gru() -> Any:
    """A GRU of Keras with a recurrent activation of its own."""
    chosen = cells.family("gru_reset_after")
    draw = np.random.default_rng(5)
    shapes = {"kernel": (3, 15), "recurrent_kernel": (5, 15), "bias": (2, 15)}
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    functions = {"activation": Activation("tanh"), "recurrent_activation": Activation("hard_sigmoid", (0.2, 0.5))}
    return chosen.build("keras", tensors, functions=functions)


# --- SavedModels ----------------------------------------------------------------------------------------------------


def test_a_saved_model_is_read_as_the_keras_file_is(tmp_path: Path) -> None:
    cases = ("batch norm, per step", "layer norm per gate, unbiased", "no norm", "convolutional")
    parts = {name: model_of(Recurrent(cell=CASES[name].cell), arrays(CASES[name].cell)) for name in cases}
    both = Bidirectional(
        forward=Recurrent(cell=CASES[cases[0]].cell, return_sequences=True),
        backward=Recurrent(cell=CASES[cases[0]].cell, return_sequences=True, reverse=True),
    )
    model = joined({**parts, "both": model_of(both, both_arrays(CASES[cases[0]].cell), masked=True)})
    folder = tmp_path / "served"
    folder.mkdir()
    write_saved_model(model, folder)
    found = read(folder)
    assert_equal(found.model, read_back(model, tmp_path))
    assert found.model.provenance.format == "saved-model"
    assert all(use.used_as for use in found.plan.tensors)

    import tensorflow as tf

    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    assert sorted(signature.structured_outputs) == sorted(model.outputs)
    assert set(signature.structured_input_signature[1]) == {each.name for each in model.inputs}


def test_saved_models_that_cannot_be_read(tmp_path: Path, command: Callable[..., Any]) -> None:
    cell = CASES["layer norm"].cell
    folder = tmp_path / "served"
    folder.mkdir()
    write_saved_model(model_of(Recurrent(cell=cell), arrays(cell)), folder)
    path = folder / "assets.extra" / "normconvert.json"
    whole = json.loads(path.read_text())
    (layer,) = whole["layers"]
    damaged = [
        "{",
        json.dumps({**whole, "config": []}),
        json.dumps({**whole, "layers": {layer: {"W_x": "no/such/variable"}}}),
        json.dumps({**whole, "layers": {}}),
        json.dumps({**whole, "layers": {f"../{layer}": whole["layers"][layer]}}),
    ]
    for text in damaged:
        path.write_text(text)
        with pytest.raises(CorruptFile):
            read(folder)
    path.write_text(json.dumps({**whole, "format_version": 2}))
    with pytest.raises(Unsupported, match="version 2"):
        read(folder)
    path.unlink()
    finished = command("convert", folder, "--to", "ir", "-o", tmp_path / "out.safetensors")
    assert finished.exit_code == 3
    assert "Convert the Keras file or the checkpoint" in finished.stderr


# --- damaged declarations -------------------------------------------------------------------------------------------


def test_declarations_that_are_damaged_or_hostile(tmp_path: Path, command: Callable[..., Any]) -> None:
    cell = CASES["batch norm, per step"].cell
    path = tmp_path / "written.keras"
    write_keras(model_of(Recurrent(cell=cell), arrays(cell)), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    (entry,) = (each for each in config["config"]["layers"] if each["class_name"] != "InputLayer")
    declared = json.loads(entry["config"]["declaration"])
    body = declared["layer"]["cell"]

    def with_cell(**changes: Any) -> dict[str, Any]:
        return {**declared, "layer": {**declared["layer"], "cell": {**body, **changes}}}

    hostile: list[Any] = [
        "[" * 100_000,
        "{}",
        "null",
        {**declared, "layer": {"type": "Lambda", "code": "import os"}},
        {**declared, "layer": {**declared["layer"], "more": 1}},
        {**declared, "arrays": {}},
        {**declared, "arrays": {**declared["arrays"], "W_x": "../W_x"}},
        {**declared, "arrays": {**declared["arrays"], "W_x": "no.such.array"}},
        {**declared, "arrays": dict(reversed(declared["arrays"].items()))},
        with_cell(equations="cell f(x; c, h):\n    h = __import__('os').system('true')\n"),
        with_cell(equations="cell f(x; c, h):\n    h = c.__class__\n"),
        with_cell(parameters={**body["parameters"], "W_x": [10**12, 10**12]}),
        with_cell(dims={"units": -1}),
        with_cell(norms={**body["norms"], "norm_c": {**body["norms"]["norm_c"], "steps": 10**9}}),
        with_cell(constants={"forget_bias": "lots"}),
    ]
    for each in hostile:
        entry["config"]["declaration"] = each if isinstance(each, str) else json.dumps(each)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**members, "config.json": json.dumps(config).encode()}.items():
                archive.writestr(name, data)
        with pytest.raises(NormconvertError) as caught:
            read(path)
        assert isinstance(caught.value, CorruptFile), (each, caught.value)
        assert "written.keras" in str(caught.value)
    finished = command("convert", path, "--to", "torch", "-o", tmp_path / "out")
    assert finished.exit_code == CorruptFile.exit_code
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_states_that_are_carried_are_no_weights(suffix: str, tmp_path: Path) -> None:
    cell = CASES["batch norm, per step"].cell
    model = model_of(Recurrent(cell=cell, stateful=True), arrays(cell))
    model = replace(model, inputs=(Input("x", (None, 3), batch=4),))
    path = tmp_path / f"written{suffix}"
    write_keras(model, path)
    found = read(path)
    assert_equal(found.model, model)
    ignored = {use.ignored for use in found.plan.tensors if not use.used_as}
    assert ignored == {"a state carried from call to call"}
