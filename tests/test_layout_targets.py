"""Cells written in named layouts: every layout of the catalogue, from any layout of the same cell, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models_by_hand import masked_stack
from test_cell_families import CONFIG, sizes_for, spatial, stored_tensors, told_by

from normconvert import api
from normconvert.cells import family
from normconvert.cells import names as families
from normconvert.cells.matching import Match, match
from normconvert.errors import Unsupported, UsageError
from normconvert.interpreter import run
from normconvert.ir.file import save
from normconvert.ir.layers import Bidirectional, Dense, Recurrent, recurrent_parts
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.sources import Reading, TensorUse, read
from normconvert.sources.tf1.bundle import open_bundle
from normconvert.targets.layouts import Chosen, rebuilt, store_cell
from normconvert.targets.layouts.keeping import kept_names
from normconvert.targets.layouts.model import store_model
from normconvert.targets.tf1 import NAMING, PREFIX, write_checkpoint
from normconvert.targets.tf1.bundle import write_bundle
from normconvert.targets.torch import state_dict

LAYOUTS = [
    (name, layout)
    for name in families()
    for layout, declared in family(name).layouts.items()
    if declared.framework in ("tf1", "torch")
]


def cell_from(name: str, layout: str, left_out: set[str], draw: Any) -> Any:
    """A cell and its weights, from random tensors in a layout; and the tensors."""
    chosen = family(name)
    sizes = told_by(chosen, layout, sizes_for(chosen, draw), left_out)
    tensors = stored_tensors(chosen, layout, sizes, left_out)
    return *chosen.build(layout, tensors, config=CONFIG, dims=spatial(sizes)), tensors


@pytest.mark.parametrize(("name", "layout"), LAYOUTS, ids=[f"{name}-{layout}" for name, layout in LAYOUTS])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_a_layout_comes_back_bit_for_bit(name: str, layout: str, data: st.DataObject) -> None:
    chosen = family(name)
    optional = sorted(chosen.optional_in(layout))
    left_out = set(data.draw(st.lists(st.sampled_from(optional), unique=True))) if optional else set()
    if left_out & set(chosen.layouts[layout].together):
        left_out |= set(chosen.layouts[layout].together)
    cell, weights, tensors = cell_from(name, layout, left_out, data.draw)
    assert isinstance(match(cell, chosen), Match)
    again = store_cell(cell, weights, Chosen(chosen, layout)).tensors
    assert again.keys() == tensors.keys()
    for key, tensor in tensors.items():
        rows = again[key] != 0 if "spare_row" in chosen.layouts[layout].tensors[key] else True
        rows = again[key] != 0 if "tf_case" in chosen.layouts[layout].tensors[key] else rows
        np.testing.assert_array_equal(again[key], np.where(rows, tensor, 0), err_msg=key)


PAIRS = [
    (name, one, other)
    for name in families()
    for framework in ("tf1", "torch")
    for one, first in family(name).layouts.items()
    for other, second in family(name).layouts.items()
    if one != other and first.framework and second.framework == framework
]


@pytest.mark.parametrize(("name", "one", "other"), PAIRS)
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_from_layout_to_layout_and_back(name: str, one: str, other: str, data: st.DataObject) -> None:
    """What another layout of the family accepts, it gives back with the same arrays; else it says what differs."""
    chosen = family(name)
    cell, weights, _ = cell_from(name, one, set(), data.draw)
    try:
        stored = store_cell(cell, weights, Chosen(chosen, other))
    except Unsupported as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert f"{name}/{other}" in message
        return
    again, arrays = rebuilt(stored, stored.tensors)
    found = match(again, chosen)
    assert isinstance(found, Match)
    if all(np.array_equal(arrays.get(key, np.zeros_like(array)), array) for key, array in weights.items()):
        return
    # A bias that was added at run time has become part of a stored one.
    models = [one_layer(Recurrent(cell=c), w) for c, w in ((cell, weights), (again, arrays))]
    shape = cell.input_shapes[cell.parsed().inputs[0]]
    x = np.random.default_rng(0).normal(size=(2, 3, *shape))
    first, second = (run(each, {"x": x})["rnn"] for each in models)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-14)


def random_cell(name: str, layout: str, seed: int = 3, **left_out: bool) -> tuple[Any, dict[str, Array]]:
    """A cell of fixed sizes."""
    sizes = {"inputs": 3, "units": 5, "steps": 4}
    chosen = family(name)
    told = told_by(chosen, layout, {**sizes_for(chosen, lambda _: 2), **sizes}, set(left_out))
    cell, weights = chosen.build(layout, stored_tensors(chosen, layout, told, set(left_out)))
    random = np.random.default_rng(seed)
    return cell, {
        key: array if key.endswith(("variance", "gamma")) else random.normal(size=array.shape).astype(np.float32)
        for key, array in weights.items()
    }


def one_layer(layer: Any, weights: Mapping[str, Array]) -> Model:
    cell = layer.forward.cell if isinstance(layer, Bidirectional) else layer.cell
    shape = cell.input_shapes[cell.parsed().inputs[0]]
    return Model(
        "one",
        (Input("x", (None, *shape)),),
        ("rnn",),
        {"rnn": layer},
        (Node("rnn", "rnn", ("x",)),),
        {f"rnn.{key}": array for key, array in weights.items()},
    )


def test_another_epsilon_or_equation_is_refused() -> None:
    cell, weights = random_cell("bn_lstm_per_step", "phan")
    with pytest.raises(Unsupported, match=r"norms\.bn_x\.epsilon is 1e-05, and there it is 0\.001"):
        store_cell(cell, weights, Chosen(family("bn_lstm_per_step"), "in_time"))
    shared, arrays = random_cell("bn_lstm_shared", "olavhn")
    with pytest.raises(Unsupported, match=r"scope is shared, and there it is per_step"):
        store_cell(shared, arrays, Chosen(family("bn_lstm_per_step"), "in_time"))
    carried, arrays = random_cell("bn_lstm_of_batch_carried", next(iter(family("bn_lstm_of_batch_carried").layouts)))
    with pytest.raises(Unsupported, match="' is not '"):
        store_cell(carried, arrays, Chosen(family("bn_lstm_shared"), "olavhn"))


def test_torch_loads_a_plain_state_dict(tmp_path: Path) -> None:
    """The state dict goes into nn.LSTM and nn.GRU, both directions, and they compute the same."""
    torch = pytest.importorskip("torch")
    for name, kind in (("lstm", torch.nn.LSTM), ("gru_reset_after", torch.nn.GRU), ("simple_rnn", torch.nn.RNN)):
        cells = [random_cell(name, "torch", seed) for seed in (1, 2)]
        forward, backward = (
            Recurrent(cell=cell, return_sequences=True, reverse=reverse)
            for (cell, _), reverse in zip(cells, (False, True), strict=True)
        )
        weights = {
            f"{side}.{k}": a
            for side, (_, own) in zip(("forward", "backward"), cells, strict=True)
            for k, a in own.items()
        }
        model = one_layer(Bidirectional(forward=forward, backward=backward), weights)
        path = tmp_path / f"{name}.pth"
        state_dict.write_state_dict(model, path, layout="torch", scope="encoder")
        holder = torch.nn.Module()
        holder.encoder = kind(3, 5, batch_first=True, bidirectional=True)
        holder.load_state_dict(torch.load(path, weights_only=True), strict=True)
        x = np.random.default_rng(0).normal(size=(2, 7, 3))
        with torch.no_grad():
            found = holder.double().encoder(torch.tensor(x))[0].numpy()
        np.testing.assert_allclose(found, run(model, {"x": x})["rnn"], rtol=0, atol=1e-12)


def test_torch_lstm_to_tf1_and_back(tmp_path: Path) -> None:
    """A plain cell of one family in the equations of another: found by algebra, gates permuted, nothing rounded."""
    cell, weights = random_cell("lstm", "torch")
    with pytest.raises(Unsupported, match="is not"):  # two biases whose sum has to be rounded
        store_cell(cell, weights, Chosen(family("tf1_lstm"), "basic_lstm_cell"))
    weights = {key: np.round(array * 64) / 64 if key in ("b", "b_h") else array for key, array in weights.items()}
    stored = store_cell(cell, weights, Chosen(family("tf1_lstm"), "basic_lstm_cell"))
    assert stored.settings["constants.forget_bias"] == 0.0
    assert stored.notes == ("The class must be given forget_bias = 0.",)
    again, arrays = rebuilt(stored, stored.tensors)
    model, other = (one_layer(Recurrent(cell=c), w) for c, w in ((cell, weights), (again, arrays)))
    x = np.random.default_rng(0).normal(size=(2, 6, 3))
    np.testing.assert_allclose(run(model, {"x": x})["rnn"], run(other, {"x": x})["rnn"], rtol=0, atol=1e-14)
    back = store_cell(again, arrays, Chosen(family("lstm"), "tf_keras"))
    np.testing.assert_array_equal(back.tensors["kernel"], weights["W_x"])


def test_statistics_per_step_become_tensors_per_step(tmp_path: Path) -> None:
    """From phan's TF1 class to jihunchoi's PyTorch class: other gate order, a tensor per step, neutral ones made."""
    cell, weights = random_cell("bn_lstm_per_step", "phan")
    stored = store_cell(cell, weights, Chosen(family("bn_lstm_per_step"), "jihunchoi"))
    model = one_layer(Recurrent(cell=cell), weights)
    path = tmp_path / "model.pth"
    report = api.convert(saved(model, tmp_path), "torch", path, layout="jihunchoi", to_scope="cell").report
    assert report is not None
    assert report.equivalent
    torch = pytest.importorskip("torch")
    tensors = torch.load(path, weights_only=True)
    gates = np.split(weights["W_x"], 4, axis=-1)  # i, f, g, o
    np.testing.assert_array_equal(tensors["cell.weight_ih"], np.concatenate([gates[n] for n in (1, 0, 3, 2)], axis=-1))
    assert not tensors["cell.bias"].any()
    means = np.split(weights["bn_h.mean"][2], 4)
    np.testing.assert_array_equal(
        tensors["cell.bn_hh.running_mean_2"], np.concatenate([means[n] for n in (1, 0, 3, 2)])
    )
    assert stored.tensors["bn_hh.running_mean_{step}"].shape == (4, 20)


def saved(model: Model, folder: Path) -> Path:
    path = folder / "model.safetensors"
    save(model, path)
    return path


@pytest.mark.usefixtures("workers_in_this_process")
def test_tensorflow_reads_and_restores_the_checkpoint(tmp_path: Path) -> None:
    """Its own reader, and a Saver into a graph with variables of these names."""
    tf = pytest.importorskip("tensorflow")
    cell, weights = random_cell("bn_lstm_per_step", "phan")
    model = one_layer(Recurrent(cell=cell), weights)
    folder = tmp_path / "model-tf1"
    report = api.convert(saved(model, tmp_path), "tf1", folder, layout="phan", to_scope="rnn/BNLSTMCell").report
    assert report is not None
    assert report.equivalent
    prefix = tf.train.latest_checkpoint(str(folder))
    assert prefix == str(folder / PREFIX)
    bundle = open_bundle(folder / PREFIX)
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    assert shapes.keys() == bundle.variables.keys()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, shape, initializer=tf.compat.v1.zeros_initializer())
            for name, shape in shapes.items()
        }
        tf.compat.v1.train.Saver().restore(session, prefix)
        for name, variable in variables.items():
            np.testing.assert_array_equal(session.run(variable), bundle.load(name))
            np.testing.assert_array_equal(reader.get_tensor(name), bundle.load(name))
    np.testing.assert_array_equal(bundle.load("rnn/BNLSTMCell/hh/pop_mean").shape, (4, 20))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_bundle_is_read_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    names = data.draw(st.lists(st.text("abc/_é0", min_size=1, max_size=30), unique=True, min_size=1, max_size=40))
    random = np.random.default_rng(len(names))
    types = (np.float32, np.float64, np.int32, np.int64, np.float16)
    arrays = {
        name: random.integers(-9, 9, tuple(random.integers(0, 4, random.integers(0, 4)))).astype(types[n % len(types)])
        for n, name in enumerate(names)
    }
    prefix = tmp_path_factory.mktemp("bundle") / "x.ckpt"
    write_bundle(prefix, arrays)
    bundle = open_bundle(prefix)
    assert set(bundle.variables) == set(arrays)
    for name, array in arrays.items():
        assert bundle.load(name).dtype == array.dtype
        np.testing.assert_array_equal(bundle.load(name), array)


def test_names_and_scopes(tmp_path: Path) -> None:
    cell, weights = random_cell("bn_lstm_per_step", "phan")
    one = one_layer(Recurrent(cell=cell), weights)
    model = replace(
        one,
        layers={**one.layers, "head": Dense(use_bias=False)},
        nodes=(*one.nodes, Node("head", "head", ("rnn",))),
        outputs=("head",),
        weights={**one.weights, "head.kernel": np.ones((5, 2), np.float32)},
    )
    kept = kept_names([TensorUse("out/weights", (5, 2), "float32", "head.kernel")])
    stored = store_model(model, NAMING, layout="phan", scope="rnn=a/b", names=kept)
    assert {"a/b/W_xh", "a/b/xh/pop_mean", "out/weights"} <= stored.tensors.keys()
    stored = store_model(model, NAMING, layout="phan", scope="net,rnn=a/b", names=kept)
    assert {"a/b/W_xh", "a/b/xh/pop_mean", "net/head/kernel"} <= stored.tensors.keys()
    with pytest.raises(UsageError, match="a layer cell, which the model does not have"):
        store_model(model, NAMING, scope="cell=x")
    two = replace(
        one,
        layers={**one.layers, "again": Recurrent(cell=cell)},
        weights={**one.weights, **{f"again.{key}": array for key, array in weights.items()}},
    )
    with pytest.raises(UsageError, match="two tensors would have the name a/W_xh"):
        store_model(two, NAMING, layout="phan", scope="rnn=a,again=a")
    with pytest.raises(Unsupported, match="layer lstm: the cell is not what"):
        write_checkpoint(masked_stack(), tmp_path, layout="bn_lstm_per_step/phan")


def test_cells_keep_their_states_order() -> None:
    assert msgspec.structs.asdict(random_cell("bn_lstm_per_step", "phan")[0])["states"].keys() == {"c", "h"}


@pytest.mark.parametrize(("to", "layout"), [("tf1", "phan"), ("state-dict", "jihunchoi")])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000))
def test_what_is_written_reads_as_the_same_model(
    to: str, layout: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The reader of checkpoints, told the scope, recognises the layout and finds the same cell and weights."""
    cell, weights = random_cell("bn_lstm_per_step", "phan", seed)
    model = one_layer(Recurrent(cell=cell, return_sequences=True), weights)
    folder = tmp_path_factory.mktemp("written")
    path = folder / ("model.pth" if to == "state-dict" else "model-tf1")
    api.convert(saved(model, folder), to, path, layout=layout, to_scope="net/cell", validate=False)
    scope = "net/cell"
    given_options = {"scope": scope, "family": f"bn_lstm_per_step/{layout}"}
    again = read(path if to == "state-dict" else path / PREFIX, Reading(**given_options)).model
    (part,) = (part for layer in again.layers.values() for part in recurrent_parts(layer))
    (name,) = (name for name, layer in again.layers.items() if recurrent_parts(layer))
    for key, array in weights.items():
        assert again.weights[f"{name}.{key}"].tobytes() == array.tobytes(), key
    extra = {key.removeprefix(f"{name}.") for key in again.weights if key.startswith(f"{name}.")} - weights.keys()
    assert extra == (set() if to == "tf1" else {"b", "bn_x.beta"})
    assert all(not again.weights[f"{name}.{key}"].any() for key in extra)
    assert isinstance(match(part.cell, family("bn_lstm_per_step")), Match)
