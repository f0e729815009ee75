"""What does not depend on the states, taken out of the time loop.

Needs: the equations of a checked cell. Keeps: every name and its value; the largest expressions that depend on the
inputs alone get names of their own (`z_x` for the part of `z` that depends on x). They can then be computed for all
time steps at once, `[batch, time, ...]`; norms with statistics per time step take one row per step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from normconvert.ir.expressions import (
    Call,
    Equation,
    Equations,
    Expression,
    Name,
    children,
    names_in,
    walk,
    with_children,
)
from normconvert.ir.values import Value


@dataclass(frozen=True)
class Hoisted:
    """A cell's equations in three parts, each of which reads only names of itself and of the parts before.

    Attributes:
        fixed: depend on parameters alone.
        before: depend on the inputs alone.
        step: the rest, to be evaluated at each time step.
        carried: names from `fixed` and `before`, or inputs, that `step` reads or the cell gives out.
    """

    fixed: tuple[Equation, ...]
    before: tuple[Equation, ...]
    step: tuple[Equation, ...]
    carried: tuple[str, ...]


def hoist(equations: Equations, values: Mapping[str, Value]) -> Hoisted:
    """Split equations by what they depend on; `values` is what `ir.checking.analyse` says of their names."""
    fixed: list[Equation] = []
    before: list[Equation] = []
    step: list[Equation] = []
    taken = set(values)
    for equation in equations.body:
        target = values[equation.targets[0]]
        if not target.batched:
            fixed.append(equation)
        elif not target.recurrent:
            before.append(equation)
        else:
            hoister = _Hoister(values, taken, f"{equation.targets[0].rstrip(chr(39))}_{equations.inputs[0]}")
            step.append(replace(equation, value=hoister.rewritten(equation.value)))
            before.extend(hoister.equations)
    read = set().union(*(names_in(equation.value) for equation in step)) if step else set()
    read |= set(equations.outputs) | {state + "'" for state in equations.states}
    known = [*(t for e in fixed for t in e.targets), *equations.inputs, *(t for e in before for t in e.targets)]
    return Hoisted(tuple(fixed), tuple(before), tuple(step), tuple(name for name in known if name in read))


class _Hoister:
    """Takes the input-only parts out of one expression."""

    def __init__(self, values: Mapping[str, Value], taken: set[str], stem: str) -> None:
        self.values, self.taken, self.stem = values, taken, stem
        self.equations: list[Equation] = []

    def rewritten(self, expression: Expression) -> Expression:
        if self.from_inputs(expression) and not isinstance(expression, Name):
            return self.named(expression)
        return with_children(expression, tuple(self.rewritten(operand) for operand in children(expression)))

    def from_inputs(self, expression: Expression) -> bool:
        """It depends on an input and on no state. (A split stays whole: its pieces have no name yet.)"""
        read = [self.values[name] for name in names_in(expression)]
        splits = any(isinstance(node, Call) and node.function == "split" for node in walk(expression))
        return any(value.batched for value in read) and not any(value.recurrent for value in read) and not splits

    def named(self, expression: Expression) -> Name:
        for equation in self.equations:
            if equation.value == expression:
                return Name(equation.targets[0])
        name, number = self.stem, 2
        while name in self.taken:
            name, number = f"{self.stem}{number}", number + 1
        self.taken.add(name)
        self.equations.append(Equation((name,), expression))
        return Name(name)
