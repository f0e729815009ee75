"""Shape rules of the layers with one input.

Shapes here have the batch axis in front, of unknown size (None), so that axes count as the layers count them.
A rule asks `stored` for every array its layer has, which checks that the array exists and fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from normconvert.errors import UsageError
from normconvert.ir import layers
from normconvert.ir.shapes.basics import Inputs, Rule, Shape, Stored, axis_of, changed, one, show
from normconvert.ir.windows import transposed_length, window_length


def _same(layer: Any, inputs: Inputs, stored: Stored) -> Shape:
    return one(inputs)


def _dense(layer: layers.Dense, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, least=2)
    _, units = stored.shape("kernel", shape[-1], None)
    if layer.use_bias:
        stored.shape("bias", units)
    return (*shape[:-1], units)


def _embedding(layer: layers.Embedding, inputs: Inputs, stored: Stored) -> Shape:
    return (*one(inputs), stored.shape("embeddings", None, None)[1])


def _apply(layer: layers.Apply, inputs: Inputs, stored: Stored) -> Shape:
    return _activated(layer.activation, one(inputs))


def _activated(activation: layers.Activation | None, shape: Shape) -> Shape:
    """`glu` halves an axis; every other activation keeps the shape."""
    if activation is None or activation.function != "glu":
        return shape
    axis = axis_of(activation.axis, shape)
    size = shape[axis]
    if size is not None and size % 2:
        raise UsageError(f"glu halves an axis of odd size {size}")
    return changed(shape, axis, None if size is None else size // 2)


def _prelu(layer: layers.PReLU, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs)
    found = stored.any_shape("alpha")
    fits = len(found) == len(shape) - 1 and all(a == 1 or s in (None, a) for a, s in zip(found, shape[1:], strict=True))
    if not fits:
        stored.shape("alpha", *shape[1:])
    return shape


def _places(shape: Shape, layer: Any, dilation: tuple[int, ...]) -> Shape:
    """Space axes after a window has passed over them."""
    space = []
    for size, window, stride, step in zip(shape[1:-1], layer.window, layer.strides, dilation, strict=True):
        length = window_length(size, window, stride, step, layer.padding)
        if length == 0:
            raise UsageError(f"the input {show(shape)} is shorter than the window {list(layer.window)}")
        space.append(length)
    return tuple(space)


def _convolution(layer: layers.Convolution, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, len(layer.window) + 2)
    channels = shape[-1]
    if channels is not None and channels % layer.groups:
        raise UsageError(f"{channels} channels do not make {layer.groups} equal groups")
    *_, filters = stored.shape("kernel", *layer.window, None if channels is None else channels // layer.groups, None)
    if layer.use_bias:
        stored.shape("bias", filters)
    return _activated(layer.activation, (None, *_places(shape, layer, layer.dilation), filters))


def _depthwise(layer: layers.DepthwiseConvolution, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, len(layer.window) + 2)
    *_, channels, multiplier = stored.shape("kernel", *layer.window, shape[-1], None)
    if layer.use_bias:
        stored.shape("bias", channels * multiplier)
    return _activated(layer.activation, (None, *_places(shape, layer, layer.dilation), channels * multiplier))


def _transposed(layer: layers.TransposedConvolution, inputs: Inputs, stored: Stored) -> Shape:
    rank = len(layer.window)
    shape = one(inputs, rank + 2)
    *_, filters, _ = stored.shape("kernel", *layer.window, None, shape[-1])
    if layer.use_bias:
        stored.shape("bias", filters)
    extra = layer.output_padding or (None,) * rank
    space = [
        None if size is None else transposed_length(size, window, stride, step, layer.padding, more)
        for size, window, stride, step, more in zip(
            shape[1:-1], layer.window, layer.strides, layer.dilation, extra, strict=True
        )
    ]
    return _activated(layer.activation, (None, *space, filters))


def _pooling(layer: layers.Pooling, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, len(layer.window) + 2)
    return (None, *_places(shape, layer, (1,) * len(layer.window)), shape[-1])


def _global_pooling(layer: layers.GlobalPooling, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, least=3)
    return (None, *((1,) * (len(shape) - 2) if layer.keepdims else ()), shape[-1])


def _resized(shape: Shape, sizes: Sequence[int | None]) -> Shape:
    if any(size is not None and size < 1 for size in sizes):
        raise UsageError(f"nothing is left of the input {show(shape)}")
    return (None, *sizes, shape[-1])


def _up_sampling(layer: layers.UpSampling, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, len(layer.factors) + 2)
    return _resized(shape, [None if n is None else n * f for n, f in zip(shape[1:-1], layer.factors, strict=True)])


def _zero_padding(layer: layers.ZeroPadding, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, len(layer.amounts) + 2)
    return _resized(shape, [None if n is None else n + sum(a) for n, a in zip(shape[1:-1], layer.amounts, strict=True)])


def _cropping(layer: layers.Cropping, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, len(layer.amounts) + 2)
    return _resized(shape, [None if n is None else n - sum(a) for n, a in zip(shape[1:-1], layer.amounts, strict=True)])


def _channels(layer: layers.BatchNormalization | layers.GroupNormalization, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, least=2)
    for name in layer.weight_names():
        stored.shape(name, shape[axis_of(layer.axis, shape)])
    return shape


def _group_normalization(layer: layers.GroupNormalization, inputs: Inputs, stored: Stored) -> Shape:
    shape = _channels(layer, inputs, stored)
    size = shape[axis_of(layer.axis, shape)]
    if size is not None and (layer.groups < 1 or size % layer.groups):
        raise UsageError(f"{size} channels do not make {layer.groups} equal groups")
    return shape


def _layer_normalization(layer: layers.LayerNormalization, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, least=2)
    sizes = [shape[axis_of(axis, shape)] for axis in layer.axes]
    for name in layer.weight_names():
        stored.shape(name, *sizes)
    return shape


def _unit_normalization(layer: layers.UnitNormalization, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs)
    for axis in layer.axes:
        axis_of(axis, shape)
    return shape


def _standardization(layer: layers.Standardization, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs)
    found = stored.any_shape("mean")
    fits = len(found) < len(shape) and all(
        m == 1 or s in (None, m) for m, s in zip(reversed(found), reversed(shape), strict=False)
    )
    if not fits:
        stored.shape("mean", *shape[1:])
    stored.shape("variance", *found)
    return shape


def _rescaling(layer: layers.Rescaling, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs)
    for noun, values in (("scale", layer.scale), ("offset", layer.offset)):
        if len(values) != 1 and shape[-1] not in (None, len(values)):
            raise UsageError(f"the {noun} has {len(values)} numbers for {shape[-1]} channels")
    return shape


def _flatten(layer: layers.Flatten, inputs: Inputs, stored: Stored) -> Shape:
    known = [size for size in one(inputs)[1:] if size is not None]
    return (None, prod(known) if len(known) == len(inputs[0]) - 1 else None)


def _reshape(layer: layers.Reshape, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs)
    (_, total), rest = _flatten(layers.Flatten(), inputs, stored), prod(size for size in layer.shape if size != -1)
    if layer.shape.count(-1) > 1:
        raise UsageError(f"the shape {list(layer.shape)} leaves more than one size open")
    if total is not None and (rest == 0 or total % rest or (-1 not in layer.shape and total != rest)):
        raise UsageError(f"{show(shape[1:])} cannot be reshaped to {list(layer.shape)}")
    left = None if total is None else total // rest
    return (None, *(left if size == -1 else size for size in layer.shape))


def _permute(layer: layers.Permute, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs, len(layer.order) + 1)
    if sorted(layer.order) != list(range(1, len(shape))):
        raise UsageError(f"{list(layer.order)} is no order of the axes 1 to {len(shape) - 1}")
    return (None, *(shape[axis] for axis in layer.order))


def _repeat_vector(layer: layers.RepeatVector, inputs: Inputs, stored: Stored) -> Shape:
    return (None, layer.times, *one(inputs, 2)[1:])


def _reverse(layer: layers.Reverse, inputs: Inputs, stored: Stored) -> Shape:
    shape = one(inputs)
    axis_of(layer.axis, shape)
    return shape


def _fold_time(layer: layers.FoldTime, inputs: Inputs, stored: Stored) -> Shape:
    return (None, *one(inputs, least=2)[2:])


def _step_mask(layer: layers.StepMask, inputs: Inputs, stored: Stored) -> Shape:
    return one(inputs, least=3)[:-1] if layer.any_feature else one(inputs, least=2)


ONE_INPUT: dict[type, Rule] = {
    layers.Dense: _dense,
    layers.Embedding: _embedding,
    layers.Apply: _apply,
    layers.PReLU: _prelu,
    layers.Convolution: _convolution,
    layers.DepthwiseConvolution: _depthwise,
    layers.TransposedConvolution: _transposed,
    layers.Pooling: _pooling,
    layers.GlobalPooling: _global_pooling,
    layers.UpSampling: _up_sampling,
    layers.ZeroPadding: _zero_padding,
    layers.Cropping: _cropping,
    layers.BatchNormalization: _channels,
    layers.LayerNormalization: _layer_normalization,
    layers.GroupNormalization: _group_normalization,
    layers.UnitNormalization: _unit_normalization,
    layers.Standardization: _standardization,
    layers.Rescaling: _rescaling,
    layers.Dropout: _same,
    layers.Identity: _same,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Permute: _permute,
    layers.RepeatVector: _repeat_vector,
    layers.Reverse: _reverse,
    layers.FoldTime: _fold_time,
    layers.Masking: _same,
    layers.StepMask: _step_mask,
}
