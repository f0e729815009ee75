"""The equations of a cell as terms: see `comparison.terms`."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from normconvert.comparison.forming import Former
from normconvert.comparison.operations import in_single_operations
from normconvert.comparison.terms import NoTermsError, Term, Terms
from normconvert.ir.cell import Cell
from normconvert.ir.checking import check
from normconvert.ir.expressions import next_value
from normconvert.ir.printer import print_equations

_MAX_EQUATIONS = 300
_MAX_ROUNDS = 4
"""Norms of norms that are split differently are rare; one round settles all others."""


@dataclass(frozen=True)
class NormalForm:
    """A cell as terms.

    Attributes:
        values: the term of each name that its equations assign.
        outputs: terms of the outputs, in order.
        states: the term of each state's next value.
    """

    values: dict[str, Term]
    outputs: tuple[Term, ...]
    states: dict[str, Term]


def normal_form(cell: Cell, terms: Terms) -> NormalForm:
    """The terms of a cell.

    Args:
        cell: a sound cell.
        terms: makes them; one for each cell.

    Raises:
        NoTermsError: they would be too many.
    """
    equations = cell.parsed()
    if len(equations.body) > _MAX_EQUATIONS:
        raise NoTermsError
    named = in_single_operations(equations)
    try:
        shapes = check(msgspec.structs.replace(cell, equations=print_equations(named)))
    except (ValueError, RecursionError):
        raise NoTermsError from None
    cuts: dict[str, frozenset[int]] = {}
    for _ in range(_MAX_ROUNDS):
        former = Former(cell, named, shapes, terms, cuts)
        states = {state: former.whole(next_value(state)) for state in equations.states}
        outputs = tuple(former.whole(name) for name in equations.outputs)
        found = {norm: frozenset(places) for norm, places in former.found_cuts.items()}
        if found == cuts:
            break
        cuts = found
    values = {target: former.whole(target) for equation in equations.body for target in equation.targets}
    return NormalForm(values, outputs, states)
