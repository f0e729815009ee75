"""Makes the terms of a cell from its equations in single operations."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from normconvert.comparison.operations import Definitions, inside
from normconvert.comparison.terms import Applied, Block, Leaf, Normed, NoTermsError, Part, Product, Range, Term, Terms
from normconvert.ir.cell import Cell
from normconvert.ir.expressions import Binary, Call, Constant, Equations, Expression, Index, Name, Negate, Number
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.norm import Norm


class Former:
    """Makes the terms of a cell; `cuts` are where the results of its norms are taken apart."""

    def __init__(
        self,
        cell: Cell,
        equations: Equations,
        shapes: dict[str, tuple[int | None, ...]],
        terms: Terms,
        cuts: dict[str, frozenset[int]],
    ) -> None:
        self.cell, self.shapes, self.terms, self.cuts = cell, shapes, terms, cuts
        self.found_cuts: dict[str, set[int]] = defaultdict(set)
        self.known: dict[tuple[str, Range | None], Term] = {}
        self.definitions = Definitions(cell, equations)

    def size(self, name: str) -> int | None:
        """Length of the last axis; None where it is not known or there is none."""
        shape = self.shapes[name]
        return shape[-1] if shape else None

    def whole(self, name: str) -> Term:
        """The term of a name."""
        size = self.size(name)
        return self.name(name, None if size is None else (0, size))

    def name(self, name: str, part: Range | None) -> Term:
        """The term of elements `part` of a name's last axis."""
        if (name, part) not in self.known:
            self.known[name, part] = self._new(name, part)
        return self.known[name, part]

    def _new(self, name: str, part: Range | None) -> Term:
        if name in self.definitions:
            value, place, pieces = self.definitions.of(name)
            if pieces == 1:
                return self.expression(value, part, name)
            return self._piece(value, part, place, pieces, name)
        if name in self.cell.constants:
            return self.terms.number(self.cell.constants[name])
        if name in self.cell.parameters:
            shape = self.cell.parameters[name]
            leading = tuple((0, size) for size in shape[:-1])
            return self.terms.make(Block, name, (*leading, part) if part is not None else leading)
        kind = "state" if name in self.cell.states else "input"
        size = self.size(name)
        return self.terms.make(Leaf, kind, name, None if part == (0, size) else part)

    def _piece(self, value: Expression, part: Range | None, place: int, pieces: int, name: str) -> Term:
        """Elements of a piece of a split."""
        assert isinstance(value, Call)
        whole = value.arguments[0]
        assert isinstance(whole, Name)
        rank = len(self.shapes[whole.name])
        axis = dict(value.options).get("axis", -1)
        if axis in (-1, rank - 1) and part is not None:
            size = self.size(whole.name)
            assert size is not None
            start = place * (size // pieces)
            return self.name(whole.name, (start + part[0], start + part[1]))
        made = self.terms.make(
            Applied, "split", (self.whole(whole.name),), (float(place), float(pieces)), (("axis", axis),)
        )
        return self._part(made, part, name)

    def _part(self, whole: Term, part: Range | None, name: str) -> Term:
        size = self.size(name)
        return whole if part is None or part == (0, size) else self.terms.make(Part, whole, part)

    def expression(self, expression: Expression, part: Range | None, name: str) -> Term:
        """Elements `part` of an operation, whose result is `name`."""
        match expression:
            case Number(value=value):
                return self.terms.number(value)
            case Name(name=other):
                return self.operand(expression, part, self.size(name)) if other != name else self.name(other, part)
            case Negate(operand=operand):
                return self.terms.scale(self.operand(operand, part, self.size(name)), -1.0)
            case Binary(operator="@", left=left, right=right):
                return self._product(left, right, part)
            case Binary(operator=operator, left=left, right=right):
                a, b = (self.operand(side, part, self.size(name)) for side in (left, right))
                return self._combined(operator, a, b)
            case Index():
                return self._index(expression, part, name)
            case Call(function=function) if function in self.cell.norms:
                return self._norm(self.cell.norms[function], expression, part)
            case Call():
                return self._call(expression, part, name)
        raise TypeError(type(expression).__name__)

    def operand(self, operand: Expression, part: Range | None, size: int | None) -> Term:
        """What an elementwise operation reads for elements `part` of its result, whose last axis has `size`."""
        if not isinstance(operand, Name):
            return self.terms.number(self._number(operand))
        own = self.size(operand.name)
        if own is None or part is None or (own == 1 and size != 1):
            return self.whole(operand.name)
        return self.name(operand.name, part)

    def _number(self, expression: Expression) -> float:
        match expression:
            case Number(value=value):
                return value
            case Negate(operand=operand):
                return -self._number(operand)
            case Name(name=name) if name in self.cell.constants:
                return self.cell.constants[name]
            case Name(name=name) if name in self.definitions:
                return self._number(self.definitions.of(name)[0])
        raise NoTermsError

    def _combined(self, operator: str, a: Term, b: Term) -> Term:
        match operator:
            case "+":
                return self.terms.add(a, b)
            case "-":
                return self.terms.add(a, self.terms.scale(b, -1.0))
            case "*":
                return self.terms.multiply(a, b)
        return self.terms.multiply(a, self.terms.inverse(b))

    def _product(self, left: Expression, right: Expression, part: Range | None) -> Term:
        assert isinstance(left, Name)
        assert isinstance(right, Name)
        pieces = self._joined(left.name)
        ranges = self.definitions.block(right.name)
        if pieces is None or ranges is None or len(ranges[1]) != 2:
            return self.terms.make(Product, self.whole(left.name), self._columns(right.name, part))
        parameter, (rows, columns) = ranges
        columns = columns if part is None else (columns[0] + part[0], columns[0] + part[1])
        total, start = self.terms.number(0.0), rows[0]
        for piece, size in pieces:
            block = self.terms.make(Block, parameter, ((start, start + size), columns))
            total, start = self.terms.add(total, self.terms.make(Product, piece, block)), start + size
        return total

    def _columns(self, name: str, part: Range | None) -> Term:
        return self.whole(name) if part is None or len(self.shapes[name]) < 2 else self.name(name, part)

    def _joined(self, name: str) -> list[tuple[Term, int]] | None:
        """The values that are joined along the last axis to a vector, with their sizes."""
        size = self.size(name)
        if size is None:
            return None
        value = self.definitions.value(name)
        if isinstance(value, Name):
            return self._joined(value.name)
        is_join = isinstance(value, Call) and value.function == "concat" and len(self.shapes[name]) == 1
        if not is_join or not isinstance(value, Call):
            return [(self.whole(name), size)]
        found: list[tuple[Term, int]] = []
        for argument in value.arguments:
            pieces = self._joined(argument.name) if isinstance(argument, Name) else None
            if pieces is None:
                return None
            found += pieces
        return found

    def _index(self, expression: Index, part: Range | None, name: str) -> Term:
        block = self.definitions.block(name)
        if block is not None:
            parameter, ranges = block
            last = ranges[-1] if part is None else inside(ranges[-1], part)
            return self.terms.make(Block, parameter, (*ranges[:-1], last))
        assert isinstance(expression.value, Name)
        shape = self.shapes[expression.value.name]
        if any(size is None for size in shape):
            raise NoTermsError
        ranges = tuple(
            self.definitions.ends(expression.slices[axis], size or 0)
            if axis < len(expression.slices)
            else (0, size or 0)
            for axis, size in enumerate(shape)
        )
        if all(found == (0, size) for found, size in zip(ranges[:-1], shape, strict=False)):
            return self.name(expression.value.name, ranges[-1] if part is None else inside(ranges[-1], part))
        options = tuple((f"axis {axis}", each) for axis, each in enumerate(ranges))
        made = self.terms.make(Applied, "index", (self.whole(expression.value.name),), (), options)
        return self._part(made, part, name)

    def _norm(self, norm: Norm, call: Call, part: Range | None) -> Term:
        argument = call.arguments[0]
        assert isinstance(argument, Name)
        part = part or (0, norm.features)
        self.found_cuts[call.function] |= set(part)
        value = self.name(argument.name, part)
        by_feature = norm.kind == "batch" and not norm.pooled
        if by_feature or (norm.pooled and part != (0, norm.features)):
            over: tuple[Term, ...] = () if by_feature else (self.whole(argument.name),)
            return self.terms.make(Normed, call.function, part, value, over)
        size = norm.features // norm.groups
        group = (part[0] // size * size, part[0] // size * size + size)
        if part[1] > group[1]:  # more than one group: each by itself
            pieces = [self._norm(norm, call, (start, start + size)) for start in range(group[0], part[1], size)]
            whole = part[0] == group[0] and part[1] % size == 0
            joined = self.terms.make(Applied, "concat", tuple(pieces), (), (("axis", -1),))
            return joined if whole else self.terms.make(Part, joined, (part[0] - group[0], part[1] - group[0]))
        if part == group:
            return self.terms.make(Normed, call.function, part, value, ())
        places = sorted({*group, *(cut for cut in self.cuts.get(call.function, ()) if group[0] < cut < group[1])})
        over = tuple(self.name(argument.name, each) for each in pairwise(places))
        return self.terms.make(Normed, call.function, part, value, over)

    def _call(self, call: Call, part: Range | None, name: str) -> Term:
        info = FUNCTIONS[call.function]
        count = len(call.arguments) if info.tensors is None else info.tensors
        options: dict[str, Constant | None] = {**info.options, **dict(call.options)}
        given = [self._number(argument) for argument in call.arguments[count:]]
        defaults = [value for value in list(info.parameters.values())[len(given) :] if value is not None]
        numbers = tuple(given + defaults)
        if info.kind == "elementwise":
            arguments = tuple(self.operand(each, part, self.size(name)) for each in call.arguments[:count])
            if call.function == "square":
                return self.terms.multiply(arguments[0], arguments[0])
            if call.function in ("minimum", "maximum"):
                arguments = tuple(sorted(arguments, key=lambda term: term.serial))
            return self.terms.make(Applied, call.function, arguments, numbers, ())
        names = [argument.name for argument in call.arguments[:count] if isinstance(argument, Name)]
        if len(names) != count:
            raise NoTermsError
        if call.function == "concat" and options["axis"] in (-1, len(self.shapes[name]) - 1) and part is not None:
            return self._concat(names, part)
        if call.function == "conv" and part is not None:
            value, kernel = names
            block = (self.whole(value), self.name(kernel, part))
            return self.terms.make(Applied, "conv", block, numbers, _sorted(options))
        made = self.terms.make(
            Applied, call.function, tuple(map(self.whole, names)), numbers, _sorted(self._axes(options, names[0]))
        )
        return self._part(made, part, name)

    def _axes(self, options: dict[str, Constant | None], name: str) -> dict[str, Constant | None]:
        """Options with their axis counted from the end."""
        axis = options.get("axis")
        rank = len(self.shapes[name])
        return {**options, "axis": axis - rank} if isinstance(axis, int) and axis >= 0 else options

    def _concat(self, names: list[str], part: Range) -> Term:
        found: list[Term] = []
        start = 0
        for name in names:
            size = self.size(name)
            if size is None:
                raise NoTermsError
            own = max(part[0] - start, 0), min(part[1] - start, size)
            if own[0] < own[1]:
                found.append(self.name(name, own))
            start += size
        return found[0] if len(found) == 1 else self.terms.make(Applied, "concat", tuple(found), (), (("axis", -1),))


def _sorted(options: dict[str, Constant | None]) -> tuple[tuple[str, Constant | None], ...]:
    return tuple(sorted(options.items()))
