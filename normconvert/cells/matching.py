"""Whether a cell is one of a family's: its equations compared with the family's, whatever the names in them.

A family's equations have open places: activations, options, terms that may be missing. Matching finds what a cell has
in these places, and which of its names stands for which of the family's; or the first equation that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

from normconvert.cells.binding import without, without_neutral
from normconvert.cells.family import Family
from normconvert.errors import EquationError
from normconvert.ir.cell import Cell
from normconvert.ir.expressions import (
    Binary,
    Call,
    Constant,
    Equation,
    Equations,
    Expression,
    Index,
    Name,
    Negate,
    Number,
    Slice,
    next_value,
)
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.layers import Activation
from normconvert.ir.model import Array
from normconvert.ir.parser import parse
from normconvert.ir.printer import print_expression


@dataclass
class Match:
    """A cell as one of a family's.

    Attributes:
        names: the cell's names by the family's: inputs, states, parameters, constants, norms, and results.
        functions: what the family's placeholders stand for; None is the identity.
        options: what its `"$name"` options stand for.
        numbers: the family's constants that the cell has as a number in its equations.
    """

    names: dict[str, str] = field(default_factory=dict)
    functions: dict[str, Activation | None] = field(default_factory=dict)
    options: dict[str, Constant] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def arrays(self, weights: Mapping[str, Array]) -> dict[str, Array]:
        """A cell's arrays under the family's names."""
        back = {own: theirs for theirs, own in self.names.items()}
        found = {}
        for name, array in weights.items():
            head, dot, role = name.partition(".")
            if head == "initial":
                found[f"initial.{back[role]}"] = array
            else:
                found[f"{back[head]}{dot}{role}"] = array
        return found


@dataclass(frozen=True)
class Difference:
    """Where a cell and a family part: an equation of each, as text."""

    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"'{self.ours}' is not '{self.theirs}'"


def match(cell: Cell, family: Family) -> Match | Difference:
    """Compare a cell with a family."""
    ours = cell.parsed()
    theirs = _template(cell, family)
    header = _header(ours, theirs)
    if header is not None:
        return header
    matcher = _Matcher(cell, family, Match())
    matcher.found.names |= dict(zip(theirs.inputs, ours.inputs, strict=True))
    if set(theirs.states) == set(ours.states):
        pairs = [(name, name) for name in theirs.states]
    else:
        pairs = list(zip(theirs.states, ours.states, strict=True))
    matcher.found.names |= dict(pairs)
    matcher.found.names |= {next_value(a): next_value(b) for a, b in pairs}
    for equation, other in zip(ours.body, theirs.body, strict=False):
        if not matcher.equation(equation, other):
            return Difference(equation_text(equation), equation_text(other))
    if len(ours.body) != len(theirs.body):
        longer, place = (ours, 0) if len(ours.body) > len(theirs.body) else (theirs, 1)
        rest = equation_text(longer.body[min(len(ours.body), len(theirs.body))])
        return Difference(*((rest, "nothing") if place == 0 else ("nothing", rest)))
    for output, wanted in zip(ours.outputs, theirs.outputs, strict=True):
        if matcher.found.names.get(wanted) != output:
            return Difference(f"the output {output}", f"the output {wanted}")
    return matcher.found


def _header(ours: Equations, theirs: Equations) -> Difference | None:
    for what in ("inputs", "states", "outputs"):
        own, other = getattr(ours, what), getattr(theirs, what)
        if len(own) != len(other):
            return Difference(f"{what} {', '.join(own)}", f"{what} {', '.join(other)}")
    return None


def _template(cell: Cell, family: Family) -> Equations:
    """The family's equations without the optional terms that the cell lacks, going by names."""
    known = {*cell.parameters, *cell.constants, *cell.norms}
    absent = tuple(name for name in family.optional if name not in known)
    return _without(family.equations, absent, tuple(name for name in absent if name in family.constants))


@lru_cache(maxsize=1024)
def _without(text: str, absent: tuple[str, ...], constants: tuple[str, ...]) -> Equations:
    """Equations without some terms; a cell is compared with every family, and often."""
    equations = parse(text)
    for name in absent:
        if name in constants:
            equations = without_neutral(without_neutral(equations, name, 0.0), name, float("inf"))
            continue
        with suppress(EquationError):
            equations = without(equations, name)
    return equations


@dataclass
class _Matcher:
    cell: Cell
    family: Family
    found: Match

    def equation(self, ours: Equation, theirs: Equation) -> bool:
        if len(ours.targets) != len(theirs.targets) or not self.same(ours.value, theirs.value):
            return False
        return all(self.name(own, other) for own, other in zip(ours.targets, theirs.targets, strict=True))

    def name(self, own: str, other: str) -> bool:
        """Whether two names stand for the same; each stands for one only."""
        if other not in self.found.names and own not in self.found.names.values():
            self.found.names[other] = own
        return self.found.names.get(other) == own

    def same(self, ours: Expression, theirs: Expression) -> bool:
        match ours, theirs:
            case _, Call(function=function) if function in self.family.functions:
                return self._placeholder(ours, theirs)
            case Number(value=a), Number(value=b):
                return a == b
            case Number(value=a), Name(name=other) if other in self.family.constants:
                return self.found.numbers.setdefault(other, a) == a
            case Name(name=own), Name(name=other):
                return self._kind(own) == self._family_kind(other) and self.name(own, other)
            case Negate(operand=a), Negate(operand=b):
                return self.same(a, b)
            case Binary(operator=p, left=a, right=b), Binary(operator=q, left=c, right=d):
                return p == q and self.same(a, c) and self.same(b, d)
            case Index(value=a, slices=p), Index(value=b, slices=q):
                return len(p) == len(q) and self.same(a, b) and all(map(self._slice, p, q))
            case Call(), Call():
                return self._call(ours, theirs)
        return False

    def _call(self, ours: Call, theirs: Call) -> bool:
        if ours.function in self.cell.norms or theirs.function in self.family.norms:
            both = ours.function in self.cell.norms and theirs.function in self.family.norms
            named = both and self.name(ours.function, theirs.function)
        else:
            named = ours.function == theirs.function
        mine, yours = _options(ours), _options(theirs)
        return (
            named
            and len(ours.arguments) == len(theirs.arguments)
            and all(map(self.same, ours.arguments, theirs.arguments))
            and mine.keys() == yours.keys()
            and all(self._option(mine[key], yours[key]) for key in mine)
        )

    def _option(self, own: Constant | None, other: Constant | None) -> bool:
        if isinstance(other, str) and other.startswith("$") and own is not None:
            return self.found.options.setdefault(other[1:], own) == own
        return own == other

    def _placeholder(self, ours: Expression, theirs: Expression) -> bool:
        """A function that the family leaves open: some function with numbers, or none."""
        assert isinstance(theirs, Call)
        activation: Activation | None = None
        inner = ours
        if isinstance(ours, Call) and ours.function in FUNCTIONS and FUNCTIONS[ours.function].tensors == 1:
            numbers = [_number(argument) for argument in ours.arguments[1:]]
            axis = dict(ours.options).get("axis", -1)
            if all(number is not None for number in numbers) and isinstance(axis, int):
                values = tuple(number for number in numbers if number is not None)
                activation, inner = Activation(ours.function, values, axis), ours.arguments[0]
        known = self.found.functions.setdefault(theirs.function, activation)
        return known == activation and self.same(inner, theirs.arguments[0])

    def _slice(self, own: Slice, other: Slice) -> bool:
        """Ends are compared as they are written, with the sizes of the cell."""
        return own == other

    def _kind(self, name: str) -> str:
        for kind in ("parameters", "constants", "norms"):
            if name in getattr(self.cell, kind):
                return kind
        return ""

    def _family_kind(self, name: str) -> str:
        for kind in ("parameters", "constants", "norms"):
            if name in getattr(self.family, kind):
                return kind
        return ""


def _options(call: Call) -> dict[str, Constant | None]:
    info = FUNCTIONS.get(call.function)
    return {**(info.options if info is not None else {}), **dict(call.options)}


def _number(expression: Expression) -> float | None:
    if isinstance(expression, Negate) and isinstance(expression.operand, Number):
        return -expression.operand.value
    return expression.value if isinstance(expression, Number) else None


def equation_text(equation: Equation) -> str:
    """An equation as a user reads it."""
    return f"{', '.join(name.rstrip(chr(39)) for name in equation.targets)} = {print_expression(equation.value)}"
