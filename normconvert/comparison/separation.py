"""A model with one thing to a layer: activations and directions, which some frameworks join to others, apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec

from normconvert.ir.layers import (
    AnyLayer,
    Apply,
    Bidirectional,
    Concatenate,
    Convolution,
    Dense,
    DepthwiseConvolution,
    Merge,
    TransposedConvolution,
)
from normconvert.ir.model import Array, Model, Node, value_name

_ACTIVATION = "/activation"
_SIDES = ("forward", "backward")
_WITH_ACTIVATION = (Dense, Convolution, DepthwiseConvolution, TransposedConvolution)


def separate(model: Model) -> Model:
    """The same function with an `Apply` `<layer>/activation` after each layer that has an activation.

    A `Bidirectional` becomes `<layer>/forward` and `<layer>/backward`, and under its own name what merges them.
    """
    separator = _Separator(model)
    nodes = tuple(made for node in model.nodes for made in separator.node(node))
    return replace(
        model,
        layers=separator.layers,
        nodes=nodes,
        outputs=separator.values(model.outputs),
        weights=separator.weights,
    )


@dataclass
class _Separator:
    """Attributes: what was made so far, and `renamed`: values that have another name than in the model."""

    model: Model
    layers: dict[str, AnyLayer] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, layer in self.model.layers.items():
            if isinstance(layer, Bidirectional):
                self._directions(name, layer)
                continue
            self.layers[name] = layer
            self.weights |= {f"{name}.{role}": array for role, array in self.model.layer_weights(name).items()}
            if isinstance(layer, _WITH_ACTIVATION) and layer.activation is not None:
                self.layers[name] = msgspec.structs.replace(layer, activation=None)
                self.layers[name + _ACTIVATION] = Apply(activation=layer.activation, kind=layer.activation.function)

    def _directions(self, name: str, layer: Bidirectional) -> None:
        held = self.model.layer_weights(name)
        for side, part in zip(_SIDES, (layer.forward, layer.backward), strict=True):
            self.layers[f"{name}/{side}"] = msgspec.structs.replace(
                part, kind=part.kind or layer.kind, trainable=part.trainable and layer.trainable
            )
            prefix = f"{side}."
            own = {key.removeprefix(prefix): array for key, array in held.items() if key.startswith(prefix)}
            self.weights |= {f"{name}/{side}.{role}": array for role, array in own.items()}
        if layer.merge == "concat":
            self.layers[name] = Concatenate(kind=layer.kind)
        elif layer.merge is not None:
            self.layers[name] = Merge(operation=layer.merge, kind=layer.kind)

    def values(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Values by their new names."""
        return tuple(self.renamed.get(name, name) for name in names)

    def node(self, node: Node) -> Iterator[Node]:
        """What becomes of a node."""
        layer = self.model.layers[node.layer]
        known = msgspec.structs.replace(
            node, inputs=self.values(node.inputs), masks=self.values(node.masks), states=self.values(node.states)
        )
        if isinstance(layer, Bidirectional):
            yield from self._both(known, layer)
            return
        yield known
        if node.layer + _ACTIVATION in self.layers:
            self.renamed[node.name] = node.name + _ACTIVATION
            yield Node(node.name + _ACTIVATION, node.layer + _ACTIVATION, (node.name,))

    def _both(self, node: Node, layer: Bidirectional) -> Iterator[Node]:
        count = len(layer.forward.cell.states)
        sides = [f"{node.name}/{side}" for side in _SIDES]
        outputs = [*sides] if layer.merge is None else [node.name]
        for side, part in zip(sides, (layer.forward, layer.backward), strict=True):
            if part.return_state:
                outputs += [value_name(side, number) for number in range(1, len(part.cell.states) + 1)]
        self.renamed |= dict(zip(node.outputs(len(outputs)), outputs, strict=True))
        for side, name, states in zip(_SIDES, sides, (node.states[:count], node.states[count:]), strict=True):
            yield msgspec.structs.replace(node, name=name, layer=f"{node.layer}/{side}", states=states, further=())
        if layer.merge is not None:
            yield Node(node.name, node.layer, tuple(sides))
