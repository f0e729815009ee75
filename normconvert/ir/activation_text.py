"""An activation as text of the equation language, such as `hard_sigmoid(x, 0.2, 0.5)`, and back.

Axes count from that of the batch, which is 0; those of equations count from the first of one sample.
"""

from __future__ import annotations

from normconvert.errors import EquationError
from normconvert.ir.expressions import Call, Expression, Name, Negate, Number
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.layers import Activation
from normconvert.ir.parser import parse
from normconvert.ir.printer import print_expression


def as_text(activation: Activation) -> str:
    """The activation of a value `x`."""
    options = (("axis", activation.axis),) if "axis" in FUNCTIONS[activation.function].options else ()
    numbers = (Number(value) for value in activation.parameters)
    return print_expression(Call(activation.function, (Name("x"), *numbers), options))


def from_text(text: str) -> Activation:
    """The activation that `as_text` wrote.

    Raises:
        EquationError: it is not one function of `x` with numbers and an axis.
    """
    call = parse(f"layer activation(x) -> y:\n    y = {' '.join(text.split())}\n").body[0].value
    if not isinstance(call, Call) or call.function not in FUNCTIONS or not _is_x(call.arguments):
        raise EquationError(f"{text!r} is not an activation")
    info, axis = FUNCTIONS[call.function], dict(call.options).get("axis", -1)
    numbers = tuple(_number(each, text) for each in call.arguments[1:])
    if len(numbers) > len(info.parameters) or set(dict(call.options)) - {"axis"} or not isinstance(axis, int):
        raise EquationError(f"{text!r} is not an activation")
    return Activation(call.function, numbers, axis)


def _is_x(arguments: tuple[Expression, ...]) -> bool:
    return bool(arguments) and isinstance(arguments[0], Name) and arguments[0].name == "x"


def _number(expression: Expression, text: str) -> float:
    match expression:
        case Number(value=value):
            return float(value)
        case Negate(operand=Number(value=value)):
            return -float(value)
    raise EquationError(f"{text!r} is not an activation")
