"""Keras files, read with h5py, zipfile and a JSON decoder: Keras itself is never imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from normconvert.cells import read_family
from normconvert.sources.keras.container import opened
from normconvert.sources.keras.reader import read_container
from normconvert.sources.reading import Plan, ReadResult


def read(
    path: Path, *, config: Path | None = None, recipe: Path | None = None, define: Mapping[str, Path] | None = None
) -> ReadResult:
    """Read a Keras model of any version.

    Args:
        path: `.h5`, `.hdf5`, `.keras`, `.weights.h5`, or a zip that holds one of them.
        config: the architecture JSON of a file of weights.
        recipe: a TOML recipe that gives the architecture.
        define: files that describe the user's own cell and layer classes, by class name.

    Raises:
        CorruptFile: the file is damaged, unsafe, or does not fit its configuration.
        Unsupported: a layer that is unknown or would need to run code.
        UsageError: the architecture is missing, or a recipe or definition cannot be read.
    """
    families = {name: read_family(file) for name, file in (define or {}).items()}
    with opened(path, config) as container:
        reading = read_container(container, families, {})
    return ReadResult(reading.model, Plan(reading.tensors, reading.assumptions, ""))
