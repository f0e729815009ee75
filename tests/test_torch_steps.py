"""What a generated module has ready before its steps: scale and shift of every norm, sums in one function."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_cases import build, values_for, worst_error
from torch_cell_cases import CASES, INPUTS, PER_STEP, ROWS, UNITS, arrays, cell_of, check, lstm, model_of, norms

from normconvert.ir.checking import analyse
from normconvert.ir.expressions import names_in
from normconvert.ir.layers import Recurrent
from normconvert.ir.model import Array
from normconvert.ir.norm import Norm
from normconvert.passes.gather_terms import gather_terms

torch = pytest.importorskip("torch")

BATCH, SPACE, FEATURES = 5, 2, 3


def row_of(step: int, past_end: str) -> int:
    return step % ROWS if past_end == "modulo" else min(step, ROWS - 1)


def by_step(u: Array, norm: Any, past_end: str, statistics: bool) -> Array:
    """Step after step, `[time, batch, space, features]`, from the arrays of a module."""
    stored = {name: value.detach().numpy() for name, value in (*norm.named_parameters(), *norm.named_buffers())}

    def at(name: str, row: int) -> Array:
        return stored[name][row] if stored[name].ndim == 2 else stored[name]

    results = []
    for step, value in enumerate(u):
        row = row_of(step, past_end)
        mean, variance = (
            (at("running_mean", row), at("running_var", row))
            if statistics
            else (value.mean(-1, keepdims=True), value.var(-1, keepdims=True))
        )
        result = (value - mean) / np.sqrt(variance + 0.02) * at("weight", row) + at("bias", row)
        results.append(value if past_end == "bypass" and step >= ROWS else result)
    return np.stack(results)


@pytest.mark.parametrize("affine_per_step", [True, False])
@pytest.mark.parametrize("past_end", ["last", "modulo", "bypass"])
@pytest.mark.parametrize("kind", ["batch", "batch, per step", "layer"])
def test_scale_and_shift_against_the_formula_of_a_step(kind: str, past_end: str, affine_per_step: bool) -> None:
    """For fewer steps than rows, as many, and more; all steps at once, one, and each sample at its own."""
    from normconvert.targets.torch.blocks.cells import CellBatchNorm, CellLayerNorm

    common = {"eps": 0.02, "space": 1, "rows": ROWS, "affine_per_step": affine_per_step, "past_end": past_end}
    norm = (
        CellLayerNorm(FEATURES, **common)
        if kind == "layer"
        else CellBatchNorm(FEATURES, per_step=kind != "batch", **common)
    )
    norm = norm.double().eval()
    draw = np.random.default_rng(3)
    with torch.no_grad():
        for value in (*norm.parameters(), *norm.buffers()):
            value.copy_(torch.tensor(0.4 + draw.random(tuple(value.shape))))
    for length in (ROWS - 1, ROWS, 2 * ROWS + 3):
        u = draw.normal(size=(length, BATCH, SPACE, FEATURES))
        wanted = by_step(u, norm, past_end, kind != "layer")
        steps = torch.arange(length).unsqueeze(1)
        np.testing.assert_allclose(norm(torch.tensor(u), steps).detach(), wanted, rtol=1e-12, atol=1e-12)

        tables = norm.affine(steps)
        for value, t, scale, shift, result in zip(torch.tensor(u), steps, *tables, wanted, strict=True):
            np.testing.assert_allclose((norm.plain(value, t) * scale + shift).detach(), result, rtol=1e-12, atol=1e-12)

        own = draw.integers(0, length, BATCH)
        found = norm(torch.tensor(u[own, np.arange(BATCH)]), torch.tensor(own)).detach()
        np.testing.assert_allclose(found, wanted[own, np.arange(BATCH)], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["batch norm, per step", "modulo", "bypass", "layer norm per gate, unbiased"])
def test_as_many_steps_as_rows(name: str, tmp_path: Path) -> None:
    model = model_of(Recurrent(cell=CASES[name].cell, return_sequences=True), arrays(CASES[name].cell))
    module = build(model, tmp_path / "model")
    for length in (1, ROWS - 1, ROWS, ROWS + 1):
        assert worst_error(model, module, values_for(model, 3, length)) < 1e-12


@pytest.mark.parametrize(
    "name", ["batch norm, shared", "batch norm, per step", "modulo", "bypass", "layer norm", "convolutional"]
)
def test_gradients_in_eval_mode(name: str, tmp_path: Path) -> None:
    """Of the inputs and of every parameter of a norm, against differences."""
    cell = CASES[name].cell
    module = build(model_of(Recurrent(cell=cell, return_sequences=True), arrays(cell)), tmp_path / "model")
    x = torch.tensor(values_for(model_of(Recurrent(cell=cell), {}), 2, ROWS + 1)["x"], requires_grad=True)
    named = {key: value for key, value in module.named_parameters() if "norm" in key}
    assert len(named) >= 4

    def run(x: Any, *parameters: Any) -> Any:
        return torch.func.functional_call(module, dict(zip(named, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *named.values()), fast_mode=True)


@pytest.mark.parametrize("name", ["batch norm, per step", "batch norm, shared", "modulo"])
def test_weights_that_change_after_loading_are_honoured(name: str, tmp_path: Path) -> None:
    """Loaded anew, or written in place; in copies, and scripted. Nothing of the old ones is kept."""
    cell = CASES[name].cell
    model = model_of(Recurrent(cell=cell, return_sequences=True), arrays(cell))
    draw = np.random.default_rng(5)
    other = replace(
        model,
        weights={
            key: (0.5 + draw.random(array.shape)).astype(np.float32) if "norm" in key else array
            for key, array in model.weights.items()
        },
    )
    module = build(model, tmp_path / "one")
    new = build(other, tmp_path / "two").state_dict()
    values = values_for(model, 4, ROWS + 2)
    scripted, copied = torch.jit.script(module), copy.deepcopy(module)
    assert worst_error(model, copied, values) < 1e-12
    for each in (copied, scripted):
        each(torch.tensor(values["x"]))
        each.load_state_dict(new)
        assert worst_error(other, each, values) < 1e-12
    assert worst_error(other, module, values) < 1e-12, "a scripted module shares its tensors"

    with torch.no_grad():
        for key, value in copied.state_dict().items():
            value.mul_(2.0 if "norm" in key else 1.0)
    scaled = {key: 2 * array if "norm" in key else array for key, array in other.weights.items()}
    assert worst_error(replace(other, weights=scaled), copied, values) < 1e-12


@pytest.mark.parametrize("name", ["batch norm, per step", "modulo", "batch at hand", "rms norm with offset"])
def test_copies_in_other_precisions(name: str, tmp_path: Path) -> None:
    cell = CASES[name].cell
    model = model_of(Recurrent(cell=cell, return_sequences=True), arrays(cell))
    module = build(model, tmp_path / "model")
    x = torch.tensor(values_for(model, 4, ROWS + 2)["x"])
    exact = module(x)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 0.02), (torch.bfloat16, 0.2)):
        result = copy.deepcopy(module).to(dtype)(x.to(dtype))
        assert result.dtype == dtype
        assert (result.double() - exact).abs().max() < tolerance
    assert torch.equal(module(x), exact)


def test_eval_after_training_uses_the_statistics_that_training_moved(tmp_path: Path) -> None:
    cell = lstm(norms(**PER_STEP, momentum=0.8))
    model = model_of(Recurrent(cell=cell, return_sequences=True), arrays(cell))
    module = build(model, tmp_path / "model")
    values = values_for(model, 6, ROWS + 1)
    module.train()(torch.tensor(values["x"]))
    module.eval()
    roles = {"mean": "running_mean", "variance": "running_var"}
    state = module.state_dict()
    moved = {
        key: state[f"{key.rpartition('.')[0]}.{roles[key.rpartition('.')[2]]}"].numpy()
        for key in model.weights
        if key.rpartition(".")[2] in roles
    }
    assert all(np.abs(array - model.weights[key]).max() > 1e-3 for key, array in moved.items())
    assert worst_error(replace(model, weights={**model.weights, **moved}), module, values) < 1e-12


SUMS = """cell sums(x; h):
    p_z, p_n = split(ln_x(x @ W_x) + b, 2)
    u_z, u_n = split(ln_h(h @ W_h), 2)
    z = sigmoid(p_z + u_z)
    n = tanh(p_n + z * u_n)
    m = n @ V + 0.3 * n + scale * n + (x @ P + c)
    h = (1 - z) * m + h * z
"""


def test_sums_in_one_function(tmp_path: Path) -> None:
    cell = cell_of(
        SUMS,
        constants={"scale": 0.7},
        W_x=(INPUTS, 2 * UNITS),
        W_h=(UNITS, 2 * UNITS),
        b=(2 * UNITS,),
        c=(UNITS,),
        P=(INPUTS, UNITS),
        V=(UNITS, UNITS),
    )
    layer_norms = {name: Norm(kind="layer", features=2 * UNITS, epsilon=0.01) for name in ("ln_x", "ln_h")}
    cell = msgspec.structs.replace(cell, norms=layer_norms)
    text = check(model_of(Recurrent(cell=cell, return_sequences=True), arrays(cell)), tmp_path / "model")
    before, step = text.split("def before_steps")[1].split("def forward")[0].split("def step")
    assert "F.layer_norm(x @ self.W_x, self.ln_x.weight.shape, self.ln_x.weight, self.ln_x.bias + self.b" in before
    assert "F.linear(x, self.P.t(), self.c)" in before
    assert "torch.addcmul(p_n, z, u_n)" in step
    assert "torch.lerp(m, h, z)" in step
    assert "torch.addmm(m_x, n, self.V)" in step


def test_sums_that_broadcast_what_they_multiply(tmp_path: Path) -> None:
    """A product of one column, or a norm of one feature, added to a vector."""
    cell = cell_of(
        "cell columns(x; h):\n    g = ln(x @ p) + b\n    h = tanh(x @ W + h @ u + (h @ U) * g + (x @ q + b))",
        W=(INPUTS, UNITS),
        U=(UNITS, UNITS),
        u=(UNITS, 1),
        p=(INPUTS, 1),
        q=(INPUTS, 1),
        b=(UNITS,),
    )
    cell = msgspec.structs.replace(cell, norms={"ln": Norm(kind="layer", features=1, epsilon=0.01)})
    check(model_of(Recurrent(cell=cell, return_sequences=True), arrays(cell)), tmp_path / "model")


NAMES = {"b": 0, "d": 0, "x": 1, "y": 1, "h": 2, "c": 2}
"""Names of a cell by what they depend on: nothing, inputs, states."""
SUM_CELL = msgspec.structs.replace(
    cell_of("cell sum(x, y; h, c):\n    h = {sum}\n    c = h", states="hc", b=(UNITS,), d=(UNITS,)),
    input_shapes={"x": (UNITS,), "y": (UNITS,)},
)


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.sampled_from(list(NAMES)), lambda inner: st.tuples(inner, inner, st.booleans()), max_leaves=9))
def test_terms_of_a_sum_are_gathered(tree: Any) -> None:
    """In the order of what they depend on, each as often as before; a difference stays one term."""

    def written(tree: Any) -> str:
        if isinstance(tree, str):
            return tree
        return f"({written(tree[0])} {'+' if tree[2] else '-'} {written(tree[1])})"

    cell = msgspec.structs.replace(SUM_CELL, equations=SUM_CELL.equations.format(sum=f"{written(tree)} + x"))
    parsed = cell.parsed()
    gathered = gather_terms(parsed, analyse(cell)).body[0].value

    def terms(expression: Any) -> list[Any]:
        plus = getattr(expression, "operator", "") == "+"
        return [*terms(expression.left), *terms(expression.right)] if plus else [expression]

    found = [max(NAMES[name] for name in names_in(term)) for term in terms(gathered)]
    assert found == sorted(found)
    for numbers in np.random.default_rng(0).integers(-9, 9, (3, len(NAMES))):
        values = dict(zip(NAMES, map(int, numbers), strict=True))
        before, after = (evaluated(each, values) for each in (parsed.body[0].value, gathered))
        assert before == after


def evaluated(expression: Any, values: dict[str, int]) -> int:
    if hasattr(expression, "operator"):
        left, right = evaluated(expression.left, values), evaluated(expression.right, values)
        return left + right if expression.operator == "+" else left - right
    return values[expression.name]
