"""Equations that nothing reads, left out.

Needs: nothing. Keeps: the outputs and the next states, and every name they depend on. Other passes leave such
equations behind, as `split_products` does with a `concat`.
"""

from __future__ import annotations

from dataclasses import replace

from normconvert.ir.expressions import Equation, Equations, names_in, next_value


def prune(equations: Equations) -> Equations:
    """The equations without those whose results are not used."""
    wanted = {*equations.outputs, *(next_value(state) for state in equations.states)}
    kept: list[Equation] = []
    for equation in reversed(equations.body):
        if wanted & set(equation.targets):
            wanted |= names_in(equation.value)
            kept.append(equation)
    return replace(equations, body=tuple(reversed(kept)))
