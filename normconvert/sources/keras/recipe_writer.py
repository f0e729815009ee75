"""A configuration of Keras as a recipe that reads back as the same model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from normconvert.sources.keras.building import Config
from normconvert.sources.keras.entries import describe
from normconvert.sources.keras.functional import is_mask_operation
from normconvert.sources.keras.graph import branches, implied_input, is_model
from normconvert.sources.keras.inbound import Inbound, Reference, inbound_calls, keras3_outputs, offsets, references
from normconvert.sources.keras.operands import is_operation
from normconvert.sources.keras.recipe import FREE
from normconvert.sources.keras.versions import KerasDialect
from normconvert.sources.toml import Assumed, write_toml

_TRAINING_ONLY = (
    "initializer", "regularizer", "constraint", "dtype", "batch_input_shape", "batch_shape", "build_", "implementation",
    "unroll", "seed", "synchronized", "consume_less", "input_dtype", "sparse", "ragged", "renorm", "quantization",
    "unit_forget_bias", "forget_bias_init", "init", "inner_init", "_constraint",
)  # fmt: skip
"""Starts or ends of keys that say how a layer is made or trained, not what it computes."""


def write_recipe(config: Config, dialect: KerasDialect, backend: str = "") -> str:
    """The recipe of a model's configuration.

    Args:
        config: `class_name` and `config` of the model.
        dialect: of the Keras that wrote it.
        backend: of that Keras, where known.
    """
    class_name, body, name = describe(config)
    version: Any = dialect.text or Assumed(str(dialect.major), "from the style of the configuration")
    head = {"name": name, "keras": version, "backend": backend or None}
    return write_toml({"outputs": None, **_model(class_name, body, dialect, {"model": head})})


def _model(class_name: str, config: Config, dialect: KerasDialect, head: Config) -> Config:
    if "input_layers" in config:
        return _functional(config, dialect, head)
    return _sequential(config, dialect, head)


def _sequential(config: Config, dialect: KerasDialect, head: Config) -> Config:
    entries = list(config.get("layers", []))
    first = branches(entries[0]) if dialect.major == 1 else []
    if not first:
        source, layers = _chain(entries, config, dialect)
        return {**head, "inputs": [source], "layers": layers}
    inputs: list[Config] = []
    merged: list[str] = []
    layers = []
    for class_name, body in first:
        part = _model(class_name, body, dialect, {})
        part["layers"][0].setdefault("inputs", [source["name"] for source in part["inputs"]])
        inputs += part["inputs"]
        layers += part["layers"]
        merged += part.get("outputs") or [part["layers"][-1]["name"]]
    class_name, body, name = describe(entries[0])
    merge = {"class_name": class_name, "config": {key: value for key, value in body.items() if key != "layers"}}
    layers.append(_layer({**merge, "name": name}, dialect, {"inputs": merged}))
    return {**head, "inputs": inputs, "layers": layers + [_layer(entry, dialect) for entry in entries[1:]]}


def _chain(entries: list[Config], config: Config, dialect: KerasDialect) -> tuple[Config, list[Config]]:
    """The input of a chain of layers, and the layers."""
    class_name, body, name = describe(entries[0])
    if class_name == "InputLayer":
        source, entries = _input(name, body), entries[1:]
    else:
        source = _input(*implied_input(entries[0], config))
    return source, [_layer(entry, dialect) for entry in entries]


def _functional(config: Config, dialect: KerasDialect, head: Config) -> Config:
    entries = {describe(entry)[2]: entry for entry in config.get("layers", [])}
    calls = {name: inbound_calls(entry.get("inbound_nodes", [])) for name, entry in entries.items()}
    sources, outputs = references(config.get("input_layers")), references(config.get("output_layers"))
    if dialect.major == 3:
        outputs = keras3_outputs(outputs, {n for n, e in entries.items() if "input_layers" in describe(e)[1]})
    numbering = offsets(calls, [*sources, *outputs])

    def label(reference: Reference) -> str:
        call = reference.node - numbering.get(reference.layer, 0)
        name = f"{reference.layer}@{call}" if call > 0 else reference.layer
        return f"{name}:{reference.output}" if reference.output else name

    wanted = _needed(outputs, calls, numbering)
    layers: list[Config] = []
    for name, number in ((name, n) for name, inbound in calls.items() for n in range(len(inbound))):
        if (name, number) not in wanted:
            continue
        call = calls[name][number]
        table: Config = {"inputs": [label(reference) for reference in call.inputs]}
        table |= {"states": [label(reference) for reference in call.states] or None, "call": _options(call)}
        given = [r for r in call.masks if r is not None]
        masks = [label(r) for r in given if not is_mask_operation(*describe(entries[r.layer])[:2])]
        table |= {"mask": masks[0] if masks else None}
        class_name, body, _ = describe(entries[name])
        if is_operation(class_name, body, dialect.major):
            tensors = iter(table.pop("inputs"))
            table["arguments"] = [next(tensors) if argument is None else argument for argument in call.arguments]
        if number == 0:
            layers.append(_layer(entries[name], dialect, table))
        else:
            layers.append({"name": f"{name}@{number}", "same_as": name, **table})
    return {
        "outputs": [label(reference) for reference in outputs],
        **head,
        "inputs": [_input(reference.layer, describe(entries[reference.layer])[1]) for reference in sources],
        "layers": layers,
    }


def _needed(
    outputs: Sequence[Reference], calls: Mapping[str, list[Inbound]], numbering: Mapping[str, int]
) -> set[tuple[str, int]]:
    """The calls that the outputs depend on; those that only make Keras 3 masks are not among them."""
    pending, found = list(outputs), set()
    while pending:
        reference = pending.pop()
        key = (reference.layer, reference.node - numbering.get(reference.layer, 0))
        if key in found or not calls.get(reference.layer):
            continue
        found.add(key)
        pending += calls[key[0]][key[1]].references()
    return found


def _options(call: Inbound) -> Config | None:
    kept = {key: value for key, value in call.options.items() if value not in (None, False)}
    return kept or None


def _input(name: str, config: Mapping[str, Any]) -> Config:
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    if not isinstance(shape, list):
        return {"name": name, "shape": Assumed([FREE], "fill in the shape of one sample")}
    return {
        "name": name,
        "shape": [FREE if size is None else size for size in shape[1:]],
        "batch": shape[0] if isinstance(shape[0], int) else None,
    }


def _layer(entry: Mapping[str, Any], dialect: KerasDialect, table: Config | None = None) -> Config:
    """A layer's table; layers inside it become tables with a `class`."""
    class_name, config, name = describe(entry)
    result: Config = {"name": name, "class": class_name, **(table or {})}
    if is_model(class_name, config):
        return {**result, "model": _model(class_name, config, dialect, {})}
    result.update({key: _inside(key, value, dialect) for key, value in config.items() if _tells(key, value)})
    return result


def _tells(key: str, value: Any) -> bool:
    if key == "trainable":
        return value is False
    return key != "name" and not any(key.startswith(word) or key.endswith(word) for word in _TRAINING_ONLY)


def _inside(key: str, value: Any, dialect: KerasDialect) -> Any:
    if value is None:
        return {"merge_mode": "none", "activation": "linear", "recurrent_activation": "linear"}.get(key)
    if isinstance(value, dict) and isinstance(value.get("config"), (dict, list)) and "class_name" in value:
        return _layer(value, dialect)
    if isinstance(value, dict) and isinstance(value.get("config"), str):
        return value["config"]
    if isinstance(value, list):
        return [_inside("", item, dialect) for item in value]
    return value
