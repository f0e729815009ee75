"""The expression trees of the equation language.

Values are those of one sample: the batch axis is implied. `x` of a plain cell has shape `[inputs]`, a state
`[units]`, a layer over whole sequences sees `[time, features]`. Parameters have no batch axis.

Names are in single-assignment form. The next value of state `c` is the name `c'` (see `next_value`), so that a
tree says by itself whether it reads the state before or after the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Union

from normconvert.errors import EquationError

Constant = Union[int, float, str, bool, tuple[int, ...]]


@dataclass(frozen=True)
class Position:
    """Line and column, both counted from 1, in the text the node was parsed from."""

    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


_NOWHERE = Position()


def mistake(what: str, position: Position, remedy: str = "") -> EquationError:
    """An error that points at a place in a cell's text."""
    return EquationError(what, where=str(position), remedy=remedy)


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: float
    position: Position = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Name:
    """An input, a state, a parameter, a constant, or the result of an earlier equation."""

    name: str
    position: Position = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Negate:
    """Unary minus."""

    operand: Expression
    position: Position = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Binary:
    """One of `+ - * / @`; the first four broadcast, `@` contracts the last axis of the left operand."""

    operator: str
    left: Expression
    right: Expression
    position: Position = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Call:
    """A listed function or a declared norm, with constant keyword options."""

    function: str
    arguments: tuple[Expression, ...]
    options: tuple[tuple[str, Constant], ...] = ()
    position: Position = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Bound:
    """One end of a slice: an integer, or a sum of terms `factor * dimension` such as `2*units`."""

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    def resolve(self, dims: dict[str, int]) -> int:
        """The integer it stands for; KeyError names a dimension that is not in `dims`."""
        return self.constant + sum(factor * dims[name] for name, factor in self.terms)


@dataclass(frozen=True)
class Slice:
    """`start:stop` of one axis; None stands for the axis's own end."""

    start: Bound | None = None
    stop: Bound | None = None


@dataclass(frozen=True)
class Index:
    """Constant slices of the leading axes of a value, `z[0:units]` or `W[:, units:2*units]`."""

    value: Expression
    slices: tuple[Slice, ...]
    position: Position = field(default=_NOWHERE, compare=False, repr=False)


Expression = Union[Number, Name, Negate, Binary, Call, Index]


@dataclass(frozen=True)
class Equation:
    """`targets = value`; more than one target takes the pieces of a `split`."""

    targets: tuple[str, ...]
    value: Expression
    position: Position = field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Equations:
    """A whole cell: `cell NAME(inputs; states) -> outputs:` and its equations in single-assignment form.

    `outputs` are names in single-assignment form too (`h'` for a cell that emits its new hidden state).
    A cell without states is a stateless layer.
    """

    name: str
    inputs: tuple[str, ...]
    states: tuple[str, ...]
    outputs: tuple[str, ...]
    body: tuple[Equation, ...]

    def __str__(self) -> str:
        from normconvert.ir.printer import print_equations

        return print_equations(self)


def next_value(state: str) -> str:
    """The name of a state's value after the step."""
    return state + "'"


def is_next(name: str) -> bool:
    """Whether a name is a state's value after the step."""
    return name.endswith("'")


def children(expression: Expression) -> tuple[Expression, ...]:
    """The direct operands of an expression."""
    match expression:
        case Negate(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case Call(arguments=arguments):
            return arguments
        case Index(value=value):
            return (value,)
        case _:
            return ()


def with_children(expression: Expression, operands: tuple[Expression, ...]) -> Expression:
    """The same expression over other operands."""
    match expression:
        case Negate():
            return replace(expression, operand=operands[0])
        case Binary():
            return replace(expression, left=operands[0], right=operands[1])
        case Call():
            return replace(expression, arguments=operands)
        case Index():
            return replace(expression, value=operands[0])
        case _:
            return expression


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and everything below it, outermost first."""
    yield expression
    for operand in children(expression):
        yield from walk(operand)


def rewrite(expression: Expression, rule: Callable[[Expression], Expression]) -> Expression:
    """Apply `rule` to every node, innermost first."""
    return rule(with_children(expression, tuple(rewrite(operand, rule) for operand in children(expression))))


def names_in(expression: Expression) -> set[str]:
    """Every name an expression reads (functions and norms are not names)."""
    return {node.name for node in walk(expression) if isinstance(node, Name)}
