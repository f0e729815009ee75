"""Equations as code of `keras.ops`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from normconvert.ir.expressions import Binary, Expression
from normconvert.targets.keras.functions import EXPRESSIONS
from normconvert.targets.python_code.expressions import ATOM, Code, EquationCode


@dataclass(frozen=True)
class KerasCode(EquationCode):
    """Equations of a cell or a formula as code of `keras.ops`."""

    functions: ClassVar[Mapping[str, str]] = EXPRESSIONS

    def _own_form(self, expression: Expression) -> Code | None:
        if not (isinstance(expression, Binary) and expression.operator == "@"):
            return None
        left, right = expression.left, expression.right
        a, b = self.value(left), self.value(right)
        if a.batched and b.batched and a.rank == 1:  # a row times a matrix of the same sample
            row = f"ops.expand_dims({self.code(left)}, -2)"
            return f"ops.squeeze(ops.matmul({row}, {self.code(right)}), -2)", ATOM
        return f"ops.matmul({self.code(left)}, {self.code(right)})", ATOM

    def _reshaped(self, operand: Expression, shape: tuple[int, ...]) -> str:
        value, text = self.value(operand), self.code(operand)
        if not value.batched:
            return f"ops.reshape({text}, {list(shape)})"
        cut = "" if value.rank == 0 else f"[:-{value.rank}]"
        return f"ops.reshape({text}, [*ops.shape({text}){cut}, *{list(shape)}])"
