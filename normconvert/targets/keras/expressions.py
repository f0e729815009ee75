"""Equations as code of `keras.ops`.

Values carry leading axes in front of those of one sample: the batch in a step, batch and time where all time steps
are computed at once. Axes are therefore counted from the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from normconvert.interpreter.functions import FUNCTIONS as NUMPY
from normconvert.ir.checking import per_axis
from normconvert.ir.expressions import Binary, Bound, Call, Constant, Equation, Expression, Index, Name, Negate, Number
from normconvert.ir.functions import FUNCTIONS as INFO
from normconvert.targets.keras.functions import EXPRESSIONS, bound_parameters, number
from normconvert.targets.torch.expressions import Scope as _Ranks
from normconvert.targets.torch.sizes import size_code
from normconvert.targets.torch.values import Value

__all__ = ["Scope", "Value"]

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2}
_NEGATION = 3
_ATOM = 4


@dataclass(frozen=True)
class Scope:
    """The names that equations may read, and how the code writes them.

    Attributes:
        texts: code by name; that of a norm has `{x}` where its argument goes.
        values: rank and batch by name.
        constants: numbers by name.
        norms: names of norms.
        dims: code of the sizes that slices may name.
    """

    texts: Mapping[str, str]
    values: Mapping[str, Value]
    constants: Mapping[str, float]
    norms: Mapping[str, object]
    dims: Mapping[str, str]

    def value(self, expression: Expression) -> Value:
        """Rank and batch of an expression."""
        return _Ranks({}, self.values, self.constants, self.norms, {}).value(expression)  # type: ignore[arg-type]

    def equation(self, equation: Equation, targets: tuple[str, ...]) -> str:
        """One line of code; `targets` is how the code writes the names assigned to."""
        return f"{', '.join(targets)} = {self.code(equation.value)}"

    def code(self, expression: Expression) -> str:
        """The code of an expression."""
        return self._text(expression)[0]

    def _text(self, expression: Expression) -> tuple[str, int]:
        match expression:
            case Number(value=value):
                return number(value), _ATOM
            case Name(name=name):
                return self.texts[name], _ATOM
            case Negate(operand=operand):
                return "-" + self._wrapped(operand, _NEGATION), _NEGATION
            case Binary(operator="@", left=left, right=right):
                return self._product(left, right)
            case Binary(operator=operator, left=left, right=right):
                level = _PRECEDENCE[operator]
                return f"{self._wrapped(left, level)} {operator} {self._wrapped(right, level + 1)}", level
            case Index(value=value):
                return self._index(expression, self._wrapped(value, _ATOM)), _ATOM
            case Call(function=function, arguments=arguments) if function in self.norms:
                return self.texts[function].format(x=self.code(arguments[0])), _ATOM
            case Call():
                return self._function(expression)
        raise TypeError(type(expression).__name__)

    def _wrapped(self, expression: Expression, level: int) -> str:
        text, own = self._text(expression)
        return text if own >= level else f"({text})"

    def _product(self, left: Expression, right: Expression) -> tuple[str, int]:
        a, b = self.value(left), self.value(right)
        if a.batched and b.batched and a.rank == 1:  # a row times a matrix of the same sample
            row = f"ops.expand_dims({self.code(left)}, -2)"
            return f"ops.squeeze(ops.matmul({row}, {self.code(right)}), -2)", _ATOM
        return f"ops.matmul({self.code(left)}, {self.code(right)})", _ATOM

    def _index(self, expression: Index, inner: str) -> str:
        value = self.value(expression.value)
        parts = []
        for part in expression.slices:
            start, stop = (
                "" if end is None or end == Bound() else size_code(end, self.dims) for end in (part.start, part.stop)
            )
            simple = (start + stop).replace("-", "").isdigit() or not start + stop
            parts.append(f"{start}:{stop}" if simple else f"{start} : {stop}".strip())
        lead = ["..."] if value.batched else []
        rest = [":"] * (value.rank - len(parts)) if value.batched else []
        return f"{inner}[{', '.join([*lead, *parts, *rest])}]"

    def _function(self, call: Call) -> tuple[str, int]:
        info = INFO[call.function]
        count = len(call.arguments) if info.tensors is None else info.tensors
        tensors = call.arguments[:count]
        known = [self._number(tensor) for tensor in tensors]
        numbers = [value for value in known if value is not None]
        if len(numbers) == len(known):
            given = [self._number(argument) or 0.0 for argument in call.arguments[count:]]
            return number(float(NUMPY[call.function](*map(np.float64, numbers), *given))), _ATOM
        values = bound_parameters(call.function, [self.code(a) for a in call.arguments[count:]])
        if "pieces" in values:
            values["pieces"] = str(int(float(values["pieces"])))
        values |= self._options(call, tensors)
        if call.function == "reshape":
            return self._reshape(tensors[0], dict(call.options)["shape"]), _ATOM
        x = ", ".join(self.code(tensor) for tensor in tensors)
        return EXPRESSIONS[call.function].format(x=x, **values), _ATOM

    def _options(self, call: Call, tensors: tuple[Expression, ...]) -> dict[str, str]:
        options: dict[str, Constant | None] = {**INFO[call.function].options, **dict(call.options)}
        value = self.value(tensors[0])
        texts = {name: str(option) for name, option in options.items()}
        if "axis" in options:
            axis = int(str(options["axis"]))
            texts["axis"] = str(axis - value.rank if value.batched and axis >= 0 else axis)
        for name in ("strides", "dilation"):
            if name in options:
                texts[name] = str(list(per_axis(options[name], value.rank - 1)))
        return texts

    def _reshape(self, operand: Expression, option: Constant) -> str:
        value, text = self.value(operand), self.code(operand)
        shape = list(option) if isinstance(option, tuple) else [option]
        if not value.batched:
            return f"ops.reshape({text}, {shape})"
        cut = "" if value.rank == 0 else f"[:-{value.rank}]"
        return f"ops.reshape({text}, [*ops.shape({text}){cut}, *{shape}])"

    def _number(self, expression: Expression) -> float | None:
        """The value of an expression of numbers and constants alone."""
        match expression:
            case Number(value=value):
                return value
            case Name(name=name):
                return self.constants.get(name)
            case Negate(operand=operand):
                inner = self._number(operand)
                return None if inner is None else -inner
            case Binary(operator=operator, left=left, right=right) if operator != "@":
                a, b = self._number(left), self._number(right)
                if a is None or b is None:
                    return None
                return {"+": a + b, "-": a - b, "*": a * b}.get(operator, a / b if b else float("nan"))
            case Call(function=function, arguments=arguments) if function in INFO:
                numbers = [self._number(argument) for argument in arguments]
                found = [value for value in numbers if value is not None]
                if INFO[function].kind != "elementwise" or len(found) < len(numbers):
                    return None
                tensors = INFO[function].tensors or len(found)
                return float(NUMPY[function](*map(np.float64, found[:tensors]), *found[tensors:]))
            case _:
                return None
