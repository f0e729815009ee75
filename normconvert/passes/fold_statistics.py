"""Stored statistics folded into the products and biases that they normalise.

Needs: a norm with one row of population statistics, whose argument is a sum of products with parameters, of
parameters and of numbers. Keeps: the function, up to the rounding of the new parameters. What is left may be a plain
cell, which `recognise` then finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

import msgspec
import numpy as np

from normconvert.ir.cell import Cell
from normconvert.ir.expressions import Binary, Call, Expression, Index, Name, Negate, Number, rewrite, walk
from normconvert.ir.model import Array
from normconvert.ir.norm import Norm
from normconvert.passes.prune import prune
from normconvert.passes.split_products import split_products


def fold_statistics(cell: Cell, weights: Mapping[str, Array]) -> tuple[Cell, dict[str, Array]]:
    """The cell without the norms that can be folded, and its arrays (float64; those of the cell before, and new ones).

    Args:
        cell: a checked cell.
        weights: its arrays by their names relative to the layer.
    """
    arrays = {name: np.asarray(array).astype(np.float64) for name, array in weights.items()}
    if not any(_is_fixed(norm) for norm in cell.norms.values()):
        return cell, arrays
    equations = split_products(cell)
    folder = _Folder(cell, arrays, {e.targets[0]: e.value for e in equations.body if len(e.targets) == 1})
    body = tuple(replace(equation, value=rewrite(equation.value, folder.rule)) for equation in equations.body)
    left = prune(replace(equations, body=body))
    called = {node.function for equation in left.body for node in walk(equation.value) if isinstance(node, Call)}
    folded = msgspec.structs.replace(
        cell,
        equations=str(left),
        parameters={**cell.parameters, **folder.parameters},
        norms={name: norm for name, norm in cell.norms.items() if name in called},
        written={},
    )
    return folded, arrays


def _is_fixed(norm: Norm) -> bool:
    """It is the same scale and offset at every step and every position."""
    return (
        norm.has_population
        and not norm.positions
        and norm.scope == "shared"
        and not norm.affine_per_step
        and (norm.steps is None or norm.past_end in ("last", "modulo"))
    )


@dataclass
class _Folder:
    cell: Cell
    arrays: dict[str, Array]
    named: Mapping[str, Expression]
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def rule(self, expression: Expression) -> Expression:
        """A call of a norm as products with other parameters; anything else as it is."""
        if not isinstance(expression, Call) or expression.function not in self.cell.norms:
            return expression
        name = expression.function
        norm = self.cell.norms[name]
        if not _is_fixed(norm):
            return expression
        scale, offset = _scale_and_offset(norm, self.arrays, name)
        products: list[tuple[Expression, Array]] = []
        for sign, term in self._terms(expression.arguments[0], 1.0):
            matrix, number = self._matrix(term), self._constant(term)
            if number is not None:
                offset = offset + sign * scale * number
            elif matrix is not None and isinstance(term, Binary):
                products.append((term.left, sign * matrix * scale))
            else:
                return expression
        parts: list[Expression] = [Binary("@", left, self._new(f"{name}_matrix", array)) for left, array in products]
        return reduce(lambda a, b: Binary("+", a, b), [*parts, self._new(f"{name}_offset", offset)])

    def _terms(self, expression: Expression, sign: float) -> Iterator[tuple[float, Expression]]:
        match expression:
            case Name(name=name) if name in self.named:
                yield from self._terms(self.named[name], sign)
            case Negate(operand=operand):
                yield from self._terms(operand, -sign)
            case Binary(operator="+" | "-" as operator, left=left, right=right):
                yield from self._terms(left, sign)
                yield from self._terms(right, sign if operator == "+" else -sign)
            case _:
                yield sign, expression

    def _matrix(self, term: Expression) -> Array | None:
        """The matrix that an input or a state is multiplied by."""
        if not isinstance(term, Binary) or term.operator != "@" or not isinstance(term.left, Name):
            return None
        if term.left.name not in self.cell.input_shapes and term.left.name not in self.cell.states:
            return None
        matrix = self._constant(term.right)
        return matrix if matrix is not None and matrix.ndim == 2 else None

    def _constant(self, expression: Expression) -> Array | None:
        """A parameter, a part of one, or a number."""
        match expression:
            case Number(value=value):
                return np.asarray(value)
            case Name(name=name) if name in self.cell.constants:
                return np.asarray(self.cell.constants[name])
            case Name(name=name) if name in self.cell.parameters:
                return self.arrays[name]
            case Index(value=Name(name=name), slices=slices) if name in self.cell.parameters:
                ends = [
                    (None if end is None else end.resolve(self.cell.dims) for end in (part.start, part.stop))
                    for part in slices
                ]
                return self.arrays[name][tuple(slice(*pair) for pair in ends)]
        return None

    def _new(self, wanted: str, array: Array) -> Name:
        taken = {*self.cell.parameters, *self.cell.norms, *self.cell.constants, *self.parameters, *self.cell.states}
        taken |= {*self.cell.input_shapes, *self.named}
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}{number}", number + 1
        self.parameters[name], self.arrays[name] = array.shape, array
        return Name(name)


def _scale_and_offset(norm: Norm, arrays: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    """The norm of u as `scale * u + offset`."""
    variance = arrays[f"{name}.variance"]
    if norm.epsilon_placement == "outside":
        deviation = np.sqrt(variance) + norm.epsilon
    else:
        deviation = np.sqrt(variance + norm.epsilon) + (norm.epsilon if norm.epsilon_placement == "both" else 0.0)
    scale = arrays.get(f"{name}.gamma", np.ones_like(variance)) / deviation
    return scale, arrays.get(f"{name}.beta", 0.0) - arrays[f"{name}.mean"] * scale
