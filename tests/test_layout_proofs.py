"""The proof of checkpoints and state dicts: what the frameworks load, and what if they load something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_layout_targets import one_layer, random_cell

from normconvert import api
from normconvert.errors import CorruptFile, NotEquivalent, Unsupported
from normconvert.ir.file import save
from normconvert.ir.layers import Recurrent
from normconvert.runtimes import tf1_saver

Command = Callable[..., Any]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with two models in the intermediate format: `bn.safetensors`, `plain.safetensors`."""
    monkeypatch.chdir(tmp_path)
    for name, family, layout in (("bn", "bn_lstm_per_step", "phan"), ("plain", "gru_reset_after", "torch")):
        cell, weights = random_cell(family, layout)
        save(one_layer(Recurrent(cell=cell, return_sequences=True), weights), tmp_path / f"{name}.safetensors")
    return tmp_path


@pytest.mark.framework
def test_a_saver_of_its_own_process_restores_every_variable(work: Path, command: Command) -> None:
    pytest.importorskip("tensorflow")
    done = command("ir-to-tf1", "bn.safetensors", "--layout", "Spitis-BN-LSTM", "-o", "out", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert report["target"].startswith("the checkpoint as tf.train.Saver of TensorFlow")
    assert any("restores all 13 variables bit for bit" in note for note in report["notes"])
    assert "tensorflow" in report["versions"]


def test_without_tensorflow_the_report_says_so(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf1_saver, "is_installed", lambda: False)
    report = api.convert("bn.safetensors", "tf1", "out", layout="phan").report
    assert report is not None
    assert report.equivalent
    assert any(note.startswith("TensorFlow is not installed") for note in report.notes)


def test_another_value_than_was_written_fails(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(prefix: Path, expected: Any) -> tf1_saver.Restored:
        tensors = {name: np.array(array) for name, array in expected.items()}
        next(iter(tensors.values())).flat[0] += np.float32(1e-6)
        return tf1_saver.Restored(tensors, {"tensorflow": "0"})

    monkeypatch.setattr(tf1_saver, "is_installed", lambda: True)
    monkeypatch.setattr(tf1_saver, "restore", moved)
    with pytest.raises(NotEquivalent, match=r"variable .*: tf\.train\.Saver restores another value"):
        api.convert("bn.safetensors", "tf1", "out", layout="phan")
    assert not (work / "out").exists()


def test_a_state_dict_is_held_to_the_class_it_is_for(work: Path, command: Command) -> None:
    torch = pytest.importorskip("torch")
    done = command("ir-to-state-dict", "plain.safetensors", "--to-scope", "net.l1,", "-o", "out.pth")
    assert done.exit_code == 1, "a stack without a first layer"
    assert "torch.nn.GRU does not take its tensors" in done.stderr
    done = command("ir-to-state-dict", "plain.safetensors", "--layout", "nn.GRU", "--to-scope", "net", "-o", "out.pth")
    assert done.exit_code == 0, done.stderr
    assert "note: torch.nn.GRU with the tensors of net, loaded with strict=True: equivalent" in done.stdout
    assert set(torch.load("out.pth", weights_only=True)) == {
        f"net.{kind}_{side}_l0" for kind in ("weight", "bias") for side in ("ih", "hh")
    }
    original = torch.nn.GRU.forward
    try:
        torch.nn.GRU.forward = lambda self, *given: (original(self, *given)[0] * 1.000001, None)
        done = command("validate", "plain.safetensors", "out.pth")
    finally:
        torch.nn.GRU.forward = original
    assert done.exit_code == 1
    assert "torch.nn.GRU with the tensors of net is not equivalent" in done.stdout + done.stderr


def test_a_state_dict_as_safetensors_has_the_same_bits(work: Path, command: Command) -> None:
    torch = pytest.importorskip("torch")
    for name in ("out.pth", "out.safetensors"):
        done = command("ir-to-state-dict", "bn.safetensors", "--layout", "jihunchoi", "-o", name)
        assert done.exit_code == 0, done.stderr
        assert (work / f"{name}.layout.json").is_file()
        assert command("validate", "bn.safetensors", name).exit_code == 0
        assert command("ir-to-state-dict", "bn.safetensors", "--layout", "jihunchoi", "-o", name).exit_code == 2
    pickled, safe = torch.load("out.pth", weights_only=True), load_file("out.safetensors")
    assert pickled.keys() == safe.keys()
    assert all(pickled[name].numpy().tobytes() == array.tobytes() for name, array in safe.items())


@pytest.mark.parametrize(
    "text", ["{", '{"cells": 3}', '{"cells": {"rnn": {"layout": "no", "settings": {}, "tensors": {}}}, "weights": {}}']
)
def test_a_damaged_record_is_an_error(text: str, work: Path) -> None:
    api.convert("bn.safetensors", "state-dict", "out.safetensors", layout="jihunchoi", validate=False)
    (work / "out.safetensors.layout.json").write_text(text)
    with pytest.raises(CorruptFile):
        api.validate("bn.safetensors", "out.safetensors")


def test_another_models_file_is_not_equivalent(work: Path) -> None:
    api.convert("bn.safetensors", "state-dict", "out.safetensors", layout="jihunchoi", validate=False)
    record = json.loads((work / "out.safetensors.layout.json").read_text())
    record["cells"]["other"] = record["cells"].pop("rnn")
    (work / "out.safetensors.layout.json").write_text(json.dumps(record))
    with pytest.raises(NotEquivalent, match="holds no rnn: it was written from another model"):
        api.validate("bn.safetensors", "out.safetensors")


def test_an_unknown_layout_lists_those_that_fit(work: Path, command: Command) -> None:
    done = command("ir-to-state-dict", "bn.safetensors", "--layout", "nobody")
    assert done.exit_code == 2
    assert "Layouts that hold this cell, for --layout: bn_lstm_per_step/jihunchoi" in done.stderr
    done = command("ir-to-state-dict", "bn.safetensors", "--layout", "fastrnns")
    assert done.exit_code == 3
    assert "bn_x(x @ W_x) + bn_h(h @ W_h), 4)' is not '" in done.stderr
    with pytest.raises(Unsupported, match=r"epsilon is 1e-05, and there it is 0\.001, in 'i, f, g, o = split\("):
        api.convert("bn.safetensors", "tf1", layout="in_time")


def test_there_is_no_such_option(work: Path) -> None:
    with pytest.raises(TypeError, match="no option 'lay_out'"):
        api.convert("bn.safetensors", "tf1", lay_out="phan")  # type: ignore[call-arg]
