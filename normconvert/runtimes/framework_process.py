"""Asks a framework in a process of its own, so that nothing it loads, changes or crashes touches this one.

A worker module is started as `python -m MODULE FOLDER`. The folder holds `request.json` and `inputs.npz`; the worker
writes its float32 answers to `outputs.npz`, then `reply.json` with its versions, then if it can its float64 answers to
`exact.npz`. Arrays are named `<case>/<chunk>/<position>`. A worker that fails ends with a reason on the error stream.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normconvert.ir.model import Array
from normconvert.runtimes.runner import Case, Outputs, RunError

TIMEOUT = 600.0
"""Seconds a framework may take to start, load the file and run every case."""


@dataclass(frozen=True)
class Answers:
    """What a framework computed.

    Attributes:
        rounded: the arrays in float32, by name.
        exact: the same in float64; None if that failed, or the worker has no such answer.
        why_not_exact: how it failed.
        versions: of the framework.
    """

    rounded: dict[str, Array]
    exact: dict[str, Array] | None
    why_not_exact: str
    versions: dict[str, str]


def ask(
    worker: str,
    request: Callable[[Path], Mapping[str, Any]],
    arrays: Mapping[str, Array],
    *,
    framework: str,
    file: str,
    environment: Mapping[str, str],
) -> Answers:
    """Start a worker, and wait for its answers.

    Args:
        worker: the module.
        request: makes the request, and may put files into the folder.
        arrays: the inputs, by name.
        framework, file: how an error names what runs and what is run.
        environment: variables to set besides those that every worker gets.

    Raises:
        RunError: it gave no answer in float32; the reason is its own.
    """
    with tempfile.TemporaryDirectory(prefix="normconvert-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(json.dumps(request(folder)))
        np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]
        command = [sys.executable, "-m", worker, str(folder)]
        variables = {**os.environ, **REPRODUCIBLE, **environment}
        try:
            done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            raise RunError(f"{framework} took more than {TIMEOUT:.0f} seconds") from None
        why, exact = failure(done.stderr, done.returncode), folder / "exact.npz"
        if not (folder / "reply.json").exists():
            raise RunError(f"{framework} cannot run {file}: {why}")
        return Answers(
            rounded=_arrays(folder / "outputs.npz"),
            exact=_arrays(exact) if done.returncode == 0 and exact.exists() else None,
            why_not_exact=why,
            versions=json.loads((folder / "reply.json").read_text()),
        )


_COLOUR = re.compile(r"\x1b\[\d+m")

REPRODUCIBLE = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
"""One thread, no GPU, no fused kernels that round otherwise from one machine to the next, no log."""


def named(cases: Sequence[Case], inputs: Sequence[str]) -> dict[str, Array]:
    """The inputs of every case, by `<case>/<chunk>/<position>`; numbers in float64, indices in int32."""
    return {
        f"{number}/{index}/{position}": _stored(chunk[name])
        for number, case in enumerate(cases)
        for index, chunk in enumerate(case.chunks)
        for position, name in enumerate(inputs)
    }


def outputs(arrays: Mapping[str, Array], cases: Sequence[Case]) -> list[Outputs]:
    """The outputs of every case from arrays by `<case>/<chunk>/<position>`."""
    count = sum(name.startswith("0/0/") for name in arrays)
    return [
        tuple(
            tuple(arrays[f"{number}/{index}/{position}"] for position in range(count))
            for index in range(len(case.chunks))
        )
        for number, case in enumerate(cases)
    ]


def _stored(array: Array) -> Array:
    return array.astype(np.int32 if np.issubdtype(array.dtype, np.integer) else np.float64)


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def failure(stderr: str, code: int) -> str:
    """The framework's own words: the line that names the exception, shortened."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    found = [
        line
        for line in lines
        if ": " in line and line.split(":")[0].rpartition(".")[2].endswith(("Error", "Exception"))
    ]
    message = (found or lines or [f"exit code {code}"])[-1]
    if found and message.endswith("()."):  # Keras: where it happened; what happened is the next line
        after = lines[max(n for n, line in enumerate(lines) if line == message) + 1 :]
        message = f"{message} {_COLOUR.sub('', after[0])}" if after else message
    return message if len(message) <= 240 else message[:237] + "..."
