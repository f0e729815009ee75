"""PyTorch files of every kind: the same state dict read from each, wrappers taken off, several files as one."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from normconvert import api
from normconvert.errors import CorruptFile
from normconvert.sources.pytorch.checkpoint import open_torch

State = dict[str, torch.Tensor]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.norm = nn.BatchNorm1d(10)
        self.head = nn.Linear(10, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.rnn(x)[0].transpose(1, 2)).transpose(1, 2))


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(3)
    return Model().eval()


def stored(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Every tensor of the model by its first name in the file."""
    file = open_torch(path)
    return {entry.parts[0]: entry.load() for entry in file.entries.values()}


def same(path: Path, state: State, prefix: str = "") -> None:
    found = stored(path)
    assert found.keys() == {prefix + name for name in state}
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[prefix + name], tensor.numpy())


WRITERS: dict[str, Callable[[Model, Path], None]] = {
    "zip": lambda model, path: torch.save(model.state_dict(), path),
    "legacy": lambda model, path: torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False),
    "safetensors": lambda model, path: save_file(model.state_dict(), path),
    "script": lambda model, path: torch.jit.trace(model, torch.zeros(2, 4, 3)).save(path),
    "pickle": lambda model, path: path.write_bytes(pickle.dumps(model.state_dict())),
    "arrays": lambda model, path: path.write_bytes(
        pickle.dumps({"torch": 1, "state_dict": {k: v.numpy() for k, v in model.state_dict().items()}})
    ),
}


SUFFIXES = {"zip": ".ckpt", "legacy": ".tar", "safetensors": ".safetensors", "pickle": ".pkl", "arrays": ".pkl"}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_container_holds_the_same(kind: str, model: Model, tmp_path: Path) -> None:
    path = tmp_path / f"model{SUFFIXES.get(kind, '.pt')}"
    WRITERS[kind](model, path)
    same(path, model.state_dict(), "state_dict." if kind == "arrays" else "")
    summary = api.inspect(path)
    assert summary.format.startswith("pytorch")  # type: ignore[union-attr]
    assert "rnn" in summary.scopes  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype, model: Model, tmp_path: Path) -> None:
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "b.safetensors")
    for path in (tmp_path / "a.pt", tmp_path / "b.safetensors"):
        for name, array in stored(path).items():
            np.testing.assert_array_equal(array.astype(np.float64), state[name].double().numpy())


def test_views_of_a_storage(tmp_path: Path) -> None:
    whole = torch.arange(60.0).reshape(5, 12)
    state = {"a.weight": whole[1:4, ::2], "b.weight": whole.T, "c.weight": whole[2, 3], "d.weight": torch.zeros(0, 4)}
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save(state, tmp_path / "views.pt", **options)
        same(tmp_path / "views.pt", state)


class Setting:
    """What a program of the user's keeps beside the weights."""

    def __init__(self, value: int) -> None:
        self.value, self.layer = value, nn.Linear(2, 3)


Wrap = Callable[[State], Any]


WRAPPERS: dict[str, Wrap] = {
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(7)}}}},
    "model": lambda s: {"model": s, "args": SimpleNamespace(lr=0.1), "loss": np.float64(0.5)},
    "model_state": lambda s: {"model_state": s, "optim": [{"momentum": torch.ones(3)}], "rng_state": torch.ones(5)},
    "net": lambda s: {"net": {f"module.{name}": tensor for name, tensor in s.items()}, "acc": 0.9},
    "compiled": lambda s: {f"module._orig_mod.{name}": tensor for name, tensor in s.items()},
    "twice": lambda s: {"model": {"state_dict": s}, "scheduler": {"base": torch.ones(2)}},
    "settings": lambda s: {
        "state_dict": s,
        "hyper_parameters": Namespace(
            loss=nn.MSELoss(),
            path=Path("data"),
            scale=np.float32(3),
            sizes=np.array([1, 2]),
            names={"a", "b"},
            start=datetime(2020, 1, 2),
            last=deque([1]),
            optimizer=partial(torch.optim.Adam, lr=1),
            dtype=torch.float32,
            device=torch.device("cpu"),
            part=slice(1, 2),
            own=Setting(1),
        ),
        "rng": {"numpy": np.random.get_state(), "new": np.random.default_rng(1), "torch": torch.get_rng_state()},
    },
    "lightning": lambda s: {
        "pytorch-lightning_version": "2.1.0",
        "global_step": torch.tensor(7),
        "state_dict": s,
        "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {1: {"exp_avg": torch.ones(4)}}}],
        "hyper_parameters": {"lr": 0.1},
    },
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_are_taken_off(name: str, model: Model, tmp_path: Path) -> None:
    state = model.state_dict()
    torch.save(WRAPPERS[name](state), tmp_path / "wrapped.pt")
    file = open_torch(tmp_path / "wrapped.pt")
    assert len(file.entries) == len(state)
    assert {"rnn/l0/forward/weight_ih", "head/weight"} <= file.entries.keys()
    np.testing.assert_array_equal(file.load("head/weight"), state["head.weight"].numpy())
    plan = api.plan(tmp_path / "wrapped.pt", scope="rnn")
    ignored = {tensor.name: tensor.ignored for tensor in plan.tensors if tensor.ignored}
    assert all(ignored.values())
    assert len(plan.tensors) >= len(state)


def doubled(state: State) -> State:
    return {name: tensor * 2 for name, tensor in state.items()}


EMA: dict[str, Wrap] = {
    "dict": lambda s: {"model": s, "ema": doubled(s), "optimizer": {}},
    "timm": lambda s: {"state_dict": s, "state_dict_ema": doubled(s)},
    "prefix": lambda s: {**s, **{f"ema_model.{name}": tensor for name, tensor in doubled(s).items()}},
    "flat": lambda s: {**s, **{f"model_ema.{name.replace('.', '')}": tensor for name, tensor in doubled(s).items()}},
}


@pytest.mark.parametrize("name", EMA)
def test_moving_averages_are_read_if_asked_for(name: str, model: Model, tmp_path: Path) -> None:
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    torch.save(EMA[name](state), tmp_path / "ema.pt")
    for ema, factor in ((False, 1), (True, 2)):
        done = api.convert(
            tmp_path / "ema.pt", "ir", tmp_path / f"{ema}.safetensors", scope="rnn", ema=ema, validate=False
        )
        weights = next(array for key, array in done.model.weights.items() if key.endswith("forward.W_x"))
        np.testing.assert_array_equal(np.asarray(weights).T, factor * state["rnn.weight_ih_l0"].numpy())


def test_neither_torch_nor_pickle_is_loaded(model: Model, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pt")
    code = (
        "import sys; from normconvert import api; "
        f"api.plan({str(tmp_path / 'model.pt')!r}, scope='rnn'); "
        "print([name for name in ('torch', 'tensorflow', 'keras') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_our_own_files_are_told_from_state_dicts(model: Model, tmp_path: Path) -> None:
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    done = api.convert(tmp_path / "state.safetensors", "ir", tmp_path / "ours.safetensors", scope="rnn")
    assert done.report is not None
    assert done.report.equivalent
    again = api.convert(tmp_path / "ours.safetensors", "torch", tmp_path / "ours-torch")
    assert again.report is not None
    assert again.report.equivalent


def sharded(model: Model, folder: Path, suffix: str) -> Path:
    """The state dict in three files, as Hugging Face's libraries save it."""
    state = list(model.state_dict().items())
    weights = {}
    for number in range(3):
        name = f"model-{number + 1:05}-of-00003{suffix}"
        part = dict(state[number::3])
        (save_file if suffix == ".safetensors" else torch.save)(part, folder / name)
        weights |= dict.fromkeys(part, name)
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weights}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_the_files_of_an_index_are_one_state_dict(suffix: str, model: Model, tmp_path: Path) -> None:
    index = sharded(model, tmp_path, suffix)
    same(index, model.state_dict())
    done = api.convert(index, "ir", tmp_path / "ours.safetensors", scope="rnn")
    assert done.report is not None
    assert done.report.equivalent
    shard = tmp_path / f"model-00002-of-00003{suffix}"
    shard.write_bytes(shard.read_bytes() + b"\0")
    assert open_torch(index).sha256() != done.model.provenance.sha256  # of all files, not of the index alone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.update({"x": "model-00004-of-00003.bin"}), "not beside it"),
        (lambda weights: weights.update({"x": "../secret.bin"}), "no file beside it"),
        (lambda weights: weights.update({"x": "/etc/passwd"}), "no file beside it"),
        (lambda weights: weights.update({"x": "model.bin.index.json"}), "no file beside it"),
        (lambda weights: weights.update({"lost.weight": "model-00001-of-00003.bin"}), "lacks lost.weight"),
        (lambda weights: weights.clear(), "no tensors"),
    ],
)
def test_an_index_that_is_wrong(
    change: Callable[[dict[str, str]], None], message: str, model: Model, tmp_path: Path
) -> None:
    index = sharded(model, tmp_path, ".bin")
    document = json.loads(index.read_text())
    change(document["weight_map"])
    index.write_text(json.dumps(document))
    with pytest.raises(CorruptFile, match=message):
        api.inspect(index)
    for text in ("{", '{"weight_map": [1]}', "[]", "{}"):
        index.write_text(text)
        with pytest.raises(CorruptFile, match="no index"):
            api.inspect(index)


def test_a_tensor_in_two_files_of_an_index(model: Model, tmp_path: Path) -> None:
    index = sharded(model, tmp_path, ".bin")
    torch.save({"extra": torch.ones(2), **torch.load(tmp_path / "model-00001-of-00003.bin")}, tmp_path / "more.bin")
    document = json.loads(index.read_text())
    document["weight_map"]["extra"] = "more.bin"
    index.write_text(json.dumps(document))
    with pytest.raises(CorruptFile, match="another file holds too"):
        api.inspect(index)
