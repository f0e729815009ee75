"""What a tensor can be inside one time step: a term of the equation language, or something that leads to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Union

from normconvert.ir.expressions import Expression, Name
from normconvert.ir.model import Array
from normconvert.ir.norm import PastEnd


@dataclass(frozen=True, eq=False)
class Known:
    """A constant array."""

    array: Array

    @property
    def number(self) -> float | None:
        """Its value if all its elements are equal: the shortest decimal that is the same number in its own dtype."""
        first = self.array.flat[0] if self.array.size else None
        if first is None or self.array.dtype.kind not in "fiu" or (self.array != first).any():
            return None
        return float(str(first)) if self.array.dtype.kind == "f" else float(first)


@dataclass(frozen=True)
class Term:
    """An expression: a name, a number, or a slice of a parameter.

    Attributes:
        expression: of the equation language.
        shape: for one sample, or of a parameter.
        batched: the tensor has the batch as its first axis, which `shape` leaves out.
    """

    expression: Expression
    shape: tuple[int, ...]
    batched: bool = True

    @property
    def name(self) -> str:
        """The name that the expression is: of a line, a state, an input or a parameter."""
        assert isinstance(self.expression, Name)
        return self.expression.name


@dataclass(frozen=True)
class StepIndex:
    """The number of the time step, counted from 0, plus `offset`, held below `rows` in one of the ways of a norm."""

    offset: int = 0
    rows: int | None = None
    past_end: PastEnd = "error"

    def shifted(self, by: int) -> StepIndex:
        """The same with a number added."""
        return replace(self, offset=self.offset + by)


@dataclass(frozen=True)
class Row:
    """The row of a variable `[steps, features]` that the time step picks."""

    variable: str
    steps: int
    shape: tuple[int, ...]
    past_end: PastEnd


Entries = tuple[Union[int, StepIndex, None], ...]
"""Sizes or indices; None stands for the size of the batch."""


@dataclass(frozen=True)
class Vector:
    """Sizes or indices as a tensor."""

    entries: Entries


@dataclass(frozen=True)
class Outside:
    """A tensor that the step reads from outside of the loop and that is no parameter."""

    tensor: str


@dataclass(frozen=True)
class Moment:
    """Mean of a term, or of its square.

    Attributes:
        term: what the mean is of.
        over_batch: the mean is over the samples and all axes of a sample but the features, else over features.
        pooled: over all axes of a sample (and over the features, with `over_batch`), not over the last alone.
        positions: over the samples alone: each position of a sample `[*positions, features]` has its own.
        square: of the square.
    """

    term: Term
    over_batch: bool
    pooled: bool
    square: bool = False
    positions: bool = False


@dataclass(frozen=True)
class Deviation:
    """The divisor of a normalisation: `sqrt(variance + inside) + outside`.

    Attributes:
        variance: a stored one, or the mean that a variance is computed with.
        inside, outside: what is added.
        centred: the variance is about the mean, not a mean square.
        unbiased: the variance divides by n - 1.
    """

    variance: Term | Row | Moment
    inside: float
    outside: float = 0.0
    centred: bool = True
    unbiased: bool = False


Atom = Union[Term, Row, Moment, Deviation]
Monomial = frozenset[tuple[Atom, int]]
"""Atoms with their powers."""


@dataclass(frozen=True, eq=False)
class Pending:
    """Part of a normalisation that is still being put together: a polynomial in terms, moments and deviations.

    Attributes:
        sum: coefficients by monomial, none of them zero.
        shape, batched: as of a `Term`.
    """

    sum: Mapping[Monomial, float]
    shape: tuple[int, ...]
    batched: bool


Value = Union[Known, Term, StepIndex, Row, Vector, Outside, Pending]


def number_of(value: Value) -> float | None:
    """The value of a constant that is one number, or many equal ones."""
    return value.number if isinstance(value, Known) else None
