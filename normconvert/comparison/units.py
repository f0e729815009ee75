"""Units in another order: a network whose hidden units are permuted, everywhere alike, computes the same.

The order is looked for layer by layer, from the inputs on. A layer's units are known by the numbers that they have
apart from one another: a column of a kernel, an element of a bias. Where all arrays of a layer are equal in some order
of its units, what reads the layer is expected in that order too. The outputs must come in the order of the other model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from normconvert.comparison.alignment import Pairs
from normconvert.comparison.arrays import permutation
from normconvert.comparison.unit_axes import unit_axes
from normconvert.ir import layers as ir
from normconvert.ir.cell import Cell
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.layers import AnyLayer, Recurrent
from normconvert.ir.model import Array, Model, Node
from normconvert.ir.shapes import infer
from normconvert.ir.shapes.basics import Shape

Order = Array
"""`p` with `value of B = (value of A)[p]` along the last axis."""

_PASSED_ON = (
    ir.Apply, ir.Cropping, ir.Dropout, ir.FoldTime, ir.GlobalPooling, ir.Identity, ir.Masking, ir.Merge, ir.Pooling,
    ir.RepeatVector, ir.UnfoldTime, ir.UpSampling, ir.ZeroPadding,
)  # fmt: skip
"""Layers that treat each feature by itself and alike."""

_STATELESS = (ir.Dense, ir.Convolution, ir.Embedding)


class _UnknownOrderError(Exception):
    """A layer mixes features, or reads values in unlike orders."""


@dataclass(frozen=True)
class Reordered:
    """A model in the order of another's units.

    Attributes:
        model: the same function as before.
        moved: names of its weights that were put in another order.
    """

    model: Model
    moved: frozenset[str]


def reorder(a: Model, b: Model, pairs: Pairs) -> Reordered | None:
    """`b` with its units in the order of those of `a`; None where no order makes their arrays equal.

    Args:
        a, b: models with the same nodes, equations and settings.
        pairs: their nodes.
    """
    names = dict(pairs)
    if len(pairs) != len(a.nodes) or len(pairs) != len(b.nodes):
        return None
    nodes_b = {node.name: node for node in b.nodes}
    shapes = infer(b)
    orders: dict[str, Order] = {}
    weights = dict(b.weights)
    seen: dict[str, bool] = {}
    for x in a.nodes:
        y = nodes_b[names[x.name]]
        layer, found = b.layers[y.layer], _Layer(a, x, b, y)
        if found.shapes(found.mine) != found.shapes(found.theirs):
            return None
        given = [orders.get(name) for name in y.inputs]
        touched = any(order is not None for order in given)
        if y.layer in seen and (touched or seen[y.layer]):
            return None  # one layer in two places, of which one would need another order
        try:
            result = _of_layer(layer, found, given, [shapes[name] for name in y.inputs])
        except _UnknownOrderError:
            return None
        if result is not None and np.array_equal(result, np.arange(len(result))):
            result = None
        seen[y.layer] = touched or result is not None
        if result is not None:
            if isinstance(layer, Recurrent) and (layer.return_state or y.states):
                return None
            orders[y.name] = result
        weights |= {f"{y.layer}.{name}": array for name, array in found.theirs.items()}
    moved = frozenset(n for n, array in weights.items() if array.tobytes() != np.asarray(b.weights[n]).tobytes())
    if not moved or any(name in orders for name in b.outputs):
        return None
    return Reordered(replace(b, weights=weights), moved)


class _Layer:
    """The arrays of a layer in both models; `theirs` are put in order."""

    def __init__(self, a: Model, x: Node, b: Model, y: Node) -> None:
        self.mine = {name: np.asarray(array) for name, array in a.layer_weights(x.layer).items()}
        self.theirs = {name: np.asarray(array) for name, array in b.layer_weights(y.layer).items()}

    @staticmethod
    def shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """Shape of each array."""
        return {name: array.shape for name, array in arrays.items()}

    def turn(self, name: str, axis: int, order: Order) -> None:
        """Put an axis of an array of B, which is in an order, into that of A."""
        self.theirs[name] = np.take(self.theirs[name], np.argsort(order), axis=axis)

    def found(self, columns: Sequence[tuple[str, int, int]]) -> Order | None:
        """The order of the units, from axes that hold blocks of them; None where there is none."""
        if not columns:
            return None
        sides = [
            np.concatenate([_by_unit(side[name], axis, blocks) for name, axis, blocks in columns], axis=1)
            for side in (self.mine, self.theirs)
        ]
        return permutation(sides[0], sides[1], 0)


def _by_unit(array: Array, axis: int, blocks: int) -> Array:
    """`[units, all else]` of an array with an axis of blocks of units."""
    moved = np.moveaxis(array, axis, -1)
    apart = moved.reshape(*moved.shape[:-1], blocks, moved.shape[-1] // blocks)
    return np.moveaxis(apart, -1, 0).reshape(apart.shape[-1], -1)


def _of_layer(layer: AnyLayer, arrays: _Layer, given: list[Order | None], shapes: list[Shape]) -> Order | None:
    """The order of a layer's output, whose arrays are put in order; None for that of the other model.

    Args:
        layer: the layer.
        arrays: its arrays.
        given, shapes: of each value it reads, the order and the shape of a sample.
    """
    first = given[0] if given else None
    if isinstance(layer, Recurrent):
        return _of_cell(layer.cell, arrays, first)
    if isinstance(layer, _STATELESS):
        return _of_stateless(layer, arrays, first)
    known = [order for order in given if order is not None]
    if not known:
        return None
    if isinstance(layer, ir.Concatenate) and layer.axis in (-1, len(shapes[0])):
        return _joined(given, shapes)
    if isinstance(layer, ir.BatchNormalization | ir.LayerNormalization):
        axes = (layer.axis,) if isinstance(layer, ir.BatchNormalization) else layer.axes
        if axes not in ((-1,), (len(shapes[0]),)):
            raise _UnknownOrderError
        for name in arrays.theirs:
            arrays.turn(name, 0, known[0])
        return known[0]
    same = len(known) == len(given) and all(np.array_equal(order, known[0]) for order in known)
    mixes = isinstance(layer, ir.Apply) and FUNCTIONS[layer.activation.function].kind != "elementwise"
    if isinstance(layer, _PASSED_ON) and not mixes and (same or isinstance(layer, ir.UnfoldTime)):
        return given[0]
    raise _UnknownOrderError


def _joined(given: list[Order | None], shapes: list[Shape]) -> Order:
    """The order of values joined along the last axis."""
    found: list[Order] = []
    start = 0
    for order, shape in zip(given, shapes, strict=True):
        if shape[-1] is None:
            raise _UnknownOrderError
        found.append(start + (np.arange(shape[-1]) if order is None else order))
        start += shape[-1]
    return np.concatenate(found)


def _of_stateless(layer: AnyLayer, arrays: _Layer, given: Order | None) -> Order | None:
    name = "embeddings" if isinstance(layer, ir.Embedding) else "kernel"
    if given is not None:
        if isinstance(layer, ir.Convolution) and layer.groups != 1:
            raise _UnknownOrderError
        arrays.turn(name, -2, given)
    columns = [(each, array.ndim - 1, 1) for each, array in arrays.mine.items()]
    order = arrays.found(columns)
    if order is not None:
        for each, axis, _ in columns:
            arrays.turn(each, axis, order)
    return order


def _of_cell(cell: Cell, arrays: _Layer, given: Order | None) -> Order | None:
    """The order of a cell's units, by the sizes that its shapes are written in."""
    axes = unit_axes(cell)
    if axes is None:
        if given is not None:
            raise _UnknownOrderError
        return None
    if given is not None:
        for name, axis in axes.inputs:
            arrays.turn(name, axis, given)
    counts = Counter(name for name, _, _ in axes.units)
    order = arrays.found([(name, axis, blocks) for name, axis, blocks in axes.units if counts[name] == 1])
    if order is not None:
        for name, axis, blocks in axes.units:
            size = len(order)
            whole = np.concatenate([order + block * size for block in range(blocks)])
            arrays.turn(name, axis, whole)
    return order
