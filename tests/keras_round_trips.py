"""What the tests of reading our own Keras files share: models joined into one, written and read, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from normconvert.ir.layers import AnyLayer, Bidirectional
from normconvert.ir.model import Model
from normconvert.sources import read
from normconvert.targets.keras import write_keras


def joined(models: Mapping[str, Model]) -> Model:
    """Models side by side in one: Keras needs a second for a model, however large."""
    inputs, outputs, layers, nodes, weights = [], [], {}, [], {}
    for number, model in enumerate(models.values()):

        def own(name: str, number: int = number) -> str:
            return f"m{number}_{name}" if name else ""

        inputs += [msgspec.structs.replace(each, name=own(each.name)) for each in model.inputs]
        outputs += [own(name) for name in model.outputs]
        layers |= {own(name): layer for name, layer in model.layers.items()}
        nodes += [
            msgspec.structs.replace(
                node,
                name=own(node.name),
                layer=own(node.layer),
                inputs=tuple(map(own, node.inputs)),
                masks=tuple(map(own, node.masks)),
                states=tuple(map(own, node.states)),
            )
            for node in model.nodes
        ]
        weights |= {own(name): array for name, array in model.weights.items()}
    return Model("joined", tuple(inputs), tuple(outputs), layers, tuple(nodes), weights)


def read_back(model: Model, folder: Path, suffix: str = ".keras") -> Model:
    path = folder / f"written{suffix}"
    write_keras(model, path)
    return read(path).model


def assert_equal(found: Model, wanted: Model) -> None:
    """Equal inputs, outputs, graph and layers, whatever these were called in their source; tensors equal bit by bit."""
    assert found.inputs == wanted.inputs
    assert found.outputs == wanted.outputs
    assert {node.name: node for node in found.nodes} == {node.name: node for node in wanted.nodes}
    assert found.layers.keys() == wanted.layers.keys()
    for name, layer in wanted.layers.items():
        assert unlabelled(found.layers[name]) == unlabelled(layer), name
    assert found.weights.keys() == wanted.weights.keys()
    for name, array in wanted.weights.items():
        again = found.weights[name]
        assert (again.dtype, again.shape, again.tobytes()) == (array.dtype, array.shape, array.tobytes()), name


def unlabelled(layer: AnyLayer) -> AnyLayer:
    parts: dict[str, Any] = {"kind": ""}
    if isinstance(layer, Bidirectional):
        parts |= {side: unlabelled(getattr(layer, side)) for side in ("forward", "backward")}
    return msgspec.structs.replace(layer, **parts)
