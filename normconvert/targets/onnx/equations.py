"""The equations of a cell as values of `algebra`: norms with stored statistics become scales and offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from normconvert.interpreter.functions import FUNCTIONS as NUMPY
from normconvert.interpreter.functions import PER_SAMPLE
from normconvert.interpreter.norms import step_row
from normconvert.ir.cell import STATISTICS, Cell
from normconvert.ir.expressions import Binary, Bound, Call, Equation, Expression, Index, Name, Negate, Number
from normconvert.ir.function_shapes import RULES
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.model import Array
from normconvert.ir.norm import Norm
from normconvert.ir.values import Shape
from normconvert.ir.values import Value as Checked
from normconvert.targets.onnx import algebra
from normconvert.targets.onnx.algebra import add, multiply, negate
from normconvert.targets.onnx.builder import Graph
from normconvert.targets.onnx.nodes import (
    Constant,
    Level,
    Node,
    Normalised,
    Table,
    constant,
    joint_shape,
    operation,
)
from normconvert.targets.onnx.structure import elementwise, structural

Tensors = Sequence["str | Array"]


class Equations:
    """Evaluates equations to values.

    Args:
        cell: the declarations.
        weights: arrays by their names relative to the layer, float64.
        known: inputs and states by name.
        timed: the equations are those of a step; otherwise of a whole sample, which counts as step 0.
    """

    def __init__(
        self, cell: Cell, weights: Mapping[str, Array], known: Mapping[str, Node], *, timed: bool = True
    ) -> None:
        self.cell, self.weights, self.timed = cell, weights, timed
        self.values: dict[str, Node] = dict(known)
        self.values |= {name: constant(weights[name]) for name in cell.parameters}
        self.values |= {name: constant(float(number)) for name, number in cell.constants.items()}

    def run(self, equations: Sequence[Equation]) -> dict[str, Node]:
        """Every name and its value."""
        for equation in equations:
            if len(equation.targets) == 1:
                self.values[equation.targets[0]] = self.value(equation.value)
            else:
                self.values.update(zip(equation.targets, self.pieces(equation.value), strict=True))
        return self.values

    def value(self, expression: Expression) -> Node:
        """The value of an expression."""
        match expression:
            case Number(value=number):
                return constant(float(number))
            case Name(name=name):
                return self.values[name]
            case Negate(operand=operand):
                return negate(self.value(operand))
            case Binary(operator=operator, left=left, right=right):
                return _binary(operator, self.value(left), self.value(right))
            case Index():
                return self._index(expression)
            case Call(function=function, arguments=arguments) if function in self.cell.norms:
                return self._norm(function, self.value(arguments[0]))
            case Call():
                return self._call(expression)
        raise TypeError(type(expression).__name__)

    def pieces(self, expression: Expression) -> list[Node]:
        """The pieces of a split."""
        assert isinstance(expression, Call)
        whole, count = self.value(expression.arguments[0]), expression.arguments[1]
        assert isinstance(count, Number)
        axis = int(str(dict(expression.options).get("axis", -1))) % len(whole.shape)
        size = int(whole.shape[axis] or 0) // int(count.value)
        return [_part(whole, axis, n * size, (n + 1) * size) for n in range(int(count.value))]

    def _index(self, expression: Index) -> Node:
        value = self.value(expression.value)
        for axis, part in enumerate(expression.slices):
            start, stop = (_end(end, self.cell.dims) for end in (part.start, part.stop))
            if (start, stop) != (None, None):
                value = _part(value, axis, start, stop)
        return value

    def _norm(self, name: str, value: Node) -> Node:
        norm = self.cell.norms[name]
        arrays = {role: _beside_statistics(norm, role, self.weights[f"{name}.{role}"]) for role in norm.weight_shapes()}
        if norm.has_population:
            deviation = _deviation(norm, arrays["variance"])
            scale = arrays["gamma"] / deviation if norm.gamma else 1 / deviation
            offset = (arrays["beta"] if norm.beta else 0.0) - arrays["mean"] * scale
            scaled = multiply(value, self._row(norm, scale, 1.0, len(value.shape)))
            return add(scaled, self._row(norm, offset, 0.0, len(value.shape)))
        fixed = not norm.affine_per_step and norm.past_end != "bypass"
        gamma, beta = arrays.get("gamma"), arrays.get("beta")
        result: Node = Normalised(
            value.shape, value.level, value, norm, gamma if fixed else None, beta if fixed else None
        )
        if not fixed:
            rank = len(value.shape)
            result = result if gamma is None else multiply(result, self._row(norm, gamma, 1.0, rank))
            result = result if beta is None else add(result, self._row(norm, beta, 0.0, rank))
        return self._bypassed(norm, value, result)

    def _row(self, norm: Norm, array: Array, neutral: float, rank: int) -> Node:
        """An array, or its row of the step: the neutral one where the norm is bypassed.

        Args:
            norm: whose array it is.
            array: `[features]` or `[*positions, features]`, or rows of these, one per step.
            neutral: what changes nothing.
            rank: axes of what it is combined with.
        """
        own = array.ndim > len(norm.shape)
        if norm.steps is None or (not own and norm.past_end in ("last", "modulo")):
            return constant(array)
        if not self.timed:
            return constant(array[step_row(norm, np.asarray(0))] if own else array)
        rows = array if own else np.broadcast_to(array, (norm.steps, *array.shape))
        if norm.past_end == "bypass":
            rows = np.concatenate([rows, np.full((1, *rows.shape[1:]), neutral)])
        return _table(norm, rows, rank)

    def _bypassed(self, norm: Norm, value: Node, result: Node) -> Node:
        """The norm's result up to its last row, the value itself after that; an error where it says so."""
        if norm.steps is None or not self.timed or norm.past_end in ("last", "modulo"):
            return result
        if norm.past_end == "error":
            return add(result, self._row(norm, np.zeros(norm.features), 0.0, len(value.shape)))
        flag = _table(norm, np.arange(norm.steps + 1)[:, None] < norm.steps, len(value.shape))
        return operation(value.shape, (flag, result, value), lambda graph, names, lead: graph.op("Where", *names))

    def _call(self, call: Call) -> Node:
        info = FUNCTIONS[call.function]
        arguments = [self.value(argument) for argument in call.arguments]
        count = len(arguments) if info.tensors is None else info.tensors
        numbers = tuple(float(_array(argument)) for argument in arguments[count:])
        options: dict[str, Any] = {**info.options, **dict(call.options)}
        tensors = arguments[:count]
        if all(isinstance(tensor, Constant) for tensor in tensors):
            return constant(_in_numpy(call.function, [_array(tensor) for tensor in tensors], numbers, options))
        if info.kind == "elementwise":
            return elementwise(call.function, tensors, numbers)
        rule = RULES.get(call.function) or RULES[info.kind]
        checked = [Checked(tensor.shape, tensor.level > Level.CONSTANT) for tensor in tensors]
        return structural(call.function, rule(call, checked, options).shape, tensors, options)


def _table(norm: Norm, rows: Array, rank: int) -> Table:
    """Rows `[steps, ..., features]` for values with more axes before the features."""
    shape = (*(1,) * (rank + 1 - rows.ndim), *rows.shape[1:])
    return Table(shape, Level.SEQUENCE, rows.reshape(len(rows), *shape), norm.steps or len(rows), norm.past_end)


def _beside_statistics(norm: Norm, role: str, array: Array) -> Array:
    """Rows of gamma or beta with an axis of size 1 for each axis of the positions; anything else as it is."""
    if role in STATISTICS or not norm.affine_per_step:
        return array
    return array.reshape(len(array), *(1,) * len(norm.positions), norm.features)


def _binary(operator: str, a: Node, b: Node) -> Node:
    match operator:
        case "+":
            return add(a, b)
        case "-":
            return add(a, negate(b))
        case "*":
            return multiply(a, b)
        case "/":
            return _quotient(a, b)
    return _product(a, b)


def _quotient(a: Node, b: Node) -> Node:
    if isinstance(b, Constant) and b.array.all():
        return multiply(a, constant(1.0 / b.array))
    return operation(joint_shape((a, b)), (a, b), lambda graph, names, lead: graph.op("Div", *names))


def _product(a: Node, b: Node) -> Node:
    """A matrix product, in the forms that `ir.checking` allows."""
    if isinstance(a, Constant) and isinstance(b, Constant):
        return constant(a.array @ b.array)
    if isinstance(b, Constant):
        return algebra.matmul(a, b.array)
    leading: Shape = b.shape[:-2] if isinstance(a, Constant) else ()
    shape = (*leading, *a.shape[:-1], b.shape[-1])
    return operation(shape, (a, b), _vector_product if len(a.shape) == 1 else _matrix_product)


def _matrix_product(graph: Graph, names: Tensors, lead: int) -> str:
    return graph.op("MatMul", *names)


def _vector_product(graph: Graph, names: Tensors, lead: int) -> str:
    row = graph.op("Unsqueeze", names[0], np.asarray([-2]))
    return graph.op("Squeeze", graph.op("MatMul", row, names[1]), np.asarray([-2]))


def _part(value: Node, axis: int, start: int | None, stop: int | None) -> Node:
    """`start:stop` of one axis of a sample."""
    size = value.shape[axis]
    if isinstance(value, Constant):
        return constant(value.array[(slice(None),) * axis + (slice(start, stop),)])
    length = None if size is None else len(range(*slice(start, stop).indices(size)))
    if axis == len(value.shape) - 1 and size is not None:
        first, last, _ = slice(start, stop).indices(size)
        part = algebra.take(value, range(first, last))
        if part is not None and part.shape[-1:] == (length,):
            return part
    shape = (*value.shape[:axis], length, *value.shape[axis + 1 :])
    return operation(shape, (value,), lambda graph, names, lead: graph.slice(str(names[0]), lead + axis, start, stop))


def _in_numpy(function: str, arrays: list[Array], numbers: Sequence[float], options: Mapping[str, Any]) -> Any:
    if function in PER_SAMPLE:
        return NUMPY[function](arrays[0][None], *arrays[1:], *numbers, **options)[0]
    return NUMPY[function](*arrays, *numbers, **options)


def _deviation(norm: Norm, variance: Array) -> Array:
    if norm.epsilon_placement == "outside":
        return np.sqrt(variance) + norm.epsilon
    root = np.sqrt(variance + norm.epsilon)
    return root if norm.epsilon_placement == "inside" else root + norm.epsilon


def _array(node: Node) -> Array:
    assert isinstance(node, Constant)
    return node.array


def _end(bound: Bound | None, dims: Mapping[str, int]) -> int | None:
    return None if bound is None else bound.resolve(dict(dims))
