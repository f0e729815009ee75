"""Equations as Python code of a framework.

Values carry leading axes in front of those of one sample: the batch in a step, batch and time where all time steps
are computed at once. Axes are therefore counted from the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from normconvert.errors import Unsupported
from normconvert.ir.checking import per_axis
from normconvert.ir.expressions import Binary, Bound, Call, Constant, Equation, Expression, Index, Name, Negate, Number
from normconvert.ir.functions import FUNCTIONS as INFO
from normconvert.targets.python_code.numbers import bound_parameters, number, numeric_call
from normconvert.targets.python_code.sizes import size_code
from normconvert.targets.python_code.values import Value, widest

PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "@": 2}
NEGATION = 3
ATOM = 4

Code = tuple[str, int]
"""Text, and how strongly it holds together: a level of precedence."""


@dataclass(frozen=True)
class EquationCode(ABC):
    """The names that equations may read, and how the code writes them. A subclass says what a framework writes.

    Attributes:
        texts: code by name; that of a norm has `{x}` where its argument goes.
        values: rank and batch by name; constants have rank 0 and no batch.
        constants: numbers by name, for functions of constants alone.
        norms: names of declared norms.
        dims: code of the sizes that slices may name.
    """

    texts: Mapping[str, str]
    values: Mapping[str, Value]
    constants: Mapping[str, float]
    norms: Collection[str]
    dims: Mapping[str, str]

    functions: ClassVar[Mapping[str, str]]
    """One expression per function; `{x}` stands for the tensor arguments, the rest for parameters and options."""

    @abstractmethod
    def _own_form(self, expression: Expression) -> Code | None:
        """What the framework writes in a way of its own; None for the plain form."""

    @abstractmethod
    def _reshaped(self, operand: Expression, shape: tuple[int, ...]) -> str:
        """The operand with other axes for each sample."""

    def equation(self, equation: Equation, targets: tuple[str, ...]) -> str:
        """One line of code; `targets` is how the code writes the names assigned to."""
        return f"{', '.join(targets)} = {self.code(equation.value)}"

    def code(self, expression: Expression) -> str:
        """The code of an expression."""
        return self._text(expression)[0]

    def wrapped(self, expression: Expression, level: int) -> str:
        """The same in brackets, where it holds together less than `level`."""
        text, own = self._text(expression)
        return text if own >= level else f"({text})"

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
                return self._value_of_call(expression)
            case _:
                return Value(0, False)

    def _value_of_call(self, call: Call) -> Value:
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

    def _text(self, expression: Expression) -> Code:
        own = self._own_form(expression)
        if own is not None:
            return own
        match expression:
            case Number(value=value):
                return number(value), ATOM
            case Name(name=name):
                return self.texts[name], ATOM
            case Negate(operand=operand):
                return "-" + self.wrapped(operand, NEGATION), NEGATION
            case Binary(operator=operator, left=left, right=right):
                level = PRECEDENCE[operator]
                return f"{self.wrapped(left, level)} {operator} {self.wrapped(right, level + 1)}", level
            case Index(value=value):
                return self._index(expression, self.wrapped(value, ATOM)), ATOM
            case Call(function=function, arguments=arguments) if function in self.norms:
                return self.texts[function].format(x=self.code(arguments[0])), ATOM
            case Call(function=function, arguments=()):
                return self.texts[function], ATOM
            case Call():
                return self._function(expression), ATOM
        raise TypeError(type(expression).__name__)

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
        known = numeric_call(call, self.constants)
        if known is not None:
            return number(known)
        count = len(call.arguments) if INFO[call.function].tensors is None else INFO[call.function].tensors
        tensors = call.arguments[:count]
        if call.function == "reshape":
            return self._reshaped(tensors[0], _shape(dict(call.options)["shape"]))
        values = bound_parameters(call.function, [self.code(a) for a in call.arguments[count:]])
        if "pieces" in values:
            values["pieces"] = str(int(float(values["pieces"])))
        values |= self._options(call, tensors)
        x = ", ".join(self.code(tensor) for tensor in tensors)
        return self.functions[call.function].format(x=x, **values)

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


def _shape(option: Constant) -> tuple[int, ...]:
    return option if isinstance(option, tuple) else (int(option),)
