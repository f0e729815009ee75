"""Two cells with their arrays: whether their equations are the same function, and how the arrays then compare."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from itertools import permutations

import numpy as np

from normconvert.comparison.evaluation import Evaluated, evaluate_cells
from normconvert.comparison.normal_form import NormalForm, normal_form
from normconvert.comparison.paired import CellPair, StoredCell, paired, size_settings
from normconvert.comparison.pairing import Functions, Pairing
from normconvert.comparison.records import EquationPair, Setting
from normconvert.comparison.settings import norm_settings, norms_alike, number_settings
from normconvert.comparison.tensors import Arrays
from normconvert.comparison.terms import Block, Normed, NoTermsError, Term, Terms, children_of
from normconvert.comparison.unification import GaveUpError, Leniency, Unifier
from normconvert.ir.cell import Cell
from normconvert.ir.expressions import Equation, Expression, Index, walk
from normconvert.ir.printer import print_expression

_MAX_STATES = 4
"""Most states whose order is looked for when their names differ."""


def compare_cells(a: StoredCell, b: StoredCell) -> CellPair:
    """Compare two cells."""
    arrays = Arrays(a.weights, b.weights, a.cell.statistics(), a.stepped(), a.gates())
    if _written_alike(a.cell, b.cell):
        settings = (*_named_settings(a.cell, b.cell), *size_settings(a.cell, b.cell))
        return CellPair("as written", settings, tensors=tuple(arrays.by_name()))
    why = "differ"
    try:
        forms = normal_form(a.cell, Terms()), normal_form(b.cell, Terms())
        for leniency in Leniency:
            for order in _orders(a.cell, b.cell):
                unifier = _unifier(a, b, leniency, order)
                pairing = _unified(unifier, forms, order)
                if pairing is not None and not _only_written_differently(a, b, pairing):
                    return paired(a, b, pairing, arrays, order)
        differing = tuple(_differing(a, b, forms))
    except (NoTermsError, GaveUpError, RecursionError):
        why, differing = "not compared", ()
    evaluated = _evaluated(a, b)
    return CellPair(why, (), differing, evaluated, tuple(arrays.by_name()))


def _only_written_differently(a: StoredCell, b: StoredCell, pairing: Pairing) -> bool:
    """Whether functions of other names, as `hard_sigmoid` and `clip`, give the same after all."""
    functions = [each for each in pairing.mismatches if isinstance(each, Functions)]
    others = [each for each in functions if each.a.partition(",")[0] != each.b.partition(",")[0]]
    evaluated = _evaluated(a, b) if others else None
    return evaluated is not None and evaluated.agrees


def _evaluated(a: StoredCell, b: StoredCell) -> Evaluated | None:
    """Both at random points, by the order of states in which they are nearest."""
    found = (
        evaluate_cells(a.cell, a.weights, b.cell, b.weights, [order[state] for state in a.cell.states])
        for order in _orders(a.cell, b.cell)
    )
    return min(filter(None, found), key=lambda each: each.difference, default=None)


def _written_alike(a: Cell, b: Cell) -> bool:
    one, other = a.parsed(), b.parsed()
    same_names = all(
        getattr(a, kind).keys() == getattr(b, kind).keys() for kind in ("parameters", "norms", "constants")
    )
    return same_names and (one.inputs, one.states, one.outputs, one.body) == (
        other.inputs,
        other.states,
        other.outputs,
        other.body,
    )


def _named_settings(a: Cell, b: Cell) -> Iterator[Setting]:
    yield from number_settings(a.constants, b.constants)
    named = {name for equation in a.parsed().body for name in _sizes_in(equation.value)}
    yield from number_settings(*({name: float(cell.dims[name]) for name in sorted(named)} for cell in (a, b)))
    for name, norm in a.norms.items():
        yield from norm_settings(name, norm, b.norms[name], groups=True)


def _sizes_in(expression: Expression) -> Iterator[str]:
    """Names of sizes that slices are written in."""
    for node in walk(expression):
        for each in node.slices if isinstance(node, Index) else ():
            for end in (each.start, each.stop):
                yield from (name for name, _ in end.terms) if end is not None else ()


def _orders(a: Cell, b: Cell) -> Iterator[dict[str, str]]:
    """Ways to pair the states, the likeliest first."""
    one, other = list(a.states), list(b.states)
    if len(one) != len(other):
        return
    by_name = set(one) == set(other)
    if by_name:
        yield dict(zip(one, one, strict=True))
    if len(one) > _MAX_STATES:
        if not by_name:
            yield dict(zip(one, other, strict=True))
        return
    for order in permutations(other):
        if not (by_name and list(order) == one):
            yield dict(zip(one, order, strict=True))


def _unifier(a: StoredCell, b: StoredCell, leniency: Leniency, order: Mapping[str, str]) -> Unifier:
    places_a: dict[tuple[str, str], Hashable] = {("input", n): i for i, n in enumerate(a.cell.parsed().inputs)}
    places_b: dict[tuple[str, str], Hashable] = {("input", n): i for i, n in enumerate(b.cell.parsed().inputs)}
    places_a |= {("state", name): name for name in order}
    places_b |= {("state", other): name for name, other in order.items()}

    def alike(one: str, other: str) -> bool:
        return norms_alike(a.cell.norms[one], b.cell.norms[other])

    def likeness(one: Term, other: Term) -> float:
        mine, theirs = _digests(a, one), _digests(b, other)
        return len(mine & theirs) / max(1, len(mine | theirs))

    return Unifier(leniency, places_a, places_b, alike, likeness)


def _unified(unifier: Unifier, forms: tuple[NormalForm, NormalForm], order: Mapping[str, str]) -> Pairing | None:
    left = (*forms[0].outputs, *(forms[0].states[name] for name in order))
    right = (*forms[1].outputs, *(forms[1].states[other] for other in order.values()))
    return next(unifier.unify(left, right, Pairing()), None)


def _digests(stored: StoredCell, term: Term) -> frozenset[Hashable]:
    """What parameters a term has: their names and, weighing more, their numbers."""
    if term not in stored.digests:
        found: set[Hashable] = set()
        match term:
            case Block(parameter=name, ranges=ranges):
                values = stored.weights[name][tuple(slice(*each) for each in ranges)]
                digest = hash(values.astype(np.float64).tobytes())
                found |= {(name, ranges), (digest, 0), (digest, 1)}
            case Normed(norm=norm, part=part):
                found.add((norm, part))
                for role in stored.cell.norms[norm].weight_shapes():
                    values = stored.weights[f"{norm}.{role}"][..., slice(*part)]
                    found.add((role, hash(values.astype(np.float64).tobytes())))
        found.update(*(_digests(stored, child) for child in children_of(term)))
        stored.digests[term] = frozenset(found)
    return stored.digests[term]


def _differing(a: StoredCell, b: StoredCell, forms: tuple[NormalForm, NormalForm]) -> Iterator[EquationPair]:
    """The first equations of each whose values the other does not have."""
    if len(a.cell.states) != len(b.cell.states) or len(a.cell.input_shapes) != len(b.cell.input_shapes):
        yield EquationPair(a.cell.equations.strip().splitlines()[0], b.cell.equations.strip().splitlines()[0])
        return
    unifier = _unifier(a, b, Leniency.SETTINGS, next(_orders(a.cell, b.cell)))
    colours = [
        {name: unifier.colour(term, first) for name, term in form.values.items()}
        for first, form in ((True, forms[0]), (False, forms[1]))
    ]
    texts = []
    for stored, own, other in ((a, colours[0], colours[1]), (b, colours[1], colours[0])):
        there = set(other.values())
        lines = [
            _text(equation)
            for equation in stored.cell.parsed().body
            if any(own[target] not in there for target in equation.targets)
        ]
        texts.append(lines)
    ours, theirs = texts
    for one, another in zip(ours[:1] or [""], theirs[:1] or [""], strict=True):
        yield EquationPair(one, another)


def _text(equation: Equation) -> str:
    return f"{', '.join(name.rstrip(chr(39)) for name in equation.targets)} = {print_expression(equation.value)}"
