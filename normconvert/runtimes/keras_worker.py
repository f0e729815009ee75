"""Runs a Keras file in a process of its own: `python -m normconvert.runtimes.keras_worker FOLDER`.

The folder holds `request.json` and `inputs.npz`; the outputs go to `outputs.npz`. Arrays are named
`<case>/<chunk>/<position>`; `layer/<name>` is what a layer gives in the first call. Anything that goes wrong ends the
process with a traceback, whose last line the caller shows.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_PRECISIONS = {"float32", "float64"}


class LoadError(Exception):
    """The model does not compute in a precision that can be compared."""


def main(folder: Path) -> None:
    """Answer the request in a folder.

    `request.json`: `package` (`keras` or `tf_keras`), `source` (path), `config` (path of an architecture JSON, or
    null), `chunks` (how many calls each case has), `inputs` (how many arrays a call takes).
    """
    request = json.loads((folder / "request.json").read_text())
    keras = importlib.import_module(request["package"])
    model = _load(keras, request["source"], request["config"])
    results: dict[str, Any] = {}
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        for case, chunks in enumerate(request["chunks"]):
            _reset(model)
            for chunk in range(chunks):
                given = [arrays[f"{case}/{chunk}/{position}"] for position in range(request["inputs"])]
                outputs = model(given[0] if len(given) == 1 else given, training=False)
                for position, output in enumerate(_flat(outputs)):
                    results[f"{case}/{chunk}/{position}"] = np.asarray(output)
        if request["chunks"]:
            _reset(model)
            given = [arrays[f"0/0/{position}"] for position in range(request["inputs"])]
            results |= {f"layer/{name}": value for name, value in _layer_outputs(keras, model, given).items()}
    np.savez(folder / "outputs.npz", **results)
    (folder / "reply.json").write_text(json.dumps(_versions(keras)))


def _load(keras: Any, source: str, config: str | None) -> Any:
    if config is None:
        model = keras.models.load_model(source, compile=False, safe_mode=True)
    else:
        model = keras.models.model_from_json(Path(config).read_text())
        model.load_weights(source)
    for layer in _layers(model):
        precision = getattr(layer, "compute_dtype", None) or "float32"
        if precision not in _PRECISIONS:
            raise LoadError(f"the layer {layer.name} computes in {precision}")
    return model


def _layer_outputs(keras: Any, model: Any, given: list[Any]) -> dict[str, Any]:
    """The first output of every layer that is applied once; nothing for a model that is no graph of layers."""
    tensors = {}
    for layer in getattr(model, "layers", []):
        try:
            output = layer.output
        except (AttributeError, ValueError, RuntimeError):  # a layer applied several times, or never
            continue
        tensors[layer.name] = output[0] if isinstance(output, list | tuple) else output
    names = [name for name, tensor in tensors.items() if getattr(tensor, "shape", None) is not None]
    if not names or not getattr(model, "inputs", None):
        return {}
    inner = keras.Model(model.inputs, [tensors[name] for name in names])
    outputs = _flat(inner(given[0] if len(given) == 1 else given, training=False))
    return {name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}


def _layers(model: Any) -> Iterator[Any]:
    yield from model._flatten_layers()


def _reset(model: Any) -> None:
    """Zero the states of the stateful layers; the method is called `reset_states` before Keras 3."""
    for layer in _layers(model):
        if getattr(layer, "stateful", False) is True:
            reset = getattr(layer, "reset_state", None) or getattr(layer, "reset_states", None)
            if reset is not None:
                reset()


def _flat(outputs: Any) -> list[Any]:
    """The outputs as a list of arrays, whatever structure the model gives them."""
    if isinstance(outputs, dict):
        return [array for value in outputs.values() for array in _flat(value)]
    if isinstance(outputs, list | tuple):
        return [array for value in outputs for array in _flat(value)]
    return [outputs.detach().cpu().numpy() if hasattr(outputs, "detach") else outputs]


def _versions(keras: Any) -> dict[str, str]:
    versions = {keras.__name__: str(keras.__version__)}
    for name in ("tensorflow", "torch", "jax"):
        backend = sys.modules.get(name)
        if backend is not None and hasattr(backend, "__version__"):
            versions[name] = str(backend.__version__)
    return versions


if __name__ == "__main__":
    main(Path(sys.argv[1]))
