"""Norms with moments of the value at hand, as nodes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from normconvert.ir.norm import Norm
from normconvert.targets.onnx.builder import Graph
from normconvert.targets.onnx.layers_norm import native_layer_norm
from normconvert.targets.onnx.nodes import Normalised


def normalised(graph: Graph, node: Normalised, x: str, lead: int) -> str:
    """A norm of a tensor with `lead` axes (time and batch, or the batch alone) before those of a sample."""
    norm, rank = node.norm, len(node.value.shape)
    gamma, beta = node.gamma, node.beta
    size = norm.features // norm.groups
    if is_native(norm, rank) and norm.groups == 1:
        return native_layer_norm(graph, x, np.ones(size) if gamma is None else gamma, beta, norm.epsilon)
    if norm.groups > 1:
        grouped = graph.reshape(x, [*[0] * (lead + rank - 1), norm.groups, size])
        if is_native(norm, rank):
            result = native_layer_norm(graph, grouped, np.ones(size), None, norm.epsilon)
        else:
            result = _standardised(graph, grouped, norm, [-1], size)
        result = graph.reshape(result, [*[0] * (lead + rank - 1), norm.features])
    else:
        axes, count = _axes(node, lead)
        result = _standardised(graph, x, norm, axes, count)
    result = result if gamma is None else graph.op("Mul", result, gamma)
    return result if beta is None else graph.op("Add", result, beta)


def is_native(norm: Norm, rank: int) -> bool:
    """The standard's `LayerNormalization` computes it."""
    alone = not norm.unbiased and (rank == 1 or not norm.pooled)
    return norm.kind == "layer" and alone and norm.epsilon_placement == "inside"


def _axes(node: Normalised, lead: int) -> tuple[list[int], int | None]:
    """The axes that the moments are taken over, and how many elements these have; None where that depends."""
    norm, rank = node.norm, len(node.value.shape)
    if norm.kind == "batch":
        samples = list(range(lead)) if norm.scope == "sequence" else [lead - 1]
        return [*samples, *range(lead, lead + rank - (0 if norm.pooled else len(norm.shape)))], None
    if not norm.pooled:
        return [-1], norm.features
    sizes = [size for size in node.value.shape if size is not None]
    return list(range(lead, lead + rank)), prod(sizes) if len(sizes) == rank else None


def _standardised(graph: Graph, x: str, norm: Norm, axes: Sequence[int], count: int | None) -> str:
    if norm.kind == "rms":
        return graph.op("Div", x, _deviation(graph, graph.reduce("ReduceMean", graph.op("Mul", x, x), axes), norm))
    centred = graph.op("Sub", x, graph.reduce("ReduceMean", x, axes))
    squares = graph.op("Mul", centred, centred)
    if not norm.unbiased:
        variance = graph.reduce("ReduceMean", squares, axes)
    else:
        total = graph.op("ReduceSum", squares, np.asarray(axes), keepdims=1)
        variance = graph.op("Div", total, _others(graph, x, axes, count))
    return graph.op("Div", centred, _deviation(graph, variance, norm))


def _others(graph: Graph, x: str, axes: Sequence[int], count: int | None) -> str:
    """The number of elements less one."""
    if count is not None:
        return graph.constant(graph.number(count - 1))
    sizes = graph.op("Gather", graph.op("Shape", x), np.asarray(axes), axis=0)
    number = graph.op("ReduceProd", sizes, keepdims=0)
    return graph.op("CastLike", graph.op("Sub", number, np.asarray(1)), x)


def _deviation(graph: Graph, variance: str, norm: Norm) -> str:
    epsilon = graph.number(norm.epsilon)
    if norm.epsilon_placement == "outside":
        return graph.op("Add", graph.op("Sqrt", variance), epsilon)
    root = graph.op("Sqrt", graph.op("Add", variance, epsilon))
    return root if norm.epsilon_placement == "inside" else graph.op("Add", root, epsilon)
