"""How a stored tensor holds the parameters of a cell, as an expression that is read in both directions.

    kernel    = "rows(W_x, W_h)"      TF1: one matrix, the rows of x first
    weight_ih = "W_x[i, f, g, o].T"   PyTorch: transposed, gates in its own order
    W_f       = "W_x[f]"              Keras 1: one matrix per gate
    bias      = "stack(b_x, b_h)"     Keras GRU: two biases on a new first axis
    mean      = "row(bn_x.mean)"      Sonnet: one row, [1, features]

`assemble` computes the stored tensor from the parameters, `take_apart` the parameters from the stored tensor, and
`shape_of` its shape in the cell's sizes, from which the sizes are found. Names with a dot (`ln_x.gamma`) are the
arrays of a norm.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np

from normconvert.errors import CorruptFile, UsageError
from normconvert.ir.expressions import Bound
from normconvert.ir.model import Array

Shape = tuple[Bound, ...]


@dataclass(frozen=True)
class Parameter:
    """A parameter, or the blocks of its last axis that belong to the named gates."""

    name: str
    gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transposed:
    """The last two axes swapped."""

    part: Part


@dataclass(frozen=True)
class Reinterpreted:
    """The elements of the transpose, in its memory order, under the shape of the original (cuDNN input kernels)."""

    part: Part


@dataclass(frozen=True)
class Shifted:
    """A constant added (`gamma - 1` of lingvo)."""

    part: Part
    amount: float


@dataclass(frozen=True)
class Row:
    """A new first axis of size 1 (statistics of Sonnet)."""

    part: Part


@dataclass(frozen=True)
class Rearranged:
    """The rows in another order, with a row that nothing reads; `ROW_ORDERS` says which goes where."""

    part: Part
    order: str


@dataclass(frozen=True)
class Joined:
    """Several parts along an axis; `stack` puts them on a new first axis."""

    parts: tuple[Part, ...]
    how: str


Part = Union[Parameter, Transposed, Reinterpreted, Shifted, Row, Rearranged, Joined]

ROW_ORDERS: dict[str, Callable[[int], list[int | None]]] = {
    "spare_row": lambda count: [*range(count), None],
    "tf_case": lambda count: [count - 1, None, *range(count - 2, -1, -1)],
}
"""From the number of rows to the row at each stored position; None for one that nothing reads (stored as zeros).
`spare_row` adds one after the last. `tf_case` is how `tf.case` of TensorFlow up to 1.4.1 numbers the variables of its
branches: the default, the default once more, then the others from the last to the first."""

MAX_CHARACTERS = 1_000
"""Longest layout expression accepted."""

_AXES = {"rows": -2, "columns": -1}


def parse_layout(text: str) -> Part:
    """Read a layout expression.

    Raises:
        UsageError: it is not one.
    """
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"a layout of {len(text)} characters is too long")
    try:
        return _part(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise UsageError(
            f"the layout {text!r} cannot be read",
            remedy="Use names, NAME[gate, ...], .T, rows(), columns(), stack(), row(), reinterpret()",
        ) from None


def _part(node: ast.expr) -> Part:
    match node:
        case ast.Name(id=name):
            return Parameter(name)
        case ast.Attribute(value=value, attr="T"):
            return Transposed(_part(value))
        case ast.Attribute(value=ast.Name(id=owner), attr=role):
            return Parameter(f"{owner}.{role}")
        case ast.Subscript(value=value, slice=index):
            whole = _part(value)
            elements = index.elts if isinstance(index, ast.Tuple) else [index]
            gates = tuple(element.id for element in elements if isinstance(element, ast.Name))
            if isinstance(whole, Parameter) and len(gates) == len(elements):
                return Parameter(whole.name, gates)
        case ast.Call(func=ast.Name(id="reinterpret"), args=[inner], keywords=[]):
            return Reinterpreted(_part(inner))
        case ast.Call(func=ast.Name(id="row"), args=[inner], keywords=[]):
            return Row(_part(inner))
        case ast.Call(func=ast.Name(id=order), args=[inner], keywords=[]) if order in ROW_ORDERS:
            return Rearranged(_part(inner), order)
        case ast.Call(func=ast.Name(id=("rows" | "columns" | "stack") as how), args=arguments, keywords=[]) if (
            arguments
        ):
            return Joined(tuple(map(_part, arguments)), how)
        case ast.BinOp(left=left, op=ast.Add(), right=ast.Constant(value=(int() | float()) as amount)):
            return Shifted(_part(left), float(amount))
        case ast.BinOp(left=left, op=ast.Sub(), right=ast.Constant(value=(int() | float()) as amount)):
            return Shifted(_part(left), -float(amount))
    raise ValueError(type(node).__name__)


def parameters_in(part: Part) -> set[str]:
    """Names of the parameters a stored tensor holds, whole or in part."""
    match part:
        case Parameter(name=name):
            return {name}
        case Joined(parts=parts):
            return set().union(*map(parameters_in, parts))
        case _:
            return parameters_in(part.part)


def shape_of(part: Part, shapes: Mapping[str, Shape], gates: Sequence[str]) -> Shape:
    """The stored tensor's shape in terms of the cell's sizes."""
    match part:
        case Parameter(name=name, gates=chosen):
            shape = shapes[name]
            return shape if not chosen else (*shape[:-1], _times(_block(shape[-1], gates), len(chosen)))
        case Transposed(part=inner):
            shape = shape_of(inner, shapes, gates)
            return (*shape[:-2], *shape[:-3:-1])
        case Row(part=inner):
            return (Bound(1), *shape_of(inner, shapes, gates))
        case Rearranged(part=inner):
            rows, *rest = shape_of(inner, shapes, gates)
            return (_plus(rows, Bound(1)), *rest)
        case Joined(parts=parts, how=how):
            inner_shapes = [shape_of(p, shapes, gates) for p in parts]
            if how == "stack":
                return (Bound(len(parts)), *inner_shapes[0])
            axis = _AXES[how]
            total = list(inner_shapes[0])
            for other in inner_shapes[1:]:
                total[axis] = _plus(total[axis], other[axis])
            return tuple(total)
        case _:
            return shape_of(part.part, shapes, gates)


def assemble(part: Part, arrays: Mapping[str, Array], gates: Sequence[str]) -> Array:
    """The stored tensor, from the parameters."""
    match part:
        case Parameter(name=name, gates=chosen):
            array = arrays[name]
            if not chosen:
                return array
            blocks = np.split(array, len(gates), axis=-1)
            return np.concatenate([blocks[gates.index(gate)] for gate in chosen], axis=-1)
        case Transposed(part=inner):
            return np.swapaxes(assemble(inner, arrays, gates), -1, -2)
        case Reinterpreted(part=inner):
            array = assemble(inner, arrays, gates)
            return array.T.reshape(array.shape)
        case Row(part=inner):
            whole = assemble(inner, arrays, gates)
            return whole.reshape(1, *whole.shape)
        case Rearranged(part=inner, order=order):
            array = assemble(inner, arrays, gates)
            unread = np.zeros_like(array[0])
            return np.stack([unread if row is None else array[row] for row in ROW_ORDERS[order](len(array))])
        case Shifted(part=inner, amount=amount):
            array = assemble(inner, arrays, gates)
            return array + array.dtype.type(amount)
        case Joined(parts=parts, how=how):
            pieces = [assemble(p, arrays, gates) for p in parts]
            return np.stack(pieces) if how == "stack" else np.concatenate(pieces, axis=_AXES[how])


def take_apart(part: Part, stored: Array, arrays: Mapping[str, Array], gates: Sequence[str]) -> None:
    """Write what a stored tensor holds into the parameters' arrays (allocated with their full shapes).

    Raises:
        CorruptFile: the tensor does not have the shape the layout gives it.
    """
    expected = assemble(part, arrays, gates).shape
    if stored.shape != expected:
        raise CorruptFile(f"has shape {list(stored.shape)}, expected {list(expected)}")
    _take_apart(part, stored, arrays, gates)


def _take_apart(part: Part, stored: Array, arrays: Mapping[str, Array], gates: Sequence[str]) -> None:
    match part:
        case Parameter(name=name, gates=chosen):
            target = arrays[name]
            if not chosen:
                target[...] = stored
                return
            blocks = np.split(target, len(gates), axis=-1)
            for gate, piece in zip(chosen, np.split(stored, len(chosen), axis=-1), strict=True):
                blocks[gates.index(gate)][...] = piece
        case Transposed(part=inner):
            _take_apart(inner, np.swapaxes(stored, -1, -2), arrays, gates)
        case Reinterpreted(part=inner):
            _take_apart(inner, stored.reshape(stored.shape[::-1]).T, arrays, gates)
        case Row(part=inner):
            _take_apart(inner, stored[0], arrays, gates)
        case Rearranged(part=inner, order=order):
            positions = {row: position for position, row in enumerate(ROW_ORDERS[order](len(stored) - 1))}
            _take_apart(inner, stored[[positions[row] for row in range(len(stored) - 1)]], arrays, gates)
        case Shifted(part=inner, amount=amount):
            _take_apart(inner, stored - stored.dtype.type(amount), arrays, gates)
        case Joined(parts=parts, how=how):
            start = 0
            for index, inner in enumerate(parts):
                if how == "stack":
                    _take_apart(inner, stored[index], arrays, gates)
                    continue
                axis = _AXES[how]
                length = assemble(inner, arrays, gates).shape[axis]
                piece = np.take(stored, range(start, start + length), axis=axis)
                _take_apart(inner, piece, arrays, gates)
                start += length


def _block(size: Bound, gates: Sequence[str]) -> Bound:
    count = len(gates)
    return Bound(size.constant // count, tuple((name, factor // count) for name, factor in size.terms))


def _times(bound: Bound, count: int) -> Bound:
    return Bound(bound.constant * count, tuple((name, factor * count) for name, factor in bound.terms))


def _plus(a: Bound, b: Bound) -> Bound:
    factors = dict(a.terms)
    for name, factor in b.terms:
        factors[name] = factors.get(name, 0) + factor
    return Bound(a.constant + b.constant, tuple(sorted(factors.items())))
