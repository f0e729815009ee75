"""Shape rules of the layers with several inputs."""

from __future__ import annotations

from functools import reduce

from normconvert.errors import UsageError
from normconvert.ir import layers
from normconvert.ir.checking import broadcast
from normconvert.ir.shapes.basics import Inputs, Rule, Shape, Stored, axis_of, changed, show, unify


def _take(inputs: Inputs, least: int, most: int) -> None:
    if not least <= len(inputs) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise UsageError(f"the layer takes {wanted} inputs, the node gives {len(inputs)}")


def _mismatch(inputs: Inputs) -> UsageError:
    return UsageError(f"inputs of shapes {', '.join(map(show, inputs))} do not go together")


def _unfold_time(layer: layers.UnfoldTime, inputs: Inputs, stored: Stored) -> Shape:
    _take(inputs, 2, 2)
    if len(inputs[1]) < 2:
        raise _mismatch(inputs)
    return (None, inputs[1][1], *inputs[0][1:])


def _merge(layer: layers.Merge, inputs: Inputs, stored: Stored) -> Shape:
    least, most = (2, 2) if layer.operation == "subtract" else (1, 1024)
    _take(inputs, least, most)

    def combine(a: Shape, b: Shape) -> Shape:
        both = broadcast(a[1:], b[1:])
        if both is None:
            raise _mismatch(inputs)
        return (None, *both)

    return reduce(combine, inputs)


def _concatenate(layer: layers.Concatenate, inputs: Inputs, stored: Stored) -> Shape:
    _take(inputs, 1, 1024)
    axis = axis_of(layer.axis, inputs[0])
    sizes = [shape[axis] for shape in inputs if len(shape) == len(inputs[0])]
    total = None if None in sizes else sum(size for size in sizes if size is not None)

    def combine(a: Shape, b: Shape) -> Shape:
        both = unify(a, changed(b, axis, None))
        if both is None:
            raise _mismatch(inputs)
        return both

    return changed(reduce(combine, inputs[1:], changed(inputs[0], axis, None)), axis, total)


def _dot(layer: layers.Dot, inputs: Inputs, stored: Stored) -> Shape:
    _take(inputs, 2, 2)
    a, b = inputs
    i, j = axis_of(layer.axes[0], a), axis_of(layer.axes[1], b)
    if 0 in (i, j) or unify((a[i],), (b[j],)) is None:
        raise _mismatch(inputs)
    rest = (*a[1:i], *a[i + 1 :], *b[1:j], *b[j + 1 :])
    return (None, *(rest or (1,)))


def _sequences(inputs: Inputs) -> tuple[Shape, Shape, Shape]:
    """Query, value, key of an attention layer."""
    _take(inputs, 2, 3)
    query, value, key = (*inputs, inputs[1])[:3]
    if {len(query), len(value), len(key)} != {3} or unify(value[:2], key[:2]) is None:
        raise _mismatch(inputs)
    return query, value, key


def _attention(layer: layers.Attention, inputs: Inputs, stored: Stored) -> Shape:
    query, value, key = _sequences(inputs)
    additive = layer.score == "additive"
    both = unify(query[2:], key[2:])
    if both is None:
        raise _mismatch(inputs)
    for name in layer.weight_names():
        stored.shape(name, *(both if additive else ()))
    return (None, query[1], value[2])


def _multi_head_attention(layer: layers.MultiHeadAttention, inputs: Inputs, stored: Stored) -> Shape:
    query, value, key = _sequences(inputs)
    _, heads, size = stored.shape("query.kernel", query[2], None, None)
    stored.shape("key.kernel", key[2], heads, size)
    _, _, value_size = stored.shape("value.kernel", value[2], heads, None)
    _, _, units = stored.shape("output.kernel", heads, value_size, None)
    if layer.use_bias:
        stored.shape("query.bias", heads, size)
        stored.shape("key.bias", heads, size)
        stored.shape("value.bias", heads, value_size)
        stored.shape("output.bias", units)
    return (None, query[1], units)


def _length_mask(layer: layers.LengthMask, inputs: Inputs, stored: Stored) -> Shape:
    _take(inputs, 2, 2)
    value, lengths = inputs
    if len(value) < 2 or (unify(lengths[1:], (1,)) is None and len(lengths) != 1):
        raise _mismatch(inputs)
    return value[:2]


def _merge_masks(layer: layers.MergeMasks, inputs: Inputs, stored: Stored) -> Shape:
    _take(inputs, 1, 1024)
    if any(len(mask) != 2 for mask in inputs):
        raise UsageError("a mask has the axes batch and time")

    def combine(a: Shape, b: Shape) -> Shape:
        both = unify(a, b)
        if both is None:
            raise _mismatch(inputs)
        return both

    return reduce(combine, inputs)


SEVERAL_INPUTS: dict[type, Rule] = {
    layers.UnfoldTime: _unfold_time,
    layers.Merge: _merge,
    layers.Concatenate: _concatenate,
    layers.Dot: _dot,
    layers.Attention: _attention,
    layers.MultiHeadAttention: _multi_head_attention,
    layers.LengthMask: _length_mask,
    layers.MergeMasks: _merge_masks,
}
