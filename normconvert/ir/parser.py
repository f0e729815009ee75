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
import keyword
import math
import re
from collections import Counter

from normconvert.errors import EquationError
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
    Position,
    Slice,
    mistake,
    next_value,
)
from normconvert.ir.sizes import MAX_DEPTH, MAX_INTEGER, read_size
from normconvert.ir.statements import Place, code_lines, statements

_HEADER = re.compile(
    r"(?P<kind>cell|layer)\s+(?P<name>[A-Za-z_]\w*)\s*"
    r"\((?P<inputs>[^;()]*)(?:;(?P<states>[^;()]*))?\)\s*(?:->(?P<outputs>[^:]*))?:\s*",
    re.ASCII,
)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TEXT = re.compile(r"[$\w. -]*", re.ASCII)
_INFINITY = "inf"
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.MatMult: "@",
}
_FOREIGN: dict[type[ast.AST], str] = {
    ast.Attribute: "a dot after a value",
    ast.Lambda: "lambda",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.JoinedStr: "a formatted text",
    ast.NamedExpr: "':=' inside an expression",
    ast.Compare: "a comparison",
    ast.BoolOp: "'and' or 'or'",
    ast.IfExp: "'if' inside an expression",
    ast.Starred: "a star before a value",
    ast.Constant: "a text, True, False, None or an imaginary number outside an option",
    ast.BinOp: "an operator other than + - * / @",
    ast.UnaryOp: "a sign other than -",
    ast.Tuple: "a list of values",
    ast.List: "a list of values",
}


def parse(text: str) -> Equations:
    """Read a cell's text.

    Raises:
        EquationError: the text is not in the language; `where` gives line and column.
    """
    lines = code_lines(text)
    start = next((number for number, line in enumerate(lines) if line), 0)
    line = lines[start].lstrip()
    indent = len(lines[start]) - len(line)
    header = _HEADER.fullmatch(line)
    if header is None:
        raise EquationError(
            "the first line is not a header",
            where=str(Position(start + 1, indent + 1)),
            remedy="Write it as 'cell NAME(input; state, state):' or 'layer NAME(input) -> output:'",
        )
    here = Position(start + 1, indent + 1)
    _check_name(header["name"], Position(start + 1, indent + 1 + header.start("name")))
    inputs, states, outputs = (_names(header, part, here) for part in ("inputs", "states", "outputs"))
    if (header["kind"] == "cell") != bool(states):
        raise mistake("a cell has states after a semicolon, a layer has none", here)
    for name, count in Counter(inputs + states).items():
        if count > 1:
            raise mistake(f"{name} is listed twice", here)
    body, place = statements(lines, start)
    return _Builder(inputs, states, body, place).build(header["name"], outputs, here)


def _names(header: re.Match[str], part: str, here: Position) -> tuple[str, ...]:
    """The comma-separated names of one part of the header."""
    if not (header[part] or "").strip():
        return ()
    names = []
    column = here.column + header.start(part)
    for piece in header[part].split(","):
        name = piece.strip()
        _check_name(name, Position(here.line, column + len(piece) - len(piece.lstrip())))
        names.append(name)
        column += len(piece) + 1
    return tuple(names)


def _check_name(name: str, position: Position) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name == _INFINITY:
        raise mistake(f"{name!r} cannot be a name", position)


class _Builder:
    """Turns statements into equations, renaming as it goes."""

    def __init__(self, inputs: tuple[str, ...], states: tuple[str, ...], body: list[ast.stmt], place: Place) -> None:
        names = [node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)]
        self.inputs, self.states, self.body, self.place = inputs, states, body, place
        self.scope: dict[str, str] = {name: name for name in inputs + states}
        self.taken = {node.id for node in names} | set(self.scope)
        self.remaining = Counter(node.id for node in names if isinstance(node.ctx, ast.Store))
        self.versions: Counter[str] = Counter()

    def build(self, name: str, outputs: tuple[str, ...], header: Position) -> Equations:
        equations = tuple(self.equation(statement) for statement in self.body)
        for state in self.states:
            if self.scope[state] == state:
                raise mistake(f"state {state} has no equation", header)
        if not outputs:
            if "h" not in self.states and len(self.states) != 1:
                raise mistake("which value is the output? Name it after the parentheses: '-> NAME'", header)
            outputs = ("h",) if "h" in self.states else self.states
        for output in outputs:
            if output not in self.scope:
                raise mistake(f"the output {output} has no equation", header)
        return Equations(name, self.inputs, self.states, tuple(self.scope[o] for o in outputs), equations)

    def equation(self, statement: ast.stmt) -> Equation:
        position = self.place(statement)
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise mistake("expected an equation 'name = expression'", position)
        target, source = statement.targets[0], statement.value
        elements = target.elts if isinstance(target, ast.Tuple) else [target]
        is_split = isinstance(source, ast.Call) and _is_name(source.func, "split")
        if is_split != isinstance(target, ast.Tuple) or (is_split and len(elements) < 2):
            raise mistake("several names take the pieces of split(...), and only they do", position)
        value = self.call(source, 0) if isinstance(source, ast.Call) else self.expression(source, 0)
        names: list[str] = []
        for element in elements:
            if not isinstance(element, ast.Name):
                raise mistake("only names can be assigned to", self.place(element))
            if sum(_is_name(other, element.id) for other in elements) > 1:
                raise mistake(f"{element.id} is assigned twice at once", self.place(element))
            names.append(self.assign(element.id, self.place(element)))
        return Equation(tuple(names), value, position)

    def assign(self, name: str, position: Position) -> str:
        _check_name(name, position)
        self.remaining[name] -= 1
        if name in self.states and self.remaining[name] == 0:
            fresh = next_value(name)
        elif name not in self.scope:
            fresh = name
        else:
            fresh = self.version(name)
        self.taken.add(fresh)
        self.scope[name] = fresh
        return fresh

    def version(self, name: str) -> str:
        """The first of NAME_2, NAME_3, ... that nothing in the text is called."""
        while True:
            self.versions[name] += 1
            fresh = f"{name}_{self.versions[name] + 1}"
            if fresh not in self.taken:
                return fresh

    def expression(self, node: ast.expr, depth: int) -> Expression:
        position = self.place(node)
        if depth > MAX_DEPTH:
            raise mistake(f"the expression is nested more than {MAX_DEPTH} levels deep", position)
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return Number(float(_literal(number, position)), position)
            case ast.Name(id=name) if name == _INFINITY:
                return Number(math.inf, position)
            case ast.Name(id=name):
                return Name(self.scope.get(name, name), position)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Negate(self.expression(operand, depth + 1), position)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
                operands = self.expression(left, depth + 1), self.expression(right, depth + 1)
                return Binary(_OPERATORS[type(op)], *operands, position)
            case ast.Call(func=function):
                if _is_name(function, "split"):
                    raise mistake("split stands alone to the right of '='", position)
                return self.call(node, depth)
            case ast.Subscript(value=value, slice=index):
                parts = index.elts if isinstance(index, ast.Tuple) else [index]
                return Index(self.expression(value, depth + 1), tuple(self.slice(part) for part in parts), position)
        raise mistake(f"{_FOREIGN.get(type(node), type(node).__name__)} has no meaning in an equation", position)

    def call(self, node: ast.Call, depth: int) -> Call:
        position = self.place(node)
        if not isinstance(node.func, ast.Name):
            raise mistake("only a function or a norm can be called, by its name", position)
        options: dict[str, Constant] = {}
        for option in node.keywords:
            if option.arg is None or option.arg in options:
                raise mistake("an option is written once, as name=value", self.place(option))
            options[option.arg] = self.constant(option.value)
        arguments = tuple(self.expression(argument, depth + 1) for argument in node.args)
        return Call(node.func.id, arguments, tuple(sorted(options.items())), position)

    def constant(self, node: ast.expr) -> Constant:
        position = self.place(node)
        match node:
            case ast.Constant(value=bool() as value):
                return value
            case ast.Constant(value=str() as value):
                if not _TEXT.fullmatch(value):
                    raise mistake("a text holds letters, digits, '_', '-', '.', '$' and blanks", position)
                return value
            case ast.Constant(value=(int() | float()) as value):
                return _literal(value, position)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=(int() | float()) as value)):
                return -_literal(value, position)
            case ast.Tuple(elts=elements):
                values = [self.constant(element) for element in elements]
                if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
                    return tuple(int(value) for value in values if isinstance(value, int))
        raise mistake("an option's value is a number, a text, True, False, or integers in parentheses", position)

    def slice(self, node: ast.expr) -> Slice:
        if not isinstance(node, ast.Slice) or node.step is not None:
            raise mistake("an index is a slice 'start:stop' of constants", self.place(node))
        return Slice(*(None if end is None else read_size(end, self.place(end)) for end in (node.lower, node.upper)))


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _literal(value: int | float, position: Position) -> int | float:
    if isinstance(value, int) and value > MAX_INTEGER:
        raise mistake("the integer is larger than 2**53", position)
    if value == math.inf:
        raise mistake(f"the number is too large for a float; infinity is written {_INFINITY}", position)
    return value
