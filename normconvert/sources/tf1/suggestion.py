"""A recipe to complete, from the names and shapes of a checkpoint's variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from normconvert.errors import UsageError
from normconvert.sources.keras.recipe import FREE
from normconvert.sources.reading import Assumption, Plan, TensorUse
from normconvert.sources.tf1.beside import GraphBeside
from normconvert.sources.tf1.checkpoint import Checkpoint, Variable
from normconvert.sources.tf1.cudnn_sizes import cudnn_layers, cudnn_vectors
from normconvert.sources.tf1.detection import find_cells
from normconvert.sources.tf1.extraction import recipe_layers
from normconvert.sources.tf1.found import FoundCell, still_open
from normconvert.sources.tf1.groups import stacks
from normconvert.sources.tf1.layer_names import with_short_names
from normconvert.sources.tf1.naming import joined, variable_of
from normconvert.sources.tf1.plain import arrays_by_role
from normconvert.sources.tf1.roles import role, why_unused
from normconvert.sources.toml import Assumed, Because, said_once, write_toml

_RANKS = {2: "Dense", 3: "Conv1D", 4: "Conv2D"}
_KERAS_NAMES = {"mean": "moving_mean", "variance": "moving_variance"}
"""What Keras calls an array, where its role has another name."""


def suggested(checkpoint: Checkpoint, beside: GraphBeside, why: str = "") -> Plan:
    """The recipe that the variables suggest: cells as recognised, plain layers by their names, all in stored order.

    Args:
        checkpoint: the variables.
        beside: the graph, for what it says about the cells.
        why: what keeps the graph from saying the order of the layers, or empty.
    """
    variables = checkpoint.variables
    cells = [beside.resolved(cell) for cell in find_cells(variables)]
    groups = list({group.scope: group for layers in stacks(cells).values() for group in layers}.values())
    of_cells = {name for cell in cells for names in cell.tensors.values() for name in names}
    of_cells |= {joined(cell.scope, name) for cell in cells for name in cell.unused}
    rest = {name: v for name, v in variables.items() if name not in of_cells and not role(name, variables)}
    recurrent = [
        layer
        for group in groups
        for layer in recipe_layers(group, {cell.scope: _decided(cell, beside) for cell in group.cells})
    ]
    opaque = list(cudnn_layers(rest))
    plain = list(_plain(rest))
    tables = [*recurrent, *(layer for layer, _ in opaque), *(layer for layer, _ in plain)]
    layers = said_once(with_short_names(tables, taken=("x",)))
    read = [*(group.inputs for group in groups), *((inputs,) for _, inputs in opaque), (None,)][0]
    sample = [FREE, *(FREE if size is None else size for size in read)]
    document = {
        "model": {"name": checkpoint.place.split(".")[0]},
        "inputs": [{"name": "x", "shape": Assumed(sample, "the shape of one sample; ? is free")}],
        "layers": layers,
    }
    known = {name for _, names in plain for name in names} | set(cudnn_vectors(rest))
    tensors = tuple(
        TensorUse(name, v.shape, v.dtype, "", "not recognised")
        if name in rest and name not in known
        else TensorUse(name, v.shape, v.dtype, "", *why_unused(name, variables, "no order of layers yet"))
        for name, v in variables.items()
    )
    assumption = Assumption(
        "The layers are inferred from names and shapes, and their order is that of the names",
        "put them in order; lines marked '# assumed' are to be checked",
    )
    reasons = (Assumption("The graph does not say how the layers follow each other", why),) if why else ()
    return Plan(tensors, (*reasons, assumption), write_toml(document))


def _decided(cell: FoundCell, beside: GraphBeside) -> dict[str, tuple[Any, str]]:
    """What the graph says, and the first option of everything else that is open."""
    graph = beside.cell(cell)
    known = dict(graph.settings) if graph else {}
    return known | {
        question.setting: (
            Assumed(question.options[0]),
            f"or {', '.join(map(str, question.options[1:]))}: {question.why}",
        )
        for question in still_open(cell, known)
        if question.options
    }


def _plain(variables: Mapping[str, Variable]) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """The plain layers that variables look like, each with the names of its variables."""
    for (scope, of), members in arrays_by_role(variables).items():
        keys = _keys(members)
        if keys:
            names = {_KERAS_NAMES.get(role, role): variable.name for role, variable in members.items()}
            layer = {"name": joined(scope, of) or "layer", "class": keys.pop("class"), "scope": scope, **keys}
            yield layer | _tensors(scope, names, variables), set(names.values())


def _keys(members: Mapping[str, Variable]) -> dict[str, Any]:
    """The layer that variables by their role may be of, with what no variable shows; empty for none."""
    if members.keys() >= {"mean", "variance"}:
        return {"class": Assumed("BatchNormalization"), "epsilon": Assumed(1e-3, "the default of tf.layers")}
    if members.keys() >= {"gamma", "beta"}:
        epsilon = Assumed(1e-12, "the default of tf.contrib.layers.layer_norm; 0.001 in Keras")
        return {"class": Assumed("LayerNormalization"), "epsilon": epsilon}
    kernel, table = members.get("kernel"), members.get("embeddings")
    if kernel is not None and len(kernel.shape) in _RANKS:
        class_name = _RANKS[len(kernel.shape)]
        bias: dict[str, Any] = {} if "bias" in members else {"use_bias": Because(False, "none is stored beside it")}
        other = "or an Embedding" if class_name == "Dense" and bias else ""
        window = {} if class_name == "Dense" else {"strides": Assumed(1), "padding": Assumed("same")}
        return {"class": Assumed(class_name, other), **bias, **window, "activation": Assumed("linear")}
    return {"class": Assumed("Embedding")} if table is not None and len(table.shape) == 2 else {}


def _tensors(scope: str, names: Mapping[str, str], variables: Mapping[str, Variable]) -> dict[str, Any]:
    """The names of a layer's arrays, where a layer of the scope alone would not find them."""
    try:
        if all(variable_of(role, scope, {}, variables) == name for role, name in names.items()):
            return {}
    except UsageError:
        pass
    return {"tensors": {role: name.rpartition("/")[2] for role, name in names.items()}}
