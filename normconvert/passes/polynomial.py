"""Equations of a cell as polynomials: sums of products, flattened, in which order does not show.

The atoms are the states, functions of polynomials, blocks of parameters (a bias), and products of the input or a
state with a block of a parameter. Slices and splits are pushed down to the blocks, numbers into the coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

MAX_TERMS = 64
"""Largest polynomial worth looking at: a plain cell has at most a dozen terms, and expansion can explode."""


class UnexpandableError(Exception):
    """The equations use something that no plain cell does."""


@dataclass(frozen=True)
class State:
    """A state before the step."""

    name: str


@dataclass(frozen=True)
class Block:
    """A bias: elements `start:stop` of a parameter."""

    parameter: str
    start: int
    stop: int


@dataclass(frozen=True)
class Product:
    """The input or a state times rows `rows` and columns `columns` of a parameter."""

    value: str
    is_input: bool
    parameter: str
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True)
class Function:
    """A function of one polynomial, without parameters."""

    name: str
    argument: Polynomial


Atom = Union[State, Block, Product, Function]
Monomial = frozenset[tuple[Atom, int]]
"""Atoms with their powers."""

_ONE: Monomial = frozenset()


@dataclass(frozen=True)
class Polynomial:
    """Coefficients by monomial, none of them zero."""

    terms: frozenset[tuple[Monomial, float]]

    @staticmethod
    def of(terms: Mapping[Monomial, float]) -> Polynomial:
        """From a dictionary."""
        if len(terms) > MAX_TERMS:
            raise UnexpandableError
        return Polynomial(frozenset((monomial, value) for monomial, value in terms.items() if value))

    @staticmethod
    def number(value: float) -> Polynomial:
        """A constant."""
        return Polynomial.of({_ONE: value})

    @staticmethod
    def atom(atom: Atom) -> Polynomial:
        """A single atom."""
        return Polynomial.of({frozenset({(atom, 1)}): 1.0})

    def __add__(self, other: Polynomial) -> Polynomial:
        terms = dict(self.terms)
        for monomial, value in other.terms:
            terms[monomial] = terms.get(monomial, 0.0) + value
        return Polynomial.of(terms)

    def __neg__(self) -> Polynomial:
        return Polynomial.of({monomial: -value for monomial, value in self.terms})

    def __sub__(self, other: Polynomial) -> Polynomial:
        return self + -other

    def __mul__(self, other: Polynomial) -> Polynomial:
        terms: dict[Monomial, float] = {}
        for a, x in self.terms:
            for b, y in other.terms:
                powers = dict(a)
                for atom, power in b:
                    powers[atom] = powers.get(atom, 0) + power
                monomial = frozenset(powers.items())
                terms[monomial] = terms.get(monomial, 0.0) + x * y
        return Polynomial.of(terms)

    def atoms(self) -> set[Atom]:
        """Every atom at the top level."""
        return {atom for monomial, _ in self.terms for atom, _ in monomial}

    def constant(self) -> float:
        """The coefficient of 1."""
        return dict(self.terms).get(_ONE, 0.0)

    def single_product(self) -> tuple[Atom, ...] | None:
        """The factors, if this is one monomial with coefficient 1 and no powers."""
        if len(self.terms) != 1:
            return None
        ((monomial, value),) = self.terms
        return (
            tuple(atom for atom, _ in monomial) if value == 1.0 and all(power == 1 for _, power in monomial) else None
        )

    def single_atom(self) -> Atom | None:
        """The atom, if this is one."""
        factors = self.single_product()
        return factors[0] if factors is not None and len(factors) == 1 else None

    def factor_of(self, atom: Atom) -> Polynomial | None:
        """P in `P * atom + Q`, if the atom occurs with power 1 only."""
        terms = {m: value for m, value in self.terms if any(a == atom for a, _ in m)}
        if not terms or any((atom, 1) not in monomial for monomial in terms):
            return None
        return Polynomial.of({monomial - {(atom, 1)}: value for monomial, value in terms.items()})

    def without(self, atom: Atom) -> Polynomial | None:
        """Q in `P * atom + Q`."""
        return Polynomial.of({m: value for m, value in self.terms if all(a != atom for a, _ in m)})

    def is_affine(self, state: str) -> bool:
        """A sum of products of the input and one state with parameters, of biases, and of a number."""
        for monomial, _ in self.terms:
            for atom, power in monomial:
                good = isinstance(atom, Block) or (isinstance(atom, Product) and (atom.is_input or atom.value == state))
                if not good or power != 1 or len(monomial) != 1:
                    return False
        return True

    def reads_input(self) -> bool:
        """Whether the input occurs at the top level."""
        return any(isinstance(atom, Product) and atom.is_input for atom in self.atoms())

    def reads_state(self) -> bool:
        """Whether a state occurs at the top level."""
        return any(
            isinstance(atom, State) or (isinstance(atom, Product) and not atom.is_input) for atom in self.atoms()
        )
