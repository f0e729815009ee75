"""Random well-typed cells as ONNX: whatever the algebra makes of them, they compute what the interpreter does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from equation_strategies import typed_cells
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_cell_cases import arrays, model_of

from normconvert import interpreter
from normconvert.errors import Unsupported
from normconvert.ir.cell import Cell
from normconvert.ir.layers import Recurrent
from normconvert.ir.norm import Norm

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_cases import run  # noqa: E402

from normconvert.runtimes.onnx_engines import engine  # noqa: E402
from normconvert.targets.onnx.builder import Settings  # noqa: E402
from normconvert.targets.onnx.model import build  # noqa: E402

ROWS = 3
NORMS: tuple[dict[str, Any], ...] = (
    {},
    {"groups": 1, "kind": "rms"},
    {"groups": 1, "kind": "batch"},
    {"groups": 1, "kind": "batch", "scope": "per_step", "steps": ROWS},
    {"groups": 1, "kind": "batch", "scope": "per_step", "steps": ROWS, "past_end": "bypass"},
    {"groups": 1, "kind": "batch", "scope": "per_step", "steps": ROWS, "past_end": "modulo", "affine_per_step": True},
    {"affine_per_step": True, "steps": ROWS, "past_end": "bypass"},
    {"groups": 1, "kind": "batch", "source": "batch"},
)


OF_POSITIONS: tuple[dict[str, Any], ...] = (
    {},
    {"source": "batch"},
    {"scope": "per_step", "steps": ROWS, "past_end": "bypass", "affine_per_step": True},
    {"scope": "per_step", "steps": ROWS, "past_end": "modulo", "gamma": False},
    {"affine_per_step": True, "steps": ROWS, "past_end": "last", "beta": False},
)


def with_other_norms(cell: Cell, data: st.DataObject) -> Cell:
    """The cell with norms of every kind in place of its own."""
    drawn: dict[str, Norm] = {
        name: msgspec.structs.replace(norm, **data.draw(st.sampled_from(OF_POSITIONS if norm.positions else NORMS)))
        for name, norm in cell.norms.items()
    }
    return msgspec.structs.replace(cell, norms=drawn)


def in_chunks(proto: Any, values: dict[str, Any], lengths: Sequence[int]) -> list[dict[str, Any]]:
    """What a streaming model gives in double precision, call after call, by what its metadata say."""
    carried = json.loads(next(each.value for each in proto.metadata_props if each.key == "normconvert.states"))
    program, states, found, start = engine(proto), dict[str, Any](), [], 0
    for state in carried:
        shape = [len(values["x"]) if size == "batch" else size for size in state["shape"]]
        begin = np.asarray(state["initial"], np.float64 if shape else np.int64)
        states[state["input"]] = np.broadcast_to(begin, shape)
    for length in lengths:
        part = {name: array[:, start : start + length] for name, array in values.items()}
        found.append(run(program, {**part, **states}, "float64"))
        states = {state["input"]: found[-1][state["output"]] for state in carried}
        start += length
    return found


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(typed_cells(), st.data(), st.booleans())
def test_random_cells_in_chunks(cell: Cell, data: st.DataObject, masked: bool) -> None:
    cell = with_other_norms(cell, data)
    model = model_of(Recurrent(cell=cell, return_sequences=True, return_state=True), arrays(cell), masked=masked)
    random = np.random.default_rng(len(cell.equations))
    lengths = (1, 3, 2)
    values = {"x": random.normal(size=(4, sum(lengths), *cell.input_shapes["x"]))}
    if masked:
        values["steps"] = random.integers(0, 2, values["x"].shape[:2])
    try:
        proto = build(model, Settings(18, "float64", streaming=True))
    except Unsupported as error:
        if not masked or "repeats its last output" not in str(error):
            raise
        return
    found = in_chunks(proto, values, lengths)
    sequence, *finals = interpreter.run(model, values).items()
    pairs = [(np.concatenate([each[sequence[0]] for each in found], axis=1), sequence[1])]
    for result, expected in [*pairs, *((found[-1][name], expected) for name, expected in finals)]:
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9 * scale, err_msg=cell.equations)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(typed_cells(), st.data(), st.booleans(), st.booleans())
def test_random_cells(cell: Cell, data: st.DataObject, reverse: bool, masked: bool) -> None:
    cell = with_other_norms(cell, data)
    layer = Recurrent(cell=cell, return_sequences=True, return_state=True, reverse=reverse)
    model = model_of(layer, arrays(cell), masked=masked)
    random = np.random.default_rng(len(cell.equations))
    for batch, time in ((2, 2), (3, 5)):
        values = {"x": random.normal(size=(batch, time, *cell.input_shapes["x"]))}
        if masked:
            values["steps"] = random.integers(0, 2, (batch, time))
        wanted = interpreter.run(model, values)
        proto = build(model, Settings(18, "float64"))
        found = run(engine(proto), values, "float64")
        for name, expected in wanted.items():
            scale = max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-9 * scale, err_msg=cell.equations)
