"""Convolutional cells whose statistics differ from pixel to pixel, beyond what is tested of every family.

The cells are `BN_ConvGRUCell` and `BN_ConvLSTMCell`: the input's convolution is normalised with a mean and a variance
per pixel and filter, the recurrent one has a bias and no norm. Here: recognised from the checkpoint alone and in the
graph, trained, with the batch's own moments, and as equations of a recipe that keeps the statistics fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import load_module
from tf1_bn_cells import CELLS, COLUMNS, INPUTS, ROWS, SPACE, WINDOW, BnCell, input_conv_gru, input_conv_lstm
from tf1_graphs import Feeds, run_graph
from tf1_oracle import Saved, TfCell, Variables, check, record, sequences

from normconvert import interpreter
from normconvert.sources import read
from normconvert.sources.reading import Reading

pytestmark = pytest.mark.framework
pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

GRU, LSTM = CELLS["input conv gru"], CELLS["input conv lstm"]
VOLUMES = CELLS["input conv gru, volumes"]
both_cells = pytest.mark.parametrize("chosen", [GRU, LSTM], ids=["gru", "lstm"])
TIME = 3


def saved_cell(chosen: BnCell, folder: Path, scope: str = "rnn/cell", **options: Any) -> Saved:
    inputs = sequences((2, 3), (1, 4), features=chosen.features)
    return record(folder, scope, chosen.cell, states=chosen.states, inputs=inputs, **options)


@both_cells
def test_recognised_from_the_checkpoint_alone(
    chosen: BnCell, command: Callable[..., Any], run_folder: Callable[..., Any], tmp_path: Path
) -> None:
    saved = saved_cell(chosen, tmp_path)
    seen = command("inspect", saved.prefix)
    assert seen.exit_code == 0, seen.stderr
    assert f"{chosen.family}/per_pixel" in seen.stdout
    assert "certainty high; window_rows 3, window_columns 2, channels 3, filters 2, rows 4, columns 5" in seen.stdout
    assert "rnn/cell: one direction, 4x5x3 -> 4x5x2 features" in seen.stdout
    check(saved, command, run_folder, tmp_path / "torch")
    (summary,) = read(saved.prefix, Reading(scope="rnn/cell")).model.layers.values()
    assert {norm.positions for norm in summary.cell.norms.values()} == {SPACE}


def test_statistics_that_were_never_trained(command: Callable[..., Any], tmp_path: Path) -> None:
    """The class compares a placeholder with True, so that no run of its authors' programs updates them."""

    def untrained(v: Variables, x: Any, states: tuple[Any, ...], t: Any) -> Any:
        def variable(name: str, shape: Any, value: Any = None) -> Any:
            fresh = {"population_mean": 0.0, "population_var": 1.0}
            return v(name, shape, fresh.get(name.rpartition("/")[2], value))

        return LSTM.cell(variable, x, states, t)

    inputs = sequences((2, 2), features=LSTM.features)
    saved = record(tmp_path, "rnn/cell", untrained, states=LSTM.states, inputs=inputs)
    seen = command("inspect", saved.prefix)
    assert "rnn/cell/gates/bn_x/population_mean are exactly 0, with a variance of exactly 1" in seen.stderr
    converted = command("tf1-to-torch", saved.prefix, "--scope", "rnn/cell", "-o", tmp_path / "out", "--no-validate")
    assert converted.exit_code == 0
    assert "never trained" in converted.stderr


@both_cells
def test_training_moves_the_statistics_of_each_pixel(
    chosen: BnCell, command: Callable[..., Any], tmp_path: Path
) -> None:
    """As the class does: moments over the batch alone, biased, with a decay of 0.99, step after step."""
    import tensorflow as tf

    saved = saved_cell(chosen, tmp_path)
    converted = command("tf1-to-torch", saved.prefix, "--scope", "rnn/cell", "-o", tmp_path / "out", "--no-validate")
    assert converted.exit_code == 0, converted.stderr
    module = load_module(tmp_path / "out" / "model.py").load().double().train()
    x = np.random.default_rng(4).normal(0.3, 1.0, (5, TIME, *chosen.features))
    module(torch.from_numpy(x)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())

    kernel = saved.values["gates/conv_x/weights"].astype(np.float64)
    mean, variance = (saved.values[f"gates/bn_x/population_{each}"][0].astype(np.float64) for each in ("mean", "var"))
    for t in range(TIME):
        moments = tf.nn.moments(tf.nn.conv2d(x[:, t], kernel, 1, "SAME"), [0])
        mean, variance = (
            0.99 * old + 0.01 * np.asarray(new) for old, new in zip((mean, variance), moments, strict=True)
        )
    found = dict(module.named_buffers())
    prefix = next(name for name in found if name.endswith("bn_x.running_mean")).removesuffix("running_mean")
    order = [1, 2, 0, 3] if chosen is LSTM else [0, 1]  # stored as j, i, f, o, in the family i, f, g, o
    for name, expected in (("running_mean", mean), ("running_var", variance)):
        gates = np.split(expected, len(order), axis=-1)
        np.testing.assert_allclose(found[prefix + name], np.concatenate([gates[n] for n in order], -1), rtol=1e-9)


@pytest.mark.parametrize("chosen", [GRU, LSTM, VOLUMES], ids=["gru", "lstm", "gru over volumes"])
@pytest.mark.parametrize("training", [False, True])
def test_found_in_the_graph(chosen: BnCell, training: bool, tmp_path: Path) -> None:
    """`dynamic_rnn` of the cell, at inference, and with the moments of the batch as `is_training=True` has them."""

    def build(tf: Any, rng: np.random.Generator) -> Feeds:
        x = tf.placeholder(tf.float32, (None, None, *chosen.features), name="x")
        cell = (input_conv_lstm if chosen is LSTM else input_conv_gru)(training)
        outputs, _ = tf.nn.dynamic_rnn(_Cell(cell, chosen.states), x, dtype=tf.float32)
        tf.identity(outputs, name="out")
        return {"x": rng.normal(0.3, 1.0, (4, TIME, *chosen.features)).astype(np.float32)}

    ran = run_graph(build, tmp_path, np.random.default_rng(8))
    model = read(ran.meta.with_suffix(""), Reading()).model
    (layer,) = model.layers.values()
    norms = layer.cell.norms.values()
    assert {(norm.positions, norm.source) for norm in norms} == {
        (chosen.features[:-1], "batch" if training else "population")
    }
    assert layer.cell.family == ("custom" if training else chosen.family)
    (found,) = interpreter.run(model, ran.feeds, np.float32).values()
    np.testing.assert_allclose(found, ran.output, rtol=0, atol=3e-6)


class _Cell:
    """What `dynamic_rnn` asks of a cell, in the scope `cell`."""

    def __init__(self, cell: TfCell, states: tuple[Any, ...]) -> None:
        self.cell, self.states = cell, states

    @property
    def state_size(self) -> Any:
        import tensorflow as tf

        return tuple(map(tf.TensorShape, self.states))

    @property
    def output_size(self) -> Any:
        import tensorflow as tf

        return tf.TensorShape(self.states[0])

    def zero_state(self, batch: Any, dtype: Any) -> Any:
        import tensorflow as tf

        return tuple(tf.zeros([batch, *shape], dtype) for shape in self.states)

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> tuple[Any, Any]:
        from tensorflow.compat import v1 as tf

        def variable(name: str, shape: Any) -> Any:
            with tf.variable_scope("cell", reuse=tf.AUTO_REUSE):
                return tf.get_variable(name, shape)

        return self.cell(variable, inputs, tuple(state), None)


EQUATIONS = f"""
[[inputs]]
name = "x"
shape = ["?", {ROWS}, {COLUMNS}, {INPUTS}]

[[layers]]
name = "cell"
scope = "rnn/cell"
fixed = ["m", "v"]

[layers.cell]
equations = '''
cell conv_lstm(x; c, h):
    a = (conv(x, W_x, padding="same") - m) / sqrt(v + 0.001) * gamma + beta
    j, i, f, o = split(a + conv(h, W_h, padding="same") + b, 4)
    c = c * sigmoid(f + 1) + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(c)
'''
[layers.cell.inputs]
x = ["rows", "columns", "channels"]
[layers.cell.states]
c = ["rows", "columns", "filters"]
h = ["rows", "columns", "filters"]
[layers.cell.parameters]
W_x = [{WINDOW}, "window", "channels", "4*filters"]
W_h = [{WINDOW}, "window", "filters", "4*filters"]
b = ["4*filters"]
m = ["rows", "columns", "4*filters"]
v = ["rows", "columns", "4*filters"]
gamma = ["4*filters"]
beta = ["4*filters"]
[layers.cell.tensors]
"gates/conv_x/weights" = "W_x"
"gates/conv_h/weights" = "W_h"
"gates/conv_h/biases" = "b"
"gates/bn_x/population_mean" = "row(m)"
"gates/bn_x/population_var" = "row(v)"
"gates/bn_x/scale" = "gamma"
"gates/bn_x/offset" = "beta"
"""


def test_fixed_arrays_of_a_recipes_equations(
    command: Callable[..., Any], run_folder: Callable[..., Any], tmp_path: Path
) -> None:
    """The statistics as parameters that training leaves alone."""
    saved = saved_cell(LSTM, tmp_path)
    (tmp_path / "recipe.toml").write_text(EQUATIONS, encoding="utf-8")
    check(saved, command, run_folder, tmp_path / "torch", "--recipe", str(tmp_path / "recipe.toml"))
    module = load_module(tmp_path / "torch" / "model.py").load()
    assert {key for key, _ in module.named_buffers()} == {"cell.m", "cell.v"}
    assert module.state_dict().keys() > {"cell.m", "cell.v"}


def test_what_is_fixed_must_be_there(command: Callable[..., Any], tmp_path: Path) -> None:
    saved = saved_cell(LSTM, tmp_path)
    (tmp_path / "recipe.toml").write_text(EQUATIONS.replace('["m", "v"]', '["m", "w"]'), encoding="utf-8")
    refused = command("tf1-to-torch", saved.prefix, "--recipe", tmp_path / "recipe.toml")
    assert refused.exit_code == 2
    assert "fixed is a list of the layer's arrays. There are W_x, W_h, b, m, v" in refused.stderr
