"""The source file, run by the Keras that means the same by it as the Keras that wrote it.

Files of Keras 1, 2 and tf.keras go to `tf_keras`: Keras 3 loads many of them and computes something else, since it
changed `hard_sigmoid`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from normconvert.errors import MissingRuntime
from normconvert.ir.model import Array
from normconvert.runtimes.runner import Case, Outputs, Precision, RunError

TIMEOUT = 600.0
"""Seconds a framework may take to start, load the file and run every case."""

_MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")
_BACKENDS = ("tensorflow", "torch", "jax")


@dataclass(frozen=True)
class Answers:
    """What a framework computed.

    Attributes:
        rounded: the outputs of every case, in float32.
        exact: the same in float64; None if that failed.
        why_not_exact: how it failed.
        first_case: label of the first case.
        layers: what each layer gives there, in float32.
    """

    rounded: list[Outputs]
    exact: list[Outputs] | None
    why_not_exact: str
    first_case: str
    layers: dict[str, Array]


@dataclass
class KerasSource:
    """A Keras file in the framework that wrote it.

    Attributes:
        path: the file.
        package: `keras` (3) or `tf_keras` (2).
        inputs: names of the model's inputs, in order.
        config: the architecture JSON of a weights-only file.
        versions: known after a run.
        answers: of the one run there is; a source is asked once, with all cases.
    """

    path: Path
    package: str
    inputs: tuple[str, ...]
    config: Path | None = None
    versions: dict[str, str] = field(default_factory=dict)
    answers: Answers | None = None

    @property
    def title(self) -> str:
        """The package, with its version once it has run."""
        return " ".join(filter(None, [self.package, self.versions.get(self.package, "")]))

    def run(self, cases: Sequence[Case], precision: Precision) -> list[Outputs]:
        """Run every case, in a process of its own that answers for both precisions.

        Raises:
            MissingRuntime: the package or a backend for it is not installed.
            RunError: it cannot load or run the file; the reason is its own.
        """
        if self.answers is None:
            self.answers = self._ask(cases)
        exact = self.answers.exact
        if precision == "float64" and exact is None:
            raise RunError(f"{self.package} cannot run {self.path.name} in float64: {self.answers.why_not_exact}")
        return self.answers.rounded if precision == "float32" or exact is None else exact

    def trace(self, case: Case, precision: Precision) -> list[dict[str, Array]]:
        """The layers' values in float32 in the first case, once it has run; nothing for other cases."""
        if self.answers is None or case.label != self.answers.first_case or precision != "float32":
            return []
        return [self.answers.layers] if self.answers.layers else []

    def _backend(self) -> str:
        if importlib.util.find_spec(self.package) is None:
            raise MissingRuntime(
                f"{self.package} is not installed", remedy='Install it with pip install "normconvert[tf]"'
            )
        possible = _BACKENDS if self.package == "keras" else _BACKENDS[:1]
        backend = next((name for name in possible if importlib.util.find_spec(name) is not None), None)
        if backend is None:
            raise MissingRuntime(
                f"{self.package} has no backend here ({', '.join(possible)})",
                remedy='Install one with pip install "normconvert[tf]"',
            )
        return backend

    def _ask(self, cases: Sequence[Case]) -> Answers:
        backend = self._backend()
        with tempfile.TemporaryDirectory(prefix="normconvert-") as name:
            folder = Path(name)
            self._write_request(folder, cases)
            command = [sys.executable, "-m", "normconvert.runtimes.keras_worker", str(folder)]
            try:
                done = subprocess.run(
                    command, env=_environment(backend), capture_output=True, text=True, timeout=TIMEOUT, check=False
                )
            except subprocess.TimeoutExpired:
                raise RunError(f"{self.package} took more than {TIMEOUT:.0f} seconds") from None
            reason = _reason(done.stderr, done.returncode)
            if not (folder / "reply.json").exists():
                raise RunError(f"{self.package} cannot run {self.path.name}: {reason}")
            self.versions = json.loads((folder / "reply.json").read_text())
            rounded = _arrays(folder / "outputs.npz")
            exact = _arrays(folder / "exact.npz") if done.returncode == 0 else None
            return Answers(
                rounded=_outputs(rounded, cases),
                exact=None if exact is None else _outputs(exact, cases),
                why_not_exact=reason,
                first_case=cases[0].label,
                layers={name.partition("/")[2]: rounded[name] for name in rounded if name.startswith("layer/")},
            )

    def _write_request(self, folder: Path, cases: Sequence[Case]) -> None:
        request = {
            "package": self.package,
            "source": str(_unpacked(self.path.resolve(), folder)),
            "config": None if self.config is None else str(self.config.resolve()),
            "chunks": [len(case.chunks) for case in cases],
            "inputs": len(self.inputs),
        }
        (folder / "request.json").write_text(json.dumps(request))
        arrays = {
            f"{number}/{index}/{position}": _stored(chunk[name])
            for number, case in enumerate(cases)
            for index, chunk in enumerate(case.chunks)
            for position, name in enumerate(self.inputs)
        }
        np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]


def _unpacked(path: Path, folder: Path) -> Path:
    """The model file itself, where the reader accepted an archive that holds one."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        models = [name for name in archive.namelist() if name.lower().endswith(_MODEL_SUFFIXES)]
        if "config.json" in archive.namelist() or len(models) != 1:
            return path
        inner = folder / f"model{Path(models[0]).suffix.lower()}"
        inner.write_bytes(archive.read(models[0]))
        return inner


def _stored(array: Array) -> Array:
    return array.astype(np.int32 if np.issubdtype(array.dtype, np.integer) else np.float64)


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _outputs(arrays: Mapping[str, Array], cases: Sequence[Case]) -> list[Outputs]:
    count = sum(name.startswith("0/0/") for name in arrays)
    return [
        tuple(
            tuple(arrays[f"{number}/{index}/{position}"] for position in range(count))
            for index in range(len(case.chunks))
        )
        for number, case in enumerate(cases)
    ]


def _environment(backend: str) -> dict[str, str]:
    """One thread, no GPU, no fused kernels that round otherwise from one machine to the next, no log."""
    return {
        **os.environ,
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _reason(stderr: str, code: int) -> str:
    """The framework's own words: the line that names the exception, shortened."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    named = [
        line
        for line in lines
        if ": " in line and line.split(":")[0].rpartition(".")[2].endswith(("Error", "Exception"))
    ]
    message = (named or lines or [f"exit code {code}"])[-1]
    return message if len(message) <= 240 else message[:237] + "..."
