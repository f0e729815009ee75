"""Small models put together by hand, with weights and settings that are nowhere neutral."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from normconvert.ir.cell import Cell, State
from normconvert.ir.layers import Activation, Dense, Embedding, Masking, Recurrent, StepMask
from normconvert.ir.model import Array, Input, Model, Node, Provenance
from normconvert.ir.norm import Norm

UNITS, FEATURES, STEPS = 5, 3, 7

BN_LSTM = """
cell bn_lstm(x; h, c):
    z = bn_x(x @ W_x) + bn_h(h @ W_h) + b
    i, j, f, o = split(z, 4)
    c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(bn_c(c))
"""
GRU = """
cell gru(x; h):
    x_z, x_r, x_g = split(x @ W_x + b, 3)
    h_z, h_r, h_g = split(h @ W_h + b_h, 3)
    z = hard_sigmoid(x_z + h_z, 0.2)
    r = hard_sigmoid(x_r + h_r, 0.2)
    g = tanh(x_g + r * h_g)
    h = z * h + (1 - z) * g
"""


def weights_for(cell: Cell, layer: str, random: np.random.Generator) -> dict[str, Array]:
    """Random arrays for a cell; variances away from 0 and 1, means and betas away from 0, gammas away from 1."""
    arrays = {}
    for name, shape in cell.weight_shapes().items():
        role = name.rpartition(".")[2]
        array = random.standard_normal(shape) * 0.5
        if role == "variance":
            array = random.uniform(0.3, 2.5, shape)
        if role == "gamma":
            array = random.uniform(0.4, 1.6, shape)
        arrays[f"{layer}.{name}"] = array.astype(np.float32)
    return arrays


def bn_lstm_cell() -> Cell:
    """A batch-normalised LSTM with statistics per step, of 5 units on 3 features."""
    norm = dict[str, object](kind="batch", epsilon=1e-3, scope="per_step", steps=STEPS)
    return Cell(
        equations=BN_LSTM,
        dims={"units": UNITS, "inputs": FEATURES},
        input_shapes={"x": (FEATURES,)},
        states={"h": State((UNITS,)), "c": State((UNITS,))},
        parameters={"W_x": (FEATURES, 4 * UNITS), "W_h": (UNITS, 4 * UNITS), "b": (4 * UNITS,)},
        constants={"forget_bias": 0.7},
        norms={
            "bn_x": Norm(features=4 * UNITS, beta=False, **norm),  # type: ignore[arg-type]
            "bn_h": Norm(features=4 * UNITS, beta=False, **norm),  # type: ignore[arg-type]
            "bn_c": Norm(features=UNITS, **norm),  # type: ignore[arg-type]
        },
    )


def gru_cell(inputs: int) -> Cell:
    """A GRU with the reset gate after the matrix product and the old hard sigmoid."""
    return Cell(
        equations=GRU,
        dims={"units": 4, "inputs": inputs},
        input_shapes={"x": (inputs,)},
        states={"h": State((4,))},
        parameters={"W_x": (inputs, 12), "W_h": (4, 12), "b": (12,), "b_h": (12,)},
    )


def masked_stack(*, stateful: bool = False) -> Model:
    """Masking, then a batch-normalised LSTM, a GRU and a dense layer; sequences of any length."""
    random = np.random.default_rng(5)
    lstm, gru = bn_lstm_cell(), gru_cell(UNITS)
    weights = {
        **weights_for(lstm, "lstm", random),
        **weights_for(gru, "gru", random),
        "head.kernel": random.standard_normal((4, 2)).astype(np.float32),
        "head.bias": random.standard_normal(2).astype(np.float32),
    }
    return Model(
        name="masked stack",
        inputs=(Input("x", (None, FEATURES), batch=3 if stateful else None),),
        outputs=("head",),
        layers={
            "mask": StepMask(kind="Masking", value=-1.5, any_feature=True),
            "masking": Masking(kind="Masking", value=-1.5),
            "lstm": Recurrent(kind="BNLSTM", cell=lstm, return_sequences=True, stateful=stateful),
            "gru": Recurrent(kind="GRU", cell=gru, stateful=stateful),
            "head": Dense(kind="Dense", activation=Activation("tanh")),
        },
        nodes=(
            Node("mask", "mask", ("x",)),
            Node("masking", "masking", ("x",)),
            Node("lstm", "lstm", ("masking",), masks=("mask",)),
            Node("gru", "gru", ("lstm",), masks=("mask",)),
            Node("head", "head", ("gru",)),
        ),
        weights=weights,
        provenance=Provenance(source="hand.h5", format="by hand", framework="nobody 0.1", notes=("made up",)),
    )


def embedded() -> Model:
    """Indices of 11 words, embedded, masked by index 0, through a GRU."""
    random = np.random.default_rng(6)
    cell = gru_cell(FEATURES)
    weights = {
        **weights_for(cell, "gru", random),
        "words.embeddings": random.standard_normal((11, FEATURES)).astype(np.float32),
    }
    return Model(
        name="embedded",
        inputs=(Input("words_in", (None,), dtype="int"),),
        outputs=("gru",),
        layers={
            "words": Embedding(kind="Embedding"),
            "mask": StepMask(kind="Embedding"),
            "gru": Recurrent(kind="GRU", cell=cell, return_sequences=True),
        },
        nodes=(
            Node("words", "words", ("words_in",)),
            Node("mask", "mask", ("words_in",)),
            Node("gru", "gru", ("words",), masks=("mask",)),
        ),
        weights=weights,
    )


def write_keras_file(path: Path, *, cell: str = "LSTM", kernel_scale: float = 1.0) -> None:
    """A Keras 2 `.h5`, written without Keras: LSTM(5) or GRU(5) over 3 features, BatchNormalization, Dense(2).

    The GRU lacks the option `reset_after`, as in files of Keras 2.0.
    """
    gates = {"LSTM": 20, "GRU": 15}[cell]
    random = np.random.default_rng(7)
    layers: dict[str, tuple[str, dict[str, object], dict[str, tuple[int, ...]]]] = {
        "rnn": (
            cell,
            {"units": 5, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "return_sequences": False,
             "batch_input_shape": [None, None, 3], "dtype": "float32"},
            {"kernel": (3, gates), "recurrent_kernel": (5, gates), "bias": (gates,)},
        ),
        "norm": (
            "BatchNormalization",
            {"axis": -1, "epsilon": 2e-3, "momentum": 0.9, "scale": True, "center": True},
            {"gamma": (5,), "beta": (5,), "moving_mean": (5,), "moving_variance": (5,)},
        ),
        "head": ("Dense", {"units": 2, "activation": "tanh"}, {"kernel": (5, 2), "bias": (2,)}),
    }  # fmt: skip
    config = {
        "class_name": "Sequential",
        "config": [
            {"class_name": kind, "config": {"name": name, "trainable": True, **options}}
            for name, (kind, options, _) in layers.items()
        ],
    }
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in layers]
        root.attrs["keras_version"], root.attrs["backend"] = b"2.2.4", b"tensorflow"
        for name, (_, _, shapes) in layers.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{weight}:0".encode() for weight in shapes]
            for weight, shape in shapes.items():
                values = random.standard_normal(shape) * 0.6
                if weight == "moving_variance":
                    values = random.uniform(0.3, 2.0, shape)
                if weight == "kernel":
                    values = values * kernel_scale
                group.create_dataset(f"{name}/{weight}:0", data=values.astype(np.float32))
