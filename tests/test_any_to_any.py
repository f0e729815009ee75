"""Every pair of a source and a target by command line, each proven, on small models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from normconvert.cli.lazy import PAIRS

torch = pytest.importorskip("torch")
pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
pytest.importorskip("onnxruntime")

OPTIONS = {
    ("tf1", "state-dict"): ("--layout", "jihunchoi"),
    ("ir", "state-dict"): ("--layout", "jihunchoi-bn-lstm"),
    ("ir", "tf1"): ("--layout", "spitis-bn-lstm"),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Any]) -> dict[str, tuple[Any, ...]]:
    """A file of each kind, and the options that read it."""
    from pytorch_cells import INPUTS, UNITS, Holder, randomise
    from torch import nn

    folder = tmp_path_factory.mktemp("sources")
    checkpoint = ROOT / "fixtures" / "bn_lstm_per_step.ckpt"
    inner = command("tf1-to-ir", checkpoint, "-o", folder / "model.safetensors", "--no-validate")
    assert inner.exit_code == 0, inner.stderr
    module = Holder(encoder=nn.GRU(INPUTS, UNITS, bidirectional=True))
    torch.save(randomise(module, 3).state_dict(), folder / "model.pt")
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input((None, INPUTS)),
            keras.layers.LSTM(UNITS, return_sequences=True, bias_initializer="random_normal"),
            keras.layers.BatchNormalization(moving_mean_initializer="random_normal", gamma_initializer="random_normal"),
            keras.layers.Dense(2, bias_initializer="random_normal"),
        ]
    )
    model.save(folder / "model.keras")
    return {
        "keras": (folder / "model.keras",),
        "tf1": (checkpoint,),
        "torch": (folder / "model.pt", "--scope", "encoder"),
        "ir": (folder / "model.safetensors",),
    }


OTHER_FORMS = {"keras-h5": "keras", "export": "torch"}
"""Targets that are another form of one that every source is written to, with the source that they are tried on."""

RUN = [pair for pair in PAIRS if OTHER_FORMS.get(pair.split("-to-")[1], pair.split("-to-")[0]) == pair.split("-to-")[0]]


@pytest.mark.parametrize("pair", RUN)
@pytest.mark.usefixtures("workers_in_this_process")
def test_a_pair_is_proven(
    pair: str,
    sources: dict[str, tuple[Any, ...]],
    command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    source, to = pair.split("-to-")
    done = command(pair, *sources[source], *OPTIONS.get((source, to), ()), "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["report"]["equivalent"]
    assert all(each["function_error"] is not None for each in told["report"]["outputs"])
    if source == "ir":
        written = tmp_path / told["output"]
        assert command("validate", sources[source][0], written, "-q").exit_code == 0
