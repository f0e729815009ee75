"""Equations as PyTorch code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from normconvert.ir.expressions import Binary, Call, Expression, Name
from normconvert.targets.python_code.expressions import ATOM, PRECEDENCE, Code, EquationCode
from normconvert.targets.python_code.numbers import numeric_value
from normconvert.targets.torch.functions import EXPRESSIONS
from normconvert.targets.torch.fused_sums import Fusing


@dataclass(frozen=True)
class TorchCode(EquationCode):
    """Equations of a cell or a formula as PyTorch code.

    Attributes:
        shifted, matrices, in_step: see `Fusing`.
        products_batch_first: values have time and batch as leading axes; products and convolutions, which join the
            two, read them the other way round. `torch.export` would ask that the joined size does not divide the
            number of steps, unless it can see that by itself; behind a pooling it cannot, and refuses a batch of 1.
    """

    shifted: Mapping[str, str] = field(default_factory=dict)
    matrices: Collection[str] = ()
    in_step: bool = False
    products_batch_first: bool = False

    functions: ClassVar[Mapping[str, str]] = EXPRESSIONS

    def _own_form(self, expression: Expression) -> Code | None:
        match expression:
            case Binary(operator="@") | Call(function="conv") if self.products_batch_first:
                return self._batch_first(expression) if self.value(expression).batched else None
            case Binary(operator="@", left=left, right=right) if self._row_product(left, right):
                row, matrix = self.wrapped(left, ATOM), self.wrapped(right, PRECEDENCE["@"] + 1)
                return f"({row}.unsqueeze(-2) @ {matrix}).squeeze(-2)", ATOM
            case Binary(operator="+", left=left, right=right) if fused := self._fusing().fused(left, right):
                return fused.code.format(*map(self.code, fused.operands)), ATOM
            case Call(function="minimum" | "maximum") if limited := self._limited(expression):
                return limited, ATOM
        return None

    def _reshaped(self, operand: Expression, shape: tuple[int, ...]) -> str:
        value, text = self.value(operand), self.wrapped(operand, ATOM)
        if not value.batched:
            return f"{text}.reshape({shape})"
        flat = text + (f".flatten(-{value.rank})" if value.rank > 1 else ".unsqueeze(-1)" if value.rank == 0 else "")
        return flat if len(shape) == 1 else f"{flat}.unflatten(-1, {shape})"

    def _batch_first(self, expression: Binary | Call) -> Code:
        """A product or a convolution of all steps, which has the batch before time on the inside."""
        operands = expression.arguments if isinstance(expression, Call) else (expression.left, expression.right)
        named = {f"operand {n}": operand for n, operand in enumerate(operands)}  # no equation can have such a name
        values = {name: self.value(operand) for name, operand in named.items()}
        texts = {
            name: self.wrapped(operand, ATOM) + (".transpose(0, 1)" if values[name].batched else "")
            for name, operand in named.items()
        }
        inside = replace(
            self, texts={**self.texts, **texts}, values={**self.values, **values}, products_batch_first=False
        )
        names = tuple(map(Name, named))
        turned: Expression = Binary("@", names[0], names[1])
        if isinstance(expression, Call):
            turned = replace(expression, arguments=names)
        return f"{inside.wrapped(turned, ATOM)}.transpose(0, 1)", ATOM

    def _fusing(self) -> Fusing:
        # What is added to a product that is turned round is not turned.
        matrices = () if self.products_batch_first else self.matrices
        return Fusing(self.value, self.shifted, matrices, self.in_step)

    def _row_product(self, left: Expression, right: Expression) -> bool:
        """A vector times a matrix of the same sample: the batch axes must not be contracted."""
        a, b = self.value(left), self.value(right)
        return a.batched and b.batched and a.rank == 1

    def _limited(self, call: Call) -> str:
        """The smaller or larger of a tensor and a number: `torch.minimum` takes tensors alone. Empty for others."""
        numeric = [numeric_value(argument, self.constants) is not None for argument in call.arguments]
        if sum(numeric) != 1:
            return ""
        limit, tensor = call.arguments if numeric[0] else reversed(call.arguments)
        side = "max" if call.function == "minimum" else "min"
        return f"torch.clamp({self.code(tensor)}, {side}={self.code(limit)})"
