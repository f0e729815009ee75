"""Normalisation against PyTorch's own functions and against the formula written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from normconvert.errors import UsageError
from normconvert.interpreter.norms import normalise, step_row
from normconvert.interpreter.recurrent import run_recurrent
from normconvert.ir.cell import Cell, State
from normconvert.ir.layers import Recurrent
from normconvert.ir.model import Array
from normconvert.ir.norm import Norm, PastEnd

BATCH, TIME, FEATURES = 5, 7, 6
RNG = np.random.default_rng(3)


def value(*shape: int) -> Array:
    return RNG.normal(0.4, 1.7, (BATCH, *shape, FEATURES))


def weights_of(norm: Norm) -> dict[str, Array]:
    draw = {
        "gamma": lambda shape: RNG.uniform(0.3, 1.7, shape) * RNG.choice([-1, 1], shape),
        "beta": lambda shape: RNG.normal(0, 0.5, shape),
        "mean": lambda shape: RNG.normal(0, 0.8, shape),
        "variance": lambda shape: RNG.uniform(0.3, 2.5, shape),
    }
    return {role: draw[role](shape) for role, shape in norm.weight_shapes().items()}


def in_torch(weights: dict[str, Array]) -> dict[str, torch.Tensor]:
    return {role: torch.from_numpy(array) for role, array in weights.items()}


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 1e-3])
@pytest.mark.parametrize(("gamma", "beta"), [(True, True), (True, False), (False, False)])
def test_batch_norm_with_population_statistics(epsilon: float, gamma: bool, beta: bool) -> None:
    norm = Norm(kind="batch", features=FEATURES, epsilon=epsilon, gamma=gamma, beta=beta)
    x, w = value(), weights_of(norm)
    t = in_torch(w)
    expected = F.batch_norm(
        torch.from_numpy(x), t["mean"], t["variance"], t.get("gamma"), t.get("beta"), training=False, eps=epsilon
    )
    np.testing.assert_allclose(normalise(norm, x, w, 0), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("space", [(), (4,), (3, 2)])
def test_batch_norm_with_the_moments_of_the_batch(space: tuple[int, ...]) -> None:
    norm = Norm(kind="batch", features=FEATURES, epsilon=1e-3, source="batch")
    x, w = value(*space), weights_of(norm)
    t = in_torch(w)
    expected = F.batch_norm(
        torch.from_numpy(np.moveaxis(x, -1, 1).copy()), None, None, t["gamma"], t["beta"], training=True, eps=1e-3
    )
    np.testing.assert_allclose(normalise(norm, x, w, 0), np.moveaxis(expected.numpy(), 1, -1), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("source", ["population", "batch"])
def test_batch_norm_per_position(source: str) -> None:
    """As PyTorch's norm of a vector that holds every position; gamma and beta are the same at all of them."""
    norm = Norm(kind="batch", features=FEATURES, positions=(3, 2), epsilon=1e-3, source=source)  # type: ignore[arg-type]
    x, w = value(3, 2), weights_of(norm)
    assert w["gamma"].shape == (FEATURES,)
    t = in_torch(w)
    stored = [t[role].flatten() for role in ("mean", "variance")] if source == "population" else [None, None]
    affine = [t[role].repeat(6) for role in ("gamma", "beta")]
    flat = torch.from_numpy(x).flatten(1)
    expected = F.batch_norm(flat, *stored, *affine, training=source == "batch", eps=1e-3).reshape(x.shape)
    np.testing.assert_allclose(normalise(norm, x, w, 0), expected, rtol=1e-10, atol=1e-11)


def test_layer_norm() -> None:
    norm = Norm(kind="layer", features=FEATURES, epsilon=1e-3)
    x, w = value(4), weights_of(norm)
    t = in_torch(w)
    expected = F.layer_norm(torch.from_numpy(x), (FEATURES,), t["gamma"], t["beta"], 1e-3)
    np.testing.assert_allclose(normalise(norm, x, w, 0), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_layer_norm_in_groups(groups: int) -> None:
    norm = Norm(kind="layer", features=FEATURES, groups=groups, epsilon=1e-3)
    x, w = value(), weights_of(norm)
    t = in_torch(w)
    expected = F.group_norm(torch.from_numpy(x), groups, t["gamma"], t["beta"], 1e-3)
    np.testing.assert_allclose(normalise(norm, x, w, 0), expected, rtol=1e-12, atol=1e-13)


def test_rms_norm() -> None:
    norm = Norm(kind="rms", features=FEATURES, epsilon=1e-4, beta=False)
    x, w = value(3), weights_of(norm)
    expected = F.rms_norm(torch.from_numpy(x), (FEATURES,), in_torch(w)["gamma"], 1e-4)
    np.testing.assert_allclose(normalise(norm, x, w, 0), expected, rtol=1e-12, atol=1e-13)


def test_rms_norm_in_groups_with_an_offset() -> None:
    norm = Norm(kind="rms", features=FEATURES, groups=3, epsilon=1e-4)
    x, w = value(), weights_of(norm)
    pairs = x.reshape(BATCH, 3, 2)
    expected = (pairs / np.sqrt((pairs**2).mean(-1, keepdims=True) + 1e-4)).reshape(x.shape) * w["gamma"] + w["beta"]
    np.testing.assert_allclose(normalise(norm, x, w, 0), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["layer", "batch"])
@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("placement", ["inside", "outside", "both"])
def test_epsilon_and_divisor(kind: str, unbiased: bool, placement: str) -> None:
    """Written out with a large epsilon, so that no two placements are close to one another."""
    norm = Norm(
        kind=kind,  # type: ignore[arg-type]
        features=FEATURES,
        epsilon=0.05,
        epsilon_placement=placement,  # type: ignore[arg-type]
        unbiased=unbiased,
        source="batch" if kind == "batch" else "population",
    )
    x, w = value(), weights_of(norm)
    axis = 0 if kind == "batch" else 1
    count = x.shape[axis]
    mean = x.sum(axis, keepdims=True) / count
    variance = ((x - mean) ** 2).sum(axis, keepdims=True) / (count - 1 if unbiased else count)
    deviation = {
        "inside": (variance + 0.05) ** 0.5,
        "outside": variance**0.5 + 0.05,
        "both": (variance + 0.05) ** 0.5 + 0.05,
    }[placement]
    expected = w["gamma"] * (x - mean) / deviation + w["beta"]
    np.testing.assert_allclose(normalise(norm, x, w, 0), expected, rtol=1e-12)


@pytest.mark.parametrize("placement", ["inside", "outside", "both"])
def test_epsilon_with_population_statistics(placement: str) -> None:
    norm = Norm(kind="batch", features=FEATURES, epsilon=0.05, epsilon_placement=placement)  # type: ignore[arg-type]
    x, w = value(), weights_of(norm)
    v = w["variance"]
    deviation = {"inside": (v + 0.05) ** 0.5, "outside": v**0.5 + 0.05, "both": (v + 0.05) ** 0.5 + 0.05}[placement]
    expected = w["gamma"] * (x - w["mean"]) / deviation + w["beta"]
    np.testing.assert_allclose(normalise(norm, x, w, 0), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_pooled_over_a_whole_sample(kind: str) -> None:
    norm = Norm(kind=kind, features=FEATURES, epsilon=1e-3, pooled=True)  # type: ignore[arg-type]
    x, w = value(4), weights_of(norm)
    for row, result in zip(x, normalise(norm, x, w, 0), strict=True):
        mean = row.mean() if kind == "layer" else 0.0
        variance = ((row - mean) ** 2).mean()
        np.testing.assert_allclose(result, w["gamma"] * (row - mean) / np.sqrt(variance + 1e-3) + w["beta"], rtol=1e-11)


def test_pooled_over_batch_and_features() -> None:
    norm = Norm(kind="batch", features=FEATURES, epsilon=1e-3, pooled=True, source="batch")
    x, w = value(), weights_of(norm)
    expected = w["gamma"] * (x - x.mean()) / np.sqrt(x.var() + 1e-3) + w["beta"]
    np.testing.assert_allclose(normalise(norm, x, w, 0), expected, rtol=1e-11)


ROWS = 3


@pytest.mark.parametrize(
    ("past_end", "rows"),
    [("last", [0, 1, 2, 2, 2, 2, 2]), ("modulo", [0, 1, 2, 0, 1, 2, 0]), ("bypass", [0, 1, 2, None, None, None, None])],
)
@pytest.mark.parametrize("affine_per_step", [False, True])
def test_a_row_per_step(past_end: str, rows: list[int | None], affine_per_step: bool) -> None:
    norm = Norm(
        kind="batch",
        features=FEATURES,
        epsilon=1e-5,
        scope="per_step",
        steps=ROWS,
        affine_per_step=affine_per_step,
        past_end=past_end,  # type: ignore[arg-type]
    )
    x, w = value(), weights_of(norm)
    assert w["mean"].shape == (ROWS, FEATURES)
    for t, row in enumerate(rows):
        assert row is None or step_row(norm, np.asarray(t)) == row
        if row is None:
            expected = x
        else:
            gamma, beta = (w[role][row] if affine_per_step else w[role] for role in ("gamma", "beta"))
            expected = gamma * (x - w["mean"][row]) / np.sqrt(w["variance"][row] + 1e-5) + beta
        np.testing.assert_allclose(normalise(norm, x, w, t), expected, rtol=1e-12)


@pytest.mark.parametrize("past_end", ["last", "modulo", "bypass"])
@pytest.mark.parametrize(("space", "own"), [((), False), ((4,), False), ((4, 2), True)])
def test_samples_at_different_steps(past_end: PastEnd, space: tuple[int, ...], own: bool) -> None:
    norm = Norm(
        kind="batch", features=FEATURES, epsilon=1e-5, scope="per_step", steps=ROWS, affine_per_step=True,
        past_end=past_end, positions=space if own else (),
    )  # fmt: skip
    x, w = value(*space), weights_of(norm)
    steps = np.arange(len(x))[::-1].copy()
    assert steps.max() >= ROWS
    for sample, step in enumerate(steps):
        alone = normalise(norm, x[sample : sample + 1], w, int(step))
        np.testing.assert_array_equal(normalise(norm, x, w, steps)[sample], alone[0])


@pytest.mark.parametrize("past_end", ["last", "modulo", "bypass", "error"])
def test_there_is_no_step_before_the_first(past_end: PastEnd) -> None:
    norm = Norm(kind="batch", features=FEATURES, epsilon=1e-5, scope="per_step", steps=ROWS, past_end=past_end)
    with pytest.raises(UsageError, match="counted from 0, -1 is none"):
        normalise(norm, value(), weights_of(norm), np.full(len(value()), -1))


def test_layer_norm_with_affine_rows() -> None:
    norm = Norm(kind="layer", features=FEATURES, epsilon=1e-5, affine_per_step=True, steps=ROWS)
    x, w = value(), weights_of(norm)
    for t, row in ((0, 0), (2, 2), (6, 2)):
        expected = F.layer_norm(torch.from_numpy(x), (FEATURES,), *(torch.from_numpy(w[r][row]) for r in w), 1e-5)
        np.testing.assert_allclose(normalise(norm, x, w, t), expected, rtol=1e-12, atol=1e-13)


def test_no_row_past_the_end() -> None:
    norm = Norm(kind="batch", features=FEATURES, epsilon=1e-5, scope="per_step", steps=ROWS, past_end="error")
    x, w = value(), weights_of(norm)
    normalise(norm, x, w, ROWS - 1)
    with pytest.raises(UsageError, match="3 time steps and none for step 3") as caught:
        normalise(norm, x, w, ROWS)
    assert "at most 3 steps" in caught.value.remedy


def run_norm(norm: Norm, x: Array, w: dict[str, Array]) -> Array:
    """A cell that does nothing but normalise its input."""
    text = "cell f(x; h) -> y:\n    y = n(x)\n    h = h + x"
    cell = Cell(
        equations=text,
        dims={},
        input_shapes={"x": (FEATURES,)},
        states={"h": State((FEATURES,))},
        norms={"n": norm},
    )
    weights = {f"n.{role}": array for role, array in w.items()}
    return run_recurrent(Recurrent(cell=cell, return_sequences=True), [x], weights)[0]


def test_moments_of_each_step_or_of_the_sequence() -> None:
    x = value(TIME)
    each = Norm(kind="batch", features=FEATURES, epsilon=1e-3, source="batch", scope="per_step")
    whole = Norm(kind="batch", features=FEATURES, epsilon=1e-3, source="batch", scope="sequence")
    w = weights_of(each)
    frames = x.reshape(-1, FEATURES)
    of_sequence = w["gamma"] * (x - frames.mean(0)) / np.sqrt(frames.var(0) + 1e-3) + w["beta"]
    of_step = w["gamma"] * (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3) + w["beta"]
    np.testing.assert_allclose(run_norm(whole, x, w), of_sequence, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(run_norm(each, x, w), of_step, rtol=1e-11, atol=1e-12)
    assert np.abs(of_sequence - of_step).max() > 0.1


def test_population_statistics_of_a_sequence_norm() -> None:
    norm = Norm(kind="batch", features=FEATURES, epsilon=1e-3, scope="sequence")
    x, w = value(TIME), weights_of(norm)
    expected = w["gamma"] * (x - w["mean"]) / np.sqrt(w["variance"] + 1e-3) + w["beta"]
    np.testing.assert_allclose(run_norm(norm, x, w), expected, rtol=1e-11)


@pytest.mark.parametrize("kind", ["batch", "layer", "rms"])
@pytest.mark.parametrize("placement", ["inside", "outside", "both"])
def test_single_precision_stays_single(kind: str, placement: str) -> None:
    norm = Norm(kind=kind, features=FEATURES, epsilon=1e-5, epsilon_placement=placement)  # type: ignore[arg-type]
    x, w = value(4), weights_of(norm)
    found = normalise(norm, x.astype(np.float32), {role: array.astype(np.float32) for role, array in w.items()}, 0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, normalise(norm, x, w, 0), rtol=1e-4, atol=1e-5)


def test_weight_shapes() -> None:
    per_step = Norm(kind="batch", features=4, epsilon=1e-3, scope="per_step", steps=3, beta=False)
    assert per_step.weight_shapes() == {"gamma": (4,), "mean": (3, 4), "variance": (3, 4)}
    rows = Norm(kind="batch", features=4, epsilon=1e-3, affine_per_step=True, steps=3)
    assert rows.weight_shapes() == {"gamma": (3, 4), "beta": (3, 4), "mean": (4,), "variance": (4,)}
    of_batch = Norm(kind="batch", features=4, epsilon=1e-3, source="batch", scope="per_step")
    assert of_batch.weight_shapes() == {"gamma": (4,), "beta": (4,)}
    places = Norm(kind="batch", features=4, positions=(5, 2), epsilon=1e-3, scope="per_step", steps=3, gamma=False)
    assert places.weight_shapes() == {"beta": (4,), "mean": (3, 5, 2, 4), "variance": (3, 5, 2, 4)}
    assert Norm(kind="layer", features=4, epsilon=1e-3, gamma=False, beta=False).weight_shapes() == {}
