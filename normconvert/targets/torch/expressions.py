"""Equations as PyTorch code.

Values carry leading axes in front of those of one sample: the batch in a step, batch and time where all time steps
are computed at once. Axes are therefore counted from the end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normconvert.errors import Unsupported
from normconvert.interpreter.functions import FUNCTIONS as NUMPY
from normconvert.ir.checking import per_axis
from normconvert.ir.expressions import Binary, Bound, Call, Constant, Equation, Expression, Index, Name, Negate, Number
from normconvert.ir.functions import FUNCTIONS as INFO
from normconvert.ir.norm import Norm
from normconvert.targets.torch.functions import EXPRESSIONS, bound_parameters, number
from normconvert.targets.torch.fused_sums import Fusing
from normconvert.targets.torch.sizes import size_code
from normconvert.targets.torch.values import Value, widest

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2}
_NEGATION = 3
_ATOM = 4


@dataclass(frozen=True)
class Scope:
    """The names that equations may read, and how the code writes them.

    Attributes:
        texts: code by name; that of a norm has `{x}` where its argument goes.
        values: by name; constants have rank 0 and no batch.
        constants: numbers by name, for functions of constants alone.
        norms: declared norms by name.
        dims: code of the sizes that slices may name.
        shifted, matrices, in_step: see `Fusing`.
    """

    texts: Mapping[str, str]
    values: Mapping[str, Value]
    constants: Mapping[str, float]
    norms: Mapping[str, Norm]
    dims: Mapping[str, str]
    shifted: Mapping[str, str] = field(default_factory=dict)
    matrices: Collection[str] = ()
    in_step: bool = False

    def value(self, expression: Expression) -> Value:
        """Rank and batch of an expression."""
        match expression:
            case Name(name=name):
                return self.values[name]
            case Negate(operand=inner) | Index(value=inner):
                return self.value(inner)
            case Binary(operator="@", left=left, right=right):
                a, b = self.value(left), self.value(right)
                both = a.batched and b.batched
                rank = a.rank if both or not b.batched else b.rank
                return Value(rank, a.batched or b.batched)
            case Binary(left=left, right=right):
                return widest([self.value(left), self.value(right)])
            case Call():
                return self._call(expression)
            case _:
                return Value(0, False)

    def _call(self, call: Call) -> Value:
        values = [self.value(argument) for argument in call.arguments]
        if call.function in self.norms:
            return values[0]
        options = dict(call.options)
        if call.function in ("sum", "mean", "max", "min") and not options.get("keepdims", False):
            return Value(values[0].rank - 1, values[0].batched)
        if call.function == "reshape":
            return Value(len(_shape(options["shape"])), values[0].batched)
        tensors = INFO[call.function].tensors or len(values)
        return values[0] if call.function == "conv" else widest(values[:tensors])

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
            case Binary(operator="@", left=left, right=right) if self._row_product(left, right):
                row, matrix = self._wrapped(left, _ATOM), self._wrapped(right, _PRECEDENCE["@"] + 1)
                return f"({row}.unsqueeze(-2) @ {matrix}).squeeze(-2)", _ATOM
            case Binary(operator="+", left=left, right=right) if fused := self._fusing().fused(left, right):
                return fused.code.format(*map(self.code, fused.operands)), _ATOM
            case Binary(operator=operator, left=left, right=right):
                level = _PRECEDENCE[operator]
                return f"{self._wrapped(left, level)} {operator} {self._wrapped(right, level + 1)}", level
            case Index(value=value):
                return self._index(expression, self._wrapped(value, _ATOM)), _ATOM
            case Call(function=function, arguments=arguments) if function in self.norms:
                return self.texts[function].format(x=self.code(arguments[0])), _ATOM
            case Call(function=function, arguments=()):
                return self.texts[function], _ATOM
            case Call():
                return self._function(expression), _ATOM
        raise TypeError(type(expression).__name__)

    def _wrapped(self, expression: Expression, level: int) -> str:
        text, own = self._text(expression)
        return text if own >= level else f"({text})"

    def _fusing(self) -> Fusing:
        return Fusing(self.value, self.shifted, self.matrices, self.in_step)

    def _row_product(self, left: Expression, right: Expression) -> bool:
        """A vector times a matrix of the same sample: the batch axes must not be contracted."""
        a, b = self.value(left), self.value(right)
        return a.batched and b.batched and a.rank == 1

    def _index(self, expression: Index, inner: str) -> str:
        value = self.value(expression.value)
        parts = []
        for part in expression.slices:
            start, stop = (
                "" if end is None or end == Bound() else size_code(end, self.dims) for end in (part.start, part.stop)
            )
            simple = (start + stop).replace("-", "").isdigit() or not start + stop
            parts.append(f"{start}:{stop}" if simple else f"{start} : {stop}".strip())
        if not value.batched:
            return f"{inner}[{', '.join(parts)}]"
        return f"{inner}[{', '.join(['...', *parts, *[':'] * (value.rank - len(parts))])}]"

    def _function(self, call: Call) -> str:
        info = INFO[call.function]
        count = len(call.arguments) if info.tensors is None else info.tensors
        tensors = call.arguments[:count]
        numeric = [self._number(argument) for argument in tensors]
        if all(value is not None for value in numeric):
            return number(self._constant(call))
        if call.function in ("minimum", "maximum") and any(value is not None for value in numeric):
            limit, tensor = tensors if numeric[0] is not None else reversed(tensors)
            side = "max" if call.function == "minimum" else "min"
            return f"torch.clamp({self.code(tensor)}, {side}={self.code(limit)})"
        values: dict[str, str] = bound_parameters(call.function, [self.code(a) for a in call.arguments[count:]])
        if "pieces" in values:
            values["pieces"] = str(int(float(values["pieces"])))
        values |= self._options(call, tensors)
        x = ", ".join(self.code(tensor) for tensor in tensors)
        if call.function == "reshape":
            return self._reshape(tensors[0], _shape(dict(call.options)["shape"]))
        return EXPRESSIONS[call.function].format(x=x, **values)

    def _options(self, call: Call, tensors: tuple[Expression, ...]) -> dict[str, str]:
        options: dict[str, Constant | None] = {**INFO[call.function].options, **dict(call.options)}
        value = self.value(tensors[0])
        texts = {name: str(option) for name, option in options.items()}
        if "axis" in options:
            axis = int(str(options["axis"]))
            texts["axis"] = str(axis - value.rank if value.batched and axis >= 0 else axis)
        if options.get("padding", "valid") not in ("valid", "same", "causal"):
            raise Unsupported(f"padding {options['padding']!r}", where=str(call.position))
        for name in ("strides", "dilation"):
            if name in options:
                texts[name] = str(list(per_axis(options[name], value.rank - 1)))
        return texts

    def _reshape(self, operand: Expression, shape: tuple[int, ...]) -> str:
        value, text = self.value(operand), self._wrapped(operand, _ATOM)
        if not value.batched:
            return f"{text}.reshape({shape})"
        flat = text + (f".flatten(-{value.rank})" if value.rank > 1 else ".unsqueeze(-1)" if value.rank == 0 else "")
        return flat if len(shape) == 1 else f"{flat}.unflatten(-1, {shape})"

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
                numeric = all(self._number(argument) is not None for argument in arguments)
                return self._constant(expression) if numeric and INFO[function].kind == "elementwise" else None
            case _:
                return None

    def _constant(self, call: Call) -> float:
        """A function of numbers, in float64."""
        tensors = INFO[call.function].tensors or len(call.arguments)
        given: list[Any] = [self._number(argument) for argument in call.arguments]
        arrays = [np.float64(value) for value in given[:tensors]]
        return float(NUMPY[call.function](*arrays, *given[tensors:]))


def _shape(option: Constant) -> tuple[int, ...]:
    return option if isinstance(option, tuple) else (int(option),)
