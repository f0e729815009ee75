"""Kernels and layers that Keras 1 kept differently, from files written by hand.

The orders are those that `preprocess_weights_for_loading` of Keras 2.2 (`keras/engine/saving.py`) undoes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from normconvert.errors import Unsupported
from normconvert.ir.model import Array, Model
from normconvert.sources import read

RANDOM = np.random.default_rng(3)


def old_model(folder: Path, layers: list[dict[str, Any]], arrays: dict[str, Array], backend: str = "") -> Model:
    """A Sequential model of Keras 1, all arrays in the group of the last layer."""
    path = folder / "old.h5"
    name = layers[-1]["config"]["name"]
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers})
        if backend:
            file.attrs["keras_version"], file.attrs["backend"] = "1.2.2", backend
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [name.encode()]
        group = weights.create_group(name)
        group.attrs["weight_names"] = [key.encode() for key in arrays]
        for key, array in arrays.items():
            group[key] = array
    return read(path).model


@pytest.mark.parametrize("ordering", ["tf", "th"])
@pytest.mark.parametrize("backend", ["tensorflow", "theano"])
def test_transposed_convolution(ordering: str, backend: str, tmp_path: Path) -> None:
    kernel = RANDOM.normal(size=(2, 3, 4, 5)).astype(np.float32)  # rows, columns, filters, in
    stored = kernel[::-1, ::-1] if backend == "theano" else kernel
    stored = np.transpose(stored, (0, 1, 3, 2) if ordering == "tf" else (2, 3, 0, 1))
    config = {
        "name": "up", "nb_filter": 4, "nb_row": 2, "nb_col": 3, "subsample": [2, 2], "border_mode": "valid",
        "dim_ordering": ordering, "activation": "linear", "bias": False,
        "batch_input_shape": [None, 5, 6, 7] if ordering == "th" else [None, 6, 7, 5],
    }  # fmt: skip
    layers = [{"class_name": "Deconvolution2D", "config": config}]
    model = old_model(tmp_path, layers, {"up_W": np.ascontiguousarray(stored)}, backend)
    np.testing.assert_array_equal(model.weights["up.kernel"], kernel)


@pytest.mark.parametrize("backend", ["tensorflow", "theano"])
def test_convolutional_lstm_with_an_array_per_gate(backend: str, tmp_path: Path) -> None:
    gates = {gate: RANDOM.normal(size=(3, 3, 2, 4)).astype(np.float32) for gate in "icfo"}
    recurrent = {gate: RANDOM.normal(size=(3, 3, 4, 4)).astype(np.float32) for gate in "icfo"}
    flip = slice(None, None, -1 if backend == "theano" else 1)
    arrays: dict[str, Array] = {}
    for gate in "icfo":
        arrays[f"net_W_{gate}"] = np.ascontiguousarray(gates[gate][flip, flip])
        arrays[f"net_U_{gate}"] = np.ascontiguousarray(recurrent[gate][flip, flip])
        arrays[f"net_b_{gate}"] = RANDOM.normal(size=4).astype(np.float32)
    config = {
        "name": "net", "nb_filter": 4, "nb_row": 3, "nb_col": 3, "subsample": [1, 1], "border_mode": "same",
        "dim_ordering": "tf", "activation": "tanh", "inner_activation": "hard_sigmoid", "return_sequences": False,
        "batch_input_shape": [None, None, 6, 5, 2],
    }  # fmt: skip
    model = old_model(tmp_path, [{"class_name": "ConvLSTM2D", "config": config}], arrays, backend)
    np.testing.assert_array_equal(model.weights["net.W_x"], np.concatenate([gates[g] for g in "ifco"], axis=-1))
    np.testing.assert_array_equal(model.weights["net.W_h"], np.concatenate([recurrent[g] for g in "ifco"], axis=-1))
    np.testing.assert_array_equal(model.weights["net.b"], np.concatenate([arrays[f"net_b_{g}"] for g in "ifco"]))


def test_a_dense_layer_over_time(tmp_path: Path) -> None:
    config = {"name": "each", "output_dim": 2, "activation": "tanh", "init": "glorot_uniform",
              "batch_input_shape": [None, 7, 3]}  # fmt: skip
    arrays = {"each_W": RANDOM.normal(size=(3, 2)), "each_b": RANDOM.normal(size=2)}
    model = old_model(tmp_path, [{"class_name": "TimeDistributedDense", "config": config}], arrays)
    np.testing.assert_array_equal(model.weights["each.kernel"], arrays["each_W"])


def test_the_doubt_about_running_std_is_told(tmp_path: Path) -> None:
    config = {"name": "norm", "mode": 0, "axis": -1, "epsilon": 1e-6, "init": "", "batch_input_shape": [None, 3]}
    parts = ("gamma", "beta", "running_mean", "running_std")
    arrays = {f"norm_{part}": RANDOM.uniform(0.5, 2, size=3) for part in parts}
    entry = {"class_name": "BatchNormalization", "config": {**config, "output_dim": 3}}
    model = old_model(tmp_path, [entry], arrays)
    assert any("running_std is a variance" in note for note in model.provenance.notes)


@pytest.mark.parametrize(
    ("class_name", "extra", "match"),
    [("Merge", {"mode": "cos"}, "cos"), ("Activation", {"activation": "sparsemax"}, "sparsemax")],
)
def test_what_is_refused(class_name: str, extra: dict[str, Any], match: str, tmp_path: Path) -> None:
    layers = [
        {"class_name": "Dropout", "config": {"name": "d", "p": 0.5, "batch_input_shape": [None, 3]}},
        {"class_name": class_name, "config": {"name": "x", **extra}},
    ]
    with pytest.raises(Unsupported, match=match):
        old_model(tmp_path, layers, {}, "tensorflow")


def test_flipped_kernels_of_both_directions_are_refused(tmp_path: Path) -> None:
    """Read as they stand they would give another function without a word."""
    inner = {
        "name": "images",
        "nb_filter": 3,
        "nb_row": 2,
        "nb_col": 3,
        "inner_activation": "hard_sigmoid",
        "dim_ordering": "tf",
    }
    both = {
        "name": "both",
        "merge_mode": "concat",
        "layer": {"class_name": "ConvLSTM2D", "config": inner},
        "batch_input_shape": [None, 4, 7, 6, 5],
    }
    with pytest.raises(Unsupported, match=r"both: a Bidirectional ConvLSTM2D of the Theano backend"):
        old_model(tmp_path, [{"class_name": "Bidirectional", "config": both}], {}, backend="theano")
