"""Which runners take part in a proof: the artefact, and the framework that wrote the source."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from normconvert.artefacts import Reading, runner_for
from normconvert.errors import UsageError
from normconvert.ir.model import Model
from normconvert.runtimes.interpreted import Interpreted
from normconvert.runtimes.keras_source import KerasSource
from normconvert.runtimes.runner import Runner
from normconvert.targets import Target
from normconvert.validation.equivalence import prove
from normconvert.validation.report import Report

Progress = Callable[[str], None]
_VERSION = re.compile(r"(\d+)\.\d")


def prove_artefact(
    model: Model, kind: Target, artefact: Path, *, source: Path, reading: Reading, progress: Progress
) -> Report:
    """Compare an artefact with the model read from `source`."""
    return _prove(model, runner_for(kind, artefact, model), source, reading, progress)


def prove_model(model: Model, other: Model, name: str, *, source: Path, reading: Reading, progress: Progress) -> Report:
    """Compare a model read from a file with the model read from `source`.

    Raises:
        UsageError: they do not have as many inputs.
    """
    if len(model.inputs) != len(other.inputs):
        raise UsageError(f"has {len(other.inputs)} inputs, the reference has {len(model.inputs)}", where=name)
    return _prove(model, Interpreted(other, f"{name} in the NumPy interpreter"), source, reading, progress)


def _prove(model: Model, target: Runner, source: Path, reading: Reading, progress: Progress) -> Report:
    runner, note = source_runner(source, model, reading)
    return prove(
        model,
        target,
        source=runner,
        source_note=note,
        reference_title=f"{source.name}, the interpreter in float64",
        progress=progress,
    )


def source_runner(source: Path, model: Model, reading: Reading) -> tuple[Runner | None, str]:
    """What can run the source file itself; or None, and why."""
    provenance = model.provenance
    if source.suffix == ".safetensors":
        return None, "the intermediate format has no framework of its own"
    if not provenance.format.startswith("keras"):
        return None, f"files of the format {provenance.format or 'unknown'} cannot be run"
    if reading.recipe is not None:
        return None, "the recipe says what is computed, not the file alone"
    if reading.define:
        return None, "the file holds classes that only their authors' code defines"
    version = _VERSION.search(provenance.framework)
    package = "keras" if version is not None and int(version[1]) >= 3 else "tf_keras"
    inputs = tuple(declared.name for declared in model.inputs)
    return KerasSource(source, package, inputs, reading.config), ""
