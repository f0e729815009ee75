"""Runs a SavedModel in a process of its own: `python -m normconvert.runtimes.saved_model_worker FOLDER`.

The folder holds `request.json` and `inputs.npz`; the outputs go to `outputs.npz`, then in float64 to `exact.npz`.
Arrays are named `<case>/<chunk>/<position>`. Anything that goes wrong ends the process with a traceback.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FLOAT, DOUBLE = 1, 2
"""Codes of the types in TensorFlow's `types.proto`."""

Function = Callable[[list[Any]], list[Any]]


def main(folder: Path) -> None:
    """Answer the request in a folder.

    `request.json`: `source` (path), `chunks` (how many calls each case has), `inputs` (how many arrays a call takes),
    `names` and `outputs` (of these and of the outputs, in the signature; a description beside the graph comes first).
    """
    import tensorflow as tf

    request = json.loads((folder / "request.json").read_text())
    with np.load(folder / "inputs.npz", allow_pickle=False) as arrays:
        calls = [
            [[arrays[f"{case}/{chunk}/{n}"] for n in range(request["inputs"])] for chunk in range(chunks)]
            for case, chunks in enumerate(request["chunks"])
        ]

    source = Path(request["source"])
    description = source / "assets.extra" / "normconvert.json"
    told = json.loads(description.read_text(encoding="utf-8")) if description.is_file() else {}
    names, outputs = told.get("inputs", request["names"]), told.get("outputs", request["outputs"])
    np.savez(folder / "outputs.npz", **_run(_rounded(tf, request["source"], names, outputs), calls, "float32"))
    (folder / "reply.json").write_text(json.dumps({"tensorflow": str(tf.__version__)}))
    np.savez(folder / "exact.npz", **_run(_exact(tf, request["source"], names, outputs), calls, "float64"))


def _run(function: Function, calls: list[Any], precision: str) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for case, chunks in enumerate(calls):
        for chunk, given in enumerate(chunks):
            cast = [a if np.issubdtype(a.dtype, np.integer) else a.astype(precision) for a in given]
            for position, output in enumerate(function(cast)):
                results[f"{case}/{chunk}/{position}"] = np.asarray(output)
    return results


def _rounded(tf: Any, source: str, names: list[str], results: list[str]) -> Function:
    loaded = tf.saved_model.load(source)
    signature = loaded.signatures["serving_default"]

    def call(given: list[Any]) -> list[Any]:
        outputs = signature(**dict(zip(names, map(tf.constant, given), strict=True)))
        return [outputs[name] for name in results]

    call.keep = loaded  # type: ignore[attr-defined]
    return call


def _exact(tf: Any, source: str, names: list[str], results: list[str]) -> Function:
    """The graph of the signature with its variables as constants, and every float32 in it a float64."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    loaded = tf.saved_model.load(source)
    signature = loaded.signatures["serving_default"]
    frozen = convert_variables_to_constants_v2(signature, lower_control_flow=False)
    graph = frozen.graph.as_graph_def()
    feeds = {tensor.name.split(":")[0].removeprefix("serving_default_"): tensor.name for tensor in frozen.inputs}
    order = [feeds[name] for name in names]
    wanted = [tensor.name for tensor in frozen.outputs]
    keys = sorted(signature.structured_outputs)
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    for node in nodes:
        _double_constant(tf, node)
        for attribute in node.attr.values():
            _double(attribute)
    for function in graph.library.function:
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            argument.type = DOUBLE if argument.type == FLOAT else argument.type
        for attribute in (
            *function.attr.values(),
            *(a for arg in function.arg_attr.values() for a in arg.attr.values()),
        ):
            _double(attribute)
    separate = tf.Graph()
    with separate.as_default():
        tf.graph_util.import_graph_def(graph, name="")
    session = tf.compat.v1.Session(graph=separate)
    positions = [keys.index(name) for name in results]

    def call(given: list[Any]) -> list[Any]:
        outputs = session.run(wanted, dict(zip(order, given, strict=True)))
        return [outputs[position] for position in positions]

    return call


def _double_constant(tf: Any, node: Any) -> None:
    """A constant in float64; one that is a single number becomes the decimal number that was written: 0.001."""
    if node.op != "Const" or node.attr["dtype"].type != FLOAT:
        return
    value = tf.make_ndarray(node.attr["value"].tensor)
    exact = value.astype(np.float64) if value.size != 1 else np.full(value.shape, float(str(value.flat[0])))
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(exact))


def _double(attribute: Any) -> None:
    if attribute.type == FLOAT:
        attribute.type = DOUBLE
    kinds = attribute.list.type
    for position, kind in enumerate(kinds):
        if kind == FLOAT:
            kinds[position] = DOUBLE


if __name__ == "__main__":
    main(Path(sys.argv[1]))
