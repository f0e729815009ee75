"""What a cell computes, as terms in which order, names of results, and the way of writing do not show.

A term stands for a value of one sample. Sums of products are multiplied out; slices and splits are pushed down to
inputs, states, and blocks of parameters. Equal terms are one object, so that a value used many times is looked at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from normconvert.ir.expressions import Constant

Range = tuple[int, int]
"""Elements `start:stop` of an axis."""

MAX_TERMS = 200
"""Longest sum that is multiplied out."""

MAX_MADE = 20_000
"""Most terms of one cell; its text may come from a hostile file."""


class NoTermsError(Exception):
    """The equations cannot be put as terms, or grow too large when they are multiplied out."""


@dataclass(frozen=True, eq=False)
class Term:
    """A value. Two are equal only if they are the same object: `Terms.make` makes each once, with a number."""

    serial: int


@dataclass(frozen=True, eq=False)
class Leaf(Term):
    """An input or a state before the step; `part` of its last axis, None for the whole."""

    kind: str
    name: str
    part: Range | None


@dataclass(frozen=True, eq=False)
class Block(Term):
    """Elements `ranges` of a parameter, per axis."""

    parameter: str
    ranges: tuple[Range, ...]


@dataclass(frozen=True, eq=False)
class Product(Term):
    """A matrix product."""

    left: Term
    right: Term


@dataclass(frozen=True, eq=False)
class Applied(Term):
    """A function of the language, with its numbers and options."""

    function: str
    arguments: tuple[Term, ...]
    numbers: tuple[float, ...] = ()
    options: tuple[tuple[str, Constant | None], ...] = ()


@dataclass(frozen=True, eq=False)
class Normed(Term):
    """Elements `part` of a norm's result.

    Attributes:
        norm: its name.
        part: which of its features.
        argument: the same elements of what is normalised.
        over: the pieces of the argument that the moments are taken over, where these are more than `argument`.
    """

    norm: str
    part: Range
    argument: Term
    over: tuple[Term, ...] = ()


@dataclass(frozen=True, eq=False)
class Part(Term):
    """Elements of the last axis of a value that is no sum of its parts."""

    value: Term
    part: Range


Monomial = tuple[tuple[Term, int], ...]
"""Factors with their powers, in the order they were made."""


@dataclass(frozen=True, eq=False)
class Sum(Term):
    """`constant + sum of coefficient * product of factors`; no factor is a sum."""

    constant: float
    terms: tuple[tuple[Monomial, float], ...]


AnyTerm = TypeVar("AnyTerm", bound=Term)


class Terms:
    """Makes terms, each once."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Term] = {}

    def make(self, kind: type[AnyTerm], *fields: Any) -> AnyTerm:
        """The term with these fields."""
        key = (kind, *fields)
        if key not in self._made:
            if len(self._made) >= MAX_MADE:
                raise NoTermsError
            self._made[key] = kind(len(self._made), *fields)
        found = self._made[key]
        assert isinstance(found, kind)
        return found

    def number(self, value: float) -> Term:
        """A constant."""
        return self.make(Sum, value, ())

    def total(self, constant: float, terms: Mapping[Monomial, float]) -> Term:
        """A sum, or its only term."""
        kept = {monomial: value for monomial, value in terms.items() if value != 0}
        if len(kept) > MAX_TERMS:
            raise NoTermsError
        if constant == 0 and len(kept) == 1:
            ((monomial, value),) = kept.items()
            if value == 1 and len(monomial) == 1:
                ((factor, power),) = monomial
                if power == 1:
                    return factor
        ordered = sorted(kept.items(), key=lambda each: [(factor.serial, power) for factor, power in each[0]])
        return self.make(Sum, constant, tuple(ordered))

    def add(self, a: Term, b: Term) -> Term:
        """`a + b`."""
        (c, left), (d, right) = parts_of(a), parts_of(b)
        terms = dict(left)
        for monomial, value in right.items():
            terms[monomial] = terms.get(monomial, 0.0) + value
        return self.total(c + d, terms)

    def scale(self, a: Term, factor: float) -> Term:
        """`factor * a`."""
        constant, terms = parts_of(a)
        return self.total(constant * factor, {monomial: value * factor for monomial, value in terms.items()})

    def multiply(self, a: Term, b: Term) -> Term:
        """`a * b`."""
        terms: dict[Monomial, float] = {}
        for m, x in _monomials(a):
            for n, y in _monomials(b):
                powers = dict(m)
                for factor, power in n:
                    powers[factor] = powers.get(factor, 0) + power
                monomial = tuple(sorted(powers.items(), key=lambda each: each[0].serial))
                terms[monomial] = terms.get(monomial, 0.0) + x * y
                if len(terms) > MAX_TERMS:
                    raise NoTermsError
        constant = terms.pop((), 0.0)
        return self.total(constant, terms)

    def inverse(self, a: Term) -> Term:
        """`1 / a`."""
        if isinstance(a, Sum) and not a.terms and a.constant != 0:
            return self.number(1 / a.constant)
        return self.make(Applied, "inverse", (a,), (), ())


def parts_of(term: Term) -> tuple[float, dict[Monomial, float]]:
    """The constant and the other terms of a sum; anything else is a sum of itself."""
    if isinstance(term, Sum):
        return term.constant, dict(term.terms)
    return 0.0, {((term, 1),): 1.0}


def _monomials(term: Term) -> Iterable[tuple[Monomial, float]]:
    constant, terms = parts_of(term)
    if constant != 0 or not terms:
        yield (), constant
    yield from terms.items()


def is_offset(monomial: Monomial) -> bool:
    """Whether a product is of parameters alone: a bias."""
    return all(isinstance(factor, Block) for factor, _ in monomial)


def children_of(term: Term) -> tuple[Term, ...]:
    """The terms that a term is made of."""
    match term:
        case Product(left=left, right=right):
            return left, right
        case Applied(arguments=arguments):
            return arguments
        case Normed(argument=argument, over=over):
            return argument, *over
        case Part(value=value):
            return (value,)
        case Sum(terms=terms):
            return tuple(factor for monomial, _ in terms for factor, _ in monomial)
    return ()
