"""Which node of one model stands in the place of which node of another.

Two nodes may be paired if their layers are of one class. How well they fit is how alike they are (name, arrays,
settings) and how well what is before and after them fits, taken over the graph until it settles. The best pairs are
taken first; none may turn around the order of those taken before. This is done with and without regard to names, which
may be numbered differently: what leaves fewer nodes alone and fewer connections different is taken, names if both do.
"""

from __future__ import annotations

import zlib

import numpy as np

from normconvert.comparison.settings import function_settings
from normconvert.ir.model import Array, Model, Node

_ROUNDS = 12
_NEIGHBOURS = 0.7
"""Weight of what is before, and of what is after, against the pair's own likeness."""

_NAME = 0.3
"""What a common name adds to the likeness of two nodes."""

_MAX_PAIRS = 1_000_000
"""Largest number of possible pairs that are weighed; larger models are paired by names."""


Pairs = tuple[tuple[str, str], ...]
"""Pairs of nodes by name, in the first model's order."""


def align(a: Model, b: Model) -> Pairs:
    """Pair the nodes of two models."""
    if not a.nodes or not b.nodes:
        return ()
    if len(a.nodes) * len(b.nodes) > _MAX_PAIRS:
        own = {node.name: type(b.layers[node.layer]) for node in b.nodes}
        return tuple((n.name, n.name) for n in a.nodes if own.get(n.name) is type(a.layers[n.layer]))
    alike = _alike(a, b)
    by_name = _paired(a, b, alike + _NAME * _same_names(a, b) * (alike > 0))
    by_place = _paired(a, b, alike)
    return min(by_name, by_place, key=lambda pairs: _left_over(a, b, pairs))


def _left_over(a: Model, b: Model, pairs: Pairs) -> int:
    """How many nodes have no counterpart, and how many pairs read something else or have arrays of other sizes."""
    forward = {one.name: other.name for one, other in zip(a.inputs, b.inputs, strict=False)} | dict(pairs)
    nodes_a, nodes_b = ({node.name: node for node in model.nodes} for model in (a, b))
    count = len(a.nodes) + len(b.nodes) - 2 * len(pairs)
    for one, other in pairs:
        x, y = nodes_a[one], nodes_b[other]
        count += [forward.get(name.partition(":")[0]) for name in x.inputs] != [n.partition(":")[0] for n in y.inputs]
        count += _sizes(a, x) != _sizes(b, y)
    return count


def _paired(a: Model, b: Model, own: Array) -> Pairs:
    """The pairs for a likeness of each node of `a` with each of `b`, 0 where they may not be paired."""
    weight = _weights(a, b, own)
    places = sorted(
        zip(*np.nonzero(weight > 0), strict=True), key=lambda p: (-round(float(weight[p]), 9), abs(p[0] - p[1]), p)
    )
    reach_a, reach_b = _reach(a), _reach(b)
    found: dict[int, int] = {}
    taken: set[int] = set()
    for i, j in ((int(i), int(j)) for i, j in places):
        if i in found or j in taken:
            continue
        if any(_turned(reach_a, i, k, reach_b, j, other) for k, other in found.items()):
            continue
        found[i] = j
        taken.add(j)
    return tuple((a.nodes[i].name, b.nodes[j].name) for i, j in sorted(found.items()))


def places_of_values(model: Model) -> dict[str, int]:
    """The place of the node that gives each value that something reads; inputs of the model have none."""
    places = {name: place for place, node in enumerate(model.nodes) for name in (node.name, *node.further)}
    read = [name for node in model.nodes for name in _reads(node)]
    for name in (*read, *model.outputs):
        head = name.partition(":")[0]
        if name not in places and head in places:
            places[name] = places[head]
    return places


def _reads(node: Node) -> tuple[str, ...]:
    return (*node.inputs, *filter(None, node.masks), *node.states)


def _weights(a: Model, b: Model, own: Array) -> Array:
    """How well each node of `a` fits each of `b`, what is around them included."""
    may = own > 0
    before_a, before_b = _before(a), _before(b)
    after_a, after_b = _normalised(before_a.T), _normalised(before_b.T)
    starts = _starts(a, b)
    ends = _ends(a, b)
    weight = own
    for _ in range(_ROUNDS):
        scaled = weight / (1 + 2 * _NEIGHBOURS)
        context = before_a @ scaled @ before_b.T + starts + after_a @ scaled @ after_b.T + ends
        weight = np.where(may, own + _NEIGHBOURS * context, 0.0)
    return weight


def _alike(a: Model, b: Model) -> Array:
    """How alike the layers of each node of `a` and of each of `b` are; 0 where they are not of one class."""
    traits = [[_traits(model, node) for node in model.nodes] for model in (a, b)]
    result = np.zeros((len(a.nodes), len(b.nodes)))
    for i, (kind, sizes, settings, numbers) in enumerate(traits[0]):
        for j, other in enumerate(traits[1]):
            if kind is other[0]:
                same_numbers = numbers == other[3] != 0
                result[i, j] = 0.25 + 0.3 * (sizes == other[1]) + 0.15 * (settings == other[2]) + 0.5 * same_numbers
    return result


def _traits(model: Model, node: Node) -> tuple[type, list[tuple[int, ...]], tuple[object, ...], int]:
    """The class of a node's layer, the shapes of its arrays, its settings, and a number that equal arrays share."""
    layer = model.layers[node.layer]
    arrays = model.layer_weights(node.layer).values()
    return type(layer), _sizes(model, node), function_settings(layer), sum(zlib.crc32(a.tobytes()) for a in arrays)


def _same_names(a: Model, b: Model) -> Array:
    return np.array([[x.name == y.name or x.layer == y.layer for y in b.nodes] for x in a.nodes], dtype=float)


def _sizes(model: Model, node: Node) -> list[tuple[int, ...]]:
    return sorted(array.shape for array in model.layer_weights(node.layer).values())


def _before(model: Model) -> Array:
    """`[nodes, nodes]`: row n has the nodes that n reads, in equal shares of all it reads."""
    places = places_of_values(model)
    matrix = np.zeros((len(model.nodes), len(model.nodes)))
    for place, node in enumerate(model.nodes):
        for name in node.inputs:
            if name in places:
                matrix[place, places[name]] += 1 / len(node.inputs)
    return matrix


def _normalised(matrix: Array) -> Array:
    total = np.count_nonzero(matrix, axis=1, keepdims=True)
    return (matrix > 0) / np.maximum(total, 1)


def _starts(a: Model, b: Model) -> Array:
    """1 for two nodes that read the same input of the model."""
    shares = []
    for model in (a, b):
        names = [declared.name for declared in model.inputs]
        shares.append(np.array([[name in node.inputs for name in names] for node in model.nodes], dtype=float))
    count = min(shares[0].shape[1], shares[1].shape[1])
    return (shares[0][:, :count] @ shares[1][:, :count].T > 0).astype(float)


def _ends(a: Model, b: Model) -> Array:
    """1 for two nodes that give the same output of the model."""
    shares = [
        np.array([[name == node.name for name in model.outputs] for node in model.nodes], dtype=float)
        for model in (a, b)
    ]
    count = min(shares[0].shape[1], shares[1].shape[1])
    return (shares[0][:, :count] @ shares[1][:, :count].T > 0).astype(float)


def _reach(model: Model) -> list[int]:
    """Per node, the nodes before it as bits."""
    places = places_of_values(model)
    reach: list[int] = []
    for node in model.nodes:
        bits = 0
        for name in _reads(node):
            if name in places:
                bits |= reach[places[name]] | 1 << places[name]
        reach.append(bits)
    return reach


def _turned(reach_a: list[int], i: int, k: int, reach_b: list[int], j: int, other: int) -> bool:
    """Whether one pair is before another in one model and after it in the other."""
    first = (reach_a[i] >> k & 1) and (reach_b[other] >> j & 1)
    second = (reach_a[k] >> i & 1) and (reach_b[j] >> other & 1)
    return bool(first or second)
