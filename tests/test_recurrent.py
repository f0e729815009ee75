"""Cells run over time: masks, directions, states in and out, chunks; Keras and packed PyTorch sequences as oracles."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_recurrence import BATCH, INPUTS, KINDS, MASKS, MERGES, TIME, UNITS, single_cases

from normconvert.cells import family
from normconvert.errors import UsageError
from normconvert.interpreter.model import States, run
from normconvert.interpreter.recurrent import run_bidirectional, run_recurrent
from normconvert.ir.cell import Cell, State
from normconvert.ir.layers import Bidirectional, Recurrent
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.ir.norm import Norm

Case = dict[str, list[Array]]
MERGE_NAMES = {"concat": "concat", "sum": "add", "mul": "multiply", "ave": "average", None: None}


@pytest.fixture(scope="module")
def keras_cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    path = tmp_path_factory.mktemp("keras") / "cases.npz"
    script = Path(__file__).with_name("keras_recurrence.py")
    subprocess.run([sys.executable, str(script), str(path)], check=True, capture_output=True, timeout=300)
    cases: dict[str, Case] = {}
    with np.load(path) as stored:
        for key in stored.files:
            case, name, _ = key.split("/")
            cases.setdefault(case, {}).setdefault(name, []).append(stored[key])
    return cases


def keras_layer(kind: str, arrays: list[Array], **fields: Any) -> tuple[Recurrent, dict[str, Array]]:
    tensors = dict(zip(("kernel", "recurrent_kernel", "bias"), arrays, strict=True))
    cell, weights = family(KINDS[kind]).build("keras", tensors)
    return Recurrent(cell=cell, **fields), weights


def mask_of(name: str | None) -> Array | None:
    return None if name is None else np.array(MASKS[name], bool)


def close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def as_keras(found: Array, expected: Array) -> None:
    """Keras rounds masked steps to single precision; a mask or a direction gone wrong differs by 0.01 and more."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "kind", "mask", "options"), single_cases(), ids=[case[0] for case in single_cases()])
def test_masks_and_directions_as_in_keras(
    keras_cases: dict[str, Case], name: str, kind: str, mask: str | None, options: dict[str, Any]
) -> None:
    case, backwards = keras_cases[name], options.get("go_backwards", False)
    layer, weights = keras_layer(
        kind,
        case["weights"],
        reverse=backwards,
        return_sequences=options["return_sequences"],
        zero_masked=options.get("zero_output_for_mask", False),
    )
    output, final = run_recurrent(layer, case["x"], weights, mask_of(mask), case["states"])
    expected = case["output"][0]
    as_keras(output, expected[:, ::-1] if backwards else expected)  # Keras gives them in the order it reads
    for found, wanted in zip(final.values(), case["final"], strict=True):
        as_keras(found, wanted)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("mask", [None, "right", "holes"])
@pytest.mark.parametrize("sequences", [False, True])
def test_both_directions_as_in_keras(
    keras_cases: dict[str, Case], merge: Any, mask: str | None, sequences: bool
) -> None:
    case = keras_cases[f"both-{merge}-{mask}-{sequences}"]
    layer, weights = bidirectional(case["weights"], sequences, merge=MERGE_NAMES[merge])
    outputs, _ = run_bidirectional(layer, case["x"], weights, mask_of(mask))
    for found, wanted in zip(outputs, case["output"], strict=True):
        as_keras(found, wanted)


def bidirectional(
    arrays: list[Array], sequences: bool, merge: Any = "concat", stateful: bool = False
) -> tuple[Bidirectional, dict[str, Array]]:
    """Keras forces zero outputs at masked steps inside Bidirectional, if it returns sequences."""
    fields = {"return_sequences": sequences, "zero_masked": sequences, "stateful": stateful}
    forward, ahead = keras_layer("LSTM", arrays[:3], **fields)
    backward, back = keras_layer("LSTM", arrays[3:], reverse=True, **fields)
    weights = {f"forward.{k}": v for k, v in ahead.items()} | {f"backward.{k}": v for k, v in back.items()}
    return Bidirectional(forward=forward, backward=backward, merge=merge), weights


def model_of(layer: Recurrent | Bidirectional, weights: dict[str, Array]) -> Model:
    return Model(
        "one",
        (Input("x", (None, INPUTS)),),
        ("y",),
        {"rnn": layer},
        (Node("y", "rnn", ("x",)),),
        {f"rnn.{name}": array for name, array in weights.items()},
    )


@pytest.mark.parametrize("directions", ["one", "two"])
def test_chunks_carry_their_states_as_in_keras(keras_cases: dict[str, Case], directions: str) -> None:
    case = keras_cases[f"stateful-{directions}"]
    if directions == "one":
        model = model_of(*keras_layer("LSTM", case["weights"], return_sequences=True, stateful=True))
    else:
        model = model_of(*bidirectional(case["weights"], True, stateful=True))
    states = States()
    for chunk, expected in zip(case["x"], case["output"], strict=True):
        as_keras(run(model, {"x": chunk}, states=states)["y"], expected)
    as_keras(run(model, {"x": case["x"][0]})["y"], case["output"][0])  # without States every call starts anew


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_right_padding_as_packed_sequences(kind: str) -> None:
    """PyTorch reads the backward direction of a packed sequence from each sample's own last step."""
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(INPUTS, UNITS, batch_first=True, bidirectional=True, dtype=torch.float64)
    lengths = torch.tensor([6, 4, 1, 3])
    x = torch.randn(BATCH, TIME, INPUTS, dtype=torch.float64)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    with torch.no_grad():
        output, final = module(packed)
    output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
    layers = []
    for suffix in ("", "_reverse"):
        tensors = {
            name: getattr(module, f"{name}_l0{suffix}").detach().numpy()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        cell, weights = family("lstm" if kind == "LSTM" else "gru_reset_after").build("torch", tensors)
        layers.append((Recurrent(cell=cell, return_sequences=True, zero_masked=True, reverse=bool(suffix)), weights))
    (forward, ahead), (backward, back) = layers
    weights = {f"forward.{k}": v for k, v in ahead.items()} | {f"backward.{k}": v for k, v in back.items()}
    mask = np.arange(TIME) < lengths.numpy()[:, None]
    layer = Bidirectional(forward=forward, backward=backward)
    (found,), finals = run_bidirectional(layer, [x.numpy()], weights, mask)
    close(found, output.numpy())
    hidden = final[0] if kind == "LSTM" else final
    close(finals["forward.h"], hidden[0].numpy())
    close(finals["backward.h"], hidden[1].numpy())


STEPS = 4


def counting_cell(past_end: str = "last", learned: bool = False) -> Cell:
    """Adds a number that belongs to the time step: the mean of a per-step norm, negated."""
    norm = Norm(
        kind="batch",
        features=INPUTS,
        epsilon=0.0,
        gamma=False,
        beta=False,
        scope="per_step",
        steps=STEPS,
        past_end=past_end,  # type: ignore[arg-type]
    )
    return Cell(
        equations="cell count(x; h):\n    h = 0.5 * h + n(x)",
        dims={},
        input_shapes={"x": (INPUTS,)},
        states={"h": State((INPUTS,), learned)},
        norms={"n": norm},
    )


def counting_weights() -> dict[str, Array]:
    means = np.arange(1.0, STEPS + 1)[:, None] * np.array([1.0, 10.0, 100.0])
    return {"n.mean": -means, "n.variance": np.full((STEPS, INPUTS), 1.0)}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("first_step", [0, 2, 5])
def test_rows_count_in_the_reading_order(reverse: bool, first_step: int) -> None:
    layer = Recurrent(cell=counting_cell(), return_sequences=True, reverse=reverse)
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=(2, TIME, INPUTS)), rng.normal(size=(2, INPUTS))
    output, final = run_recurrent(layer, [x], counting_weights(), states=[h], first_step=first_step)
    for count, t in enumerate(reversed(range(TIME)) if reverse else range(TIME)):
        row = min(first_step + count, STEPS - 1)
        h = 0.5 * h + x[:, t] + (row + 1) * np.array([1.0, 10.0, 100.0])
        close(output[:, t], h)
    close(final["h"], h)


@pytest.mark.parametrize("past_end", ["last", "modulo", "bypass"])
@pytest.mark.parametrize("directions", [1, 2])
def test_chunks_count_on(past_end: str, directions: int) -> None:
    """A sequence in chunks is the whole sequence for a forward layer; a backward one sees each chunk by itself."""
    cell = counting_cell(past_end)
    forward = Recurrent(cell=cell, return_sequences=True, stateful=True)
    x = np.random.default_rng(1).normal(size=(2, 9, INPUTS))
    if directions == 1:
        model = model_of(forward, counting_weights())
        whole = run(model, {"x": x})["y"]
        states = States()
        pieces = [run(model, {"x": x[:, a:b]}, states=states)["y"] for a, b in ((0, 2), (2, 3), (3, 9))]
        close(np.concatenate(pieces, axis=1), whole)
        assert states.steps == {"y": 9}
        return
    backward = Recurrent(cell=cell, return_sequences=True, stateful=True, reverse=True)
    weights = {f"{way}.{k}": v for way in ("forward", "backward") for k, v in counting_weights().items()}
    model = model_of(Bidirectional(forward=forward, backward=backward), weights)
    states = States()
    run(model, {"x": x[:, :3]}, states=states)
    second = run(model, {"x": x[:, 3:]}, states=states)["y"]
    ahead, _ = run_recurrent(forward, [x], counting_weights())
    close(second[..., :INPUTS], ahead[:, 3:])
    _, after = run_recurrent(backward, [x[:, :3]], counting_weights())
    back, _ = run_recurrent(backward, [x[:, 3:]], counting_weights(), states=[after["h"]], first_step=3)
    close(second[..., INPUTS:], back)


def test_past_the_end_is_an_error_where_declared() -> None:
    layer = Recurrent(cell=counting_cell("error"), return_sequences=True)
    x = np.ones((2, TIME, INPUTS))
    run_recurrent(layer, [x[:, :STEPS]], counting_weights())
    with pytest.raises(UsageError, match="none for step 4"):
        run_recurrent(layer, [x], counting_weights())


def test_learned_initial_states() -> None:
    layer = Recurrent(cell=counting_cell(learned=True), return_sequences=True)
    start = np.array([3.0, -2.0, 0.5])
    x = np.random.default_rng(2).normal(size=(2, TIME, INPUTS))
    weights = {**counting_weights(), "initial.h": start}
    learned, _ = run_recurrent(layer, [x], weights)
    given, _ = run_recurrent(layer, [x], weights, states=[np.tile(start, (2, 1))])
    zero, _ = run_recurrent(layer, [x], weights, states=[np.zeros((2, INPUTS))])
    close(learned, given)
    assert np.abs(learned - zero).max() > 0.05


def test_states_in_and_out_of_a_graph() -> None:
    """An encoder's final states are a decoder's initial ones, for one direction and for two."""
    rng = np.random.default_rng(3)
    arrays = [rng.normal(0, 0.6, s) for s in ((INPUTS, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,))]
    encoder, weights = keras_layer("LSTM", arrays, return_state=True)
    decoder, _ = keras_layer("LSTM", arrays, return_sequences=True)
    model = Model(
        "pair",
        (Input("a", (None, INPUTS)), Input("b", (None, INPUTS))),
        ("e", "e:1", "e:2", "d"),
        {"encoder": encoder, "decoder": decoder},
        (Node("e", "encoder", ("a",)), Node("d", "decoder", ("b",), states=("e:1", "e:2"))),
        {f"{layer}.{k}": v for layer in ("encoder", "decoder") for k, v in weights.items()},
    )
    a, b = rng.normal(size=(BATCH, TIME, INPUTS)), rng.normal(size=(BATCH, 2, INPUTS))
    found = run(model, {"a": a, "b": b})
    joined, _ = keras_layer("LSTM", arrays, return_sequences=True)
    whole, final = run_recurrent(joined, [np.concatenate([a, b], 1)], weights)
    close(found["d"], whole[:, TIME:])
    close(found["e"], whole[:, TIME - 1])
    close(found["e:1"], whole[:, TIME - 1])
    assert found["e:2"].shape == final["c"].shape


def test_several_inputs_and_masks_with_holes_freeze_states() -> None:
    cell = Cell(
        equations="cell f(x, g; h):\n    h = h * g + x",
        dims={},
        input_shapes={"x": (INPUTS,), "g": (1,)},
        states={"h": State((INPUTS,))},
    )
    rng = np.random.default_rng(4)
    x, g = rng.normal(size=(BATCH, TIME, INPUTS)), rng.normal(size=(BATCH, TIME, 1))
    mask = mask_of("holes")
    assert mask is not None
    output, _ = run_recurrent(Recurrent(cell=cell, return_sequences=True), [x, g], {}, mask)
    for sample in range(BATCH):
        h = np.zeros(INPUTS)
        for t in range(TIME):
            h = h * g[sample, t] + x[sample, t] if mask[sample, t] else h
            close(output[sample, t], h)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mask", [None, "right"])
def test_the_precision_of_the_run_is_kept(dtype: Any, mask: str | None) -> None:
    rng = np.random.default_rng(5)
    shapes = ((INPUTS, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,)) * 2
    layer, weights = bidirectional([rng.normal(0, 0.6, shape).astype(dtype) for shape in shapes], True)
    x = rng.normal(size=(BATCH, TIME, INPUTS)).astype(dtype)
    (output,), finals = run_bidirectional(layer, [x], weights, mask_of(mask))
    assert {array.dtype for array in (output, *finals.values())} == {np.dtype(dtype)}
    model = model_of(layer, {name: array.astype(np.float16) for name, array in weights.items()})
    assert run(model, {"x": x}, dtype)["y"].dtype == dtype


def test_what_cannot_be_run_says_why() -> None:
    layer = Recurrent(cell=counting_cell())
    model = model_of(layer, counting_weights())
    with pytest.raises(UsageError, match="at least one time step"):
        run(model, {"x": np.ones((2, 0, INPUTS))})
    with pytest.raises(UsageError, match="states are of 3 samples, the inputs of 2"):
        run_recurrent(layer, [np.ones((2, 1, INPUTS))], counting_weights(), states=[np.ones((3, INPUTS))])
    with pytest.raises(UsageError, match="the input x is missing"):
        run(model, {"z": np.ones((2, 1, INPUTS))})
    with pytest.raises(UsageError, match=r"expected \[batch, \?, 3\]"):
        run(model, {"x": np.ones((2, 1, INPUTS + 1))})


def test_every_value_inside_can_be_recorded() -> None:
    seen: dict[str, Array] = {}
    model = model_of(Recurrent(cell=counting_cell(), reverse=True, return_sequences=True), counting_weights())
    x = np.random.default_rng(6).normal(size=(2, 3, INPUTS))
    output = run(model, {"x": x}, record_steps=seen.__setitem__)["y"]
    assert list(seen) == ["y/h'@0", "y/h'@1", "y/h'@2"]
    close(np.stack([seen[f"y/h'@{n}"] for n in (2, 1, 0)], axis=1), output)
