"""Models: a chain of layers, a graph of them, and models inside models, which are flattened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normconvert.errors import CorruptFile, UsageError
from normconvert.ir.model import Input
from normconvert.sources.keras.assembly import Assembly, Call, Spec, Value, handles
from normconvert.sources.keras.building import Config
from normconvert.sources.keras.entries import built_shape, describe, plain_name, sample_shape
from normconvert.sources.keras.functional import Graph
from normconvert.sources.keras.inbound import Inbound, inbound_calls, keras3_outputs, offsets, references
from normconvert.sources.keras.order import by_order, regrouped
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
        Member(class_name, name, is_model(class_name, body), str(body.get("scope") or ""), body.get("tensors") or {})
        for class_name, body, name in described
    ]
    groups = by_order(outer.scope, members, [body for _, body, _ in described])
    if groups:
        pairs = ", ".join(f"{name} from {group}" for name, group in groups.items() if name != group)
        assembly.notes.append(f"The weights have other layer names, and were matched by order as in Keras: {pairs}.")
    scopes = outer.scope.members(regrouped(members, groups))
    return [assembly.spec(entry, outer.prefix, scope) for entry, scope in zip(layers, scopes, strict=True)]


# --- chains ---------------------------------------------------------------------------------------------------


def _sequential(assembly: Assembly, layers: Sequence[Mapping[str, Any]], config: Config, outer: _Outer) -> list[Value]:
    specs = _specs(assembly, layers, outer)
    if not specs:
        raise CorruptFile("a model without layers", where=assembly.place)
    heads = branches(layers[0]) if assembly.dialect.major == 1 and outer.inputs is None else []
    if heads:
        values = [value for branch in heads for value in _model(assembly, *branch, outer)]
    elif outer.inputs is not None:
        values = list(outer.inputs)
    elif specs[0].class_name == "InputLayer":
        values = [_input(assembly, specs[0])]
    else:
        name, body = implied_input(layers[0], config)
        values = [_input(assembly, Spec("InputLayer", body, plain_name(name), outer.scope))]
    specs = specs[1:] if specs[0].class_name == "InputLayer" else specs
    for spec in specs:
        values = assembly.apply(spec, Call(tuple(values)))
    return values


def branches(first: Mapping[str, Any]) -> list[tuple[str, Config]]:
    """The models whose outputs the `Merge` layer merges with which a Sequential model of Keras 1 may begin.

    The arrays of their layers are stored as those of the whole model's layers.
    """
    class_name, config, _ = describe(first)
    if class_name != "Merge" or not isinstance(config.get("layers"), list):
        return []
    return [describe(entry)[:2] for entry in config["layers"]]


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
        assembly.shapes[name] = shape
    made: Input = assembly.built[spec.path]
    return Value(made.name)


# --- graphs ---------------------------------------------------------------------------------------------------


def _functional(assembly: Assembly, layers: Sequence[Mapping[str, Any]], config: Config, outer: _Outer) -> list[Value]:
    specs = dict(zip((describe(entry)[2] for entry in layers), _specs(assembly, layers, outer), strict=True))
    calls = {name: _inbound(assembly, name, entry) for name, entry in zip(specs, layers, strict=True)}
    inputs, outputs = references(config.get("input_layers")), references(config.get("output_layers"))
    if not inputs or not outputs:
        raise CorruptFile("a model without inputs or outputs", where=assembly.place)
    if assembly.dialect.major == 3:
        outputs = keras3_outputs(outputs, {name for name, spec in specs.items() if "input_layers" in spec.config})
    graph = Graph(assembly, specs, calls, offsets(calls, [*inputs, *outputs]))
    if outer.inputs is not None and len(outer.inputs) != len(inputs):
        raise CorruptFile(f"a model with {len(inputs)} inputs is given {len(outer.inputs)}")
    for number, reference in enumerate(inputs):
        spec = graph.spec(reference)
        given = _input(assembly, spec) if outer.inputs is None else outer.inputs[number]
        graph.values[reference.layer, 0] = [given]
    return [graph.value(reference) for reference in outputs]


def _inbound(assembly: Assembly, name: str, entry: Mapping[str, Any]) -> list[Inbound]:
    try:
        return inbound_calls(entry.get("inbound_nodes", []))
    except CorruptFile as error:
        raise error.at(f"{assembly.place}: {name}") from None
