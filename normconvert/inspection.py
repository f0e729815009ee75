"""A model as tables: its layers with shapes and parameter counts, and its distinct cells."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from normconvert.ir.cell import Cell
from normconvert.ir.layers import AnyLayer, Bidirectional, Formula, Recurrent
from normconvert.ir.model import Input, Model, Provenance, value_name
from normconvert.ir.norm import Norm
from normconvert.ir.shapes import infer

Shape = tuple[int | None, ...]


class Row(msgspec.Struct, frozen=True):
    """One application of a layer.

    Attributes:
        name: of the node.
        kind: what the source calls the layer.
        shape: of its first output, with None for the batch and every free size.
        parameters: stored numbers of the layer; 0 where it was counted in an earlier row.
        inputs: the values it reads, its masks and initial states included.
        shared_with: the earlier row that applies the same layer, or empty.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    inputs: tuple[str, ...]
    shared_with: str = ""


class NormInfo(msgspec.Struct, frozen=True):
    """A normalisation inside a cell, in words and numbers."""

    name: str
    kind: str
    features: int
    groups: int
    epsilon: float
    gamma: bool
    beta: bool
    statistics: str
    steps: int | None


class CellInfo(msgspec.Struct, frozen=True):
    """A cell, and the layers that hold it.

    Attributes:
        layers: names of the layers (`name/backward` for one direction).
        family: the catalogue entry it came from, or empty.
        states: shape by name.
        gates: how many pieces each `split` of the equations takes, by the names of the pieces.
        constants: numbers fixed at run time.
        norms: its normalisations.
        equations: their text.
    """

    layers: tuple[str, ...]
    family: str
    states: dict[str, tuple[int, ...]]
    gates: tuple[tuple[str, ...], ...]
    constants: dict[str, float]
    norms: tuple[NormInfo, ...]
    equations: str


class Summary(msgspec.Struct, frozen=True):
    """Everything `inspect` shows."""

    name: str
    provenance: Provenance
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    rows: tuple[Row, ...]
    total: int
    trainable: int
    non_trainable: int
    cells: tuple[CellInfo, ...]


def summarise(model: Model) -> Summary:
    """Count and describe a model.

    Raises:
        NormconvertError: the model does not fit together.
    """
    total = sum(_size(model, name) for name in model.layers)
    fixed = sum(_fixed_size(model, name) for name in model.layers)
    return Summary(
        name=model.name,
        provenance=model.provenance,
        inputs=model.inputs,
        outputs=model.outputs,
        rows=tuple(_rows(model)),
        total=total,
        trainable=total - fixed,
        non_trainable=fixed,
        cells=tuple(_cells(model)),
    )


def kind_of_layer(layer: AnyLayer) -> str:
    """What the source calls a layer, or what we do."""
    return layer.kind or type(layer).__name__


def _rows(model: Model) -> Iterator[Row]:
    shapes = infer(model)
    first: dict[str, str] = {}
    for node in model.nodes:
        shared = first.get(node.layer, "")
        first.setdefault(node.layer, node.name)
        yield Row(
            name=node.name,
            kind=kind_of_layer(model.layers[node.layer]),
            shape=(None, *shapes[value_name(node.name)]),
            parameters=0 if shared else _size(model, node.layer),
            inputs=(*node.inputs, *filter(None, node.masks), *node.states),
            shared_with=shared,
        )


def _size(model: Model, layer: str) -> int:
    return sum(int(np.prod(array.shape, dtype=np.int64)) for array in model.layer_weights(layer).values())


def _fixed_size(model: Model, name: str) -> int:
    """Numbers of a layer that training leaves alone: running statistics, and everything in a frozen layer."""
    layer = model.layers[name]
    if not layer.trainable:
        return _size(model, name)
    fixed = layer.non_trainable()
    return sum(array.size for weight, array in model.layer_weights(name).items() if weight in fixed)


def _cells(model: Model) -> Iterator[CellInfo]:
    holders: dict[bytes, tuple[Cell, list[str]]] = {}
    for name, layer in model.layers.items():
        for place, cell in _cells_of(name, layer):
            holders.setdefault(msgspec.json.encode(cell), (cell, []))[1].append(place)
    for cell, layers in holders.values():
        yield CellInfo(
            layers=tuple(layers),
            family=cell.family,
            states={name: state.shape for name, state in cell.states.items()},
            gates=tuple(each.targets for each in cell.parsed().body if len(each.targets) > 1),
            constants=cell.constants,
            norms=tuple(_norm(name, norm) for name, norm in cell.norms.items()),
            equations=cell.equations,
        )


def _cells_of(name: str, layer: AnyLayer) -> list[tuple[str, Cell]]:
    match layer:
        case Recurrent(cell=cell) | Formula(cell=cell):
            return [(name, cell)]
        case Bidirectional(forward=forward, backward=backward):
            return [(f"{name}/forward", forward.cell), (f"{name}/backward", backward.cell)]
    return []


_SCOPES = {
    "shared": "one row for all time steps",
    "per_step": "one row per time step",
    "sequence": "over batch and time together",
}
_PAST_END = {
    "last": "the last row past the end",
    "modulo": "starting over past the end",
    "bypass": "no normalisation past the end",
    "error": "an error past the end",
}


def _norm(name: str, norm: Norm) -> NormInfo:
    words = []
    if norm.kind == "batch":
        words += [f"{norm.source} statistics", _SCOPES[norm.scope]]
    else:
        words.append("statistics of each sample")
    if norm.positions:
        words.append(f"one mean and variance for each of {'x'.join(map(str, norm.positions))} positions")
    if norm.affine_per_step:
        words.append("gamma and beta per time step")
    if norm.steps is not None:
        words.append(_PAST_END[norm.past_end])
    return NormInfo(
        name=name,
        kind=norm.kind,
        features=norm.features,
        groups=norm.groups,
        epsilon=norm.epsilon,
        gamma=norm.gamma,
        beta=norm.beta,
        statistics=", ".join(words),
        steps=norm.steps,
    )
