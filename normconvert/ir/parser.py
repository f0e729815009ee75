"""Text to equations. Python's expression grammar, read with `ast` and never executed.

    cell bn_lstm(x; c, h):
        z = bn_x(x @ W_x) + bn_h(h @ W_h) + b
        i, j, f, o = split(z, 4)
        c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
        h = sigmoid(o) * tanh(bn_c(c))

A name may be assigned more than once; each assignment gets a name of its own (single-assignment form), and the
last assignment to a state is that state's next value. `-> y` after the parentheses names what the cell gives out;
without it that is the next `h`, or the only state. A text without states starts with `layer` instead of `cell`.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import Counter
from dataclasses import dataclass

from normconvert.errors import EquationError
from normconvert.ir.expressions import (
    Binary,
    Bound,
    Call,
    Constant,
    Equation,
    Equations,
    Expression,
    Index,
    Name,
    Negate,
    Number,
    Position,
    Slice,
    next_value,
)

MAX_CHARACTERS = 65_536
"""Longest text accepted; a text comes from a file that may be hostile."""

_HEADER = re.compile(
    r"\s*(?P<kind>cell|layer)\s+(?P<name>[A-Za-z_]\w*)\s*"
    r"\((?P<inputs>[\w\s,]*)(?:;(?P<states>[\w\s,]*))?\)\s*(?:->\s*(?P<outputs>[\w\s,]+?))?\s*:\s*(?:#.*)?"
)
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.MatMult: "@",
}


def parse(text: str) -> Equations:
    """Read a cell's text.

    Raises:
        EquationError: the text is not in the language; `where` gives line and column.
    """
    if len(text) > MAX_CHARACTERS:
        raise EquationError(f"the text has {len(text)} characters, more than {MAX_CHARACTERS}", where="line 1")
    lines = text.expandtabs(4).splitlines()
    start = next((n for n, line in enumerate(lines) if line.strip() and not line.strip().startswith("#")), None)
    header = _HEADER.fullmatch(lines[start]) if start is not None else None
    if start is None or header is None:
        raise EquationError(
            "the first line is not a header",
            where=f"line {(start or 0) + 1}, column 1",
            remedy="Write it as 'cell NAME(input; state, state):' or 'layer NAME(input) -> output:'",
        )
    inputs, states, outputs = (_names(header[part]) for part in ("inputs", "states", "outputs"))
    here = Position(start + 1, 1)
    if (header["kind"] == "cell") != bool(states):
        _fail("a cell has states after a semicolon, a layer has none", here)
    for name, count in Counter(inputs + states).items():
        if count > 1:
            _fail(f"{name} is listed twice", here)
    statements, place = _statements(lines[start + 1 :], start + 1)
    return _Builder(inputs, states, statements, place).build(header["name"], outputs, here)


def parse_size(text: str) -> Bound:
    """Read a size such as `4*units` or `inputs + units`.

    Raises:
        EquationError: it is not an integer or a sum of sizes.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise EquationError(f"{text!r} is not a size") from None
    return _bound(node, Position(1, 1))


@dataclass(frozen=True)
class _Place:
    """Where the body stands in the whole text."""

    line: int
    indent: int

    def __call__(self, node: ast.AST) -> Position:
        return Position(getattr(node, "lineno", 1) + self.line, getattr(node, "col_offset", 0) + 1 + self.indent)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in (text or "").split(",")) if name)


def _fail(what: str, position: Position) -> None:
    raise EquationError(what, where=str(position))


def _statements(lines: list[str], offset: int) -> tuple[list[ast.stmt], _Place]:
    body = textwrap.dedent("\n".join(lines))
    first = next((n for n, line in enumerate(lines) if line.strip()), 0)
    indent = len(lines[first]) - len(lines[first].lstrip()) if lines else 0
    try:
        return ast.parse(body).body, _Place(offset, indent)
    except SyntaxError as error:
        position = Position((error.lineno or 1) + offset, (error.offset or 1) + indent)
        raise EquationError(f"cannot be read: {error.msg}", where=str(position)) from None
    except (RecursionError, MemoryError, ValueError):
        raise EquationError("the expression is nested too deeply", where=f"line {offset + 1}") from None


class _Builder:
    """Turns statements into equations, renaming as it goes."""

    def __init__(self, inputs: tuple[str, ...], states: tuple[str, ...], body: list[ast.stmt], place: _Place) -> None:
        self.inputs, self.states, self.body, self.place = inputs, states, body, place
        self.scope: dict[str, str] = {name: name for name in inputs + states}
        self.taken = {node.id for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)}
        self.taken |= set(self.scope)
        self.remaining = Counter(
            node.id
            for statement in body
            for node in ast.walk(statement)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )

    def build(self, name: str, outputs: tuple[str, ...], header: Position) -> Equations:
        try:
            equations = tuple(self.equation(statement) for statement in self.body)
        except RecursionError:
            raise EquationError("the expression is nested too deeply", where=str(header)) from None
        for state in self.states:
            if self.scope[state] == state:
                _fail(f"state {state} has no equation", header)
        if not outputs:
            default = "h" if "h" in self.states else self.states[0] if len(self.states) == 1 else None
            if default is None:
                _fail("which value is the output? Name it after the parentheses: '-> NAME'", header)
            outputs = (str(default),)
        for output in outputs:
            if output not in self.scope:
                _fail(f"the output {output} has no equation", header)
        return Equations(name, self.inputs, self.states, tuple(self.scope[o] for o in outputs), equations)

    def equation(self, statement: ast.stmt) -> Equation:
        position = self.place(statement)
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            _fail("expected an equation 'name = expression'", position)
        assert isinstance(statement, ast.Assign)
        target = statement.targets[0]
        elements = target.elts if isinstance(target, ast.Tuple) else [target]
        is_split = isinstance(statement.value, ast.Call) and getattr(statement.value.func, "id", "") == "split"
        if is_split != isinstance(target, ast.Tuple):
            _fail("several names take the pieces of split(...), and only they do", position)
        value = self.expression(statement.value)
        names: list[str] = []
        for element in elements:
            if not isinstance(element, ast.Name):
                _fail("only names can be assigned to", self.place(element))
            assert isinstance(element, ast.Name)
            names.append(self.assign(element.id, self.place(element)))
        return Equation(tuple(names), value, position)

    def assign(self, name: str, position: Position) -> str:
        self.remaining[name] -= 1
        if name in self.states and self.remaining[name] == 0:
            fresh = next_value(name)
        elif name not in self.scope:
            fresh = name
        else:
            number = 2
            while (fresh := f"{name}_{number}") in self.taken:
                number += 1
        self.taken.add(fresh)
        self.scope[name] = fresh
        return fresh

    def expression(self, node: ast.expr) -> Expression:
        position = self.place(node)
        match node:
            case ast.Constant(value=bool()):
                _fail("True and False stand only after an option's name", position)
            case ast.Constant(value=int() | float() as number):
                return Number(float(number), position)
            case ast.Name(id=name):
                return Name(self.scope.get(name, name), position)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Negate(self.expression(operand), position)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
                return Binary(_OPERATORS[type(op)], self.expression(left), self.expression(right), position)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
                options = tuple(sorted((str(k.arg), self.constant(k.value)) for k in keywords))
                if any(keyword.arg is None for keyword in keywords):
                    _fail("'**' has no meaning here", position)
                return Call(name, tuple(self.expression(a) for a in arguments), options, position)
            case ast.Subscript(value=value, slice=index):
                parts = index.elts if isinstance(index, ast.Tuple) else [index]
                return Index(self.expression(value), tuple(self.slice(part) for part in parts), position)
        _fail(f"{type(node).__name__} has no meaning in an equation", position)
        raise AssertionError

    def constant(self, node: ast.expr) -> Constant:
        match node:
            case ast.Constant(value=(bool() | int() | float() | str()) as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=(int() | float()) as value)):
                return -value
            case ast.Tuple(elts=elements):
                values = [self.constant(element) for element in elements]
                if all(isinstance(value, int) for value in values):
                    return tuple(int(value) for value in values if isinstance(value, int))
        _fail("an option's value is a number, a text, True, False, or integers in parentheses", self.place(node))
        raise AssertionError

    def slice(self, node: ast.expr) -> Slice:
        if not isinstance(node, ast.Slice) or node.step is not None:
            _fail("an index is a slice 'start:stop' of constants", self.place(node))
        assert isinstance(node, ast.Slice)
        return Slice(*(None if end is None else _bound(end, self.place(end)) for end in (node.lower, node.upper)))


def _bound(node: ast.expr, position: Position) -> Bound:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return Bound(value)
        case ast.Name(id=name):
            return Bound(0, ((name, 1),))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _scaled(_bound(operand, position), -1)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _added(_bound(left, position), _bound(right, position))
        case ast.BinOp(op=ast.Sub(), left=left, right=right):
            return _added(_bound(left, position), _scaled(_bound(right, position), -1))
        case ast.BinOp(op=ast.Mult(), left=ast.Constant(value=int() as factor), right=right):
            return _scaled(_bound(right, position), factor)
    _fail("a size is an integer or a sum such as inputs + 2*units", position)
    raise AssertionError


def _scaled(bound: Bound, factor: int) -> Bound:
    return Bound(bound.constant * factor, tuple((name, count * factor) for name, count in bound.terms))


def _added(a: Bound, b: Bound) -> Bound:
    counts: Counter[str] = Counter()
    for name, count in a.terms + b.terms:
        counts[name] += count
    return Bound(a.constant + b.constant, tuple(sorted((name, n) for name, n in counts.items() if n)))
