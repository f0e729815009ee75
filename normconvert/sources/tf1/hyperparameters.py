"""The settings of a cell that no array shows, each with its value and where that is from: what a recipe lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from normconvert.cells import family
from normconvert.cells.layout import parameters_in, parse_layout
from normconvert.ir.norm import Norm
from normconvert.sources.tf1.found import FoundCell
from normconvert.sources.tf1.single_step import differs_per_step
from normconvert.sources.toml import stripped

Settings = Mapping[str, tuple[Any, str]]
"""Values by dotted name (see `cells.settings`), each with where it is from."""

STRUCTURE = ("beta", "gamma", "features", "positions", "groups", "kind", "scope", "steps", "affine_per_step")
"""Fields of norms that the stored arrays show: a layout that sets one says what it stores."""

_BY_LAYOUT = "fixed by the layout"
_DEFAULT = "default"


def hyperparameters(cell: FoundCell, decided: Settings) -> dict[str, tuple[Any, str]]:
    """Every constant and function of a cell, and of its norms what is not stored.

    What is the same for all norms is named once, `norms.*.epsilon`.

    Args:
        cell: the cell.
        decided: what the graph or the user says; the rest is what the layout fixes, or the family's default.
    """
    chosen = family(cell.family)
    fixed = {name: (value, _BY_LAYOUT) for name, value in chosen.layout(cell.layout).settings.items()}
    fixed = {name: setting for name, setting in fixed.items() if name.rpartition(".")[2] not in STRUCTURE}
    known: dict[str, tuple[Any, str]] = {
        **{f"constants.{n}": (c.default, f"{_DEFAULT}: {c.source}".rstrip(": ")) for n, c in chosen.constants.items()},
        **{f"functions.{name}": (function, _DEFAULT) for name, function in chosen.functions.items()},
        **fixed,
        **decided,
    }
    found = {name: setting for name, setting in known.items() if not name.startswith("norms.")}
    of_norms = {name: setting for name, setting in known.items() if name.startswith("norms.")}
    for field in dict.fromkeys(["epsilon", "past_end", "momentum", *(name.split(".")[2] for name in of_norms)]):
        found |= _of_norms(field, cell, of_norms)
    return found


def norm_fields(cell: FoundCell, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The declarations of the norms that a checkpoint has of a cell, by their names.

    Args:
        cell: the cell.
        given: settings by dotted name, beside what the layout fixes.
    """
    chosen = family(cell.family)
    settings = {**chosen.layout(cell.layout).settings, **given}
    left_out = set(chosen.optional) - _stored(cell)
    declared = {name: dict(fields) for name, fields in chosen.norms.items() if name not in left_out}
    for name, fields in declared.items():
        for norm in ("*", name):
            fields |= {key.split(".")[2]: v for key, v in settings.items() if key.startswith(f"norms.{norm}.")}
    return declared


def _of_norms(field: str, cell: FoundCell, known: Settings) -> dict[str, tuple[Any, str]]:
    """One field of all norms: by the name of each, unless it is the same in all of them."""
    declared = norm_fields(cell, {name: stripped(value) for name, (value, _) in known.items()})
    values = [fields.get(field, _DEFAULTS[field]) for fields in declared.values()]
    shared, found = known.get(f"norms.*.{field}"), {}
    for (name, fields), value in zip(declared.items(), values, strict=True):
        setting = known.get(f"norms.{name}.{field}") or shared
        if setting or _matters(field, fields):
            found[f"norms.{name}.{field}"] = setting or (value, _DEFAULT)
    set_by_layout = family(cell.family).layout(cell.layout).settings.keys() & found.keys()
    if len(found) < 2 or set_by_layout or any(value != values[0] for value in values):
        return found
    first, *others = found.values()
    why = first[1] if all(other == first for other in others) else f"{first[1]}, and so for each norm"
    return {f"norms.*.{field}": (first[0], why)}


def _matters(field: str, declared: Mapping[str, Any]) -> bool:
    """Whether a norm reads a field that is to be listed though nothing but the family sets it."""
    if field == "past_end":
        return differs_per_step(declared)
    population = declared.get("kind") == "batch" and declared.get("source", "population") == "population"
    return field == "epsilon" or (field == "momentum" and population)


def _stored(cell: FoundCell) -> set[str]:
    """The parameters and norms of which a checkpoint has arrays."""
    layout = family(cell.family).layout(cell.layout)
    parts = [parse_layout(layout.tensors[name]) for name in cell.tensors if name in layout.tensors]
    return {parameter.partition(".")[0] for part in parts for parameter in parameters_in(part)}


_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(Norm)}
