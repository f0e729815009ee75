"""Equations with a name for the result of each operation, and what a name stands for."""

from __future__ import annotations

from dataclasses import replace

from normconvert.comparison.terms import Range
from normconvert.ir.cell import Cell
from normconvert.ir.expressions import (
    Equation,
    Equations,
    Expression,
    Index,
    Name,
    Negate,
    Number,
    Slice,
    children,
    with_children,
)


def in_single_operations(equations: Equations) -> Equations:
    """The equations with a name for the result of each operation, whose shapes are then known."""
    taken = {name for equation in equations.body for name in equation.targets}
    taken |= {*equations.inputs, *equations.states}
    body: list[Equation] = []
    count = 0

    def simple(expression: Expression) -> Expression:
        """A name for an expression; numbers stay."""
        nonlocal count
        if isinstance(expression, Name | Number) or _is_number(expression):
            return expression
        count += 1
        name = f"operation{count}"
        assert name not in taken
        body.append(Equation((name,), flat(expression)))
        return Name(name)

    def flat(expression: Expression) -> Expression:
        return with_children(expression, tuple(simple(operand) for operand in children(expression)))

    for equation in equations.body:
        value = flat(equation.value)
        body.append(replace(equation, value=value))
    return replace(equations, body=tuple(body))


def _is_number(expression: Expression) -> bool:
    return isinstance(expression, Negate) and isinstance(expression.operand, Number)


class Definitions:
    """What the names of a cell's equations stand for.

    Args:
        cell: the cell.
        equations: its equations in single operations.
    """

    def __init__(self, cell: Cell, equations: Equations) -> None:
        self.cell = cell
        self._known: dict[str, tuple[Expression, int, int]] = {}
        for equation in equations.body:
            for place, target in enumerate(equation.targets):
                self._known[target] = (equation.value, place, len(equation.targets))

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def of(self, name: str) -> tuple[Expression, int, int]:
        """The operation that gives a name, which piece of it, and of how many."""
        return self._known[name]

    def value(self, name: str) -> Expression | None:
        """The operation whose whole result a name is."""
        value, _, pieces = self._known.get(name, (None, 0, 0))
        return value if pieces == 1 else None

    def block(self, name: str) -> tuple[str, tuple[Range, ...]] | None:
        """The parameter and the ranges of its axes that a name stands for, or None."""
        if name in self.cell.parameters:
            return name, tuple((0, size) for size in self.cell.parameters[name])
        match self.value(name):
            case Name(name=other):
                return self.block(other)
            case Index(value=Name(name=other), slices=slices):
                inner = self.block(other)
                if inner is None:
                    return None
                ranges = list(inner[1])
                for axis, each in enumerate(slices):
                    ranges[axis] = inside(ranges[axis], self.ends(each, ranges[axis][1] - ranges[axis][0]))
                return inner[0], tuple(ranges)
        return None

    def ends(self, part: Slice, size: int) -> Range:
        """The elements of an axis of some size that a slice takes."""
        start, stop = (None if end is None else end.resolve(self.cell.dims) for end in (part.start, part.stop))
        first, last, _ = slice(start, stop).indices(size)
        return first, last


def inside(outer: Range, inner: Range) -> Range:
    """Elements `inner` of the elements `outer`."""
    return outer[0] + inner[0], outer[0] + inner[1]
