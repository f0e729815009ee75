"""Equations of a cell as polynomials over its states, blocks of its parameters, and functions of polynomials.

Needs: a checked cell. Keeps: the function, up to the order of sums and products. Slices and splits are pushed down to
the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Union

from normconvert.ir.cell import Cell
from normconvert.ir.expressions import Binary, Bound, Call, Expression, Index, Name, Negate, Number, Slice, is_next
from normconvert.passes.polynomial import Block, Function, Polynomial, Product, State, UnexpandableError
from normconvert.passes.split_products import split_products


def expand(cell: Cell) -> dict[str, Polynomial]:
    """Every name of the cell's equations as a polynomial.

    Raises:
        UnexpandableError: the equations use something that has no place in one.
    """
    expander = _Expander(cell)
    for equation in split_products(cell).body:
        if len(equation.targets) == 1:
            expander.bind(equation.targets[0], equation.value)
            continue
        assert isinstance(equation.value, Call)
        whole = equation.value.arguments[0]
        size = expander.size(whole) // len(equation.targets)
        for n, target in enumerate(equation.targets):
            expander.bind(target, whole, (n * size, (n + 1) * size))
    return {name: expander.polynomial(Name(name), None) for name in expander.bound if is_next(name)}


Range = Union[tuple[int, int], None]


class _Expander:
    """Expands lazily, so that a slice reaches the parameters under a name."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.bound: dict[str, tuple[Expression, Range]] = {}
        self.known: dict[tuple[str, Range], Polynomial] = {}

    def bind(self, name: str, value: Expression, part: Range = None) -> None:
        self.bound[name] = (value, part)

    def size(self, expression: Expression) -> int:
        """Length of the last axis; 1 for numbers."""
        match expression:
            case Name(name=name):
                if name in self.bound:
                    value, part = self.bound[name]
                    return self.size(value) if part is None else part[1] - part[0]
                return self._last(name)
            case Index(value=value, slices=slices) if len(slices) == self._rank(value):
                start, stop = self._range(slices[-1], self.size(value))
                return stop - start
            case Index(value=value):
                return self.size(value)
            case Binary(operator="@", right=right):
                return self.size(right)
            case Binary(left=left, right=right):
                return max(self.size(left), self.size(right))
            case Negate(operand=operand):
                return self.size(operand)
            case Call(arguments=arguments):
                return self.size(arguments[0])
            case _:
                return 1

    def polynomial(self, expression: Expression, part: Range) -> Polynomial:
        """An expression, or elements `part` of it."""
        match expression:
            case Number(value=value):
                return Polynomial.number(value)
            case Name(name=name):
                return self._name(name, part)
            case Negate(operand=operand):
                return -self.polynomial(operand, part)
            case Binary(operator="@", left=left, right=right):
                return self._product(left, right, part)
            case Binary(operator="+", left=left, right=right):
                return self.polynomial(left, part) + self.polynomial(right, part)
            case Binary(operator="-", left=left, right=right):
                return self.polynomial(left, part) - self.polynomial(right, part)
            case Binary(operator="*", left=left, right=right):
                return self.polynomial(left, part) * self.polynomial(right, part)
            case Index():
                return self._index(expression, part)
            case Call(function="sigmoid" | "tanh" | "relu" as function, arguments=arguments):
                return Polynomial.atom(Function(function, self.polynomial(arguments[0], part)))
        raise UnexpandableError

    def _name(self, name: str, part: Range) -> Polynomial:
        if (name, part) not in self.known:
            self.known[name, part] = self._new_name(name, part)
        return self.known[name, part]

    def _new_name(self, name: str, part: Range) -> Polynomial:
        if name in self.bound:
            value, own = self.bound[name]
            return self.polynomial(value, _inside(own, part))
        if name in self.cell.constants:
            return Polynomial.number(self.cell.constants[name])
        if name in self.cell.states and part is None:
            return Polynomial.atom(State(name))
        if name in self.cell.parameters and len(self.cell.parameters[name]) == 1:
            start, stop = part or (0, self._last(name))
            return Polynomial.atom(Block(name, start, stop))
        raise UnexpandableError

    def _index(self, expression: Index, part: Range) -> Polynomial:
        value = expression.value
        if self._rank(value) == 1 and len(expression.slices) == 1:
            return self.polynomial(value, _inside(self._range(expression.slices[0], self.size(value)), part))
        raise UnexpandableError

    def _product(self, left: Expression, right: Expression, part: Range) -> Polynomial:
        slices = right.slices if isinstance(right, Index) else ()
        right = right.value if isinstance(right, Index) else right
        if (
            not isinstance(left, Name)
            or not isinstance(right, Name)
            or len(self.cell.parameters.get(right.name, ())) != 2
        ):
            raise UnexpandableError
        if left.name not in self.cell.input_shapes and left.name not in self.cell.states:
            raise UnexpandableError
        full = self.cell.parameters[right.name]
        rows, columns = (
            self._range(slices[axis], size) if axis < len(slices) else (0, size) for axis, size in enumerate(full)
        )
        columns = _inside(columns, part) or columns
        is_input = left.name in self.cell.input_shapes
        return Polynomial.atom(Product(left.name, is_input, right.name, rows, columns))

    def _rank(self, expression: Expression) -> int:
        if isinstance(expression, Name) and expression.name in self.cell.parameters:
            return len(self.cell.parameters[expression.name])
        return self._rank(expression.value) if isinstance(expression, Index) else 1

    def _last(self, name: str) -> int:
        shapes: dict[str, tuple[int | None, ...]] = {**self.cell.input_shapes, **self.cell.parameters}
        shapes |= {state: value.shape for state, value in self.cell.states.items()}
        shape = shapes.get(name, ())
        if shape and shape[-1] is None:
            raise UnexpandableError
        return int(shape[-1] or 1) if shape else 1

    def _range(self, part: Slice, size: int) -> tuple[int, int]:
        start, stop = (None if end is None else _resolved(end, self.cell.dims) for end in (part.start, part.stop))
        first, last, _ = slice(start, stop).indices(size)
        return first, last


def _resolved(bound: Bound, dims: Mapping[str, int]) -> int:
    return bound.resolve(dict(dims))


def _inside(outer: Range, inner: Range) -> Range:
    """Elements `inner` of the elements `outer`."""
    if outer is None or inner is None:
        return outer or inner
    return outer[0] + inner[0], outer[0] + inner[1]
