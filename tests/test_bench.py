"""Timing: the rounds themselves, and `bench` on a model and on its artefacts."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models_by_hand import FEATURES, embedded, masked_stack

from normconvert import api
from normconvert.benchmarking.timing import LEAST_ROUNDS, in_turns
from normconvert.errors import CorruptFile, MissingRuntime, Unsupported, UsageError
from normconvert.ir import file as ir_file

Command = Callable[..., Any]
ONNX = "ONNX in onnxruntime"


class Clock:
    """Programs that take a known time, and note who had a turn."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def program(self, name: str, seconds: float) -> Callable[[int], float]:
        def turn(calls: int) -> float:
            self.log.append((name, calls))
            return calls * seconds

        return turn


class TestTurns:
    def test_gives_seconds_per_call(self) -> None:
        clock = Clock()
        found = in_turns({"a": clock.program("a", 0.001), "b": clock.program("b", 0.25)}, seconds=0.0, turn=0.01)
        assert found["a"].median == pytest.approx(0.001)
        assert found["b"].best == pytest.approx(0.25)
        assert (found["a"].calls, found["b"].calls) == (10, 1)
        assert found["a"].rounds == LEAST_ROUNDS

    def test_every_round_has_all_and_begins_with_another(self) -> None:
        clock = Clock()
        in_turns({name: clock.program(name, 1.0) for name in "abc"}, seconds=0.0)
        rounds = clock.log[2 * 3 :]  # after the warm-up
        names = ["".join(name for name, _ in rounds[n : n + 3]) for n in range(0, len(rounds), 3)]
        assert names == ["abc", "bca", "cab"] * 2 + ["abc"]

    def test_quartiles_enclose_the_median(self) -> None:
        times = iter([9.0, 9.0, *(0.1 * n for n in (5, 1, 4, 2, 3, 7, 6))])
        found = in_turns({"a": lambda calls: next(times) * calls}, seconds=0.0)["a"]
        assert (found.best, found.low, found.median, found.high) == pytest.approx((0.1, 0.25, 0.4, 0.55))

    def test_of_nothing_is_nothing(self) -> None:
        assert in_turns({}) == {}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in the intermediate format, and its ONNX file and torch folder."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("bench")
    source = folder / "hand.safetensors"
    ir_file.save(masked_stack(), source)
    api.convert(source, "onnx", folder / "hand.onnx", validate=False)
    api.convert(source, "torch", folder / "hand-torch", validate=False)
    return folder


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes packages look as if they were not installed."""
    found = importlib.util.find_spec

    def hide(*names: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in names else found(name))

    return hide


def test_a_model_is_timed_in_every_runtime(work: Path, command: Command) -> None:
    done = command(
        "bench", str(work / "hand.safetensors"), "--batch", "2", "--time", "9", "--seconds", "0.05", "--json"
    )
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["conditions"] == {"batch": 2, "length": 9, "threads": 1, "seconds": 0.05}
    assert document["shapes"] == {"x": [2, 9, FEATURES]}
    rows = {row["title"]: row for row in document["rows"]}
    assert list(rows) == [ONNX, "TorchScript", "PyTorch module", "The source"]
    for title in list(rows)[:3]:
        assert 0 < rows[title]["timing"]["best"] <= rows[title]["timing"]["median"] < 5
        assert rows[title]["load"] > 0
        assert rows[title]["version"]
    written = (work / "hand.onnx").stat().st_size  # with a verdict in it
    assert written - 100 < rows[ONNX]["bytes"] < written
    assert rows["The source"]["timing"] is None
    assert "intermediate format" in rows["The source"]["problem"]


def test_an_artefact_is_timed_as_it_is(work: Path, command: Command, without: Callable[..., None]) -> None:
    without("torch")
    done = command("bench", str(work / "hand.onnx"), "--time", "6", "--seconds", "0.05")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"x [1, 6, {FEATURES}], 1 thread\n")
    assert f"{ONNX}, hand.onnx" in done.stdout
    assert "1.00" in done.stdout
    assert "PyTorch" not in done.stdout


def test_a_stateful_model_gets_its_states(tmp_path: Path, without: Callable[..., None]) -> None:
    pytest.importorskip("onnxruntime")
    without("torch")
    source = tmp_path / "stateful.safetensors"
    ir_file.save(masked_stack(stateful=True), source)
    with pytest.raises(UsageError, match="batches of 3 only"):
        api.bench(source, batch=2)
    found = api.bench(source, batch=3, length=5, seconds=0.05)
    assert found.rows[0].timing is not None
    assert found.rows[1].problem.startswith("not installed: torch")


def test_indices_lie_within_their_table(tmp_path: Path, without: Callable[..., None]) -> None:
    pytest.importorskip("onnxruntime")
    without("torch")
    source = tmp_path / "words.safetensors"
    ir_file.save(embedded(), source)
    assert api.bench(source, length=30, seconds=0.05).rows[0].timing is not None


class TestRefusals:
    def test_nothing_is_installed(self, work: Path, without: Callable[..., None]) -> None:
        without("torch", "onnxruntime")
        with pytest.raises(MissingRuntime, match=r"normconvert\[all\]"):
            api.bench(work / "hand.safetensors")

    def test_a_program_that_fails_says_why(self, work: Path, tmp_path: Path) -> None:
        for ending in (".onnx", ".onnx.json"):
            (tmp_path / f"bad{ending}").write_bytes((work / f"hand{ending}").read_bytes())
        (tmp_path / "bad.onnx").write_bytes(b"no model")
        with pytest.raises(Unsupported, match=r"runs the model \(ONNX in onnxruntime, bad.onnx: .*Protobuf"):
            api.bench(tmp_path / "bad.onnx")

    def test_an_artefact_without_a_record(self, work: Path, tmp_path: Path) -> None:
        (tmp_path / "alone.onnx").write_bytes((work / "hand.onnx").read_bytes())
        with pytest.raises(UsageError, match="no record beside it"):
            api.bench(tmp_path / "alone.onnx")

    def test_a_record_that_says_nothing_of_inputs(self, work: Path, tmp_path: Path) -> None:
        (tmp_path / "odd.onnx").write_bytes((work / "hand.onnx").read_bytes())
        record = json.loads((work / "hand.onnx.json").read_text())
        record["inputs"] = [{"name": "x"}]
        (tmp_path / "odd.onnx.json").write_text(json.dumps(record))
        with pytest.raises(CorruptFile, match="what inputs the model takes"):
            api.bench(tmp_path / "odd.onnx")

    def test_a_saved_model(self, tmp_path: Path) -> None:
        (tmp_path / "net").mkdir()
        (tmp_path / "net" / "saved_model.pb").write_bytes(b"")
        with pytest.raises(Unsupported, match="a SavedModel without"):
            api.bench(tmp_path / "net")

    @pytest.mark.parametrize("words", [["--batch", "0"], ["--time", "x"], ["--threads", "-1"], ["--seconds", "0"]])
    def test_impossible_numbers(self, words: list[str], work: Path, command: Command) -> None:
        done = command("bench", str(work / "hand.onnx"), *words)
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")


@pytest.mark.framework
def test_a_keras_file_is_timed_in_keras(command: Command, without: Callable[..., None]) -> None:
    pytest.importorskip("tf_keras")
    without("torch", "onnxruntime")
    file = Path(__file__).parent.parent / "fixtures" / "conv_lstm_bn-keras2.h5"
    done = command("bench", str(file), "--time", "12", "--seconds", "0.05", "--json")
    assert done.exit_code == 0, done.stderr
    row = json.loads(done.stdout)["rows"][-1]
    assert row["title"] == "The source in tf_keras"
    assert row["timing"]["median"] > 0
    assert row["bytes"] == file.stat().st_size
