"""Equations of a cell as polynomials: sums of products, flattened, in which order does not show.

The atoms are the states, functions of polynomials, blocks of parameters (a bias), and products of the input or a
state with a block of a parameter. Slices and splits are pushed down to the blocks, numbers into the coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

from normconvert.ir.cell import Cell
from normconvert.ir.expressions import Binary, Bound, Call, Expression, Index, Name, Negate, Number, Slice, is_next
from normconvert.passes.split_products import split_products

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
