"""The model under construction: layers, nodes and values, filled layer by layer as Keras's graph is walked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from normconvert.cells import Family
from normconvert.errors import CorruptFile, NormconvertError, Unsupported, UsageError
from normconvert.ir.layers import AnyLayer
from normconvert.ir.model import Array, Node, value_name
from normconvert.ir.shapes import layer_outputs
from normconvert.ir.shapes.basics import Shape, Stored
from normconvert.sources.doubts import layer_doubts
from normconvert.sources.keras.building import Config
from normconvert.sources.keras.entries import describe, plain_name
from normconvert.sources.keras.keras1 import KERNELS, KernelScope, doubts, modernise
from normconvert.sources.keras.operands import is_operation
from normconvert.sources.keras.store import MISFIT, Scope, Taken
from normconvert.sources.keras.versions import KerasDialect


@dataclass(frozen=True)
class Value:
    """A tensor of the Keras graph.

    Attributes:
        name: of the value in the model.
        mask: name of the value `[batch, time]` that masks it, or empty.
    """

    name: str
    mask: str = ""


@dataclass(frozen=True)
class Spec:
    """A layer of the configuration.

    Attributes:
        class_name, config: in the words of Keras 2/3.
        path: its name, that of the models around it before it (`outer/inner`).
        scope: its stored arrays.
        operation: it is arithmetic on tensors, not a layer.
    """

    class_name: str
    config: Config
    path: str
    scope: Scope
    operation: bool = False


@dataclass(frozen=True)
class Call:
    """One application of a layer.

    Attributes:
        inputs: its tensors, query, value, key in this order.
        states: initial states of a recurrent layer.
        arguments: of an operation, in order: numbers, and None for each of its inputs.
        options: further arguments of the call that are no tensors (`training`, `use_causal_mask`).
    """

    inputs: tuple[Value, ...]
    states: tuple[Value, ...] = ()
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


Handler = Callable[["Assembly", Spec, Call], "list[Value]"]

HANDLERS: dict[str, Handler] = {}
"""What a layer class adds to the model; classes not listed are built by `plain.PLAIN`."""


def handles(*classes: str) -> Callable[[Handler], Handler]:
    """Register the handler of some layer classes."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(classes, handler))
        return handler

    return register


@dataclass
class Assembly:
    """The model so far.

    Attributes:
        place: how errors name the file.
        dialect: of the Keras that wrote it.
        define: cell families for the user's own classes.
        layers, nodes, weights: of the model.
        shapes: of one sample of every value, by its name.
        built: layers' parts by path, so that a shared layer is built once.
        notes: what the user should know about the reading.
        warnings: what makes the result doubtful.
    """

    place: str
    dialect: KerasDialect
    define: Mapping[str, Family]
    layers: dict[str, AnyLayer] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    built: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def spec(self, entry: Mapping[str, Any], prefix: str, scope: Scope) -> Spec:
        """A layer's entry of a configuration (`class_name`, `config`) in modern words."""
        class_name, config, name = describe(entry)
        if self.dialect.major == 1:
            class_name, config = modernise(class_name, config)
        wrapped = config.get("layer")
        inner_class = wrapped.get("class_name") if isinstance(wrapped, dict) else None
        if self.dialect.theano and class_name == "Bidirectional" and inner_class in KERNELS:
            raise Unsupported(
                f"a Bidirectional {inner_class} of the Theano backend, whose kernels are stored flipped",
                where=f"{self.place}: {prefix}{plain_name(name)}",
                remedy="Save the file again with the TensorFlow backend",
            )
        if self.dialect.major == 1 or self.dialect.theano:
            scope = KernelScope(scope, class_name, config, self.dialect.theano)
            self.dialect.used.update(doubts(class_name, config, self.dialect.text, self.dialect.theano))
        if self.dialect.theano and class_name in KERNELS:
            self.dialect.used["kernels of convolutions are flipped"] = "Theano convolves where TensorFlow correlates"
        config = self.dialect.filled(class_name, config)
        operation = is_operation(class_name, config, self.dialect.major)
        return Spec(class_name, config, prefix + plain_name(name), scope, operation)

    def apply(self, spec: Spec, call: Call) -> list[Value]:
        """Add one application of a layer.

        Raises:
            Unsupported, CorruptFile: with the file and the layer as the place.
        """
        handler = self.handler(spec)
        try:
            self._called_for_training(spec, call)
            return handler(self, spec, call)
        except NormconvertError as error:
            raise error if error.where.startswith(self.place) else error.at(f"{self.place}: {spec.path}") from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise CorruptFile(
                f"the configuration of this {spec.class_name} does not make sense ({type(error).__name__}: {error})",
                where=f"{self.place}: {spec.path}",
            ) from error

    def _called_for_training(self, spec: Spec, call: Call) -> None:
        """A call with `training=True` drops at inference too; that is left out, and said."""
        if call.options.get("training") is not True:
            return
        if isinstance(spec.config.get("layers"), list):
            raise Unsupported("a model that is called with training=True", remedy="Call it without, and save it again")
        if any(spec.config.get(key) for key in _DROPS):
            self.dialect.used[f"{spec.path} drops in training only"] = "Keras calls it with training=True"

    def handler(self, spec: Spec) -> Handler:
        """What builds a layer: the user's own definitions come first, an unknown class with layers is a model."""
        if self.defined(spec.class_name) is not None:
            return HANDLERS["defined"]
        if isinstance(spec.config.get("declaration"), str):
            return HANDLERS["declared"]
        if spec.operation:
            return HANDLERS["operation"]
        other = "Functional" if isinstance(spec.config.get("layers"), list) else "plain"
        return HANDLERS.get(spec.class_name, HANDLERS[other])

    def defined(self, class_name: str) -> Family | None:
        """The cell family a user gave for a class, registered (`Package>Class`) or not."""
        return self.define.get(class_name) or self.define.get(class_name.split(">")[-1])

    def add_layer(self, name: str, layer: AnyLayer, weights: Mapping[str, Array], config: Config) -> str:
        """Add a layer with its arrays, once."""
        if config.get("trainable") is False:
            layer = msgspec.structs.replace(layer, trainable=False)
        expected = set(layer.weight_names())
        if expected != set(weights):
            odd = ", ".join(sorted(expected ^ set(weights)))
            raise CorruptFile(f"the arrays do not fit the layer: {odd}")
        self.layers[name] = layer
        for weight, array in weights.items():
            self.weights[f"{name}.{weight}"] = array
        self.warnings += layer_doubts(name, layer, weights)
        return name

    def add_node(
        self,
        layer: str,
        inputs: Sequence[str],
        *,
        name: str = "",
        masks: Sequence[str] = (),
        states: Sequence[str] = (),
        further: Sequence[str] = (),
    ) -> str:
        """Add one application of a layer; gives the name of its first output.

        Raises:
            CorruptFile: the layer's arrays, or the shapes of its inputs, do not fit it.
        """
        name = self.unique(name or layer)
        given = tuple(masks) if any(masks) else ()
        node = Node(name, layer, tuple(inputs), given, tuple(states), tuple(map(self.unique, further)))
        self.nodes.append(node)
        read: list[Shape] = [(None, *self.shapes[value]) for value in inputs]
        initial = [self.shapes[value] for value in states]
        try:
            outputs = layer_outputs(self.layers[layer], read, initial, Stored(layer, self.weights))
        except UsageError as error:
            raise CorruptFile(error.what, where=error.where, remedy=MISFIT) from None
        named = zip(node.outputs(len(outputs)), outputs, strict=True)
        self.shapes.update({value: shape[1:] for value, shape in named})
        return name

    def add_once(self, name: str, layer: AnyLayer, inputs: Sequence[str], *, masks: Sequence[str] = ()) -> str:
        """Add a layer without arrays, unless it is there, and apply it."""
        self.layers.setdefault(name, layer)
        return self.add_node(name, inputs, masks=masks)

    def unique(self, name: str) -> str:
        """The name itself if no value has it yet, else with a number."""
        candidate, number = name, 1
        while candidate in self.names:
            candidate, number = f"{name}_{number}", number + 1
        self.names.add(candidate)
        return candidate

    def record(
        self,
        layer: str,
        weights: Mapping[str, Array],
        taken: Sequence[Taken],
        layout: Mapping[str, str] | None = None,
    ) -> None:
        """Note which weight each stored array became; `layout` says it where arrays were rearranged."""
        for item in taken:
            found = [name for name, array in weights.items() if np.may_share_memory(array, item.array)]
            name = (layout or {}).get(item.role) or (found[0] if len(found) == 1 else item.role)
            item.stored.used_as = f"{layer}.{name}"


_DROPS = ("rate", "stddev", "dropout", "recurrent_dropout")
"""Keys of layers that change their input at random in training."""


def outputs_of(node: str, count: int) -> list[Value]:
    """The values of a node with several outputs."""
    return [Value(value_name(node, n)) for n in range(count)]
