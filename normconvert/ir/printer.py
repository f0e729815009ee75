"""Equations to text: `parse(print_equations(e)) == e` for whatever the parser can give."""

from __future__ import annotations

import math

from normconvert.ir.expressions import (
    Binary,
    Bound,
    Call,
    Constant,
    Equations,
    Expression,
    Index,
    Name,
    Negate,
    Number,
    Slice,
    is_next,
    names_in,
)

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2}
_NEGATION = 3
_ATOM = 4


def print_equations(equations: Equations) -> str:
    """The text of a cell or a stateless layer.

    Raises:
        ValueError: an equation reads a state's old value after its next value was set, which the text has no
            way to say.
    """
    kind = "cell" if equations.states else "layer"
    signature = ", ".join(equations.inputs) + ("; " + ", ".join(equations.states) if equations.states else "")
    outputs = ", ".join(_plain(name) for name in equations.outputs)
    lines = [f"{kind} {equations.name}({signature}) -> {outputs}:"]
    replaced: set[str] = set()
    for equation in equations.body:
        stale = names_in(equation.value) & replaced
        if stale:
            raise ValueError(f"the old value of {', '.join(sorted(stale))} is read after the new one was set")
        lines.append(f"    {', '.join(map(_plain, equation.targets))} = {print_expression(equation.value)}")
        replaced |= {_plain(target) for target in equation.targets if is_next(target)}
    return "\n".join(lines) + "\n"


def print_expression(expression: Expression) -> str:
    """The text of one expression, with as few parentheses as its shape allows."""
    return _text(expression)[0]


def _plain(name: str) -> str:
    return name.rstrip("'")


def _text(expression: Expression) -> tuple[str, int]:
    match expression:
        case Number(value=value):
            return _number(value), _NEGATION if value < 0 else _ATOM
        case Name(name=name):
            return _plain(name), _ATOM
        case Negate(operand=operand):
            return "-" + _wrapped(operand, _NEGATION), _NEGATION
        case Binary(operator=operator, left=left, right=right):
            level = _PRECEDENCE[operator]
            return f"{_wrapped(left, level)} {operator} {_wrapped(right, level + 1)}", level
        case Call(function=function, arguments=arguments, options=options):
            parts = [print_expression(a) for a in arguments] + [f"{k}={_constant(v)}" for k, v in options]
            return f"{function}({', '.join(parts)})", _ATOM
        case Index(value=value, slices=slices):
            return f"{_wrapped(value, _ATOM)}[{', '.join(map(_slice, slices))}]", _ATOM
    raise TypeError(type(expression).__name__)


def _wrapped(expression: Expression, level: int) -> str:
    text, own = _text(expression)
    return text if own >= level else f"({text})"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _constant(value: Constant) -> str:
    return repr(value)


def _slice(part: Slice) -> str:
    return f"{'' if part.start is None else _bound(part.start)}:{'' if part.stop is None else _bound(part.stop)}"


def _bound(bound: Bound) -> str:
    text = str(bound.constant) if bound.constant or not bound.terms else ""
    for name, factor in bound.terms:
        sign = "-" if factor < 0 else "+" if text else ""
        text += sign + (name if abs(factor) == 1 else f"{abs(factor)}*{name}")
    return text
