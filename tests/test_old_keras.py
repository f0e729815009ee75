"""Two real files that no Keras loads any more, against the formulas of their time in plain NumPy.

The formulas are written from Keras's own sources and share nothing with normconvert:
Keras 2.0.6 `layers/recurrent.py` (GRU, implementation 0), `layers/embeddings.py`, `layers/normalization.py`;
Keras 1.1.1 `layers/convolutional.py`, `layers/recurrent.py`, `layers/wrappers.py`, `engine/topology.py` (Merge),
`backend/theano_backend.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.framework

Array = np.ndarray[Any, np.dtype[Any]]

ROUNDINGS = 16
"""A float32 result may differ from the exact one by this many units in the last place, at the outputs' scale."""


def stored(file: Path) -> dict[str, Array]:
    """Every array under `model_weights` in float64, as `<layer>/<name>` without the groups between and `:0`."""
    arrays: dict[str, Array] = {}

    def keep(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, *_, name = path.split("/")
            arrays[f"{layer}/{name.removesuffix(':0')}"] = item[()].astype(np.float64)

    with h5py.File(file) as opened:
        opened["model_weights"].visititems(keep)
    return arrays


def hard_sigmoid(x: Array) -> Array:
    return np.asarray(np.clip(0.2 * x + 0.5, 0, 1))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def sentinews(file: Path, words: Array) -> Array:
    """Keras 2.0.6: three masked GRUs that reset before the matrix product, each followed by batch normalisation."""
    w = stored(file)
    mask = words != 0

    def gru(name: str, x: Array) -> Array:
        kernel, recurrent, bias = (w[f"{name}/{part}"] for part in ("kernel", "recurrent_kernel", "bias"))
        units = len(recurrent)
        h = np.zeros((len(x), units))
        outputs = []
        for t in range(x.shape[1]):
            p = x[:, t] @ kernel + bias
            gates = hard_sigmoid(p[:, : 2 * units] + h @ recurrent[:, : 2 * units])
            z, r = gates[:, :units], gates[:, units:]
            candidate = np.tanh(p[:, 2 * units :] + (r * h) @ recurrent[:, 2 * units :])
            h = np.where(mask[:, t, None], z * h + (1 - z) * candidate, h)
            outputs.append(h)
        return np.stack(outputs, 1)

    def norm(name: str, x: Array) -> Array:
        mean, variance, gamma, beta = (
            w[f"{name}/{part}"] for part in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return np.asarray(gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta)

    x = w["embedding/embeddings"][words]
    x = norm("batch_normalization_1", gru("gru_1", x))
    x = norm("batch_normalization_2", gru("gru_2", x))
    x = norm("batch_normalization_3", gru("gru_3", x)[:, -1])
    x = x @ w["Y_active/kernel"] + w["Y_active/bias"]
    return softmax(norm("batch_normalization_4", x))


def factornet(file: Path, forward: Array, backward: Array) -> Array:
    """Keras 1.1.1 with Theano: one network over a DNA window and over its reverse complement, averaged.

    Array names without `:0` are Theano's, whose `conv2d` turns the kernel around.
    """
    w = stored(file)
    kernel = w["convolution1d_1/convolution1d_1_W"][::-1, 0]

    def lstm(name: str, x: Array) -> Array:
        part = {key: w[f"bidirectional_1/{name}_{key}"] for key in (f"{a}_{g}" for a in "WUb" for g in "ifco")}
        h = c = np.zeros((len(x), 32))
        outputs = []
        for t in range(x.shape[1]):
            i, f, g, o = (x[:, t] @ part[f"W_{k}"] + part[f"b_{k}"] + h @ part[f"U_{k}"] for k in "ifco")
            c = hard_sigmoid(f) * c + hard_sigmoid(i) * np.tanh(g)
            h = hard_sigmoid(o) * np.tanh(c)
            outputs.append(h)
        return np.stack(outputs, 1)

    def tower(x: Array) -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), len(kernel), axis=1)
        x = relu(np.einsum("ntik,kio->nto", windows, kernel, optimize=True) + w["convolution1d_1/convolution1d_1_b"])
        x = relu(x @ w["timedistributed_1/dense_1_W"] + w["timedistributed_1/dense_1_b"])
        length = x.shape[1] // 17
        x = x[:, : length * 17].reshape(len(x), length, 17, -1).max(2)
        x = np.concatenate([lstm("forward_lstm_1", x), lstm("backward_lstm_1", x[:, ::-1])[:, ::-1]], -1)
        x = relu(x.reshape(len(x), -1) @ w["dense_2/dense_2_W"] + w["dense_2/dense_2_b"])
        return sigmoid(x @ w["dense_3/dense_3_W"] + w["dense_3/dense_3_b"])

    return (tower(forward) + tower(backward)) / 2


def words(rng: np.random.Generator) -> Array:
    """Indices with padding after, before and between real ones."""
    x = rng.integers(1, 43224, (5, 100))
    x[0, 37:] = x[1, :4] = x[2, 50] = 0
    return x


def windows_of_dna(rng: np.random.Generator, motif: str = "", count: int = 3) -> tuple[Array, Array]:
    """Random windows, one-hot A, C, G, T and a track of ones, with a motif in the middle; and their other strands."""
    letters = rng.integers(0, 4, (count, 1002))
    for start in (480, 500, 520) if motif else ():
        letters[:, start : start + len(motif)] = ["ACGT".index(letter) for letter in motif]
    x = np.ones((count, 1002, 5), np.float32)
    x[..., :4] = np.eye(4)[letters]
    other = np.concatenate([x[:, ::-1, 3::-1], x[:, ::-1, 4:]], -1)
    return x, np.ascontiguousarray(other)


CASES: dict[str, tuple[str, Callable[..., Array], Callable[[np.random.Generator], tuple[Array, ...]]]] = {
    "sentinews": ("sentinews/default_best.h5", sentinews, lambda rng: (words(rng),)),
    "factornet": ("factornet-egr1/best_model.hdf5", factornet, windows_of_dna),
}


@pytest.mark.parametrize("name", CASES)
def test_converts_with_proof_and_agrees_with_the_formula(
    name: str, shared_models: Path, tmp_path: Path, to_torch: Callable[..., Any], run_folder: Callable[..., Any]
) -> None:
    path, formula, sample = CASES[name]
    report = to_torch(shared_models / path, tmp_path / "out")
    assert report["equivalent"] is True

    inputs = sample(np.random.default_rng(5))
    expected = formula(shared_models / path, *inputs)
    atol = ROUNDINGS * np.finfo(np.float32).eps * np.abs(expected).max()
    np.testing.assert_allclose(run_folder(tmp_path / "out", *inputs), expected, rtol=0, atol=atol)


def test_factornet_reads_its_kernels_in_the_direction_it_was_trained_in(
    shared_models: Path, tmp_path: Path, to_torch: Callable[..., Any], run_folder: Callable[..., Any]
) -> None:
    """Biology as the witness: the protein EGR1 binds GCGTGGGCG, not the same letters backwards."""
    to_torch(shared_models / CASES["factornet"][0], tmp_path / "out", "--no-validate")

    def binding(motif: str) -> float:
        probability = run_folder(tmp_path / "out", *windows_of_dna(np.random.default_rng(7), motif, count=32))
        return float(np.log(probability / (1 - probability)).mean())

    assert binding("GCGTGGGCG") > binding("GCGGGTGCG") + 1
