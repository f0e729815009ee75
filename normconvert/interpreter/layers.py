"""Evaluation of every layer without recurrence: what each of them means.

Arrays are batch first, channels last; axes count the batch axis as 0. The result has the dtype of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from normconvert.errors import UsageError
from normconvert.interpreter.attention import attention, multi_head_attention
from normconvert.interpreter.convolution import convolve, convolve_depthwise, convolve_transposed, pool
from normconvert.interpreter.functions import activate
from normconvert.interpreter.merging import concatenate, dot, merge
from normconvert.interpreter.normalisation import (
    batch_normalization,
    group_normalization,
    layer_normalization,
    standardization,
    unit_normalization,
)
from normconvert.ir import layers
from normconvert.ir.layers import AnyLayer
from normconvert.ir.model import Array

Inputs = Sequence[Array]
Weights = Mapping[str, Array]
Masks = Sequence["Array | None"]


def evaluate(layer: AnyLayer, inputs: Inputs, weights: Weights, masks: Masks = ()) -> Array:
    """The output of one layer.

    Args:
        layer: any layer but the recurrent ones and `Formula`.
        inputs: `[batch, ...]`, all floats of the precision to compute in, or the integer indices of an Embedding.
        weights: by their names relative to the layer, of the same precision.
        masks: boolean `[batch, time]`, aligned with the inputs; None, or a shorter sequence, for no mask.

    Raises:
        UsageError: an index is outside an Embedding's table, or a sequence is shorter than a window.
    """
    return EVALUATORS[type(layer)](layer, inputs, weights, masks)


def dense(layer: layers.Dense, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Affine map of the last axis."""
    return activate(layer.activation, _biased(inputs[0] @ weights["kernel"], weights))


def embedding(layer: layers.Embedding, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Rows of a table."""
    table, indices = weights["embeddings"], inputs[0].astype(np.int64)
    if indices.size and not 0 <= indices.min() <= indices.max() < len(table):
        raise UsageError(
            f"an index lies between {indices.min()} and {indices.max()}, the table has the rows 0 to {len(table) - 1}"
        )
    return table[indices]


def apply(layer: layers.Apply, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """An activation."""
    return activate(layer.activation, inputs[0])


def prelu(layer: layers.PReLU, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """A learned slope below zero."""
    return np.maximum(inputs[0], 0) + weights["alpha"] * np.minimum(inputs[0], 0)


def convolution(layer: layers.Convolution, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Windows of all channels of a group."""
    result = convolve(inputs[0], weights["kernel"], layer.strides, layer.dilation, layer.padding, layer.groups)
    return activate(layer.activation, _biased(result, weights))


def depthwise_convolution(layer: layers.DepthwiseConvolution, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Windows of one channel."""
    result = convolve_depthwise(inputs[0], weights["kernel"], layer.strides, layer.dilation, layer.padding)
    return activate(layer.activation, _biased(result, weights))


def transposed_convolution(
    layer: layers.TransposedConvolution, inputs: Inputs, weights: Weights, masks: Masks
) -> Array:
    """Windows that are written instead of read."""
    result = convolve_transposed(
        inputs[0], weights["kernel"], layer.strides, layer.dilation, layer.padding, layer.output_padding
    )
    return activate(layer.activation, _biased(result, weights))


def pooling(layer: layers.Pooling, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Maximum or average of windows."""
    return pool(inputs[0], layer.operation, layer.window, layer.strides, layer.padding)


def global_pooling(layer: layers.GlobalPooling, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Maximum or average of everything between batch and channels."""
    (x,) = inputs
    space = tuple(range(1, x.ndim - 1))
    if layer.operation == "max":
        return x.max(axis=space, keepdims=layer.keepdims)
    mask = masks[0] if masks and x.ndim == 3 else None
    if mask is None:
        return x.mean(axis=space, keepdims=layer.keepdims)
    real = mask[:, :, None]
    total = np.where(real, x, np.zeros_like(x)).sum(axis=1, keepdims=layer.keepdims)
    return total / real.sum(axis=1, keepdims=layer.keepdims).astype(x.dtype)


def up_sampling(layer: layers.UpSampling, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Each space axis made longer by a factor."""
    stretch = np.repeat if layer.interpolation == "nearest" else _interpolate
    return reduce(
        lambda x, axis: stretch(x, layer.factors[axis - 1], axis), range(1, len(layer.factors) + 1), inputs[0]
    )


def zero_padding(layer: layers.ZeroPadding, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Zeros around the space axes."""
    return np.pad(inputs[0], [(0, 0), *layer.amounts, (0, 0)])


def cropping(layer: layers.Cropping, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """The ends of the space axes cut off."""
    (x,) = inputs
    ends = zip(layer.amounts, x.shape[1:-1], strict=True)
    kept = (slice(None), *(slice(before, size - after) for (before, after), size in ends))
    return x[kept]


def rescaling(layer: layers.Rescaling, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Fixed scale and offset of the last axis."""
    (x,) = inputs
    return x * np.asarray(layer.scale, dtype=x.dtype) + np.asarray(layer.offset, dtype=x.dtype)


def identity(layer: layers.Dropout | layers.Identity, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """The input itself."""
    return inputs[0]


def flatten(layer: layers.Flatten, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """One axis per sample."""
    (x,) = inputs
    return x.reshape(len(x), int(np.prod(x.shape[1:])))


def reshape(layer: layers.Reshape, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Other axes, same order of elements."""
    (x,) = inputs
    return x.reshape(len(x), *layer.shape)


def permute(layer: layers.Permute, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Other order of axes."""
    return np.transpose(inputs[0], (0, *layer.order))


def repeat_vector(layer: layers.RepeatVector, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """The same features at every step."""
    return np.repeat(inputs[0][:, None], layer.times, axis=1)


def reverse(layer: layers.Reverse, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """An axis turned around."""
    return np.flip(inputs[0], axis=layer.axis)


def fold_time(layer: layers.FoldTime, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Time steps as samples."""
    (x,) = inputs
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def unfold_time(layer: layers.UnfoldTime, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Samples back to time steps."""
    x, before = inputs
    return x.reshape(*before.shape[:2], *x.shape[1:])


def masking(layer: layers.Masking, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Zeros where every feature of a step is the mask value."""
    (x,) = inputs
    return x * np.any(x != layer.value, axis=-1, keepdims=True).astype(x.dtype)


def step_mask(layer: layers.StepMask, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """True for real steps."""
    differs = inputs[0] != layer.value
    return differs.any(axis=-1) if layer.any_feature else differs


def length_mask(layer: layers.LengthMask, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """True before the end of each sample."""
    x, lengths = inputs
    return np.arange(x.shape[1])[None, :] < lengths.reshape(-1, 1)


def merge_masks(layer: layers.MergeMasks, inputs: Inputs, weights: Weights, masks: Masks) -> Array:
    """Masks combined step by step."""
    combine = np.logical_and if layer.operation == "and" else np.logical_or
    return reduce(combine, inputs)


def _biased(x: Array, weights: Weights) -> Array:
    return x + weights["bias"] if "bias" in weights else x


def _interpolate(x: Array, factor: int, axis: int) -> Array:
    """Linear interpolation between the centres of elements; the outermost elements go on to the edge."""
    size = x.shape[axis]
    place = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    left = np.floor(place).astype(np.int64)
    right = np.minimum(left + 1, size - 1)
    share = (place - left).astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    return x.take(left, axis=axis) * (1 - share) + x.take(right, axis=axis) * share


EVALUATORS: dict[type, Callable[[Any, Inputs, Weights, Masks], Array]] = {
    layers.Dense: dense,
    layers.Embedding: embedding,
    layers.Apply: apply,
    layers.PReLU: prelu,
    layers.Convolution: convolution,
    layers.DepthwiseConvolution: depthwise_convolution,
    layers.TransposedConvolution: transposed_convolution,
    layers.Pooling: pooling,
    layers.GlobalPooling: global_pooling,
    layers.UpSampling: up_sampling,
    layers.ZeroPadding: zero_padding,
    layers.Cropping: cropping,
    layers.BatchNormalization: batch_normalization,
    layers.LayerNormalization: layer_normalization,
    layers.GroupNormalization: group_normalization,
    layers.UnitNormalization: unit_normalization,
    layers.Standardization: standardization,
    layers.Rescaling: rescaling,
    layers.Dropout: identity,
    layers.Identity: identity,
    layers.Flatten: flatten,
    layers.Reshape: reshape,
    layers.Permute: permute,
    layers.RepeatVector: repeat_vector,
    layers.Reverse: reverse,
    layers.FoldTime: fold_time,
    layers.UnfoldTime: unfold_time,
    layers.Merge: merge,
    layers.Concatenate: concatenate,
    layers.Dot: dot,
    layers.Attention: attention,
    layers.MultiHeadAttention: multi_head_attention,
    layers.Masking: masking,
    layers.StepMask: step_mask,
    layers.LengthMask: length_mask,
    layers.MergeMasks: merge_masks,
}
"""One evaluator per layer class."""
