"""Sums that PyTorch computes in one function with a product or a norm in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from normconvert.ir.expressions import Binary, Call, Expression, Name, Number
from normconvert.targets.python_code.values import Value

_Pair = tuple[Expression, Expression]


@dataclass(frozen=True)
class FusedSum:
    """Code with a place `{}` for each operand."""

    code: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Fusing:
    """What decides which sums can be fused.

    Attributes:
        value: what is known of an expression.
        shifted: code of a norm that adds a vector, by the norm's name, for the argument and the vector.
        matrices: names of parameters whose products have more than one column, so that nothing broadcasts them.
        in_step: values have the batch as their only leading axis.
    """

    value: Callable[[Expression], Value]
    shifted: Mapping[str, str]
    matrices: Collection[str]
    in_step: bool

    def fused(self, left: Expression, right: Expression) -> FusedSum | None:
        """The code for `left + right`, or None where it is nothing but an addition."""
        if not (self.value(left).is_tensor and self.value(right).is_tensor):
            return None
        for rule in (self._norm, self._linear, self._lerp, self._product):
            found = rule(left, right) or rule(right, left)
            if found is not None:
                return found
        return None

    def _norm(self, term: Expression, rest: Expression) -> FusedSum | None:
        if isinstance(term, Call) and term.function in self.shifted and self.value(rest) == Value(1, False):
            return FusedSum(self.shifted[term.function], (term.arguments[0], rest))
        return None

    def _linear(self, term: Expression, rest: Expression) -> FusedSum | None:
        if not (isinstance(term, Binary) and term.operator == "@" and isinstance(term.right, Name)):
            return None
        if self.value(term.left) != Value(1, True) or term.right.name not in self.matrices:
            return None
        if self.in_step and self.value(rest).rank == 1:
            return FusedSum("torch.addmm({}, {}, {})", (rest, term.left, term.right))
        if self.value(rest) == Value(1, False):
            return FusedSum("F.linear({}, {}.t(), {})", (term.left, term.right, rest))
        return None

    def _lerp(self, term: Expression, rest: Expression) -> FusedSum | None:
        """`w * end + (1 - w) * start`."""
        for w, end in _factors(term):
            for complement, start in _factors(rest):
                operands = (start, end, w)
                if complement == Binary("-", Number(1.0), w) and all(self.value(each).is_tensor for each in operands):
                    return FusedSum("torch.lerp({}, {}, {})", operands)
        return None

    def _product(self, term: Expression, rest: Expression) -> FusedSum | None:
        for factors in _factors(term):
            if all(self.value(factor).is_tensor for factor in factors):
                return FusedSum("torch.addcmul({}, {}, {})", (rest, *factors))
        return None


def _factors(term: Expression) -> Iterator[_Pair]:
    """The factors of a product in both orders."""
    if isinstance(term, Binary) and term.operator == "*":
        yield term.left, term.right
        yield term.right, term.left
