"""Builds a Keras model in a process of its own: `python -m normconvert.runtimes.keras_builder FOLDER`.

The folder holds `request.json` and `arrays.npz`; the model goes where the request says. Anything that goes wrong ends
the process with a traceback, whose last line the caller shows.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np


def main(folder: Path) -> None:
    """Answer the request in a folder."""
    import keras

    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    cells = load_cells(request["cells"]) if request["cells"] else None
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(request["dtype"])
    keras.config.set_dtype_policy(request["dtype"])
    try:
        model, layers = _model(keras, request, cells)
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            for name in arrays.files:
                layer, path = name.split("|", 1)
                attrgetter(path)(layers[layer]).assign(arrays[name])
        if request["form"] == "saved_model":
            _export(keras, model, request)
        else:
            model.save(request["target"])
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def load_cells(path: str) -> ModuleType:
    """The file of layers, under its own name."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _model(keras: Any, request: Mapping[str, Any], cells: ModuleType | None) -> tuple[Any, dict[str, Any]]:
    values: dict[str, Any] = {}
    inputs = []
    for declared in request["inputs"]:
        dtype = "int32" if declared["integers"] else request["dtype"]
        tensor = keras.Input(batch_shape=tuple(declared["shape"]), dtype=dtype, name=declared["name"])
        values[declared["value"]] = tensor
        inputs.append(tensor)
    layers = {name: _layer(keras, entry, cells) for name, entry in request["layers"].items()}
    for step in request["steps"]:
        results = _call(keras, step, layers, values, request["dtype"])
        values.update(zip(step["outputs"], results, strict=False))
    outputs = [values[name] for name in request["outputs"]]
    single = len(outputs) == 1
    model = keras.Model(
        inputs if len(inputs) > 1 else inputs[0], outputs[0] if single else outputs, name=request["name"]
    )
    return model, layers


def _layer(keras: Any, entry: Mapping[str, Any], cells: ModuleType | None) -> Any:
    found = getattr(cells, entry["class"]) if entry["ours"] else getattr(keras.layers, entry["class"])
    return found(**{key: _setting(keras, value, cells) for key, value in entry["config"].items()})


def _setting(keras: Any, value: Any, cells: ModuleType | None) -> Any:
    if isinstance(value, dict) and "new_layer" in value:
        return _layer(keras, value["new_layer"], cells)
    if isinstance(value, dict) and "function" in value:
        return getattr(cells, value["function"])
    return value


def _call(
    keras: Any, step: Mapping[str, Any], layers: Mapping[str, Any], values: Mapping[str, Any], dtype: str
) -> list[Any]:
    arguments = [_argument(argument, values) for argument in step["arguments"]]
    options = dict(step["options"])
    if step["op"]:
        if "dtype" in options:
            options["dtype"] = dtype
        return [getattr(keras.ops, step["op"])(*arguments, **options)]
    if step["initial_state"]:
        states = [values[name] for name in step["initial_state"]]
        options["initial_state"] = states
    masks = [values[name] if name else None for name in step["masks"]]
    if step["separate"]:
        options |= {
            f"{role}_mask": mask
            for role, mask in zip(("query", "value", "key"), masks, strict=False)
            if mask is not None
        }
        return [layers[step["layer"]](*arguments[0], **options)]
    if masks:
        options["mask"] = masks[0] if len(masks) == 1 else masks
    result = layers[step["layer"]](*arguments, **options)
    return list(result) if isinstance(result, list | tuple) else [result]


def _argument(argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    if "value" in argument:
        return values[argument["value"]]
    if "values" in argument:
        return [values[name] for name in argument["values"]]
    return argument["number"]


def _export(keras: Any, model: Any, request: Mapping[str, Any]) -> None:
    """A SavedModel with one signature, whose inputs and outputs have the names of the model's values.

    Beside the graph goes a description by which the model can be read back; it names the variables.
    """
    import tensorflow as tf

    names = [declared["name"] for declared in request["inputs"]]
    outputs = request["output_names"]

    def serve(*given: Any) -> dict[str, Any]:
        results = model(list(given) if len(given) > 1 else given[0], training=False)
        listed = results if isinstance(results, list | tuple) else [results]
        return {name: tf.identity(value, name=name) for name, value in zip(outputs, listed, strict=True)}

    inputs = [tf.TensorSpec(each.shape, each.dtype, name=name) for each, name in zip(model.inputs, names, strict=True)]
    module = tf.Module()
    variables = {str(number): variable for number, variable in enumerate(model.variables)}
    module.arrays = {number: variable.value for number, variable in variables.items()}
    module.serve = tf.function(serve, input_signature=inputs, autograph=False)
    tf.saved_model.save(module, request["target"], signatures={"serving_default": module.serve})

    keys = {id(variable): f"arrays/{number}/.ATTRIBUTES/VARIABLE_VALUE" for number, variable in variables.items()}
    description = {
        "format_version": 1,
        "keras_version": keras.__version__,
        "config": json.loads(model.to_json()),
        "inputs": names,
        "outputs": outputs,
        "layers": {each.name: {v.path: keys[id(v)] for v in each.weights} for each in model.layers if each.weights},
    }
    path = Path(request["target"], "assets.extra", "normconvert.json")
    path.parent.mkdir()
    path.write_text(json.dumps(description), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
