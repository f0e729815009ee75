"""A TF1 checkpoint as a source: reading it, and saying how it is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from normconvert.errors import Unsupported, UsageError
from normconvert.sources.reading import Plan, Reading, ReadResult
from normconvert.sources.tf1.averages import (
    all_averages,
    refuse_averages_alone,
    suggesting_averages,
    under_own_names,
)
from normconvert.sources.tf1.beside import graph_beside, whole_model, with_averages, with_constants
from normconvert.sources.tf1.checkpoint import Checkpoint
from normconvert.sources.tf1.detection import find_cells
from normconvert.sources.tf1.extraction import extracted
from normconvert.sources.tf1.graph_cells import with_families
from normconvert.sources.tf1.opening import open_checkpoint
from normconvert.sources.tf1.reader import Described, build, read_recipe_file, undescribed


def read(path: Path, reading: Reading) -> ReadResult:
    """Read a model, or one layer of it.

    Args:
        path: the checkpoint's prefix, its `.index` or `.meta`, or the folder that holds it.
        reading: the recipe, or the scope of a layer, and what else the user decided.

    Raises:
        CorruptFile: the checkpoint is damaged, or a part of it is missing.
        Unsupported: the layers or something about a cell is not known.
        UsageError: the options do not fit the checkpoint.
    """
    checkpoint = _opened(path, reading)
    with suggesting_averages(checkpoint):
        try:
            described = _described(checkpoint, reading)
            if described is None:
                raise undescribed(checkpoint)
        except Unsupported:
            checkpoint.sha256()  # no option helps where a data file is missing: that is said first
            raise
        return _built(checkpoint, described, reading)


def plan(path: Path, reading: Reading) -> Plan:
    """How a checkpoint is or would be read; arguments and errors as in `read`.

    Where nothing says how the layers follow each other, the recipe is what names and shapes suggest.
    """
    checkpoint, why = _opened(path, reading), ""
    with suggesting_averages(checkpoint):
        try:
            described = _described(checkpoint, reading)
        except Unsupported as error:
            if reading.recipe is not None or reading.scope is not None or reading.outputs:
                raise
            described, why = None, str(error)
        if described is not None:
            return _built(checkpoint, described, reading).plan
    refuse_averages_alone(checkpoint)
    from normconvert.sources.tf1.suggestion import suggested

    return suggested(checkpoint, graph_beside(checkpoint), why)


def _built(checkpoint: Checkpoint, described: Described, reading: Reading) -> ReadResult:
    averages = moving_averages(checkpoint, reading)
    described = replace(described, reference=with_averages(described.reference, averages))
    return build(checkpoint, described, reading, averages)


def _opened(path: Path, reading: Reading) -> Checkpoint:
    check_options(path, reading)
    checkpoint = open_checkpoint(path)
    return under_own_names(checkpoint) if reading.ema else checkpoint


def check_options(path: Path, reading: Reading) -> None:
    """UsageError if what the user says is not about a checkpoint, or contradicts itself."""
    if reading.config is not None or (reading.define and reading.recipe is None):
        raise UsageError("a checkpoint takes no configuration or definition", where=str(path), remedy="Write a recipe")
    if reading.settings and reading.scope is None:
        raise UsageError("--set is about a cell that --scope takes out", where=str(path), remedy="Write a recipe")
    if reading.recipe is not None and (reading.scope is not None or reading.family is not None):
        raise UsageError("a recipe says what is read; --scope and --family do not go with it", where=str(path))


def moving_averages(checkpoint: Checkpoint, reading: Reading) -> dict[str, str]:
    """The stored name of every moving average by its variable's, if the user wants them.

    Raises:
        UsageError: there are none.
    """
    if not reading.ema:
        return {}
    averages = all_averages(checkpoint)
    if not averages:
        raise UsageError("holds no moving averages", where=checkpoint.place, remedy="Leave --ema out")
    return averages


def _described(checkpoint: Checkpoint, reading: Reading) -> Described | None:
    """What the recipe, the scope or the graph says; None where there is nothing of the kind."""
    if reading.recipe is not None:
        return with_constants(read_recipe_file(reading.recipe, reading.define), checkpoint)
    if reading.scope is not None:
        return extracted(checkpoint, find_cells(checkpoint.variables), reading, graph_beside(checkpoint))
    beside = graph_beside(checkpoint)
    described = whole_model(beside, reading.outputs)
    if described is None:
        return None
    cells = find_cells(checkpoint.variables)
    return replace(described, document=with_families(described.document, cells, beside))
