"""Whether two cells' terms are the same but for names, and which parameter then stands for which.

Sums and products are matched in any order, by trying. What is not settled by names is settled by the arrays: of several
ways to pair parameters, one whose arrays are equal comes first. Biases that are summed are paired as sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from normconvert.comparison.pairing import Biases, Functions, Numbers, Pairing
from normconvert.comparison.terms import (
    Applied,
    Block,
    Leaf,
    Monomial,
    Normed,
    Part,
    Product,
    Range,
    Sum,
    Term,
    is_offset,
    parts_of,
)
from normconvert.ir.functions import FUNCTIONS

MAX_ATTEMPTS = 30_000
"""Most pairs of terms that are tried before a comparison is given up."""


class Leniency(IntEnum):
    """What may differ between terms that have the same form; a later one allows more."""

    NOTHING = 0
    SETTINGS = 1
    FUNCTIONS = 2


class GaveUpError(Exception):
    """There are too many ways in which terms could be the same."""


@dataclass
class Unifier:
    """Matches terms of two cells.

    Attributes:
        leniency: what may differ.
        places: of both cells' inputs and states, what stands for what: equal values, by kind and name.
        norms_alike: whether two norms compute the same, but for their arrays.
        likeness: how alike two blocks' arrays and names are; the higher, the sooner they are tried.
    """

    leniency: Leniency
    places_a: Mapping[tuple[str, str], Hashable]
    places_b: Mapping[tuple[str, str], Hashable]
    norms_alike: Callable[[str, str], bool]
    likeness: Callable[[Term, Term], float]
    attempts: int = 0
    colours: dict[tuple[bool, Term], int] = field(default_factory=dict)

    def unify(self, a: Sequence[Term], b: Sequence[Term], pairing: Pairing) -> Iterator[Pairing]:
        """Every way in which the first of `a` is the first of `b`, and so on.

        Raises:
            GaveUpError: there are too many to try.
        """
        if len(a) != len(b):
            return
        if not a:
            yield pairing
            return
        for found in self.pair(a[0], b[0], pairing):
            yield from self.unify(a[1:], b[1:], found)

    def pair(self, a: Term, b: Term, pairing: Pairing) -> Iterator[Pairing]:
        """Every way in which two terms are the same."""
        self.attempts += 1
        if self.attempts > MAX_ATTEMPTS:
            raise GaveUpError
        if pairing.same.get(a) is b:
            yield pairing
            return
        if self.colour(a, True) != self.colour(b, False):
            return
        for found in self._pair(a, b, pairing):
            yield replace(found, same={**found.same, a: b})

    def _pair(self, a: Term, b: Term, pairing: Pairing) -> Iterator[Pairing]:
        match a, b:
            case Leaf(part=part), Leaf(part=other):
                yield pairing if part == other else pairing.noting(Functions(_elements(part), _elements(other)))
            case Block(), Block():
                if pairing.blocks.get(a, b) is b:
                    yield replace(pairing, blocks={**pairing.blocks, a: b})
            case Product(left=l, right=r), Product(left=m, right=s):
                yield from self.unify((l, r), (m, s), pairing)
            case Part(value=v, part=part), Part(value=w, part=other):
                noting = pairing if part == other else pairing.noting(Functions(_elements(part), _elements(other)))
                yield from self.pair(v, w, noting)
            case Applied(), Applied():
                noted = self._noted(a, b, pairing)
                if noted is not None:
                    yield from self.unify(a.arguments, b.arguments, noted)
                    if a.function in ("minimum", "maximum"):
                        yield from self.unify(a.arguments, b.arguments[::-1], noted)
            case Normed(), Normed():
                yield from self._normed(a, b, pairing)
            case _ if isinstance(a, Sum) or isinstance(b, Sum):
                yield from self._sums(a, b, pairing)

    def _noted(self, a: Applied, b: Applied, pairing: Pairing) -> Pairing | None:
        """With what differs between two calls; None where they may not."""
        if (a.function, a.numbers, a.options) == (b.function, b.numbers, b.options):
            return pairing
        if self.leniency == Leniency.NOTHING or (a.function != b.function and self.leniency < Leniency.FUNCTIONS):
            return None
        return pairing.noting(Functions(_call(a), _call(b)))

    def _normed(self, a: Normed, b: Normed, pairing: Pairing) -> Iterator[Pairing]:
        if self.leniency == Leniency.NOTHING and not self.norms_alike(a.norm, b.norm):
            return
        one, other = (a.norm, a.part), (b.norm, b.part)
        if pairing.norms.get(one, other) != other or any(
            held == other and key != one for key, held in pairing.norms.items()
        ):
            return
        bound = replace(pairing, norms={**pairing.norms, one: other})
        for found in self.pair(a.argument, b.argument, bound):
            yield from self._in_any_order(a.over, b.over, found)

    def _in_any_order(self, a: tuple[Term, ...], b: tuple[Term, ...], pairing: Pairing) -> Iterator[Pairing]:
        if len(a) != len(b):
            return
        if not a:
            yield pairing
            return
        for other in self._candidates(a[0], b):
            for found in self.pair(a[0], other, pairing):
                rest = list(b)
                rest.remove(other)
                yield from self._in_any_order(a[1:], tuple(rest), found)

    def _candidates(self, a: Term, b: Sequence[Term]) -> list[Term]:
        own = self.colour(a, True)
        fitting = [other for other in b if self.colour(other, False) == own]
        return sorted(fitting, key=lambda other: -self.likeness(a, other)) if len(fitting) > 1 else fitting

    def _sums(self, a: Term, b: Term, pairing: Pairing) -> Iterator[Pairing]:
        (constant, left), (other, right) = parts_of(a), parts_of(b)
        offsets_a, offsets_b = (
            tuple(sorted(((value, m) for m, value in each.items() if is_offset(m)), key=_by_name))
            for each in (left, right)
        )
        if offsets_a or offsets_b:
            pairing = replace(pairing, biases=(*pairing.biases, Biases(offsets_a, offsets_b, constant, other)))
        elif constant != other:
            if self.leniency == Leniency.NOTHING:
                return
            pairing = pairing.noting(Numbers(constant, other, "a summand"))
        yield from self._monomials(
            [(m, value) for m, value in left.items() if not is_offset(m)],
            [(m, value) for m, value in right.items() if not is_offset(m)],
            pairing,
        )

    def _monomials(
        self, a: list[tuple[Monomial, float]], b: list[tuple[Monomial, float]], pairing: Pairing
    ) -> Iterator[Pairing]:
        if len(a) != len(b):
            return
        if not a:
            yield pairing
            return
        (first, value), rest = a[0], a[1:]
        own = self._monomial_colour(first, value, True)
        fitting = [each for each in b if self._monomial_colour(*each, False) == own]
        if len(fitting) > 1:
            fitting.sort(key=lambda each: -self._monomial_likeness(first, each[0]))
        for other, factor in fitting:
            noted = pairing if value == factor else pairing.noting(Numbers(value, factor, "a factor"))
            remaining = [each for each in b if each[0] is not other]
            for found in self._factors(list(first), list(other), noted):
                yield from self._monomials(rest, remaining, found)

    def _factors(self, a: list[tuple[Term, int]], b: list[tuple[Term, int]], pairing: Pairing) -> Iterator[Pairing]:
        if len(a) != len(b):
            return
        if not a:
            yield pairing
            return
        (first, power), rest = a[0], a[1:]
        candidates = [each for each in b if each[1] == power]
        candidates.sort(key=lambda each: -self.likeness(first, each[0]))
        for other in candidates:
            for found in self.pair(first, other[0], pairing):
                yield from self._factors(rest, [each for each in b if each is not other], found)

    def _monomial_likeness(self, a: Monomial, b: Monomial) -> float:
        return sum(max((self.likeness(x, y) for y, _ in b), default=0.0) for x, _ in a)

    def colour(self, term: Term, first: bool) -> int:
        """A number that equal terms share, whatever their parameters are called."""
        key = (first, term)
        if key not in self.colours:
            self.colours[key] = hash(self._colour(term, first))
        return self.colours[key]

    def _colour(self, term: Term, first: bool) -> Hashable:
        exact = self.leniency == Leniency.NOTHING
        match term:
            case Leaf(kind=kind, name=name, part=part):
                places = self.places_a if first else self.places_b
                return "leaf", kind, places[kind, name], part if exact else part is None
            case Block(ranges=ranges):
                return "block", tuple(stop - start for start, stop in ranges) if exact else len(ranges)
            case Product(left=left, right=right):
                return "product", self.colour(left, first), self.colour(right, first)
            case Part(value=value, part=part):
                return "part", self.colour(value, first), part if exact else 0
            case Normed(argument=argument, over=over):
                return "norm", self.colour(argument, first), len(over)
            case Applied(function=function, numbers=numbers, options=options):
                named = self._function_colour(function, numbers)
                arguments = [self.colour(each, first) for each in term.arguments]
                ordered = sorted(arguments) if function in ("minimum", "maximum") else arguments
                return "call", named, tuple(ordered), options if exact else len(options)
            case Sum(constant=constant, terms=terms):
                rest = [(m, value) for m, value in terms if not is_offset(m)]
                kept = constant if exact and len(rest) == len(terms) else 0.0
                if kept == 0.0 and len(rest) == 1 and _is_single(*rest[0]):  # a bias or a number added to one value
                    return self._colour(rest[0][0][0][0], first)
                return "sum", tuple(sorted(self._monomial_colour(m, value, first) for m, value in rest)), kept
        raise TypeError(type(term).__name__)

    def _function_colour(self, function: str, numbers: tuple[float, ...]) -> Hashable:
        info = FUNCTIONS.get(function)
        if self.leniency == Leniency.NOTHING:
            return function, numbers
        if self.leniency == Leniency.FUNCTIONS and info is not None and (info.kind, info.tensors) == ("elementwise", 1):
            return "elementwise"
        return function

    def _monomial_colour(self, monomial: Monomial, value: float, first: bool) -> int:
        factors = tuple(sorted((self.colour(factor, first), power) for factor, power in monomial))
        return hash((factors, value if self.leniency == Leniency.NOTHING else math.copysign(1.0, value)))


def _call(term: Applied) -> str:
    """A function with its numbers, and the options that are not its own defaults."""
    info = FUNCTIONS.get(term.function)
    usual = {} if info is None else info.options
    options = [f"{name}={value}" for name, value in term.options if usual.get(name) != value]
    return ", ".join([term.function, *(f"{number:g}" for number in term.numbers), *options])


def _elements(part: Range | None) -> str:
    return "all elements" if part is None else f"elements {part[0]}:{part[1]}"


def _is_single(monomial: Monomial, value: float) -> bool:
    """Whether a product has one factor."""
    return value == 1 and len(monomial) == 1 and monomial[0][1] == 1


def _by_name(offset: tuple[float, Monomial]) -> list[tuple[str, tuple[Range, ...]]]:
    return sorted((factor.parameter, factor.ranges) for factor, _ in offset[1] if isinstance(factor, Block))
