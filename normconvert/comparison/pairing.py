"""What stands for what in two cells of the same form, and what differs although the form is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Union

from normconvert.comparison.terms import Block, Monomial, Range, Term


@dataclass(frozen=True)
class Numbers:
    """A number in the equations that differs."""

    a: float
    b: float
    where: str


@dataclass(frozen=True)
class Functions:
    """A function in the equations that differs, with its numbers."""

    a: str
    b: str


@dataclass(frozen=True)
class Biases:
    """Summed products of parameters, and a number, that stand in the same place."""

    a: tuple[tuple[float, Monomial], ...]
    b: tuple[tuple[float, Monomial], ...]
    constant_a: float
    constant_b: float


NormPart = tuple[str, Range]
Mismatch = Union[Numbers, Functions]


@dataclass(frozen=True)
class Pairing:
    """What stands for what.

    Attributes:
        blocks: blocks of parameters.
        norms: parts of norms.
        biases: sums of parameters.
        mismatches: what differs although the form is the same.
        same: terms that were found to be the same under it.
    """

    blocks: Mapping[Block, Block] = field(default_factory=dict)
    norms: Mapping[NormPart, NormPart] = field(default_factory=dict)
    biases: tuple[Biases, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    same: Mapping[Term, Term] = field(default_factory=dict)

    def noting(self, mismatch: Mismatch) -> Pairing:
        """The same with something that differs."""
        known = self.mismatches
        return self if mismatch in known else replace(self, mismatches=(*known, mismatch))
