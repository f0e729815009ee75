"""A cell's weights as the tensors of a layout, where the layout's class computes the same.

The equations decide: they are matched with the family's, gates are permuted by their names, statistics with them. What
the class fixes (an epsilon, the step past the last statistics) must be what the cell has. The tensors are then read
back, and must give the cell's arrays bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from normconvert.cells import Family
from normconvert.cells.binding import without_neutral
from normconvert.cells.layout import parameters_in, parse_layout
from normconvert.cells.matching import Difference, Match, equation_text, match
from normconvert.cells.settings import LINEAR, decided
from normconvert.errors import NormconvertError, Unsupported
from normconvert.ir.cell import STATISTICS, Cell
from normconvert.ir.expressions import Call, Equations, Name, walk
from normconvert.ir.layers import Activation
from normconvert.ir.model import Array
from normconvert.ir.norm import Norm
from normconvert.ir.parser import parse
from normconvert.targets.layouts.choosing import Chosen
from normconvert.targets.layouts.plain import as_plain

STEP = "{step}"
"""Stands in the name of a layout's tensor for the number of the time step."""

_IDENTIFYING = ("kind", "groups", "epsilon", "epsilon_placement", "unbiased", "pooled", "source", "scope", "past_end")
"""Fields of a norm that change what it computes and that no tensor shows."""


@dataclass(frozen=True)
class StoredCell:
    """A cell in a layout.

    Attributes:
        chosen: the layout.
        tensors: by the layout's names; one with `{step}` in its name has a row per time step.
        settings: what tensors do not carry, by dotted name: what the class must be constructed with.
        notes: those of them that are not the class's defaults, one sentence each.
    """

    chosen: Chosen
    tensors: dict[str, Array]
    settings: dict[str, Any]
    notes: tuple[str, ...]


def store_cell(cell: Cell, weights: Mapping[str, Array], chosen: Chosen) -> StoredCell:
    """Store a cell.

    Raises:
        Unsupported: the layout's class computes something else; shows the differing equation or setting.
    """
    try:
        return _store(cell, weights, chosen)
    except NormconvertError as error:
        plain = as_plain(cell, weights, chosen.family)
        if plain is None:
            raise error from None
        return _store(*plain, chosen)


def rebuilt(stored: StoredCell, tensors: Mapping[str, Array]) -> tuple[Cell, dict[str, Array]]:
    """The cell that tensors of a layout hold."""
    return stored.chosen.family.build(stored.chosen.layout, tensors, settings=stored.settings)


def _store(cell: Cell, weights: Mapping[str, Array], chosen: Chosen) -> StoredCell:
    family = chosen.family
    found = match(cell, family)
    if isinstance(found, Difference):
        raise Unsupported(f"the cell is not what {chosen.title} computes: {found}")
    _refuse_other_axes(cell, found, chosen)
    settings, notes = _settings(cell, found, chosen)
    arrays = _completed(found.arrays(weights), cell, found, chosen)
    tensors = family.store(chosen.layout, cell, arrays)
    told = family.sizes(chosen.layout, {name: array.shape for name, array in tensors.items()})
    settings |= {f"dims.{name}": size for name, size in cell.dims.items() if name not in told}
    stored = StoredCell(chosen, tensors, settings, tuple(notes))
    _check(stored, arrays)
    return stored


def _refuse_other_axes(cell: Cell, found: Match, chosen: Chosen) -> None:
    """Refuse a convolution over images where the layout's is over sequences, which reads the same as an equation."""
    for name, shape in chosen.family.parameters.items():
        own = cell.parameters.get(found.names.get(name, ""))
        if own is not None and len(own) != len(shape):
            raise Unsupported(
                f"the cell is not what {chosen.title} computes: {name} has {len(own)} axes, and there it has "
                f"{len(shape)}{_in(_using(cell, found, name))}"
            )


def _completed(arrays: dict[str, Array], cell: Cell, found: Match, chosen: Chosen) -> dict[str, Array]:
    """The arrays that the layout stores: neutral ones where the cell has none, neutral ones left out."""
    family, layout = chosen.family, chosen.declared
    parts = {name: parameters_in(parse_layout(text)) for name, text in layout.tensors.items()}
    wanted = set().union(*parts.values())
    for name in sorted(arrays.keys() - wanted):
        if not _is_neutral(name, arrays[name]):
            place = _in(_using(cell, found, name.partition(".")[0]))
            raise Unsupported(f"{chosen.title} stores no {name}, and that of the cell is not neutral{place}")
        del arrays[name]
    may_lack = family.optional_in(chosen.layout)
    owners = {name.partition(".")[0] for name in arrays}
    together = {name for names in parts.values() if names & arrays.keys() for name in names}
    missing = {
        name
        for name in wanted - arrays.keys()
        if name in together
        or (name in layout.together and owners & set(layout.together))
        or name.partition(".")[0] in owners
        or name.partition(".")[0] not in may_lack
    }
    if not missing:
        return arrays
    known = {
        name: family.store(chosen.layout, cell, arrays)[name] for name, names in parts.items() if names <= arrays.keys()
    }
    sizes = family.sizes(chosen.layout, {name: array.shape for name, array in known.items()})
    steps = next((norm.steps for norm in cell.norms.values() if norm.steps is not None), None)
    sizes = {**sizes, **({"steps": steps} if steps is not None else {})}
    shapes = family.shapes(family.norms)
    dtype = next(iter(arrays.values())).dtype
    for name in sorted(missing):
        _refuse_always(name.partition(".")[0], found, chosen)
        role = name.rpartition(".")[2]
        if not _is_unread(role, cell, found, name) and (
            role in STATISTICS or (role == name and name not in family.optional)
        ):
            raise Unsupported(f"{chosen.title} stores {name}, which the cell does not have")
        if any(symbol not in sizes for bound in shapes[name] for symbol, _ in bound.terms):
            raise Unsupported(f"{chosen.title} stores {name}, whose size nothing tells")
        shape = tuple(bound.resolve(sizes) for bound in shapes[name])
        arrays[name] = (np.ones if role in ("gamma", "variance") else np.zeros)(shape, dtype)
    return arrays


def _refuse_always(name: str, found: Match, chosen: Chosen) -> None:
    """Refuse a cell without a norm that the layout's class always has: no scale and offset make up for it."""
    if name in chosen.family.norms and name not in found.names:
        raise Unsupported(
            f"the cell is not what {chosen.title} computes: it has no norm {name}, and there it is always applied"
            f"{_in(_equation_with(parse(chosen.family.equations), name))}"
        )


def _is_unread(role: str, cell: Cell, found: Match, name: str) -> bool:
    """Whether a layout stores statistics that nothing reads, because the norm takes those of the batch at hand."""
    norm = found.names.get(name.partition(".")[0], "")
    return role in STATISTICS and norm in cell.norms and cell.norms[norm].source == "batch"


def _is_neutral(name: str, array: Array) -> bool:
    role = name.rpartition(".")[2]
    if role == "gamma":
        return bool((array == 1).all())
    return role not in STATISTICS and array.ndim == 1 and not array.any()


def _settings(cell: Cell, found: Match, chosen: Chosen) -> tuple[dict[str, Any], list[str]]:
    """What the tensors do not carry, and what of it the user must give the class."""
    family, layout = chosen.family, chosen.declared
    expected = decided({n: info.default for n, info in family.constants.items()}, {}, layout, {}, {})
    settings: dict[str, Any] = {}
    notes = []
    for name in family.constants:
        value = _constant(cell, found, name, family)
        settings[f"constants.{name}"] = value
        if value != expected.constants[name]:
            _refuse_fixed(chosen, f"constants.{name}", expected.constants[name], value, _using(cell, found, name))
            notes.append(f"The class must be given {name} = {value:g}.")
    for name, default in family.functions.items():
        function = found.functions.get(name, Activation(default))
        settings[f"functions.{name}"] = _spelled(function)
        wanted = expected.functions.get(name, Activation(default))
        if function != wanted:
            _refuse_fixed(chosen, f"functions.{name}", _spelled(wanted), _spelled(function))
            notes.append(f"The class must be given {name} = {_spelled(function)}.")
    settings |= {f"options.{name}": value for name, value in found.options.items()}
    for name, declared in family.norms.items():
        if name in found.names:
            norm = cell.norms[found.names[name]]
            where = _using(cell, found, name)
            settings |= _norm_settings(norm, name, {**declared, **expected.of_norm(name)}, chosen, where)
    return settings, notes


def _constant(cell: Cell, found: Match, name: str, family: Family) -> float:
    """A constant's value; one whose term is not there does nothing: 0 of a sum, infinity of a clip."""
    if name in found.numbers:
        return found.numbers[name]
    if name in found.names:
        return cell.constants[found.names[name]]
    equations = parse(family.equations)
    return 0.0 if without_neutral(equations, name, 0.0) != equations else math.inf


def _using(cell: Cell, found: Match, name: str) -> str:
    """The equation in which a cell has a constant or norm of the family; empty where none has."""
    return _equation_with(cell.parsed(), found.names.get(name))


def _equation_with(equations: Equations, name: str | None) -> str:
    """The first equation that reads a name or calls a norm; empty where none does."""
    for equation in equations.body:
        if any(isinstance(node, Name | Call) and name == _name_of(node) for node in walk(equation.value)):
            return equation_text(equation)
    return ""


def _name_of(node: Name | Call) -> str:
    return node.name if isinstance(node, Name) else node.function


def _norm_settings(norm: Norm, name: str, declared: Mapping[str, Any], chosen: Chosen, where: str) -> dict[str, Any]:
    defaults = {field.name: field.default for field in msgspec.structs.fields(Norm)}
    settings: dict[str, Any] = {}
    for key in _IDENTIFYING:
        value, expected = getattr(norm, key), declared.get(key, defaults.get(key))
        if isinstance(expected, str) and key == "groups":
            continue
        settings[f"norms.{name}.{key}"] = value
        if value != expected:
            _refuse_fixed(chosen, f"norms.{name}.{key}", expected, value, where, of_norm=True)
    settings[f"norms.{name}.momentum"] = norm.momentum
    return settings


def _refuse_fixed(
    chosen: Chosen, setting: str, expected: object, value: object, where: str = "", *, of_norm: bool = False
) -> None:
    """Refuse a value that the layout's class cannot be given, and show the equation that has it."""
    layout = chosen.declared
    pattern = f"norms.*.{setting.rpartition('.')[2]}"
    open_here = [each for each in layout.open if each.setting in (setting, pattern)]
    fixed = of_norm or setting in layout.settings
    if setting.startswith("functions.") and open_here and value not in open_here[0].options:
        expected = " or ".join(map(str, open_here[0].options))
    elif open_here or not fixed:
        return
    raise Unsupported(
        f"the cell is not what {chosen.title} computes: {setting} is {value}, and there it is {expected}{_in(where)}"
    )


def _in(equation: str) -> str:
    return f", in '{equation}'" if equation else ""


def _spelled(function: Activation | None) -> Any:
    if function is None:
        return LINEAR
    return [function.function, *function.parameters] if function.parameters else function.function


def _check(stored: StoredCell, arrays: Mapping[str, Array]) -> None:
    """Reading the tensors back gives the same arrays, bit by bit."""
    _, found = rebuilt(stored, stored.tensors)
    for name, array in arrays.items():
        if name not in found and name.rpartition(".")[2] in STATISTICS:
            continue  # stored and not read
        if name not in found or found[name].tobytes() != np.asarray(array, found[name].dtype).tobytes():
            raise Unsupported(f"{stored.chosen.title} does not give {name} back as it is")
