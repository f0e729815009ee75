"""A program as JSON and arrays, for the process that runs Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from normconvert.ir.model import Array, Model
from normconvert.targets.keras.layer_spec import LayerSpec
from normconvert.targets.keras.layers_text import LayersFile, stored
from normconvert.targets.keras.names import LayerNamer
from normconvert.targets.keras.program import Program
from normconvert.targets.keras.steps import Step
from normconvert.targets.python_code.names import Namer


def as_request(model: Model, made: Program, file: LayersFile) -> tuple[dict[str, Any], dict[str, Array]]:
    """The document that `runtimes.keras_builder` reads, and the weights by `<layer>|<attribute path>`."""
    wide = any(array.dtype == np.float64 for array in model.weights.values())
    arrays = {
        f"{name}|{path}": stored(array, wide=wide)
        for name, spec in made.layers.items()
        for path, array in spec.arrays.items()
    }
    document = {
        "name": LayerNamer()(model.name or "model"),
        "dtype": "float64" if wide else "float32",
        "inputs": [
            {
                "value": declared.name,
                "name": name,
                "shape": [declared.batch, *declared.shape],
                "integers": declared.dtype == "int",
            }
            for declared, name in zip(model.inputs, input_names(model), strict=True)
        ],
        "outputs": list(model.outputs),
        "output_names": output_names(model),
        "layers": {name: _layer(name, spec, file.names) for name, spec in made.layers.items()},
        "steps": [_step(step, natural=made.natural) for step in made.steps],
    }
    return document, arrays


def input_names(model: Model) -> list[str]:
    """The names of the model's inputs in Keras, and in the signature of a SavedModel."""
    namer = LayerNamer()
    return [namer(declared.name) for declared in model.inputs]


def output_names(model: Model) -> list[str]:
    """The names of the model's outputs in the signature of a SavedModel; none is that of an input."""
    namer = Namer(input_names(model))
    return [namer(name) for name in model.outputs]


def _layer(name: str, spec: LayerSpec, names: Mapping[str, str]) -> dict[str, Any]:
    entry = _entry(name, spec, names)
    return {**entry, "config": {**entry["config"], "name": name}}


def _entry(place: str, spec: LayerSpec, names: Mapping[str, str]) -> dict[str, Any]:
    config = {key: _value(f"{place}.{key}", value, names) for key, value in spec.config.items()}
    return {"class": names.get(place, spec.kind), "ours": place in names, "config": config}


def _value(place: str, value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict) and "spec" in value:
        return {"new_layer": _entry(place, value["spec"], names)}
    return value


def _step(step: Step, *, natural: bool) -> dict[str, Any]:
    masks = [] if natural or step.reads is None or not any(step.reads) else list(step.reads)
    return {
        "layer": step.layer,
        "op": step.op,
        "arguments": [
            {"value": a} if isinstance(a, str) else {"values": a} if isinstance(a, list) else {"number": a}
            for a in step.arguments
        ],
        "options": {key: value for key, value in step.options.items() if key != "initial_state"},
        "initial_state": step.options.get("initial_state", []),
        "masks": masks,
        "separate": step.separate,
        "outputs": step.outputs,
    }
