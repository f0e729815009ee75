"""Every published cell as equations: evaluated beside an independent reference, printed, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from catalogue import ENTRIES
from catalogue.entry import BATCH, Entry
from torch_cases import build

from normconvert.interpreter.model import run
from normconvert.interpreter.recurrent import run_recurrent
from normconvert.ir.cell import Cell
from normconvert.ir.checking import check
from normconvert.ir.file import load, save
from normconvert.ir.layers import Recurrent
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.ir.parser import parse
from normconvert.ir.printer import print_equations

every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=[entry.id for entry in ENTRIES])


def random_weights(entry: Entry, cell: Cell, rng: np.random.Generator) -> dict[str, Array]:
    """No neutral value anywhere: gamma of both signs, beta and mean not 0, variance not 1, rows all different."""
    weights = {}
    for name, shape in cell.weight_shapes().items():
        match name.rpartition(".")[2]:
            case "gamma":
                weights[name] = rng.uniform(0.4, 1.6, shape) * rng.choice([1, 1, 1, -1], shape)
            case "variance":
                weights[name] = rng.uniform(0.2, 2.5, shape)
            case _:
                weights[name] = rng.normal(0, 0.6, shape)
    if entry.adjust is not None:
        entry.adjust(weights)
    return weights


def random_inputs(entry: Entry, rng: np.random.Generator) -> list[Array]:
    return [
        rng.integers(0, 2, (BATCH, entry.time, *shape)).astype(float)
        if name in entry.binary
        else rng.normal(0, 1, (BATCH, entry.time, *shape))
        for name, shape in entry.inputs.items()
    ]


def namespace(cell: Cell, weights: dict[str, Array], sequence: Array) -> SimpleNamespace:
    values: dict[str, Any] = {**cell.constants, "sequence": sequence}
    for name in cell.norms:
        roles = {key.partition(".")[2]: array for key, array in weights.items() if key.startswith(name + ".")}
        values[name] = SimpleNamespace(**roles)
    return SimpleNamespace(**values, **{name: weights[name] for name in cell.parameters})


def reference(entry: Entry, cell: Cell, weights: dict[str, Array], inputs: list[Array], states: list[Array]) -> Any:
    """Outputs `[batch, time, ...]` and final states, step by step."""
    values, outputs = namespace(cell, weights, inputs[0]), []
    for t in range(entry.time):
        output, *states = entry.step(values, t, *(array[:, t] for array in inputs), *states)
        outputs.append(output)
    return np.stack(outputs, axis=1), states


def evaluate(cell: Cell, weights: dict[str, Array], inputs: list[Array], states: list[Array]) -> Array:
    return run_recurrent(Recurrent(cell=cell, return_sequences=True), inputs, weights, states=states)[0]


def case(entry: Entry) -> tuple[Cell, dict[str, Array], list[Array], list[Array]]:
    rng = np.random.default_rng(sum(map(ord, entry.id)))
    cell = entry.cell()
    weights, inputs = random_weights(entry, cell, rng), random_inputs(entry, rng)
    states = [rng.normal(0, 0.7, (BATCH, *shape)) for shape in entry.states.values()]
    return cell, weights, inputs, states


def test_there_are_many_distinct_entries() -> None:
    assert len({entry.id for entry in ENTRIES}) == len(ENTRIES) >= 40
    assert {entry.id[0] for entry in ENTRIES} == set("ABCDEFG")


@every_entry
def test_computes_what_its_source_computes(entry: Entry) -> None:
    cell, weights, inputs, states = case(entry)
    layer = Recurrent(cell=cell, return_sequences=True)
    expected, expected_states = reference(entry, cell, weights, inputs, states)
    output, final = run_recurrent(layer, inputs, weights, states=states)
    np.testing.assert_allclose(output, expected, rtol=1e-10, atol=1e-11)
    for name, wanted in zip(entry.states, expected_states, strict=True):
        np.testing.assert_allclose(final[name], wanted, rtol=1e-10, atol=1e-11, err_msg=name)


@every_entry
def test_starts_from_its_own_initial_states(entry: Entry) -> None:
    cell, weights, inputs, _ = case(entry)
    states = [
        np.tile(weights[f"initial.{name}"], (BATCH, 1)) if name in entry.learned else np.zeros((BATCH, *shape))
        for name, shape in entry.states.items()
    ]
    expected, _ = reference(entry, cell, weights, inputs, states)
    np.testing.assert_allclose(evaluate(cell, weights, inputs, []), expected, rtol=1e-9, atol=1e-9)


@every_entry
def test_depends_on_every_number_it_declares(entry: Entry) -> None:
    """The comparison above could not pass with a weight left out, a constant or an epsilon ignored."""
    cell, weights, inputs, states = case(entry)
    expected = evaluate(cell, weights, inputs, states)

    def differs(changed: Cell, arrays: dict[str, Array]) -> bool:
        return float(np.abs(evaluate(changed, arrays, inputs, states) - expected).max()) > 1e-9

    rng = np.random.default_rng(0)
    for name, array in weights.items():
        if not name.startswith("initial."):
            assert differs(cell, {**weights, name: array + rng.uniform(0.05, 0.2, array.shape)}), name
    for name, value in cell.constants.items():
        assert differs(msgspec.structs.replace(cell, constants={**cell.constants, name: value + 0.1}), weights), name
    for name, norm in cell.norms.items():
        other = msgspec.structs.replace(norm, epsilon=norm.epsilon * 2 + 1e-3)
        assert differs(msgspec.structs.replace(cell, norms={**cell.norms, name: other}), weights), name


@every_entry
def test_shapes_are_predicted(entry: Entry) -> None:
    cell, weights, inputs, states = case(entry)
    predicted = check(cell)
    seen: dict[str, tuple[int, ...]] = {}
    batched = {name: array.shape[1:] for name, array in zip(entry.states, states, strict=True)}
    run_recurrent(
        Recurrent(cell=cell),
        inputs,
        weights,
        states=states,
        record=lambda name, value: seen.setdefault(name.partition("@")[0], value.shape),
    )
    assert seen
    for name, shape in seen.items():
        assert predicted[name] in (shape[1:], shape), name  # weights made of weights have no batch axis
    for name, shape in batched.items():
        assert predicted[name] == shape


@every_entry
def test_prints_as_a_text_that_says_the_same(entry: Entry) -> None:
    equations = parse(entry.text)
    printed = print_equations(equations)
    assert parse(printed) == equations
    assert print_equations(parse(printed)) == printed


def model_of(entry: Entry, cell: Cell, weights: dict[str, Array]) -> Model:
    """The cell as the only layer of a model."""
    names = [f"in_{name}" for name in entry.inputs]
    return Model(
        "catalogue",
        tuple(Input(name, (None, *shape)) for name, shape in zip(names, entry.inputs.values(), strict=True)),
        ("rnn",),
        {"cell": Recurrent(cell=cell, return_sequences=True)},
        (Node("rnn", "cell", tuple(names)),),
        {f"cell.{name}": array for name, array in weights.items()},
    )


@every_entry
def test_survives_a_file(entry: Entry, tmp_path: Path) -> None:
    cell, weights, inputs, _ = case(entry)
    model = model_of(entry, cell, weights)
    path = tmp_path / "model.safetensors"
    save(model, path)
    loaded = load(path)
    assert loaded.layers == model.layers
    given = {declared.name: array for declared, array in zip(model.inputs, inputs, strict=True)}
    for dtype in (np.float64, np.float32):
        expected, found = run(model, given, dtype)["rnn"], run(loaded, given, dtype)["rnn"]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


@every_entry
def test_single_precision_stays_single_and_close(entry: Entry) -> None:
    cell, weights, inputs, states = case(entry)
    expected = evaluate(cell, weights, inputs, states)
    single = {name: array.astype(np.float32) for name, array in weights.items()}
    found = evaluate(cell, single, [a.astype(np.float32) for a in inputs], [s.astype(np.float32) for s in states])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


@every_entry
def test_pytorch_code_computes_the_same(entry: Entry, tmp_path: Path) -> None:
    cell, weights, inputs, _ = case(entry)
    model = model_of(entry, cell, weights)
    given = {declared.name: array for declared, array in zip(model.inputs, inputs, strict=True)}
    module = build(model, tmp_path / "torch").double()
    with torch.no_grad():
        found = module(*map(torch.from_numpy, inputs))
    np.testing.assert_allclose(found.numpy(), run(model, given)["rnn"], rtol=1e-9, atol=1e-10)
