"""Does a family file say what can be said? Checked when it is read, so that a mistake is found with its place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from normconvert.cells.family import Family
from normconvert.cells.layout import Shape, assemble, parameters_in, parse_layout
from normconvert.cells.norm_fields import Fields, Size, bound, norm_from
from normconvert.errors import NormconvertError, UsageError
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.norm import Norm
from normconvert.ir.parser import parse
from normconvert.ir.sizes import parse_size
from normconvert.ir.values import suggestion

_TRIAL_SIZES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
"""Primes, so that no axis is a multiple of the number of gates by chance."""


def check_family(family: Family) -> None:
    """Check everything that needs no tensors.

    Raises:
        UsageError: something is wrong; `where` is the place in the file, `norms.ln_x` or `layouts.keras.kernel`.
    """
    with _place("equations"):
        equations = parse(family.equations)
        if not family.states.keys() >= set(equations.states) or family.inputs.keys() != set(equations.inputs):
            raise UsageError("the inputs and states in the header are not those in [inputs] and [states]")
    for table, shapes in (("inputs", family.inputs), ("states", family.states), ("parameters", family.parameters)):
        for name, shape in shapes.items():
            with _place(f"{table}.{name}"):
                for size in shape:
                    parse_size(str(size))
    _check_names("learned_states", family.learned_states, family.states)
    _check_names("optional", family.optional, [*family.parameters, *family.norms, *family.constants])
    for placeholder, function in family.functions.items():
        _check_names(f"functions.{placeholder}", (function,), FUNCTIONS)
    for name, fields in family.norms.items():
        with _place(f"norms.{name}"):
            _check_norm(fields)
    declared = family.shapes(family.norms)
    sizes = {name for shape in declared.values() for bound in shape for name, _ in bound.terms}
    _check_names("same_sizes", [*family.same_sizes, *family.same_sizes.values()], sizes)
    for layout in family.layouts:
        _check_layout(family, layout, declared)


@contextmanager
def _place(where: str) -> Iterator[None]:
    """Puts a place in front of the errors inside."""
    try:
        yield
    except NormconvertError as error:
        raise error.at(where) from None


def _check_names(where: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{name} is not known", where=where, remedy=suggestion(name, known))


def _check_norm(fields: Fields) -> None:
    for fault in norm_from(fields, _trial).faults():
        raise UsageError(fault)


def _trial(size: Size) -> int:
    """A size in numbers; any number of groups divides what is not known."""
    declared = bound(size)
    return 420 if declared.terms else declared.constant


def _check_layout(family: Family, layout: str, shapes: dict[str, Shape]) -> None:
    names = sorted({name for shape in shapes.values() for bound in shape for name, _ in bound.terms})
    sizes = {name: _TRIAL_SIZES[number % len(_TRIAL_SIZES)] for number, name in enumerate(names)}
    arrays = {
        name: np.broadcast_to(np.float32(0), tuple(bound.resolve(sizes) for bound in shape))
        for name, shape in shapes.items()
    }
    for tensor, text in family.layouts[layout].tensors.items():
        with _place(f"layouts.{layout}.tensors.{tensor}"):
            part = parse_layout(text)
            for name in sorted(parameters_in(part) - shapes.keys()):
                raise UsageError(f"{name} is not a parameter or a norm's array", remedy=suggestion(name, shapes))
            try:
                assemble(part, arrays, family.gates)
            except ValueError as error:
                raise UsageError(f"{text} does not fit the declared shapes: {error}") from None
    declared = family.layouts[layout]
    for key, targets in declared.config.items():
        for target in targets.split(","):
            with _place(f"layouts.{layout}.config.{key}"):
                _check_setting(family, target.strip())
    for setting in [*declared.settings, *(question.setting for question in declared.open)]:
        with _place(f"layouts.{layout}"):
            _check_setting(family, setting)
    _check_names(f"layouts.{layout}.aliases", declared.aliases, declared.tensors)
    _check_names(f"layouts.{layout}.required", declared.required, family.optional)
    if declared.states and sorted(declared.states) != sorted(family.states):
        raise UsageError("the states are not the family's", where=f"layouts.{layout}.states")
    for tensor in declared.unused.keys() & declared.tensors.keys():
        raise UsageError(f"{tensor} is both used and unused", where=f"layouts.{layout}.unused")
    try:
        re.compile(declared.scope)
    except re.error as error:
        raise UsageError(f"{declared.scope} is no regular expression: {error}", where=f"layouts.{layout}") from None


def _check_setting(family: Family, target: str) -> None:
    match target.split("."):
        case ["norms", norm, entry] if norm in (*family.norms, "*") and entry in Norm.__struct_fields__:
            return
        case ["functions", name] if name in family.functions:
            return
        case ["constants", name] if name in family.constants:
            return
        case ["options", name] if f'"${name}"' in family.equations or f"'${name}'" in family.equations:
            return
        case ["dims", _]:
            return
    raise UsageError(
        f"{target} is no setting of the cell",
        remedy="Write constants.NAME, functions.NAME, norms.NAME.FIELD, options.NAME or dims.NAME, of declared names",
    )
