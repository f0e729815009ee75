"""Norms of a cell written out as `shift + norm(u) * scale`, so that a loop can have scale and shift of all steps ready.

The call that is left normalises with the moments that the value itself has; where these are stored, it leaves the value
alone, and they are in scale and shift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from normconvert.ir.expressions import Binary, Call, Equation, Equations, Expression, Name, rewrite, walk
from normconvert.ir.values import Value


@dataclass(frozen=True)
class AffineNorms:
    """Equations with norms written out.

    Attributes:
        equations: first the scale and shift of each norm, `Equation((scale, shift), Call(affine_call(norm), ()))`.
        values: what is known of the new names, for `hoist`; they depend on the time step and not on the inputs.
    """

    equations: Equations
    values: dict[str, Value]


def affine_call(norm: str) -> str:
    """What stands for the function that gives a norm's scale and shift; no equation can have such a name."""
    return f"{norm} affine"


def affine_norms(equations: Equations, norms: Mapping[str, int]) -> AffineNorms:
    """Write out some norms of a cell; `norms` are their names and features."""
    called = list(dict.fromkeys(norm for each in equations.body for norm in _called(each.value) if norm in norms))

    def rule(expression: Expression) -> Expression:
        if not isinstance(expression, Call) or expression.function not in called:
            return expression
        scale, shift = map(Name, _tables(expression.function))
        return Binary("+", shift, Binary("*", expression, scale))

    tables = tuple(Equation(_tables(norm), Call(affine_call(norm), ())) for norm in called)
    body = tuple(replace(each, value=rewrite(each.value, rule)) for each in equations.body)
    values = {name: Value((norms[norm],)) for norm in called for name in _tables(norm)}
    return AffineNorms(replace(equations, body=tables + body), values)


def _called(expression: Expression) -> Iterator[str]:
    return (node.function for node in walk(expression) if isinstance(node, Call))


def _tables(norm: str) -> tuple[str, str]:
    """The names of a norm's scale and shift; no equation can have such names."""
    return f"{norm} scale", f"{norm} shift"
