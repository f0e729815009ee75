"""What `scripts/bench_onnx` keeps of a run and prints of it; nothing is timed here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])


def measured(path: Path | None, *, ours: float = 2.0) -> Any:
    """Results of one size with native at 1 ms and ours at a multiple of it, tf2onnx at 3 ms."""
    from benchmark_exports import Artefact
    from benchmark_results import Cell, Results

    from normconvert.benchmarking.timing import Timing

    results = Results.read(path)
    results.add_run(command="scripts/bench_onnx", python="3.11", versions="onnx 1", cores=2, load=0.1)
    results.add_artefacts("LN-GRU", 128, {"ours": Artefact(0.01, 2048, 0.001), "native": Artefact(problem="none")})
    times = {"native": [1e-3, 1.1e-3, 0.9e-3], "tf2onnx": [3e-3, 3.3e-3, 2.7e-3]}
    times["ours"] = [ours * each for each in times["native"]]
    timings = {name: Timing.of(each, 4) for name, each in times.items()}
    results.add_cell((1, "LN-GRU", 128, 100, 32), Cell(timings, {"eager": "wrong outputs"}, {"ours": 3e-7}))
    return results


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    from benchmark_results import Results

    path = tmp_path / "numbers.jsonl"
    before = measured(path)
    with path.open("a") as file:
        file.write('{"record": "size", "key": [1, "LN-')
    after = Results.read(path)
    assert (after.found, after.artefacts, after.runs) == (before.found, before.artefacts, before.runs)


def test_files_of_an_earlier_run_keep_their_times(tmp_path: Path) -> None:
    from benchmark_exports import Artefact
    from benchmark_results import Results

    path = tmp_path / "numbers.jsonl"
    measured(path).add_artefacts("LN-GRU", 128, {"ours": Artefact(9.0, 1, 9.0), "tf2onnx": Artefact(2.0, 3, 4.0)})
    files = Results.read(path).artefacts["LN-GRU", 128]
    assert (files["ours"].seconds, files["tf2onnx"].seconds) == (0.01, 2.0)


@pytest.mark.parametrize(("ours", "reached"), [(1.2, "1 of 1"), (1.4, "0 of 1")])
def test_tables(ours: float, reached: str) -> None:
    import benchmark_report

    results = measured(None, ours=ours)
    for text in (benchmark_report.full(results), benchmark_report.summary(results)):
        assert f"| at most 1.3 x native, batch >= 32 | {reached} | {ours:.2f} | LN-GRU, units 128" in text
        assert "| faster than tf2onnx | 1 of 1 |" in text
        assert f"| LN-GRU | 128 | {ours:.2f} to {ours:.2f} |" in text
    assert f"| LN-GRU | 32 | 1.00 ms | {ours:.2f} ms | {ours:.2f} | {3 / ours:.1f} |" in text
    assert "not timed: eager at (1, 'LN-GRU', 128, 100, 32): wrong outputs" in benchmark_report.full(results)


def test_time_is_divided_among_sizes() -> None:
    from benchmark_grid import FULL, in_order, within

    todo = in_order(["LSTM"], [1, 2], FULL)
    assert len(todo) == 2 * 4 * 3 * 4 == len(set(todo))
    assert [key[2] for key in todo] == sorted((key[2] for key in todo), key=(128, 64, 256, 512).index)
    long, short = within(500, 3), within(1, 3)
    assert long(todo).seconds > short(todo).seconds > 0
    assert not long(todo).slow
    slowest = long([(1, "LSTM", 512, 784, 64)])
    assert slowest.slow
    assert slowest.least == 2
    assert within(0, 3)(todo) is None


def test_slow_programs_are_not_called_to_warm_up() -> None:
    from normconvert.benchmarking.timing import in_turns

    calls: list[int] = []

    def turn(count: int) -> float:
        calls.append(count)
        return 0.5 * count

    found = in_turns({"slow": turn}, seconds=0.0, least=2, ready=["slow"])["slow"]
    assert (calls, found.rounds, found.median) == ([1, 1], 2, 0.5)
