"""Means, sums and extremes over features or samples as lines of a cell; moments of a normalisation wait for it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from normconvert.ir.expressions import Call, Number
from normconvert.sources.tf1.graph import norm_patterns as patterns
from normconvert.sources.tf1.graph.definitions import Definitions, Handler
from normconvert.sources.tf1.graph.lines import unsupported
from normconvert.sources.tf1.graph.metagraph import Node
from normconvert.sources.tf1.graph.polynomials import polynomial
from normconvert.sources.tf1.graph.values import Known, Moment, Pending, Term, Value


def _mean(scale: Callable[[int], float], function: str) -> Handler:
    """Mean (`scale` 1) or Sum (`scale` the number of elements) over features or samples."""

    def handler(d: Definitions, node: Node, inputs: list[Value]) -> Value:
        value, axes = inputs
        if isinstance(value, Term) and not value.batched and isinstance(axes, Known):
            return _of_parameter(d, function, value, axes, node)
        if not isinstance(value, (Term, Pending)) or not value.batched or not isinstance(axes, Known):
            raise unsupported(node, "does not reduce a value of the cell over constant axes")
        rank = len(value.shape) + 1
        over = sorted({int(axis) % rank for axis in np.atleast_1d(axes.array)})
        kept = bool(node.attributes.get("keep_dims"))
        moment = _moment(value, over, node)
        shape, batched = _reduced(value.shape, over, kept, moment.over_batch)
        count = 0 if moment.over_batch else math.prod(value.shape[axis - 1] for axis in over)
        if function == "sum" and moment.over_batch:
            raise unsupported(node, "sums over the samples of the batch")
        total = patterns.mean(polynomial(d, value, node), moment)
        if total is None:
            term = d.term(value, node)
            if over != [rank - 1]:
                raise unsupported(node, "takes moments that are not part of a normalisation")
            call = Call(function, (term.expression,), (("axis", -1), ("keepdims", kept)))
            return d.define(call, shape, batched, node)
        factor = patterns.of_number(scale(count))
        return Pending(patterns.multiplied(total, factor) or {}, shape, batched)

    return handler


def _of_parameter(d: Definitions, function: str, value: Term, axes: Known, node: Node) -> Term:
    """A reduction of a parameter over one axis."""
    over = [int(axis) % len(value.shape) for axis in np.atleast_1d(axes.array)]
    if len(over) != 1:
        raise unsupported(node, "reduces a parameter over several axes")
    kept = bool(node.attributes.get("keep_dims"))
    shape, _ = _reduced(value.shape, [over[0] + 1], kept, False)
    call = Call(function, (value.expression,), (("axis", over[0]), ("keepdims", kept)))
    return d.define(call, shape, False, node)


def _moment(value: Term | Pending, over: list[int], node: Node) -> Moment:
    rank = len(value.shape) + 1
    everything = list(range(rank))
    placeholder = value if isinstance(value, Term) else Term(Number(0.0), value.shape)
    if over == everything[:-1]:
        return Moment(placeholder, over_batch=True, pooled=False)
    if over == [0]:
        return Moment(placeholder, over_batch=True, pooled=False, positions=True)
    if over == everything:
        return Moment(placeholder, over_batch=True, pooled=True)
    if over == [rank - 1]:
        return Moment(placeholder, over_batch=False, pooled=False)
    if over == everything[1:]:
        return Moment(placeholder, over_batch=False, pooled=True)
    raise unsupported(node, f"reduces axes {over} of {rank}")


def _reduced(shape: tuple[int, ...], over: list[int], kept: bool, over_batch: bool) -> tuple[tuple[int, ...], bool]:
    if kept:
        sizes = tuple(1 if axis in over else size for axis, size in enumerate(shape, 1))
        return ((1, *sizes) if over_batch else sizes), not over_batch
    return tuple(size for axis, size in enumerate(shape, 1) if axis not in over), not over_batch


def _extreme(function: str) -> Handler:
    def handler(d: Definitions, node: Node, inputs: list[Value]) -> Value:
        term, axes = d.term(inputs[0], node), inputs[1]
        rank = len(term.shape) + 1
        if not isinstance(axes, Known) or [int(a) % rank for a in np.atleast_1d(axes.array)] != [rank - 1]:
            raise unsupported(node, "reduces other axes than the last")
        kept = bool(node.attributes.get("keep_dims"))
        call = Call(function, (term.expression,), (("axis", -1), ("keepdims", kept)))
        return d.define(call, (*term.shape[:-1], *((1,) if kept else ())), term.batched, node)

    return handler


REDUCTIONS: dict[str, Handler] = {
    "Mean": _mean(lambda count: 1.0, "mean"),
    "Sum": _mean(float, "sum"),
    "Max": _extreme("max"),
    "Min": _extreme("min"),
}
"""By TensorFlow's name of the operation."""
