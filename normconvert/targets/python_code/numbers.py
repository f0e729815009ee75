"""Numbers in equations: as Python text, as parameters of functions, and what formulas of numbers alone come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from normconvert.interpreter.functions import FUNCTIONS as NUMPY
from normconvert.ir.expressions import Binary, Call, Expression, Name, Negate, Number
from normconvert.ir.functions import FUNCTIONS as INFO


def number(value: float) -> str:
    """A number as Python text, exactly."""
    if value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    return repr(float(value))


def bound_parameters(function: str, given: Sequence[str]) -> dict[str, str]:
    """The texts of a function's positional numbers by name, defaults filled in."""
    parameters = INFO[function].parameters
    texts = [*given, *(number(value or 0.0) for value in list(parameters.values())[len(given) :])]
    return dict(zip(parameters, texts, strict=True))


def numeric_value(expression: Expression, constants: Mapping[str, float]) -> float | None:
    """What an expression of numbers and constants alone comes to in float64; None for any other."""
    match expression:
        case Number(value=value):
            return value
        case Name(name=name):
            return constants.get(name)
        case Negate(operand=operand):
            inner = numeric_value(operand, constants)
            return None if inner is None else -inner
        case Binary(operator=operator, left=left, right=right) if operator != "@":
            a, b = numeric_value(left, constants), numeric_value(right, constants)
            if a is None or b is None:
                return None
            return {"+": a + b, "-": a - b, "*": a * b}.get(operator, a / b if b else float("nan"))
        case Call(function=function) if function in INFO and INFO[function].kind == "elementwise":
            return numeric_call(expression, constants)
        case _:
            return None


def numeric_call(call: Call, constants: Mapping[str, float]) -> float | None:
    """The same of a function whose tensors may all be numbers."""
    values = [numeric_value(argument, constants) for argument in call.arguments]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    tensors = INFO[call.function].tensors or len(known)
    return float(NUMPY[call.function](*map(np.float64, known[:tensors]), *known[tensors:]))
