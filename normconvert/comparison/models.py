"""Two models compared: layers in the same place, their settings, equations and arrays, and what only one has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from normconvert.comparison.alignment import Pairs, align
from normconvert.comparison.cells import compare_cells
from normconvert.comparison.paired import StoredCell
from normconvert.comparison.records import Difference, LayerPair, LoneLayer, Side, TensorPair
from normconvert.comparison.running import run_both
from normconvert.comparison.separation import separate
from normconvert.comparison.settings import layer_settings
from normconvert.comparison.tensors import Arrays
from normconvert.comparison.units import reorder
from normconvert.comparison.verdict import conclude, decided, differ_in_arrays_alone, settled
from normconvert.comparison.wiring import Wiring
from normconvert.inspection import kind_of_layer
from normconvert.ir.layers import AnyLayer, Dropout, Formula, Identity, Recurrent
from normconvert.ir.model import Model, Node
from normconvert.ir.shapes import infer

Progress = Callable[[str], None]


def compare(
    a: Model,
    b: Model,
    *,
    names: tuple[str, str] = ("", ""),
    weights: bool = True,
    evaluate: bool = True,
    progress: Progress = lambda _: None,
) -> Difference:
    """Compare two models.

    Args:
        a, b: the models.
        names: of the files they were read from.
        weights: compare arrays too.
        evaluate: run both where it is not shown that they are the same.
        progress: told of each stage.
    """
    sides = side_of(a, names[0]), side_of(b, names[1])
    a, b = separate(a), separate(b)
    progress("matching layers")
    pairs = align(a, b)
    found = _layer_by_layer(a, b, pairs, sides, weights, progress)
    if weights and differ_in_arrays_alone(found):
        progress("looking for another order of units")
        reordered = reorder(a, b, pairs)
        again = None if reordered is None else _layer_by_layer(a, reordered.model, pairs, sides, weights, progress)
        if reordered is not None and again is not None and not decided(again):
            found = _with_units(again, b, reordered.moved)
    run = None
    if evaluate and not settled(found):
        run = run_both(a, b, pairs, thorough=not decided(found), progress=progress)
    return conclude(found, run, weights=weights)


def _layer_by_layer(
    a: Model, b: Model, pairs: Pairs, sides: tuple[Side, Side], weights: bool, progress: Progress
) -> Difference:
    """What was found, without a verdict."""
    wiring = Wiring(a, b, pairs, _is_idle)
    shapes = infer(a)
    layers: list[LayerPair] = []
    compared: set[tuple[str, str]] = set()
    nodes_a, nodes_b = ({node.name: node for node in model.nodes} for model in (a, b))
    for x, y in ((nodes_a[one], nodes_b[other]) for one, other in pairs):
        progress(f"comparing {x.name}")
        rank = len(shapes[x.inputs[0]]) + 1 if x.inputs and x.inputs[0] in shapes else 0
        pair = _compare_layers(a, x, b, y, rank, weights=weights and (x.layer, y.layer) not in compared)
        compared.add((x.layer, y.layer))
        layers.append(msgspec.structs.replace(pair, settings=(*pair.settings, *wiring.of_pair(x, y))))
    return Difference(
        a=sides[0],
        b=sides[1],
        verdict="different",
        summary="",
        meaning="",
        interface=tuple(wiring.interface()),
        layers=tuple(layers),
        only_a=tuple(_lone(a, {x for x, _ in pairs})),
        only_b=tuple(_lone(b, {y for _, y in pairs})),
    )


def _with_units(found: Difference, b: Model, moved: frozenset[str]) -> Difference:
    """Arrays that are equal in another order of units, called permuted."""
    owners = {node.name: node.layer for node in b.nodes}

    def told(layer: LayerPair, tensor: TensorPair) -> TensorPair:
        if f"{owners[layer.b]}.{tensor.b}" not in moved:
            return tensor
        words = "; ".join(filter(None, [tensor.arrangement, "units in another order"]))
        return msgspec.structs.replace(tensor, relation="permuted", arrangement=words)

    layers = tuple(
        msgspec.structs.replace(layer, tensors=tuple(told(layer, tensor) for tensor in layer.tensors))
        for layer in found.layers
    )
    return msgspec.structs.replace(found, layers=layers)


def side_of(model: Model, name: str) -> Side:
    """What a model is, to the user; `name` of the file it was read from."""
    provenance = model.provenance
    return Side(model.name, name or provenance.source, provenance.format, provenance.framework)


def _is_idle(layer: AnyLayer) -> bool:
    return isinstance(layer, Dropout | Identity)


def _lone(model: Model, paired: set[str]) -> Iterator[LoneLayer]:
    for node in model.nodes:
        if node.name not in paired:
            layer = model.layers[node.layer]
            size = sum(array.size for array in model.layer_weights(node.layer).values())
            yield LoneLayer(node.name, kind_of_layer(layer), int(size), _is_idle(layer))


def _compare_layers(a: Model, x: Node, b: Model, y: Node, rank: int, *, weights: bool) -> LayerPair:
    one, other = a.layers[x.layer], b.layers[y.layer]
    arrays = [
        {name: np.asarray(array) for name, array in model.layer_weights(node.layer).items()}
        for model, node in ((a, x), (b, y))
    ]
    masked = any(x.masks) or any(y.masks)
    cells = None
    if isinstance(one, Recurrent | Formula) and isinstance(other, Recurrent | Formula):
        cells = compare_cells(StoredCell(one.cell, arrays[0]), StoredCell(other.cell, arrays[1]))
    pair = LayerPair(
        a=x.name,
        b=y.name,
        kind_a=kind_of_layer(one),
        kind_b=kind_of_layer(other),
        matched_by="name" if x.name == y.name else "place",
        settings=tuple(each for each in layer_settings(one, other, rank) if masked or each.name != "zero_masked"),
    )
    if cells is None:
        tensors = tuple(Arrays(arrays[0], arrays[1], one.statistics()).by_name())
        return msgspec.structs.replace(pair, tensors=tensors if weights else ())
    return msgspec.structs.replace(
        pair,
        settings=(*pair.settings, *cells.settings),
        equations=cells.equations,
        differing=cells.differing,
        evaluation="" if cells.evaluated is None else str(cells.evaluated),
        agrees=None if cells.evaluated is None else cells.evaluated.agrees,
        tensors=cells.tensors if weights else (),
    )
