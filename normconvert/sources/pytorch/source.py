"""A PyTorch file as a source: reading it, and saying how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from normconvert.errors import Unsupported, UsageError
from normconvert.sources.pytorch import activations as _activations
from normconvert.sources.pytorch import recurrent as _recurrent
from normconvert.sources.pytorch import space as _space
from normconvert.sources.pytorch import weighted as _weighted
from normconvert.sources.pytorch.checkpoint import TorchFile, open_torch
from normconvert.sources.pytorch.classes import with_meanings
from normconvert.sources.pytorch.dead_values import without_dead
from normconvert.sources.pytorch.kaldi import described_by_cfg
from normconvert.sources.pytorch.plain import surveyed_modules
from normconvert.sources.pytorch.spoken import in_dots, in_slashes, speaking, tensor_uses
from normconvert.sources.reading import Plan, Reading, ReadResult
from normconvert.sources.tf1.averages import refuse_averages_alone, suggesting_averages, under_own_names
from normconvert.sources.tf1.beside import graph_beside
from normconvert.sources.tf1.checkpoint import Checkpoint
from normconvert.sources.tf1.detection import find_cells
from normconvert.sources.tf1.extraction import extracted
from normconvert.sources.tf1.found import FoundCell
from normconvert.sources.tf1.groups import layers_under
from normconvert.sources.tf1.naming import joined
from normconvert.sources.tf1.reader import Described, build, read_recipe_file
from normconvert.sources.tf1.roles import stored_for_inference
from normconvert.sources.tf1.source import check_options, moving_averages
from normconvert.sources.tf1.survey import survey_of
from normconvert.sources.tf1.surveyed import Aside, Survey
from normconvert.sources.toml import write_toml

HANDLER_MODULES = (_activations, _recurrent, _space, _weighted)
"""Imported for the layers they register."""


def read(path: Path, reading: Reading) -> ReadResult:
    """Read a model, or one layer of it.

    Args:
        path: what `torch.save`, `torch.jit.save` or safetensors wrote.
        reading: the recipe, or the scope of a layer, and what else the user decided.

    Raises:
        CorruptFile: the file is damaged, or loading it would run code.
        Unsupported: it is a whole pickled model, or something about a cell or layer is not known.
        UsageError: the options do not fit it.
    """
    _check_options(path, reading)
    file = open_torch(path)
    with speaking(file), suggesting_averages(file):
        checkpoint = under_own_names(file) if reading.ema else file
        described = _described(checkpoint, file, reading)
        if described is None:
            raise Unsupported(
                "a state dict holds tensors, but not which modules use them in which order",
                where=file.place,
                remedy="Take out one layer with --scope (see 'normconvert inspect'); or run 'normconvert plan', "
                "complete the recipe and pass it with --recipe",
            )
        return _built(checkpoint, file, described, reading)


def plan(path: Path, reading: Reading) -> Plan:
    """How a file is or would be read; arguments and errors as in `read`.

    Where nothing says how the modules follow each other, the recipe is what names and shapes suggest.
    """
    _check_options(path, reading)
    file = open_torch(path)
    with speaking(file), suggesting_averages(file):
        checkpoint = under_own_names(file) if reading.ema else file
        described = _described(checkpoint, file, reading)
        if described is not None:
            return _built(checkpoint, file, described, reading).plan
        refuse_averages_alone(file)
        from normconvert.sources.pytorch.suggestion import suggested

        return suggested(file)


def survey(path: Path) -> Survey:
    """What a file holds, where no recipe says what its tensors are for.

    Raises:
        CorruptFile, Unsupported: as in `read`.
    """
    file = open_torch(path)
    with speaking(file):
        found = survey_of(file, surveyed_modules)
    told: Survey = msgspec.convert(in_dots(msgspec.to_builtins(found), file), Survey)
    reasons: dict[str, dict[str, str]] = {}
    for each in file.aside:
        reasons.setdefault(each.reason, {})[each.name] = ""
    aside = (*told.aside, *(Aside(reason, names) for reason, names in reasons.items()))
    return msgspec.structs.replace(told, aside=aside)


def _check_options(path: Path, reading: Reading) -> None:
    """As for checkpoints of TensorFlow, but a cfg of pytorch-kaldi is a configuration."""
    check_options(path, replace(reading, config=None))
    if reading.config is not None and (reading.recipe is not None or reading.scope is not None):
        raise UsageError("a cfg says what is read; --recipe and --scope do not go with it", where=str(path))


def _described(checkpoint: Checkpoint, file: TorchFile, reading: Reading) -> Described | None:
    if reading.config is not None:
        return described_by_cfg(file, reading.config)
    if reading.recipe is not None:
        described = read_recipe_file(reading.recipe, reading.define)
        return replace(described, document=in_slashes(described.document, file))
    cells = find_cells(checkpoint.variables, framework="torch")
    scope = _only(checkpoint, cells) if reading.scope is None else reading.scope.replace(".", "/")
    if scope is None:
        return None
    scoped = replace(reading, scope=scope)
    return extracted(checkpoint, cells, scoped, graph_beside(checkpoint))


def _only(checkpoint: Checkpoint, cells: Sequence[FoundCell]) -> str | None:
    """The top, where all tensors belong to one layer or stack; None where there is more in the file."""
    explained = {name for cell in cells for names in cell.tensors.values() for name in names}
    explained |= {joined(cell.scope, name) for cell in cells for name in cell.unused}
    if not cells or not stored_for_inference(checkpoint.variables).keys() <= explained:
        return None
    try:
        layers_under("", cells)
    except UsageError:
        return None
    return ""


def _built(checkpoint: Checkpoint, file: TorchFile, described: Described, reading: Reading) -> ReadResult:
    meant = replace(described, document=with_meanings(described.document))
    result = build(checkpoint, meant, reading, moving_averages(checkpoint, reading))
    model = without_dead(result.model)
    provenance = msgspec.structs.replace(
        model.provenance,
        notes=in_dots(model.provenance.notes, file),
        warnings=in_dots(model.provenance.warnings, file),
    )
    recipe = write_toml(in_dots(described.document, file))
    plan = replace(result.plan, tensors=tensor_uses(result.plan, file), recipe=recipe)
    return replace(result, model=replace(model, provenance=provenance), plan=plan)
