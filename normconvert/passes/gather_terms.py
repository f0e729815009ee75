"""Terms of a sum that depend on no state, next to each other: `n(x @ W) + h @ U + b` becomes `b + n(x @ W) + h @ U`.

Needs: the equations of a checked cell. Keeps: the function, up to the order of the additions; every name of the
equations. It lets `hoist` take such terms out of the loop together; those without an input come first, as they are the
smaller ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce

from normconvert.ir.expressions import Binary, Equations, Expression, children, names_in, with_children
from normconvert.ir.values import Value


def gather_terms(equations: Equations, values: Mapping[str, Value]) -> Equations:
    """The equations with their sums in another order; `values` is what `ir.checking.analyse` says of their names."""

    def gathered(expression: Expression) -> Expression:
        terms = list(_terms(expression))
        if len(terms) == 1:
            return with_children(expression, tuple(map(gathered, children(expression))))
        return reduce(lambda a, b: Binary("+", a, b), sorted(map(gathered, terms), key=order))

    def order(term: Expression) -> int:
        read = [values[name] for name in names_in(term)]
        return 2 if any(value.recurrent for value in read) else 1 if any(value.batched for value in read) else 0

    return replace(equations, body=tuple(replace(each, value=gathered(each.value)) for each in equations.body))


def _terms(expression: Expression) -> Iterator[Expression]:
    if isinstance(expression, Binary) and expression.operator == "+":
        yield from _terms(expression.left)
        yield from _terms(expression.right)
    else:
        yield expression
