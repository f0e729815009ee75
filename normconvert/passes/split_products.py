"""Products of joined values as sums of products: `concat(x, h) @ W` becomes `x @ W[0:3] + h @ W[3:10]`.

Needs: a product whose left operand is a `concat` along the last axis (directly, or an equation that is one), of values
whose last sizes are known. Keeps: the function, up to the order of the additions; every name of the equations. It lets
`hoist` take the part that depends on the inputs alone out of the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

from normconvert.ir.cell import Cell
from normconvert.ir.checking import check
from normconvert.ir.expressions import (
    Binary,
    Bound,
    Call,
    Equations,
    Expression,
    Index,
    Name,
    Slice,
    rewrite,
)


def split_products(cell: Cell) -> Equations:
    """The cell's equations without products of joined values."""
    equations = cell.parsed()
    shapes = check(cell)
    joined = {equation.targets[0]: equation.value for equation in equations.body if _is_join(equation.value, shapes)}

    def rule(expression: Expression) -> Expression:
        if not isinstance(expression, Binary) or expression.operator != "@":
            return expression
        left = expression.left
        whole = joined.get(left.name) if isinstance(left, Name) else left
        if not _is_join(whole, shapes) or not isinstance(whole, Call):
            return expression
        return _sum_of_products(whole.arguments, expression.right, shapes)

    body = tuple(replace(equation, value=rewrite(equation.value, rule)) for equation in equations.body)
    return replace(equations, body=body)


def _is_join(expression: Expression | None, shapes: Mapping[str, tuple[int | None, ...]]) -> bool:
    """A `concat` of names whose only axis has a known size."""
    return (
        isinstance(expression, Call)
        and expression.function == "concat"
        and all(isinstance(part, Name) and len(shapes[part.name]) == 1 for part in expression.arguments)
        and all(isinstance(part, Name) and shapes[part.name][0] is not None for part in expression.arguments)
    )


def _sum_of_products(
    parts: tuple[Expression, ...], matrix: Expression, shapes: Mapping[str, tuple[int | None, ...]]
) -> Expression:
    products: list[Expression] = []
    start = 0
    for part in parts:
        assert isinstance(part, Name)
        stop = start + int(shapes[part.name][0] or 0)
        products.append(Binary("@", part, Index(matrix, (Slice(Bound(start), Bound(stop)),))))
        start = stop
    return reduce(lambda a, b: Binary("+", a, b), products)
