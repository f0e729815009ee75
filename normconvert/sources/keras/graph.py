"""Models: a chain of layers, a graph of them, and models inside models, which are flattened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from normconvert.errors import CorruptFile, Unsupported, UsageError
from normconvert.ir.layers import StepMask
from normconvert.ir.model import Input
from normconvert.sources.keras.assembly import (
    Assembly,
    Call,
    Spec,
    Value,
    built_shape,
    describe,
    handles,
    plain_name,
    sample_shape,
    with_shape,
)
from normconvert.sources.keras.building import Config
from normconvert.sources.keras.inbound import Inbound, Reference, inbound_calls, keras3_outputs, offsets, references
from normconvert.sources.keras.store import Member, Scope

MAX_DEPTH = 32
"""Deepest nesting of models accepted."""

SEQUENTIAL = "Sequential"
FUNCTIONAL = ("Functional", "Model")
MODELS = (SEQUENTIAL, *FUNCTIONAL)


@dataclass(frozen=True)
class _Outer:
    """Where a model stands: the path of its layers, its arrays, and the values fed to it (None: it has its own)."""

    prefix: str
    scope: Scope
    inputs: Sequence[Value] | None


def read_model(assembly: Assembly, class_name: str, config: Config, scope: Scope) -> tuple[list[Input], list[str]]:
    """Add a whole model; gives its inputs and the names of its output values.

    Raises:
        Unsupported, CorruptFile, UsageError: with the place.
    """
    outputs = _model(assembly, class_name, config, _Outer("", scope, None))
    inputs = [item for item in assembly.built.values() if isinstance(item, Input)]
    return inputs, [value.name for value in outputs]


@handles(*MODELS)
def nested(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """A model used as a layer."""
    if spec.path.count("/") > MAX_DEPTH:
        raise CorruptFile("models are nested too deeply")
    return _model(assembly, spec.class_name, spec.config, _Outer(f"{spec.path}/", spec.scope, call.inputs))


def is_model(class_name: str, config: Mapping[str, Any]) -> bool:
    """Whether a class holds layers; a subclass of Model that was built functionally looks like one."""
    return class_name in MODELS or isinstance(config.get("layers"), list)


def _model(assembly: Assembly, class_name: str, config: Config, outer: _Outer) -> list[Value]:
    layers = config.get("layers")
    if not isinstance(layers, list) or not all(isinstance(entry, dict) for entry in layers):
        raise CorruptFile("a model without a list of layers")
    if "input_layers" in config:
        return _functional(assembly, layers, config, outer)
    return _sequential(assembly, layers, config, outer)


def _specs(assembly: Assembly, layers: Sequence[Mapping[str, Any]], outer: _Outer) -> list[Spec]:
    described = [describe(entry) for entry in layers]
    members = [
        Member(class_name, str(body.get("scope") or name), is_model(class_name, body))
        for class_name, body, name in described
    ]
    scopes = outer.scope.members(members)
    return [assembly.spec(entry, outer.prefix, scope) for entry, scope in zip(layers, scopes, strict=True)]


# --- chains ---------------------------------------------------------------------------------------------------


def _sequential(
    assembly: Assembly, layers: Sequence[Mapping[str, Any]], config: Config, outer: _Outer
) -> list[Value]:
    specs = _specs(assembly, layers, outer)
    if not specs:
        raise CorruptFile("a model without layers", where=assembly.place)
    if specs[0].class_name == "InputLayer":
        source, specs = specs[0], specs[1:]
    else:
        name, body = implied_input(layers[0], config)
        source = Spec("InputLayer", body, plain_name(name), outer.scope)
    values = list(outer.inputs) if outer.inputs is not None else [_input(assembly, source)]
    for spec in specs:
        values = assembly.apply(spec, Call(tuple(with_shape(value, spec.input_shape) for value in values)))
    return values


def implied_input(first: Mapping[str, Any], config: Config) -> tuple[str, Config]:
    """Name and configuration of the input that a Sequential model without an input layer has."""
    class_name, body, name = describe(first)
    shape = _declared(body) or _declared(config, "build_input_shape")
    built = built_shape(first)
    if shape is None and built is not None:
        shape = [None, *built]
    inner = body.get("layers")
    if shape is None and is_model(class_name, body) and isinstance(inner, list) and inner:
        shape = _declared(describe(inner[0])[1])
    return f"{name}_input", {"batch_shape": shape}


def _declared(config: Mapping[str, Any], *more: str) -> Any:
    """A batch shape under one of the names it has had; Keras 1 and recipes may give it without the batch axis."""
    for key in (*more, "batch_shape", "batch_input_shape"):
        if isinstance(config.get(key), list):
            return config[key]
    for key in ("shape", "input_shape"):
        if isinstance(config.get(key), list):
            return [None, *config[key]]
    if isinstance(config.get("input_dim"), int) and "output_dim" not in config:
        length = [config.get("input_length")] if "recurrent_activation" in config or "kernel_size" in config else []
        return [None, *length, config["input_dim"]]
    return None


def _input(assembly: Assembly, spec: Spec) -> Value:
    """An input of the whole model."""
    if spec.path not in assembly.built:
        declared = _declared(spec.config)
        shape = sample_shape(declared)
        if shape is None:
            raise UsageError(
                "the shape of the model's input is not in the file",
                where=f"{assembly.place}: {spec.path}",
                remedy="Run 'normconvert plan', fill it in, and pass --recipe",
            )
        batch = declared[0] if isinstance(declared[0], int) else None
        name = assembly.unique(spec.path)
        assembly.built[spec.path] = Input(name, shape, "float", batch)
    made: Input = assembly.built[spec.path]
    return Value(made.name, "", made.shape)


# --- graphs ---------------------------------------------------------------------------------------------------


def _functional(
    assembly: Assembly, layers: Sequence[Mapping[str, Any]], config: Config, outer: _Outer
) -> list[Value]:
    specs = dict(zip((describe(entry)[2] for entry in layers), _specs(assembly, layers, outer), strict=True))
    calls = {
        name: inbound_calls(entry.get("inbound_nodes", [])) for name, entry in zip(specs, layers, strict=True)
    }
    inputs, outputs = references(config.get("input_layers")), references(config.get("output_layers"))
    if not inputs or not outputs:
        raise CorruptFile("a model without inputs or outputs", where=assembly.place)
    if assembly.dialect.major == 3:
        outputs = keras3_outputs(outputs, {name for name, spec in specs.items() if "input_layers" in spec.config})
    graph = _Graph(assembly, specs, calls, offsets(calls, [*inputs, *outputs]))
    if outer.inputs is not None and len(outer.inputs) != len(inputs):
        raise CorruptFile(f"a model with {len(inputs)} inputs is given {len(outer.inputs)}")
    for number, reference in enumerate(inputs):
        spec = graph.spec(reference)
        given = _input(assembly, spec) if outer.inputs is None else outer.inputs[number]
        graph.values[reference.layer, 0] = [given]
    return [graph.value(reference) for reference in outputs]


_SHAPE_OPERATIONS = frozenset({"ZerosLike", "OnesLike"})
_MASK_OPERATIONS = _SHAPE_OPERATIONS | frozenset(
    {"NotEqual", "Any", "All", "LogicalOr", "LogicalAnd", "ExpandDims", "Concatenate", "ConvertToTensor", "Cast"}
)
"""Operations of `keras.ops` that Keras 3 makes masks with."""


def is_mask_operation(class_name: str, config: Mapping[str, Any]) -> bool:
    """Whether an entry is an operation that Keras 3 makes masks with, rather than a layer of that name."""
    return class_name in _MASK_OPERATIONS and "trainable" not in config


class _Graph:
    """The calls of a functional model, made on demand and once each."""

    def __init__(
        self,
        assembly: Assembly,
        specs: Mapping[str, Spec],
        calls: Mapping[str, list[Inbound]],
        numbering: Mapping[str, int],
    ) -> None:
        self.assembly, self.specs, self.calls, self.numbering = assembly, specs, calls, numbering
        self.values: dict[tuple[str, int], list[Value]] = {}

    def spec(self, reference: Reference) -> Spec:
        if reference.layer not in self.specs:
            raise CorruptFile(f"a layer named {reference.layer} is read but not there", where=self.assembly.place)
        return self.specs[reference.layer]

    def value(self, reference: Reference) -> Value:
        """The value of a reference, after everything it depends on."""
        pending = [reference]
        open_calls: set[tuple[str, int]] = set()
        while pending:
            key, inbound = self._call(pending[-1])
            if key in self.values:
                pending.pop()
                continue
            missing = [r for r in inbound.references() if self._call(r)[0] not in self.values]
            if missing:
                if key in open_calls:
                    raise CorruptFile("the graph of layers runs in a circle", where=f"{self.assembly.place}: {key[0]}")
                open_calls.add(key)
                pending += missing
                continue
            self.values[key] = self._apply(self.specs[key[0]], inbound)
            pending.pop()
        return self._output(reference)

    def _call(self, reference: Reference) -> tuple[tuple[str, int], Inbound]:
        self.spec(reference)
        number = reference.node - self.numbering.get(reference.layer, 0)
        calls = self.calls[reference.layer]
        if (reference.layer, number) in self.values:
            return (reference.layer, number), Inbound(())
        if not 0 <= number < len(calls):
            raise CorruptFile(
                f"call {reference.node} of the layer is read but not there",
                where=f"{self.assembly.place}: {reference.layer}",
            )
        return (reference.layer, number), calls[number]

    def _output(self, reference: Reference) -> Value:
        values = self.values[self._call(reference)[0]]
        if reference.output >= len(values):
            raise CorruptFile(
                f"output {reference.output} of the layer is read but it has {len(values)}",
                where=f"{self.assembly.place}: {reference.layer}",
            )
        return with_shape(values[reference.output], reference.shape)

    def _apply(self, spec: Spec, inbound: Inbound) -> list[Value]:
        inputs = tuple(self._output(reference) for reference in inbound.inputs)
        if not inputs:
            raise CorruptFile("a call without inputs", where=f"{self.assembly.place}: {spec.path}")
        if inbound.mask:
            inputs = (replace(inputs[0], mask=self._mask(inputs[0], inbound.mask[0])), *inputs[1:])
        states = tuple(self._output(reference) for reference in inbound.states)
        return self.assembly.apply(spec, Call(inputs, states, inbound.options))

    def _mask(self, value: Value, given: Reference) -> str:
        """The mask of an argument that a call names.

        Keras 3 writes the masks it worked out into the graph, as operations on the tensors they come from. They are
        those that came along with the value, unless the user gave another one.
        """
        if not self._is_mask_operation(given):
            return self.value(given).name
        origins = {self.value(reference).name for reference in self._origins(given)}
        if value.mask and origins == self._known_origins(value.mask):
            return value.mask
        raise Unsupported(
            "its mask is computed by operations of the user's own",
            where=f"{self.assembly.place}: {given.layer}",
            remedy="Make the mask with a Masking layer or Embedding(mask_zero=True)",
        )

    def _is_mask_operation(self, reference: Reference) -> bool:
        spec = self.spec(reference)
        return is_mask_operation(spec.class_name, spec.config)

    def _origins(self, reference: Reference) -> Iterator[Reference]:
        """The tensors that a mask is worked out from; those that only lend it their shape do not count."""
        pending, seen = [reference], set()
        while pending:
            current = pending.pop()
            if (current.layer, current.node) in seen:
                continue
            seen.add((current.layer, current.node))
            if not self._is_mask_operation(current):
                yield current
            elif self.spec(current).class_name not in _SHAPE_OPERATIONS:
                pending += self._call(current)[1].inputs

    def _known_origins(self, mask: str) -> set[str]:
        """The values that a mask of the model is worked out from."""
        producers = {node.name: node for node in self.assembly.nodes}
        found: set[str] = set()
        pending = [mask]
        while pending:
            node = producers.get(pending.pop())
            if node is None:
                continue
            if isinstance(self.assembly.layers[node.layer], StepMask):
                found |= set(node.inputs)
            else:
                pending += node.inputs
        return found
