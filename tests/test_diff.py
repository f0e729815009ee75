"""What differs between two models: found, named, and never called the same without being so."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from equation_strategies import typed_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from models_by_hand import bn_lstm_cell, embedded, gru_cell, masked_stack, weights_for, write_keras_file
from test_cell_families import CONFIG, sizes_for, spatial, stored_tensors, told_by

import normconvert
from normconvert.cells import family
from normconvert.cells import names as families
from normconvert.comparison import Difference, compare
from normconvert.comparison.arrays import compare_arrays
from normconvert.comparison.evaluation import evaluate_cells
from normconvert.comparison.records import LayerPair, TensorPair
from normconvert.comparison.separation import separate
from normconvert.errors import CorruptFile, NormconvertError, UsageError
from normconvert.interpreter import run
from normconvert.ir.cell import Cell, State
from normconvert.ir.checking import check
from normconvert.ir.expressions import Binary, Call, Expression, Name, Number, children, rewrite, walk, with_children
from normconvert.ir.file import save
from normconvert.ir.layers import Activation, Apply, Bidirectional, Dense, Dropout, Formula, Recurrent, StepMask
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.ir.printer import print_equations

FIXTURES = Path(__file__).parent.parent / "fixtures"
Weights = Mapping[str, Array]


def single(cell: Cell, weights: Weights, **options: Any) -> Model:
    """A model of one recurrent layer, or of one stateless layer if the cell has no states."""
    return Model(
        name="single",
        inputs=tuple(Input(name, (None, *shape)) for name, shape in cell.input_shapes.items()),
        outputs=("rnn",),
        layers={"rnn": Recurrent(cell=cell, kind="RNN", **{"return_sequences": True, **options})},
        nodes=(Node("rnn", "rnn", tuple(cell.parsed().inputs)),),
        weights={f"rnn.{name}": array for name, array in weights.items()},
    )


def arrays_of(cell: Cell, seed: int = 3) -> dict[str, Array]:
    found = weights_for(cell, "rnn", np.random.default_rng(seed))
    return {name.removeprefix("rnn."): array for name, array in found.items()}


def layer(found: Difference, name: str) -> LayerPair:
    return next(each for each in found.layers if each.a == name)


def tensor(found: Difference, name: str, of: str = "rnn") -> TensorPair:
    return next(each for each in layer(found, of).tensors if each.a == name)


def unlike(found: Difference) -> set[str]:
    """Names of everything that is reported to differ."""
    named = {f"{each.a}.{setting.name}" for each in found.layers for setting in each.settings}
    named |= {f"{each.a}.{t.a}" for each in found.layers for t in each.tensors if not t.stored_alike}
    return (
        named | {setting.name for setting in found.interface} | {each.name for each in (*found.only_a, *found.only_b)}
    )


def rewritten(cell: Cell, weights: Weights, source: random.Random) -> tuple[Cell, dict[str, Array]]:
    """The same function with every name replaced, and the operands of sums and products swapped at random."""
    equations = cell.parsed()
    known: dict[str, str] = {}

    def name(old: str) -> str:
        plain = old.rstrip("'")
        return known.setdefault(plain, f"name{len(known)}") + old[len(plain) :]

    def rule(node: Expression) -> Expression:
        match node:
            case Name():
                return replace(node, name=name(node.name))
            case Binary(operator="+" | "*") if source.random() < 0.5:
                return replace(node, left=node.right, right=node.left)
            case Call() if node.function in cell.norms:
                return replace(node, function=name(node.function))
        return node

    body = tuple(
        replace(each, targets=tuple(map(name, each.targets)), value=rewrite(each.value, rule))
        for each in equations.body
    )
    headers = {each: tuple(map(name, getattr(equations, each))) for each in ("inputs", "states", "outputs")}
    tables = {
        each: {name(key): value for key, value in getattr(cell, each).items()}
        for each in ("input_shapes", "states", "parameters", "constants", "norms")
    }
    made = msgspec.structs.replace(
        cell, equations=print_equations(replace(equations, body=body, **headers)), written={}, **tables
    )
    check(made)
    stored = {}
    for key, array in weights.items():
        head, dot, role = key.partition(".")
        stored[f"initial.{name(role)}" if head == "initial" else f"{name(head)}{dot}{role}"] = array
    return made, stored


def changed(cell: Cell, source: random.Random) -> Cell | None:
    """The cell with one operation, function, number or name replaced at random; None if it then makes no sense."""
    equations = cell.parsed()
    place = source.randrange(len(equations.body))
    target = source.choice(list(walk(equations.body[place].value)))
    shapes = check(cell)

    def mutated(node: Expression) -> Expression:
        match node:
            case Binary(operator=operator) if operator in "+-*":
                return replace(node, operator=source.choice("+-*".replace(operator, "")))
            case Call(function="sigmoid" | "tanh" as function):
                return replace(node, function="tanh" if function == "sigmoid" else "sigmoid")
            case Number(value=value):
                return replace(node, value=value + 0.5)
            case Name(name=name):
                earlier = {t for each in equations.body[:place] for t in each.targets}
                others = {*cell.parameters, *cell.input_shapes, *cell.states, *earlier} - {name}
                alike = sorted(n for n in others if shapes.get(n) == shapes.get(name))
                return replace(node, name=source.choice(alike)) if alike else node
        return node

    def copy(node: Expression) -> Expression:
        return mutated(node) if node is target else with_children(node, tuple(map(copy, children(node))))

    body = [*equations.body]
    body[place] = replace(body[place], value=copy(body[place].value))
    try:
        made = msgspec.structs.replace(cell, equations=print_equations(replace(equations, body=tuple(body))))
        check(made)
    except (NormconvertError, ValueError):
        return None
    return made


def catalogue_cell(name: str, draw: Any) -> tuple[Cell, dict[str, Array]]:
    chosen = family(name)
    layout = next(iter(chosen.layouts))
    sizes = told_by(chosen, layout, sizes_for(chosen, draw), set())
    tensors = stored_tensors(chosen, layout, sizes, set())
    return chosen.build(layout, tensors, config=CONFIG, dims=spatial(sizes))


# the same


@settings(max_examples=25, deadline=None)
@given(cell=typed_cells())
def test_a_model_does_not_differ_from_itself(cell: Cell) -> None:
    model = single(cell, arrays_of(cell))
    found = compare(model, model)
    assert found.verdict == "identical"
    assert found.empty
    assert not unlike(found)


@pytest.mark.parametrize("model", [masked_stack(), masked_stack(stateful=True), embedded()], ids=lambda m: m.name)
def test_a_stack_does_not_differ_from_itself(model: Model) -> None:
    assert compare(model, model).empty


@pytest.mark.parametrize("name", families())
@settings(max_examples=2, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_a_cell_in_other_words_is_the_same_function(name: str, data: st.DataObject, seed: int) -> None:
    cell, weights = catalogue_cell(name, data.draw)
    other, stored = rewritten(cell, weights, random.Random(seed))
    found = compare(single(cell, weights), single(other, stored), evaluate=False)
    assert layer(found, "rnn").equations == "the same function"
    assert layer(found, "rnn").shown_same, unlike(found)
    assert found.verdict in ("identical", "same")


@settings(max_examples=60, deadline=None)
@given(cell=typed_cells(), seed=st.integers(0, 999), change=st.booleans())
def test_random_cells_in_other_words(cell: Cell, seed: int, change: bool) -> None:
    other = (changed(cell, random.Random(seed)) or cell) if change else cell
    made, stored = rewritten(other, arrays_of(cell), random.Random(seed))
    found = compare(single(cell, arrays_of(cell)), single(made, stored), evaluate=False)
    evaluated = evaluate_cells(cell, arrays_of(cell), made, stored, list(made.states))
    assert evaluated is not None
    if not change:
        assert found.verdict in ("identical", "same", "agrees")
    if not evaluated.agrees:
        assert found.verdict == "different"


@pytest.mark.parametrize("name", families())
@settings(max_examples=3, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999))
def test_another_function_is_never_called_the_same(name: str, data: st.DataObject, seed: int) -> None:
    cell, weights = catalogue_cell(name, data.draw)
    other = changed(cell, random.Random(seed))
    if other is None:
        return
    other, stored = rewritten(other, weights, random.Random(seed))
    evaluated = evaluate_cells(cell, weights, other, stored, list(other.states))
    found = compare(single(cell, weights), single(other, stored), evaluate=False)
    assert evaluated is not None
    if not evaluated.agrees:
        assert found.verdict == "different" or any(s.name == "order of states" for s in layer(found, "rnn").settings)


LSTM = """
cell lstm(x; h, c):
    i, f, g, o = split(x @ W_x + h @ W_h + b, 4)
    c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
"""
OTHER_GATES = """
cell basic(input; cell_state, hidden) -> hidden:
    f, o, i, j = split(concat(input, hidden) @ kernel + (bias + bias_2), 4)
    cell_state = sigmoid(i) * tanh(j) + cell_state * sigmoid(1 * forget + f)
    hidden = tanh(cell_state) * sigmoid(o)
"""


def lstm(**changes: Any) -> Cell:
    record = bn_lstm_cell()
    made = msgspec.structs.replace(record, equations=LSTM, norms={})
    return msgspec.structs.replace(made, **changes)


def other_lstm(weights: Weights) -> tuple[Cell, dict[str, Array]]:
    """The same LSTM with one kernel, two biases, and the gates f, o, i, j."""
    order = [1, 3, 0, 2]
    kernel = np.concatenate([weights["W_x"], weights["W_h"]])
    turned = {
        name: np.concatenate([np.split(array, 4, axis=-1)[gate] for gate in order], axis=-1)
        for name, array in (("kernel", kernel), ("bias", weights["b"]))
    }
    cell = Cell(
        equations=OTHER_GATES,
        dims={},
        input_shapes={"input": (3,)},
        states={"cell_state": lstm().states["c"], "hidden": lstm().states["h"]},
        parameters={"kernel": (8, 20), "bias": (20,), "bias_2": (20,)},
        constants={"forget": 0.7},
    )
    half = (turned["bias"] / 2).astype(np.float32)  # exact, as is the sum of both halves
    return cell, {"kernel": turned["kernel"], "bias": half, "bias_2": half}


def test_permuted_gates_and_joined_kernels_are_the_same_function() -> None:
    cell = lstm()
    weights = arrays_of(cell)
    found = compare(single(cell, weights), single(*other_lstm(weights)))
    assert found.verdict == "same"
    assert tensor(found, "W_x").relation == "permuted"
    assert tensor(found, "W_x").b == "kernel"
    assert tensor(found, "W_x").arrangement == "gates i, f, g, o | f, o, i, g"
    assert tensor(found, "b").relation == "equal"
    assert tensor(found, "b").b == "bias + bias_2"
    assert [setting.name for setting in layer(found, "rnn").settings] == ["order of states"]


def test_a_joined_kernel_is_found_in_parts() -> None:
    cell = lstm()
    weights = arrays_of(cell)
    found = compare(single(*other_lstm(weights)), single(cell, weights))
    assert found.verdict == "same"
    assert tensor(found, "kernel").b == "W_x, W_h"


def test_a_bias_that_holds_the_forget_bias_is_the_same() -> None:
    weights = {name: array.astype(np.float64) for name, array in arrays_of(lstm()).items()}
    baked = {**weights, "b": weights["b"].copy()}
    baked["b"][5:10] += 0.7
    plain = lstm(equations=LSTM.replace(" + forget_bias", ""), constants={})
    found = compare(single(lstm(), weights), single(plain, baked))
    assert found.verdict == "same"
    assert tensor(found, "b + forget_bias").b == "b"
    again = compare(single(lstm(), weights), single(plain, weights))
    assert again.verdict == "different"
    assert ("forget_bias", "0.7", "0") in [(s.name, s.a, s.b) for s in layer(again, "rnn").settings]


def test_a_sum_of_biases_that_was_rounded_when_it_was_stored_is_the_same() -> None:
    weights = arrays_of(lstm())
    cell, stored = other_lstm(weights)
    random_ = np.random.default_rng(4)
    stored["bias_2"] = random_.standard_normal(20).astype(np.float32)
    summed = np.split(stored["bias"] + stored["bias_2"], 4)
    whole = {**weights, "b": np.concatenate([summed[gate] for gate in (2, 0, 3, 1)])}
    found = compare(single(cell, stored), single(lstm(), whole))
    assert found.verdict == "same"
    assert tensor(found, "bias + bias_2").relation == "rounded"
    whole["b"][3] = np.nextafter(whole["b"][3], np.float32(9))
    assert compare(single(cell, stored), single(lstm(), whole), evaluate=False).verdict == "different"


def test_gates_permuted_in_the_arrays_alone_are_another_function() -> None:
    weights = arrays_of(lstm())
    turned = {name: np.concatenate([np.split(a, 4, -1)[g] for g in (0, 2, 1, 3)], -1) for name, a in weights.items()}
    found = compare(single(lstm(), weights), single(lstm(), turned))
    assert found.verdict == "different"
    assert {each.relation for each in layer(found, "rnn").tensors} == {"permuted"}
    assert tensor(found, "b").arrangement == "gates i, f, g, o | i, g, f, o"
    assert not tensor(found, "b").same


def unit_permuted(model: Model, source: random.Random, *, all_of_it: bool = True) -> Model:
    """The model with the units of its recurrent layers in other orders, and what reads them with them."""
    weights = {name: array.copy() for name, array in model.weights.items()}
    lstm_order, gru_order = (np.array(source.sample(range(n), n)) for n in (5, 4))

    def columns(name: str, order: Array, blocks: int) -> None:
        whole = np.concatenate([order + block * len(order) for block in range(blocks)])
        weights[name] = weights[name][..., whole]

    for name in weights:
        owner, _, role = name.partition(".")
        if owner in ("lstm", "gru") and not role.startswith("W_h"):
            order = lstm_order if owner == "lstm" else gru_order
            columns(name, order, weights[name].shape[-1] // len(order))
    for owner, order in (("lstm", lstm_order), ("gru", gru_order)):
        if all_of_it or owner == "gru":
            columns(f"{owner}.W_h", order, weights[f"{owner}.W_h"].shape[-1] // len(order))
            weights[f"{owner}.W_h"] = weights[f"{owner}.W_h"][order]
    weights["gru.W_x"] = weights["gru.W_x"][lstm_order]
    weights["head.kernel"] = weights["head.kernel"][gru_order]
    return replace(model, weights=weights)


def with_written_shapes(model: Model) -> Model:
    """The cells of `masked_stack` with their shapes in names of sizes, as cells of the catalogue have them."""
    made = dict(model.layers)
    for name, gates in (("lstm", 4), ("gru", 3)):
        record = made[name]
        assert isinstance(record, Recurrent)
        wide, units = (f"{gates}*units",), ("units",)
        written = {"x": ("inputs",), "W_x": ("inputs", *wide), "W_h": (*units, *wide), "b": wide, "b_h": wide}
        written |= {"h": units, "c": units, "bn_x": wide, "bn_h": wide, "bn_c": units}
        cell = record.cell
        known = {*cell.input_shapes, *cell.states, *cell.parameters, *cell.norms}
        kept = {key: shape for key, shape in written.items() if key in known}
        made[name] = msgspec.structs.replace(record, cell=msgspec.structs.replace(cell, written=kept))
    return replace(model, layers=made)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_units_in_another_order_everywhere_are_the_same_function(seed: int) -> None:
    model = with_written_shapes(masked_stack())
    other = unit_permuted(model, random.Random(seed))
    found = compare(model, other)
    x = np.random.default_rng(seed).standard_normal((2, 9, 3))
    np.testing.assert_allclose(run(model, {"x": x})["head"], run(other, {"x": x})["head"], atol=1e-12)
    assert found.verdict == ("same" if any(unlike(found)) else "identical")
    moved = [t for one in found.layers for t in one.tensors if not t.stored_alike]
    assert {t.relation for t in moved} <= {"permuted"}
    assert all(t.same and "units" in t.arrangement for t in moved)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_units_in_another_order_in_some_arrays_are_another_function(seed: int) -> None:
    model = with_written_shapes(masked_stack())
    other = unit_permuted(model, random.Random(seed), all_of_it=False)
    x = np.random.default_rng(seed).standard_normal((2, 9, 3))
    if not np.allclose(run(model, {"x": x})["head"], run(other, {"x": x})["head"], atol=1e-9):
        assert compare(model, other, evaluate=False).verdict == "different"


# one change


def with_layer(model: Model, name: str, **changes: Any) -> Model:
    return replace(model, layers={**model.layers, name: msgspec.structs.replace(model.layers[name], **changes)})


def with_norm(model: Model, norm: str, **changes: Any) -> Model:
    record = model.layers["lstm"]
    assert isinstance(record, Recurrent)
    norms = {**record.cell.norms, norm: msgspec.structs.replace(record.cell.norms[norm], **changes)}
    return with_layer(model, "lstm", cell=msgspec.structs.replace(record.cell, norms=norms))


def with_weight(model: Model, name: str, place: Any, factor: float) -> Model:
    array = model.weights[name].copy()
    array[place] *= factor
    return replace(model, weights={**model.weights, name: array})


def with_constant(model: Model, value: float) -> Model:
    record = model.layers["lstm"]
    assert isinstance(record, Recurrent)
    return with_layer(model, "lstm", cell=msgspec.structs.replace(record.cell, constants={"forget_bias": value}))


def without_activation(model: Model) -> Model:
    return with_layer(model, "head", activation=None)


CHANGES: dict[str, tuple[Callable[[Model], Model], str, str]] = {
    "epsilon": (lambda m: with_norm(m, "bn_c", epsilon=2e-3), "lstm.bn_c.epsilon", "different"),
    "epsilon placement": (
        lambda m: with_norm(m, "bn_x", epsilon_placement="outside"),
        "lstm.bn_x.epsilon_placement",
        "different",
    ),
    "past the end": (lambda m: with_norm(m, "bn_h", past_end="modulo"), "lstm.bn_h.past_end", "different"),
    "momentum": (lambda m: with_norm(m, "bn_h", momentum=0.9), "lstm.bn_h.momentum", "same"),
    "forget bias": (lambda m: with_constant(m, 1.0), "lstm.forget_bias", "different"),
    "zero masked": (lambda m: with_layer(m, "lstm", zero_masked=True), "lstm.zero_masked", "different"),
    "direction": (lambda m: with_layer(m, "gru", reverse=True), "gru.reverse", "different"),
    "sequences": (lambda m: with_layer(m, "gru", return_sequences=True), "gru.return_sequences", "different"),
    "dropout": (lambda m: with_layer(m, "gru", recurrent_dropout=0.3), "gru.recurrent_dropout", "same"),
    "mask": (lambda m: with_layer(m, "mask", value=-1.0), "mask.value", "different"),
    "activation": (
        lambda m: with_layer(m, "head", activation=Activation("relu")),
        "head/activation.activation",
        "different",
    ),
    "no activation": (without_activation, "head/activation", "different"),
    "a weight": (lambda m: with_weight(m, "gru.W_h", (1, 2), 1.001), "gru.W_h", "different"),
    "a statistic": (lambda m: with_weight(m, "lstm.bn_c.variance", 4, 1.001), "lstm.bn_c.variance", "different"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("backwards", [False, True])
def test_one_change_is_found_and_named(change: str, backwards: bool) -> None:
    apply, name, verdict = CHANGES[change]
    models = masked_stack(), apply(masked_stack())
    found = compare(*(models[::-1] if backwards else models))
    assert unlike(found) - {"head/activation.reads", "outputs"} == {name}
    assert found.verdict == verdict
    assert not found.empty


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_changed_number_is_found_and_named(data: st.DataObject) -> None:
    model = masked_stack()
    name = data.draw(st.sampled_from(sorted(model.weights)))
    array = model.weights[name]
    place = tuple(data.draw(st.integers(0, size - 1)) for size in array.shape)
    changed_model = replace(model, weights={**model.weights, name: array.copy()})
    changed_model.weights[name][place] = np.nextafter(array[place], np.float32(np.inf))
    found = compare(model, changed_model, evaluate=False)
    assert unlike(found) == {name}
    record = tensor(found, name.partition(".")[2], name.partition(".")[0])
    assert record.differing == 1
    assert record.max_difference == abs(float(changed_model.weights[name][place]) - float(array[place]))


@settings(max_examples=20, deadline=None)
@given(steps=st.sets(st.integers(0, 6), min_size=1))
def test_the_steps_whose_statistics_differ_are_named(steps: set[int]) -> None:
    found = compare(masked_stack(), with_weight(masked_stack(), "lstm.bn_x.mean", sorted(steps), 1.25), evaluate=False)
    record = tensor(found, "bn_x.mean", "lstm")
    assert record.steps == tuple(sorted(steps))
    assert record.statistic
    assert not record.same


def test_the_last_step_is_told_although_short_inputs_do_not_reach_it() -> None:
    found = compare(masked_stack(), with_weight(masked_stack(), "lstm.bn_x.mean", 6, 1.25))
    assert found.verdict == "different"


def test_fine_tuned_weights_all_differ() -> None:
    model = masked_stack()
    tuned = replace(
        model, weights={name: array * np.float32(0.9) + np.float32(0.01) for name, array in model.weights.items()}
    )
    found = compare(model, tuned)
    assert all(not each.same for one in found.layers for each in one.tensors)
    assert not any(one.settings for one in found.layers)
    assert "it begins in lstm" in found.evaluation


def test_a_layer_added_is_the_only_one_not_paired() -> None:
    model = masked_stack()
    random_ = np.random.default_rng(1)
    nodes = {node.name: node for node in model.nodes}
    added = replace(
        model,
        layers={**model.layers, "extra": Dense(kind="Dense")},
        nodes=(*model.nodes[:4], Node("extra", "extra", ("gru",)), replace_inputs(nodes["head"], "extra")),
        weights={
            **model.weights,
            "extra.kernel": random_.standard_normal((4, 4)).astype(np.float32),
            "extra.bias": random_.standard_normal(4).astype(np.float32),
        },
    )
    found = compare(model, added)
    assert [(each.name, each.parameters) for each in found.only_b] == [("extra", 20)]
    assert not found.only_a
    assert found.verdict == "different"
    assert unlike(found) == {"extra", "head.reads"}


def replace_inputs(node: Node, *inputs: str) -> Node:
    return msgspec.structs.replace(node, inputs=inputs)


def test_dropout_added_makes_no_difference_at_inference() -> None:
    model = masked_stack()
    nodes = {node.name: node for node in model.nodes}
    added = replace(
        model,
        layers={**model.layers, "drop": Dropout(rate=0.5)},
        nodes=(*model.nodes[:4], Node("drop", "drop", ("gru",)), replace_inputs(nodes["head"], "drop")),
    )
    found = compare(model, added)
    assert found.verdict == "same"
    assert [each.identity for each in found.only_b] == [True]
    assert not found.empty


def renamed(model: Model, names: Mapping[str, str]) -> Model:
    """The model with other names of layers and nodes."""
    new = {name: names.get(name, name) for name in (*model.layers, *(i.name for i in model.inputs))}

    def all_of(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new.get(value, value) for value in values)

    return replace(
        model,
        outputs=all_of(model.outputs),
        layers={new[name]: each for name, each in model.layers.items()},
        nodes=tuple(
            msgspec.structs.replace(
                n, name=new[n.name], layer=new[n.layer], inputs=all_of(n.inputs), masks=all_of(n.masks)
            )
            for n in model.nodes
        ),
        weights={f"{new[name.partition('.')[0]]}.{name.partition('.')[2]}": a for name, a in model.weights.items()},
    )


@pytest.mark.parametrize(
    "names",
    [
        {"lstm": "rnn_1", "gru": "rnn_2", "head": "out", "mask": "m", "masking": "n"},
        {"lstm": "gru", "gru": "lstm"},
        {"lstm": "gru", "gru": "gru_1"},
    ],
)
def test_layers_with_other_names_are_paired_by_their_place(names: dict[str, str]) -> None:
    found = compare(masked_stack(), renamed(masked_stack(), names))
    assert {each.a: each.b for each in found.layers if "/" not in each.a} == {
        name: names.get(name, name) for name in masked_stack().layers
    }
    assert found.verdict == "identical"


def stack(units: int, names: list[str], seed: int = 0) -> Model:
    """Dense layers of one size, one after the other."""
    random_ = np.random.default_rng(seed)
    weights = {}
    for name in names:
        weights[f"{name}.kernel"] = random_.standard_normal((units, units)).astype(np.float32)
        weights[f"{name}.bias"] = random_.standard_normal(units).astype(np.float32)
    return Model(
        name="stack",
        inputs=(Input("x", (units,)),),
        outputs=(names[-1],),
        layers={name: Dense(activation=Activation("tanh")) for name in names},
        nodes=tuple(Node(name, name, (before,)) for before, name in zip(["x", *names], names, strict=False)),
        weights=weights,
    )


def test_numbered_names_that_are_one_off_do_not_mislead() -> None:
    a = stack(5, ["dense", "dense_1", "dense_2", "dense_3"])
    b = renamed(a, {"dense": "dense_1", "dense_1": "dense_2", "dense_2": "dense_3", "dense_3": "dense_4"})
    assert compare(a, b).verdict == "identical"


def test_an_activation_of_a_layer_and_a_layer_of_its_own_are_the_same() -> None:
    a = stack(5, ["dense"])
    b = replace(
        a,
        layers={"linear": Dense(), "tanh": Apply(activation=Activation("tanh"))},
        nodes=(Node("linear", "linear", ("x",)), Node("tanh", "tanh", ("linear",))),
        outputs=("tanh",),
        weights={f"linear.{name}": a.weights[f"dense.{name}"] for name in ("kernel", "bias")},
    )
    assert compare(a, b).verdict == "identical"


def both_ways(**options: Any) -> Model:
    """A masked bidirectional layer of two cells of different sizes, its states given and returned."""
    random_ = np.random.default_rng(8)
    parts = [gru_cell(3), msgspec.structs.replace(gru_cell(3), equations=GRU_UPDATE)]
    forward, backward = (
        Recurrent(cell=cell, reverse=reverse, return_sequences=True, return_state=True)
        for cell, reverse in zip(parts, (False, True), strict=True)
    )
    weights = {}
    for side, cell in zip(("forward", "backward"), parts, strict=True):
        weights |= weights_for(cell, f"both.{side}", random_)
    merged = ("both",) if options.get("merge", "concat") else ("both", "both:1")
    names = (*merged, *(f"both:{n}" for n in range(len(merged), len(merged) + 2)))
    return Model(
        name="both ways",
        inputs=(Input("x", (None, 3)), Input("h", (4,)), Input("k", (4,))),
        outputs=names,
        layers={
            "mask": StepMask(any_feature=True),
            "both": Bidirectional(forward=forward, backward=backward, **options),
        },
        nodes=(Node("mask", "mask", ("x",)), Node("both", "both", ("x",), masks=("mask",), states=("h", "k"))),
        weights=weights,
    )


@pytest.mark.parametrize("merge", ["concat", "add", "multiply", "average", None])
def test_directions_apart_compute_what_they_do_together(merge: Any) -> None:
    model = both_ways(merge=merge)
    apart = separate(model)
    random_ = np.random.default_rng(9)
    inputs = {"x": random_.standard_normal((2, 6, 3)), "h": random_.standard_normal((2, 4)), "k": np.ones((2, 4))}
    inputs["x"][1, 4:] = 0
    wanted, found = run(model, inputs), run(apart, inputs)
    for one, other in zip(model.outputs, apart.outputs, strict=True):
        np.testing.assert_array_equal(wanted[one], found[other])
    assert compare(model, model).empty
    other = compare(model, both_ways(merge="average" if merge != "average" else "add"))
    assert other.verdict == "different"


GRU_UPDATE = """
cell gru(x; h):
    x_z, x_r, x_g = split(x @ W_x + b, 3)
    h_z, h_r, h_g = split(h @ W_h + b_h, 3)
    z = hard_sigmoid(x_z + h_z, 0.2)
    r = hard_sigmoid(x_r + h_r, 0.2)
    g = tanh(x_g + r * h_g)
    h = g + z * (h - g)
"""
GRU_CLIPPED = GRU_UPDATE.replace("hard_sigmoid(x_r + h_r, 0.2)", "clip(0.2 * (x_r + h_r) + 0.5, 0, 1)")
GRU_RESET_BEFORE = GRU_UPDATE.replace("g = tanh(x_g + r * h_g)", "g = tanh(x_g + h_g * r * r)")


def test_a_sum_multiplied_out_is_the_same() -> None:
    cell, other = gru_cell(3), msgspec.structs.replace(gru_cell(3), equations=GRU_UPDATE)
    found = compare(single(cell, arrays_of(cell)), single(other, arrays_of(cell)))
    assert found.verdict == "same" or found.verdict == "identical"
    assert layer(found, "rnn").equations == "the same function"


def test_what_is_not_shown_from_the_equations_is_evaluated_and_said_so() -> None:
    cell, other = gru_cell(3), msgspec.structs.replace(gru_cell(3), equations=GRU_CLIPPED)
    found = compare(single(cell, arrays_of(cell)), single(other, arrays_of(cell)))
    assert found.verdict == "agrees"
    assert layer(found, "rnn").evaluation.startswith("agree at ")
    assert "no proof" in found.meaning


def test_the_equation_that_differs_is_shown_for_both() -> None:
    cell, other = gru_cell(3), msgspec.structs.replace(gru_cell(3), equations=GRU_RESET_BEFORE)
    found = compare(single(cell, arrays_of(cell)), single(other, arrays_of(cell)))
    assert found.verdict == "different"
    (pair,) = layer(found, "rnn").differing
    assert pair.a == "g = tanh(x_g + r * h_g)"
    assert pair.b == "g = tanh(x_g + h_g * r * r)"
    assert layer(found, "rnn").evaluation.startswith("differ by ")


SLICED = """
cell sliced(x; h):
    s = softmax(x @ W_x + h @ W_h + b)
    h = tanh(s[{first}:{last}] + x[{start}:{stop}])
"""


@pytest.mark.parametrize("change", [{"first": 1, "last": 3}, {"start": 2, "stop": 4}, {"axis": 0}])
def test_other_elements_of_a_value_are_another_function(change: dict[str, int]) -> None:
    usual = {"first": 0, "last": 2, "start": 0, "stop": 2}

    def made(text: str) -> Cell:
        return Cell(
            equations=text,
            dims={},
            input_shapes={"x": (4,)},
            states={"h": State((2,))},
            parameters={"W_x": (4, 3), "W_h": (2, 3), "b": (3,)},
        )

    cell = made(SLICED.format(**usual))
    text = (
        cell.equations.replace("W_h + b)", "W_h + b, axis=-1)") if "axis" in change else SLICED.format(**usual | change)
    )
    other, stored = rewritten(made(text), arrays_of(cell), random.Random(1))
    found = compare(single(cell, arrays_of(cell)), single(other, stored), evaluate=False)
    assert (found.verdict == "different") == ("axis" not in change)


def test_a_size_that_only_a_slice_names_is_compared() -> None:
    text = "layer first(x) -> y:\n    y = x[0:taken]\n"
    models = []
    for taken in (2, 3):
        cell = Cell(equations=text, dims={"taken": taken}, input_shapes={"x": (5,)})
        models.append(Model("m", (Input("x", (5,)),), ("f",), {"f": Formula(cell=cell)}, (Node("f", "f", ("x",)),), {}))
    found = compare(*models)
    assert unlike(found) == {"f.taken"}
    assert found.verdict == "different"


def test_numbers_that_are_the_same_in_float32_differ_in_rounding_only() -> None:
    model = masked_stack()
    found = compare(model, with_norm(model, "bn_c", epsilon=float(np.float32(1e-3))))
    assert found.verdict == "same"
    assert [(s.name, s.effect) for s in layer(found, "lstm").settings] == [("bn_c.epsilon", "rounding")]


# arrays


@pytest.mark.parametrize(
    ("change", "relation", "same"),
    [
        (lambda a: a, "equal", True),
        (lambda a: a.astype(np.float64), "cast", True),
        (lambda a: a.astype(np.float16), "rounded", False),
        (lambda a: a[::-1], "permuted", False),
        (lambda a: a[:, [2, 0, 1, 4, 3]], "permuted", False),
        (lambda a: a.T, "transposed", False),
        (lambda a: a * np.float32(1.7), "scaled", False),
        (lambda a: a * np.arange(1, 6, dtype=np.float32), "scaled", False),
        (lambda a: a * np.arange(1, 8, dtype=np.float32)[:, None], "scaled", False),
        (lambda a: a + np.float32(0.1), "different", False),
        (lambda a: a[:3], "shape", False),
    ],
)
def test_how_two_arrays_are_related(change: Callable[[Array], Array], relation: str, same: bool) -> None:
    array = np.random.default_rng(2).standard_normal((7, 5)).astype(np.float32)
    found = compare_arrays(array, change(array))
    assert (found.relation, found.equal) == (relation, same)


# files and the command line


def test_a_file_against_the_formats_it_is_converted_to(command: Callable[..., Any], tmp_path: Path) -> None:
    source = FIXTURES / "conv_lstm_bn-keras2.h5"
    for target in ("torch", "ir", "keras"):
        output = tmp_path / {"torch": "folder", "ir": "model.safetensors", "keras": "model.keras"}[target]
        if target == "keras":
            pytest.importorskip("keras")
        assert command("convert", source, "--to", target, "-o", output, "--no-validate").exit_code == 0
        done = command("diff", source, output)
        assert done.exit_code == 0, done.stdout + done.stderr
        assert "identical" in done.stdout or "the same function" in done.stdout
    assert command("diff", source, FIXTURES / "conv_lstm_bn-keras2.keras").exit_code == 0
    assert command("diff", source, tmp_path / "folder", "--json").exit_code == 0


def test_a_checkpoint_against_its_intermediate_format(command: Callable[..., Any], tmp_path: Path) -> None:
    source = FIXTURES / "bn_lstm_per_step.ckpt"
    assert command("tf1-to-ir", source, "-o", tmp_path / "m.safetensors", "--no-validate").exit_code == 0
    done = command("diff", source, tmp_path / "m.safetensors", "--strict")
    assert done.exit_code == 0, done.stdout + done.stderr
    scope = "frame_rnn_layer"
    whole = command("diff", source, source, "--scope-b", scope)  # two loops and a concat, and a bidirectional layer
    assert whole.exit_code == 0, whole.stdout
    assert "identical" in whole.stdout
    done = command("diff", source, source, "--scope-a", f"{scope}/fw", "--scope-b", f"{scope}/bw", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["verdict"] == "different"
    assert {each["relation"] for one in found["layers"] for each in one["tensors"]} >= {"different"}
    assert all(each["steps"] for one in found["layers"] for each in one["tensors"] if each["statistic"])


def test_a_changed_torch_folder_is_told(command: Callable[..., Any], tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    source, folder = FIXTURES / "conv_lstm_bn-keras2.h5", tmp_path / "folder"
    assert command("keras-to-torch", source, "-o", folder, "--no-validate").exit_code == 0
    text = (folder / "model.py").read_text()
    (folder / "model.py").write_text(text.replace("eps=0.001", "eps=0.002") + "\nraise RuntimeError('it was run')\n")
    arrays = safetensors.load_file(folder / "model.safetensors")
    arrays["lstm.weight_hh_l0"][3, 2] += 1
    safetensors.save_file(arrays, folder / "model.safetensors")
    found = normconvert.diff(source, folder)
    assert found.verdict == "different"
    assert unlike(found) == {"batch_normalization.eps", "lstm.weight_hh_l0", "other code"}
    assert not normconvert.diff(folder, source).same
    (folder / "model.py").write_text("class Model(:")
    with pytest.raises(CorruptFile):
        normconvert.diff(source, folder)


def test_training_settings_fail_only_where_strict_is_asked_for(command: Callable[..., Any], tmp_path: Path) -> None:
    save(masked_stack(), tmp_path / "a.safetensors")
    save(CHANGES["momentum"][0](masked_stack()), tmp_path / "b.safetensors")
    done = command("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert done.exit_code == 0
    assert "training only" in done.stdout
    assert command("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--strict").exit_code == 1


def test_weights_can_be_left_out(command: Callable[..., Any], tmp_path: Path) -> None:
    write_keras_file(tmp_path / "a.h5")
    write_keras_file(tmp_path / "b.h5", kernel_scale=2.0)
    done = command("diff", tmp_path / "a.h5", tmp_path / "b.h5")
    assert done.exit_code == 1
    assert "by 2" in done.stdout
    done = command("diff", tmp_path / "a.h5", tmp_path / "b.h5", "--no-weights")
    assert done.exit_code == 0
    assert "Arrays were not compared" in done.stdout
    write_keras_file(tmp_path / "c.h5", cell="GRU")
    done = command("diff", tmp_path / "a.h5", tmp_path / "c.h5", "--no-weights")
    assert done.exit_code == 1
    assert "Equations of rnn differ" in done.stdout


def test_what_cannot_be_read_is_an_error(command: Callable[..., Any], tmp_path: Path) -> None:
    write_keras_file(tmp_path / "a.h5")
    assert command("diff", tmp_path / "a.h5", tmp_path / "none.h5").exit_code == 2
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:300])
    assert command("diff", tmp_path / "b.h5", tmp_path / "a.h5").exit_code == 4
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert command("diff", tmp_path / "a.h5", tmp_path / "m.onnx").exit_code == 2
    with pytest.raises(UsageError):
        normconvert.diff(tmp_path / "a.h5", tmp_path / "a.h5", options_b={"scope": "rnn"})


def test_two_scopes_of_a_real_checkpoint(command: Callable[..., Any], shared_models: Path) -> None:
    path = shared_models / "seqsleepnet-1chan_eeg" / "pretrained_model.ckpt"
    done = command("diff", path, path, "--scope-a", "frame_rnn_layer", "--scope-b", "epoch_rnn_layer", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    one = next(each for each in found["layers"] if each["a"].endswith("forward"))
    assert one["equations"] == "as written"
    assert ("bn_x.steps", "29", "20") in [(s["name"], s["a"], s["b"]) for s in one["settings"]]
    same = command("diff", path, path, "--scope", "frame_rnn_layer")
    assert same.exit_code == 0
    assert "identical" in same.stdout
