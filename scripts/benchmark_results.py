"""What `bench_onnx` has measured, as lines of JSON: each is written as soon as it is known, so that a run can go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmark_exports import Artefact

from normconvert.benchmarking.timing import Timing

Key = tuple[int, str, int, int, int]
"""Threads, cell, units, length, batch."""


@dataclass
class Cell:
    """What was measured at one size: timings by contender, and why others have none."""

    timings: dict[str, Timing] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)


@dataclass
class Results:
    """Everything measured so far.

    Attributes:
        path: the file it is kept in, or None.
        runs: of each run, the versions, the machine and the command.
        artefacts: files by cell and units, and by contender.
        found: measurements.
    """

    path: Path | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)
    artefacts: dict[tuple[str, int], dict[str, Artefact]] = field(default_factory=dict)
    found: dict[Key, Cell] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> Results:
        """The content of a file; nothing if there is none. A last line that was cut off is left out."""
        results = cls(path)
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            _READERS[record.pop("record")](results, **record)
        return results

    def add_run(self, **facts: Any) -> None:
        self.runs.append(facts)
        self._write("run", facts=facts)

    def add_artefacts(self, cell: str, units: int, files: dict[str, Artefact]) -> None:
        """Note files; what is known of them from a run before stays."""
        self.artefacts[cell, units] = {**files, **self.artefacts.get((cell, units), {})}
        self._write("files", pair=[cell, units], files={name: asdict(each) for name, each in files.items()})

    def add_cell(self, key: Key, cell: Cell) -> None:
        self.found[key] = cell
        timings = {
            name: {"calls": each.calls, "times": [float(f"{seconds:.4g}") for seconds in each.times]}
            for name, each in cell.timings.items()
        }
        self._write("size", key=list(key), timings=timings, problems=cell.problems, errors=cell.errors)

    def _write(self, record: str, **content: Any) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({"record": record, **content}) + "\n")


def _read_run(results: Results, facts: dict[str, Any]) -> None:
    results.runs.append(facts)


def _read_files(results: Results, pair: list[Any], files: dict[str, Any]) -> None:
    found = {name: Artefact(**each) for name, each in files.items()}
    results.artefacts[pair[0], pair[1]] = {**found, **results.artefacts.get((pair[0], pair[1]), {})}


def _read_size(results: Results, key: list[Any], timings: Any, problems: Any, errors: Any) -> None:
    found = {name: Timing.of(each["times"], each["calls"]) for name, each in timings.items()}
    threads, cell, units, length, batch = key
    results.found[threads, cell, units, length, batch] = Cell(found, problems, errors)


_READERS = {"run": _read_run, "files": _read_files, "size": _read_size}
