"""Layers written for Keras in training: statistics per time step move as the paper says, and survive being saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from keras_target_cases import built, forget_modules, widened, worst_error
from torch_cases import values_for
from torch_cell_cases import CASES, PER_STEP, ROWS, arrays, both_arrays, lstm, model_of, norms

from normconvert.ir.layers import Bidirectional, Recurrent
from normconvert.ir.model import Model

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytestmark = pytest.mark.usefixtures("workers_in_this_process")


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    forget_modules()
    keras.backend.clear_session()


def weights_of(loaded: Any) -> dict[str, Any]:
    """The arrays of the layer `rnn` by their Keras names without the layer's."""
    return {weight.path.partition("/")[2]: np.array(weight) for weight in loaded.get_layer("rnn").weights}


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("graph", [True, False])
def test_per_step_statistics_train_as_in_the_paper(unbiased: bool, graph: bool, tmp_path: Path) -> None:
    """Row t moves by the moments of step t; steps past the last row move the last row, one after another."""
    import tensorflow as tf

    cell = lstm(norms(**PER_STEP, momentum=0.9, unbiased_running=unbiased))
    model = model_of(Recurrent(cell=cell, return_sequences=True), arrays(cell))
    loaded = built(widened(model), tmp_path)
    values = values_for(model, 6, ROWS + 2)
    call = tf.function(loaded, autograph=False) if graph else loaded
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.square(call(tf.constant(values["x"], tf.float64), training=True)))
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(total, loaded.trainable_variables))

    after = weights_of(loaded)
    projected = values["x"] @ model.weights["rnn.W_x"].astype(np.float64)
    for role, name in (("mean", "moving_mean"), ("variance", "moving_variance")):
        rows = model.weights[f"rnn.norm_x.{role}"].astype(np.float64)
        for t in range(ROWS + 2):
            step = projected[:, t]
            moment = step.mean(axis=0) if role == "mean" else step.var(axis=0, ddof=int(unbiased))
            rows[min(t, ROWS - 1)] = 0.9 * rows[min(t, ROWS - 1)] + 0.1 * moment
        np.testing.assert_allclose(after[f"norm_x/{name}"], rows, rtol=1e-10)

    # At step 0 the state is zero, so are the moments of its product; later rows have seen other values.
    recurrent, before = after["norm_h/moving_mean"], model.weights["rnn.norm_h.mean"].astype(np.float64)
    np.testing.assert_allclose(recurrent[0], 0.9 * before[0], rtol=1e-10)
    assert (np.abs(recurrent[1:] - 0.9 * before[1:]) > 1e-6).all()


BATCH_NORMS = [
    "batch norm, shared",
    "batch norm, per step",
    "modulo",
    "bypass",
    "reverse",
    "statistics per position",
    "rows of statistics per position",
    "convolutional",
]


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_training_is_that_of_the_pytorch_blocks(name: str, tmp_path: Path) -> None:
    """Outputs and running statistics after a step of training, past the last row, against what we write for PyTorch."""
    torch = pytest.importorskip("torch")
    from torch_cases import build

    case = CASES[name]
    layer = Recurrent(cell=case.cell, return_sequences=True, **{**case.options, "return_state": False})
    model = model_of(layer, arrays(case.cell))
    values = values_for(model, 5, ROWS + 2)
    loaded, module = built(widened(model), tmp_path), build(model, tmp_path / "torch").train()
    given = [array.astype(np.float64) for array in values.values()]
    wanted = module(*map(torch.tensor, given)).detach().numpy()
    found = np.array(loaded(given if len(given) > 1 else given[0], training=True))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)
    state, after = module.state_dict(), weights_of(loaded)
    statistics = [key for key in state if "running" in key]
    assert statistics
    for key in statistics:
        own = key.removeprefix("rnn.").replace(".", "/").replace("running_var", "moving_variance")
        own = own.replace("running_mean", "moving_mean")
        np.testing.assert_allclose(after[own], state[key].numpy(), rtol=1e-9, atol=1e-12)


def test_a_layer_that_is_not_trainable_keeps_its_statistics(tmp_path: Path) -> None:
    """As Keras does: it then also normalises with them in training."""
    cell = CASES["batch norm, per step"].cell
    half = Recurrent(cell=cell, return_sequences=True)
    both = Bidirectional(forward=half, backward=msgspec.structs.replace(half, reverse=True), trainable=False)
    for layer, weights in (
        (msgspec.structs.replace(half, trainable=False), arrays(cell)),
        (both, both_arrays(cell)),
    ):
        model = model_of(layer, weights)
        loaded = built(widened(model), tmp_path)
        before = weights_of(loaded)
        given = values_for(model, 5, 6)
        loaded(given["x"].astype(np.float64), training=True)
        assert not loaded.trainable_variables
        assert all(np.array_equal(array, before[name]) for name, array in weights_of(loaded).items())
        assert worst_error(model, loaded, given) < 1e-12


def test_fitted_and_saved_again_it_reads_back(tmp_path: Path) -> None:
    """The file that Keras writes after training holds the declaration and the new arrays."""
    from normconvert.sources import read

    cell = lstm(norms(**PER_STEP, momentum=0.9))
    half = Recurrent(cell=cell, return_sequences=True)
    both = Bidirectional(forward=half, backward=msgspec.structs.replace(half, reverse=True))
    for layer, weights in ((half, arrays(cell)), (both, both_arrays(cell))):
        model = model_of(layer, weights)
        loaded = built(model, tmp_path)
        loaded.compile("sgd", "mse")
        x = values_for(model, 6, ROWS + 2)["x"].astype(np.float32)
        units = loaded.output_shape[-1]
        loaded.fit(x, np.ones((*x.shape[:2], units), np.float32), epochs=1, verbose=0)
        for name in ("again.keras", "again.h5"):
            loaded.save(tmp_path / name)
            again: Model = read(tmp_path / name).model
            assert again.layers["rnn"] == model.layers["rnn"]
            assert all(not np.array_equal(array, again.weights[key]) for key, array in model.weights.items())
            assert worst_error(again, loaded, values_for(model, 3, 5), np.float32) < 1e-5
