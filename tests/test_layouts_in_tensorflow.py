"""Checkpoints in the layouts of public TF1 code, restored by a Saver into independent graphs of that code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf1_oracle as oracle
from test_tf1_bn_families import CELLS
from test_tf1_families import CASES as PLAIN
from tf1_oracle import STEPS, Array, stored_tensors

from normconvert.cells import family, names
from normconvert.errors import Unsupported
from normconvert.interpreter import run
from normconvert.ir.cell import Cell
from normconvert.ir.layers import Recurrent
from normconvert.ir.model import Input, Model, Node
from normconvert.sources import TensorUse
from normconvert.targets.layouts import Chosen, rebuilt, store_cell
from normconvert.targets.layouts.keeping import Names, kept_names
from normconvert.targets.tf1 import PREFIX, write_checkpoint

tf = pytest.importorskip("tensorflow")

ALL: dict[str, Any] = {**{f"bn: {name}": case for name, case in CELLS.items()}, **PLAIN}
FIRST = {(case.family, case.layout): name for name, case in reversed(ALL.items())}
OLD_NAMES = {"rnn 0.12", "basic lstm 0.12", "lstm, all 0.12", "gru 1.0", "contrib 1.0", "adnc, no norm"}
CASES = {name: case for name, case in ALL.items() if name in {*FIRST.values(), *OLD_NAMES}}
"""One cell for each layout, and some under the names of older versions."""
BATCH, TIME = 6, STEPS
Weights = dict[str, Array]


@dataclass(frozen=True)
class Program:
    """A cell of public code as a graph.

    Attributes:
        graph, variables, fetches: the graph, its variables by their names below the scope, outputs and final states.
        cell, weights: the same by the catalogue, with random weights.
        x, expected: an input `[batch, time, ...]`, and what the graph makes of it with these weights.
    """

    graph: Any
    variables: dict[str, Any]
    fetches: list[Any]
    cell: Cell
    weights: Weights
    x: Array
    expected: list[Array]


@cache
def program(name: str) -> Program:
    case = CASES[name]
    x = oracle.sequences((BATCH, TIME), features=case.features, seed=len(name))[0]
    values: dict[str, Array] = {}
    variables: dict[str, Any] = {}
    shapes = [(size,) if isinstance(size, int) else tuple(size) for size in case.states]
    with tf.Graph().as_default() as graph, session_of(graph) as session:
        make = oracle._maker(case.scope, "float32", values, variables, np.random.default_rng(len(name)))
        start = [np.zeros((BATCH, *shape), np.float32) for shape in shapes]
        fetches = oracle._run(case.cell, make, x, start, dynamic=False, precision="float32")
        session.run(tf.compat.v1.global_variables_initializer())
        expected = session.run(fetches)
    tensors = stored_tensors(case.family, case.layout, values)
    cell, weights = family(case.family).build(case.layout, tensors, settings=case.settings, dims=case.dims)
    return Program(graph, variables, fetches, cell, weights, x, expected)


def session_of(graph: Any) -> Any:
    return tf.compat.v1.Session(graph=graph, config=oracle._plainly())


def model_of(cell: Cell, weights: Weights, x: Array) -> Model:
    layer = Recurrent(cell=cell, return_sequences=True)
    inputs = (Input("x", (None, *x.shape[2:])),)
    named = {f"rnn.{name}": array for name, array in weights.items()}
    return Model("", inputs, ("rnn",), {"rnn": layer}, (Node("rnn", "rnn", ("x",)),), named)


def restored(name: str, folder: Path, model: Model, names: Names | None = None) -> list[Array]:
    """What the case's graph computes with a model written in its layout, restored under its own names.

    A variable that is not restored has no value in the session, so that reading it is an error.
    """
    case, graph = CASES[name], program(name)
    folder.mkdir()
    scope = case.scope if names is None else ""
    write_checkpoint(model, folder, layout=f"{case.family}/{case.layout}", scope=scope, names=names)
    stored = {key for key, _ in tf.train.list_variables(str(folder / PREFIX))}
    chosen = [each for each in graph.variables.values() if each.op.name in stored]
    assert {each.op.name for each in chosen} == stored, "a tensor that the original does not have"
    with graph.graph.as_default(), session_of(graph.graph) as session:
        tf.compat.v1.train.Saver(chosen).restore(session, str(folder / PREFIX))
        results: list[Array] = session.run(graph.fetches)
    return results


def older_names(name: str) -> Names | None:
    """The case's own names for its tensors, where they are not those that the layout writes."""
    declared = family(CASES[name].family).layout(CASES[name].layout)
    if not any(alias in program(name).variables for aliases in declared.aliases.values() for alias in aliases):
        return None
    known = {each: text for key, text in declared.tensors.items() for each in (key, *declared.aliases.get(key, ()))}
    return kept_names(
        TensorUse(variable.op.name, tuple(variable.shape), "float32", f"rnn.{known[key]}")
        for key, variable in program(name).variables.items()
        if key in known
    )


@pytest.mark.parametrize("name", CASES)
def test_the_original_graph_restores_what_is_written(name: str, tmp_path: Path) -> None:
    own = program(name)
    model = model_of(own.cell, own.weights, own.x)
    if name in OTHER_CONSTANTS:
        with pytest.raises(Unsupported, match=OTHER_CONSTANTS[name]):
            restored(name, tmp_path / "own", model)
        return
    found = restored(name, tmp_path / "own", model, older_names(name))
    for array, expected in zip(found, own.expected, strict=True):
        np.testing.assert_array_equal(array, expected)


OTHER_CONSTANTS = {
    "lingvo": r"constants\.cell_clip is 0\.4, and there it is 10\.0",
    "lingvo, projection": r"constants\.cell_clip is 0\.4, and there it is 10\.0",
}
"""Cases with a constant that is fixed in the layout."""

PAIRS = [
    (one, other)
    for one, a in CASES.items()
    for other, b in CASES.items()
    if a.family == b.family and a.layout != b.layout and a.features == b.features
]


def test_the_graph_of_another_layout_computes_the_same(tmp_path: Path) -> None:
    """From one layout of a family to another, where both classes have the same constants."""
    compared = set()
    for number, (one, other) in enumerate(PAIRS):
        source, case = program(one), CASES[other]
        try:
            stored = store_cell(source.cell, source.weights, Chosen(family(case.family), case.layout))
        except Unsupported:
            continue
        cell, _ = rebuilt(stored, stored.tensors)
        wanted = program(other).cell
        if (cell.equations, cell.constants, cell.norms) != (wanted.equations, wanted.constants, wanted.norms):
            continue
        model = model_of(source.cell, source.weights, source.x)
        if older_names(other) is not None:
            continue
        found = restored(other, tmp_path / str(number), model)[0]
        expected = run(model, {"x": program(other).x})["rnn"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6 * max(1.0, float(np.abs(expected).max())))
        compared.add((CASES[one].layout, case.layout))
    assert len(compared) > 1


def test_every_layout_of_tf1_is_restored() -> None:
    known = {(n, key) for n in names() for key, declared in family(n).layouts.items() if declared.framework == "tf1"}
    assert {(case.family, case.layout) for case in CASES.values()} == known
