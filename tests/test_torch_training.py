"""Cells in training, and as exported programs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from torch_cases import build, values_for, worst_error
from torch_cell_cases import (
    CASES,
    GRU_AFTER,
    MANY,
    PER_STEP,
    ROWS,
    arrays,
    both_arrays,
    lstm,
    model_of,
    norms,
)

from normconvert.ir.layers import AnyLayer, Bidirectional, Pooling, Recurrent, Reshape
from normconvert.ir.model import Node
from normconvert.targets.torch import write_exported, write_torchscript

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("unbiased", [True, False])
def test_per_step_statistics_train_as_in_the_paper(unbiased: bool, tmp_path: Path) -> None:
    """Row t moves by the moments of step t; steps past the last row move the last row, one after another."""
    cell = lstm(norms(**PER_STEP, momentum=0.9, unbiased_running=unbiased))
    model = model_of(Recurrent(cell=cell, return_sequences=True), arrays(cell))
    module = build(model, tmp_path / "model").train()
    values = values_for(model, 6, ROWS + 2)
    module(torch.tensor(values["x"])).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())

    projected = values["x"] @ model.weights["rnn.W_x"].astype(np.float64)
    for role, name in (("mean", "running_mean"), ("variance", "running_var")):
        rows = model.weights[f"rnn.norm_x.{role}"].astype(np.float64)
        for t in range(ROWS + 2):
            step = projected[:, t]
            moment = step.mean(axis=0) if role == "mean" else step.var(axis=0, ddof=int(unbiased))
            rows[min(t, ROWS - 1)] = 0.9 * rows[min(t, ROWS - 1)] + 0.1 * moment
        np.testing.assert_allclose(module.state_dict()[f"rnn.norm_x.{name}"].numpy(), rows, rtol=1e-10)

    # At step 0 the state is zero, so are the moments of its product; later rows have seen other values.
    recurrent = module.state_dict()["rnn.norm_h.running_mean"].numpy()
    before = model.weights["rnn.norm_h.mean"].astype(np.float64)
    np.testing.assert_allclose(recurrent[0], 0.9 * before[0], rtol=1e-10)
    assert (np.abs(recurrent[1:] - 0.9 * before[1:]) > 1e-6).all()


def test_pooled_statistics_train_with_one_number(tmp_path: Path) -> None:
    """One mean and one variance over batch and features move the statistics of every feature, step after step."""
    cell = lstm(norms(kind="batch", pooled=True, momentum=0.9))
    model = model_of(Recurrent(cell=cell), arrays(cell))
    module = build(model, tmp_path / "model").train()
    values = values_for(model, 6, 3)
    module(torch.tensor(values["x"]))
    projected = torch.tensor(values["x"] @ model.weights["rnn.W_x"].astype(np.float64))
    expected = {
        role: torch.tensor(model.weights[f"rnn.norm_x.{role}"].astype(np.float64)) for role in ("mean", "variance")
    }
    for step in projected.unbind(1):
        variance, mean = torch.var_mean(step, unbiased=False)
        expected["mean"] = 0.9 * expected["mean"] + 0.1 * mean
        expected["variance"] = 0.9 * expected["variance"] + 0.1 * variance
    np.testing.assert_allclose(module.rnn.norm_x.running_mean.numpy(), expected["mean"], rtol=1e-10)
    np.testing.assert_allclose(module.rnn.norm_x.running_var.numpy(), expected["variance"], rtol=1e-10)


@pytest.mark.parametrize("unbiased", [True, False])
def test_statistics_per_position_train_as_torch_does(unbiased: bool, tmp_path: Path) -> None:
    """Each position as a feature of PyTorch's own batch norm, step after step; gamma and beta are shared."""
    cell = CASES["statistics per position"].cell
    norm = msgspec.structs.replace(cell.norms["norm"], momentum=0.9, unbiased_running=unbiased)
    cell = msgspec.structs.replace(cell, norms={**cell.norms, "norm": norm})
    model = model_of(Recurrent(cell=cell, return_sequences=True), arrays(cell))
    module = build(model, tmp_path / "model").train()
    values = values_for(model, 5, ROWS + 2)
    module(torch.tensor(values["x"])).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())
    assert module.rnn.norm.weight.shape == (8,)

    mean, variance, kernel = (
        torch.tensor(model.weights[f"rnn.{name}"].astype(np.float64))
        for name in ("norm.mean", "norm.variance", "kernel")
    )
    images = torch.tensor(values["x"]).flatten(0, 1).permute(0, 3, 1, 2)
    padded = torch.nn.functional.pad(images, (0, 0, 0, 1))  # `same` with a window of 3 and 2, by twos, over 6 and 4
    images = torch.nn.functional.conv2d(padded, kernel.permute(3, 2, 0, 1), stride=2)
    for step in images.permute(0, 2, 3, 1).unflatten(0, (5, -1)).unbind(1):
        new = [mean.flatten().clone(), torch.zeros(48, dtype=torch.float64)]
        torch.nn.functional.batch_norm(step.flatten(1), *new, training=True, momentum=0.1)
        divisor = 1.0 if unbiased else 4 / 5  # PyTorch's running variance divides by n - 1
        mean, variance = new[0].reshape(3, 2, 8), 0.9 * variance + divisor * new[1].reshape(3, 2, 8)
    np.testing.assert_allclose(module.rnn.norm.running_mean.numpy(), mean, rtol=1e-9)
    np.testing.assert_allclose(module.rnn.norm.running_var.numpy(), variance, rtol=1e-9)


def test_training_normalises_with_the_batch(tmp_path: Path) -> None:
    """In training a step is normalised as by a norm that always uses the batch at hand."""
    cell = lstm(norms(**PER_STEP))
    live = lstm(norms(kind="batch", source="batch"))
    weights = arrays(cell)
    module = build(model_of(Recurrent(cell=cell), weights), tmp_path / "model").train()
    kept = {name: array for name, array in weights.items() if name in live.weight_shapes()}
    model = model_of(Recurrent(cell=live), kept)
    assert worst_error(model, module, values_for(model, 5, 6)) < 1e-12


@pytest.mark.parametrize("name", ["batch norm, shared", "batch norm, per step"])
def test_a_layer_that_is_not_trainable_keeps_its_statistics(name: str, tmp_path: Path) -> None:
    """As Keras does: it then also normalises with them in training."""
    cell = CASES[name].cell
    model = model_of(Recurrent(cell=cell, return_sequences=True, trainable=False), arrays(cell))
    module = build(model, tmp_path / "model").train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert worst_error(model, module, values_for(model, 5, 6)) < 1e-12
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_both_directions_of_a_layer_that_is_not_trainable_keep_their_statistics(tmp_path: Path) -> None:
    cell = CASES["batch norm, per step"].cell
    half = Recurrent(cell=cell, return_sequences=True)
    layer = Bidirectional(forward=half, backward=msgspec.structs.replace(half, reverse=True), trainable=False)
    model = model_of(layer, both_arrays(cell))
    module = build(model, tmp_path / "model").train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert worst_error(model, module, values_for(model, 5, 6)) < 1e-12
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("plain", [True, False])
def test_dropout_of_a_cell(rate: str, plain: bool, tmp_path: Path) -> None:
    cell = lstm({} if plain else norms(kind="layer"))
    module = build(model_of(Recurrent(cell=cell, **{rate: 0.4}), arrays(cell)), tmp_path / "model")
    x = torch.tensor(values_for(model_of(Recurrent(cell=cell), {}), 5, 6)["x"])
    evaluated = module(x)
    assert torch.equal(evaluated, module(x))
    module.train()
    torch.manual_seed(1)
    dropped = module(x)
    assert not torch.allclose(evaluated, dropped)
    assert not torch.equal(dropped, module(x))


@pytest.mark.parametrize("name", ["batch norm, per step", "moments of the sequence", "convolutional"])
def test_exported_loop_keeps_time_open(name: str, tmp_path: Path) -> None:
    cell = CASES[name].cell
    model = model_of(Recurrent(cell=cell, return_sequences=True, return_state=True, reverse=True), arrays(cell))
    write_exported(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for batch, time in ((2, 2), (4, 13)):
        assert worst_error(model, program, values_for(model, batch, time), np.float32) < 1e-5


@pytest.mark.parametrize(("name", "poolings"), [("layer norm", 1), ("convolutional, volumes", 2)])
def test_exported_loop_reads_a_pooled_sequence(name: str, poolings: int, tmp_path: Path) -> None:
    """`torch.export` knows less of a length behind a pooling; every batch works all the same, also that of 1."""
    cell = CASES[name].cell
    model = model_of(Recurrent(cell=cell, return_sequences=True, reverse=True), arrays(cell))
    size = cell.input_shapes["x"]
    before: dict[str, AnyLayer] = {"flat": Reshape(shape=(-1, math.prod(size)))}
    before |= {f"pool_{n}": Pooling(operation="max", window=(2,), strides=(2,)) for n in range(poolings)}
    before["back"] = Reshape(shape=(-1, *size))
    names = ["x", *before, "rnn"]
    nodes = tuple(Node(after, after, (ahead,)) for ahead, after in itertools.pairwise(names))
    model = replace(model, layers={**before, **model.layers}, nodes=nodes)
    write_exported(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for batch, time in ((1, 8), (1, 13), (2, 9), (5, 18)):
        assert worst_error(model, program, values_for(model, batch, time), np.float32) < 1e-5


def test_exported_mask_and_scripted_file(tmp_path: Path) -> None:
    layer = Recurrent(cell=MANY, return_sequences=False, return_state=True)
    model = model_of(layer, arrays(MANY), masked=True)
    write_exported(model, tmp_path / "model.pt2")
    write_torchscript(model, tmp_path / "model.ts.pt")
    for program in (torch.export.load(tmp_path / "model.pt2").module(), torch.jit.load(tmp_path / "model.ts.pt")):
        assert worst_error(model, program, values_for(model, 4, 13), np.float32) < 1e-5


def test_exported_native_layers(tmp_path: Path) -> None:
    layer = Bidirectional(
        forward=Recurrent(cell=GRU_AFTER, return_sequences=True),
        backward=Recurrent(cell=GRU_AFTER, return_sequences=True, reverse=True),
    )
    weights = both_arrays(GRU_AFTER)
    model = model_of(layer, weights)
    write_exported(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert worst_error(model, program, values_for(model, 4, 13), np.float32) < 1e-5
