"""The module of each layer without recurrence: its constructor, and its arrays as PyTorch wants them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np

from normconvert.errors import Unsupported
from normconvert.ir import layers
from normconvert.ir.layers import AnyLayer
from normconvert.ir.model import Array
from normconvert.ir.windows import padding_amounts, transposed_length
from normconvert.targets.torch.functions import activation_module, number
from normconvert.targets.torch.text import call

Weights = Mapping[str, Array]


@dataclass(frozen=True)
class Module:
    """A submodule of the generated model.

    Attributes:
        constructor: code that makes it, with `{class_name}` where it is of a class generated for it.
        arrays: its state dict.
        source: the class generated for it, or empty.
        class_name: the name that class would like to have.
    """

    constructor: str
    arrays: Mapping[str, Array] = field(default_factory=dict)
    source: str = ""
    class_name: str = ""


@singledispatch
def module(layer: AnyLayer, weights: Weights) -> Module:
    """The module of a layer, without its activation.

    Raises:
        Unsupported: PyTorch has no such layer and neither have we.
    """
    if type(layer) in _SIMPLE:
        return Module(_SIMPLE[type(layer)](layer))
    raise Unsupported(f"the layer {layer.kind or type(layer).__name__} has no PyTorch form")


@module.register
def _dense(layer: layers.Dense, weights: Weights) -> Module:
    inputs, units = weights["kernel"].shape
    flag = "" if layer.use_bias else "bias=False"
    return Module(call("nn.Linear", [str(inputs), str(units), flag]), _with_bias(weights, weights["kernel"].T))


@module.register
def _embedding(layer: layers.Embedding, weights: Weights) -> Module:
    rows, units = weights["embeddings"].shape
    return Module(f"nn.Embedding({rows}, {units})", {"weight": weights["embeddings"]})


@module.register
def _apply(layer: layers.Apply, weights: Weights) -> Module:
    made = activation_module(layer.activation)
    return Module(made.constructor, source=made.source, class_name=made.constructor.split("(")[0])


@module.register
def _prelu(layer: layers.PReLU, weights: Weights) -> Module:
    return Module(f"PReLU({list(weights['alpha'].shape)})", {"weight": weights["alpha"]})


@module.register
def _convolution(layer: layers.Convolution, weights: Weights) -> Module:
    kernel = weights["kernel"]
    channels, filters = kernel.shape[-2] * layer.groups, kernel.shape[-1]
    return _conv(layer, channels, filters, layer.groups, np.moveaxis(kernel, (-1, -2), (0, 1)), weights)


@module.register
def _depthwise(layer: layers.DepthwiseConvolution, weights: Weights) -> Module:
    *window, channels, multiplier = weights["kernel"].shape
    kernel = weights["kernel"].reshape(*window, channels * multiplier)
    return _conv(layer, channels, channels * multiplier, channels, np.moveaxis(kernel, -1, 0)[:, None], weights)


def _conv(
    layer: layers.Convolution | layers.DepthwiseConvolution,
    channels: int,
    filters: int,
    groups: int,
    kernel: Array,
    weights: Weights,
) -> Module:
    given = [
        str(channels),
        str(filters),
        _sizes(layer.window),
        f"stride={_sizes(layer.strides)}" if set(layer.strides) != {1} else "",
        f"dilation={_sizes(layer.dilation)}" if set(layer.dilation) != {1} else "",
        f"groups={groups}" if groups != 1 else "",
        "" if layer.use_bias else "bias=False",
        f'pad="{layer.padding}"' if layer.padding != "valid" else "",
    ]
    return Module(call(f"Conv{_rank(layer.window)}d", given), _with_bias(weights, kernel))


@module.register
def _transposed(layer: layers.TransposedConvolution, weights: Weights) -> Module:
    *_, filters, channels = weights["kernel"].shape
    crops, sizes = [], []
    extra = layer.output_padding or (None,) * len(layer.window)
    for w, s, d, more in zip(layer.window, layer.strides, layer.dilation, extra, strict=True):
        # How much is cut off does not depend on the length: take any that is not too short.
        some = w * d + s
        length = transposed_length(some, w, s, d, layer.padding, more)
        crops.append(padding_amounts(length, w, s, d, layer.padding)[0])
        sizes.append(length - (some - 1) * s)
    given = [
        str(channels),
        str(filters),
        _sizes(layer.window),
        f"stride={_sizes(layer.strides)}",
        f"dilation={_sizes(layer.dilation)}",
        f"crop={_sizes(crops)}",
        f"size={_sizes(sizes)}",
        f"bias={layer.use_bias}",
    ]
    kernel = np.moveaxis(weights["kernel"], (-1, -2), (0, 1))
    return Module(call(f"ConvTranspose{_rank(layer.window)}d", given), _with_bias(weights, kernel))


@module.register
def _pooling(layer: layers.Pooling, weights: Weights) -> Module:
    pad = f'pad="{layer.padding}"' if layer.padding != "valid" else ""
    given = [f'"{layer.operation}"', _sizes(layer.window), _sizes(layer.strides), pad]
    return Module(call(f"Pool{_rank(layer.window)}d", given))


@module.register
def _global_pooling(layer: layers.GlobalPooling, weights: Weights) -> Module:
    name = "GlobalAveragePooling" if layer.operation == "average" else "GlobalMaxPooling"
    return Module(f"{name}({'keepdims=True' if layer.keepdims else ''})")


@module.register
def _up_sampling(layer: layers.UpSampling, weights: Weights) -> Module:
    if layer.interpolation == "bilinear":
        return Module(f"LinearUpSampling({[float(factor) for factor in layer.factors]})")
    return Module(f"UpSampling({list(layer.factors)})")


@module.register
def _zero_padding(layer: layers.ZeroPadding, weights: Weights) -> Module:
    return Module(f"ZeroPadding({_pads(layer.amounts, 1)})")


@module.register
def _cropping(layer: layers.Cropping, weights: Weights) -> Module:
    return Module(f"ZeroPadding({_pads(layer.amounts, -1)})")


def _pads(amounts: Sequence[tuple[int, int]], sign: int) -> list[int]:
    """Amounts in the order of `F.pad`: the channels, then the space axes from the last to the first."""
    return [0, 0, *(sign * n for pair in reversed(amounts) for n in pair)]


@module.register
def _batch_norm(layer: layers.BatchNormalization, weights: Weights) -> Module:
    features = next(iter(weights.values())).shape[0] if weights else 0
    if not weights and (layer.scale or layer.center or layer.source == "population"):
        raise Unsupported("a batch normalisation without arrays")
    given = [
        str(features),
        f"axis={layer.axis}" if layer.axis != -1 else "",
        f"eps={number(layer.epsilon)}",
        f"momentum={number(layer.momentum)}" if layer.momentum != 0.99 else "",
        "" if layer.scale else "scale=False",
        "" if layer.center else "center=False",
        "" if layer.trainable else "frozen=True",
        "" if layer.source == "population" else "from_batch=True",
    ]
    names = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
    return Module(call("BatchNorm", given), {names[name]: array for name, array in weights.items()})


@module.register
def _layer_norm(layer: layers.LayerNormalization, weights: Weights) -> Module:
    arrays = {{"gamma": "weight", "beta": "bias"}[name]: array for name, array in weights.items()}
    eps = f"eps={number(layer.epsilon)}"
    if layer.axes == (-1,) and layer.moments == "standard" and layer.scale:
        (features,) = weights["gamma"].shape
        return Module(call("nn.LayerNorm", [str(features), eps, "" if layer.center else "bias=False"]), arrays)
    shape = list(next(iter(weights.values())).shape) if weights else [1] * len(layer.axes)
    given = [
        str(shape),
        str(list(layer.axes)),
        eps,
        "" if layer.scale else "scale=False",
        "" if layer.center else "center=False",
        f'moments="{layer.moments}"' if layer.moments != "standard" else "",
    ]
    return Module(call("LayerNorm", given), arrays)


@module.register
def _group_norm(layer: layers.GroupNormalization, weights: Weights) -> Module:
    channels = next(iter(weights.values())).shape[0] if weights else 1
    given = [
        str(layer.groups),
        str(channels),
        f"axis={layer.axis}" if layer.axis != -1 else "",
        f"eps={number(layer.epsilon)}",
        "" if layer.scale else "scale=False",
        "" if layer.center else "center=False",
    ]
    arrays = {{"gamma": "weight", "beta": "bias"}[name]: array for name, array in weights.items()}
    return Module(call("GroupNorm", given), arrays)


@module.register
def _unit_norm(layer: layers.UnitNormalization, weights: Weights) -> Module:
    return Module(f"UnitNorm({list(layer.axes)}, eps={number(layer.epsilon)})")


@module.register
def _standardise(layer: layers.Standardization, weights: Weights) -> Module:
    given = [str(list(weights["mean"].shape)), f"eps={number(layer.epsilon)}", "invert=True" if layer.invert else ""]
    arrays = dict(weights)
    if arrays["variance"].shape != arrays["mean"].shape:
        arrays["variance"] = np.broadcast_to(arrays["variance"], arrays["mean"].shape)
    return Module(call("Standardise", given), arrays)


@module.register
def _rescale(layer: layers.Rescaling, weights: Weights) -> Module:
    scale, offset = ([float(value) for value in values] for values in (layer.scale, layer.offset))
    return Module(call("Rescale", [repr(scale), repr(offset)]))


@module.register
def _dropout(layer: layers.Dropout, weights: Weights) -> Module:
    rate = number(layer.rate)
    match layer.noise:
        case "alpha":
            return Module(f"nn.AlphaDropout({rate})")
        case "gaussian":
            return Module(f"GaussianDropout({rate})")
        case "gaussian_noise":
            return Module(f"GaussianNoise({rate})")
    if layer.shared_axes:
        return Module(f"SharedDropout({rate}, {list(layer.shared_axes)})")
    return Module(f"nn.Dropout({rate})")


@module.register
def _dot(layer: layers.Dot, weights: Weights) -> Module:
    return Module(f"Dot({layer.axes}{', normalize=True' if layer.normalize else ''})")


@module.register
def _attention(layer: layers.Attention, weights: Weights) -> Module:
    scale = str(list(weights["scale"].shape)) if layer.use_scale else "None"
    arrays = {name: array.reshape(()) if name == "concat_weight" else array for name, array in weights.items()}
    return Module(f'Attention("{layer.score}", {scale}, {layer.causal})', arrays)


@module.register
def _multi_head_attention(layer: layers.MultiHeadAttention, weights: Weights) -> Module:
    inputs = tuple(weights[f"{role}.kernel"].shape[0] for role in ("query", "key", "value"))
    _, heads, key_size = weights["key.kernel"].shape
    _, value_size, outputs = weights["output.kernel"].shape
    given = [str(inputs), str(heads), str(key_size), str(value_size), str(outputs)]
    given += ["" if layer.use_bias else "bias=False", "causal=True" if layer.causal else ""]
    return Module(call("MultiHeadAttention", given), _heads(weights))


def _heads(weights: Weights) -> dict[str, Array]:
    """The projections as `nn.Linear` has them, the heads one after another."""
    arrays: dict[str, Array] = {}
    for name, array in weights.items():
        role, part = name.split(".")
        if part == "bias":
            arrays[f"{role}.bias"] = array.reshape(-1)
        elif role == "output":
            arrays["output.weight"] = array.reshape(-1, array.shape[-1]).T
        else:
            arrays[f"{role}.weight"] = array.reshape(array.shape[0], -1).T
    return arrays


_SIMPLE: dict[type, Callable[[Any], str]] = {
    layers.Identity: lambda layer: "nn.Identity()",
    layers.Flatten: lambda layer: "nn.Flatten()",
    layers.Reshape: lambda layer: f"Reshape({list(layer.shape)})",
    layers.Permute: lambda layer: f"Permute({[0, *layer.order]})",
    layers.RepeatVector: lambda layer: f"RepeatVector({layer.times})",
    layers.Reverse: lambda layer: f"Reverse({layer.axis})",
    layers.FoldTime: lambda layer: "FoldTime()",
    layers.UnfoldTime: lambda layer: "UnfoldTime()",
    layers.Merge: lambda layer: f"{layer.operation.capitalize()}()",
    layers.Concatenate: lambda layer: f"Concatenate({layer.axis})",
    layers.Masking: lambda layer: f"Masking({number(layer.value)})",
    layers.StepMask: lambda layer: f"{'Feature' if layer.any_feature else 'Index'}Mask({number(layer.value)})",
    layers.LengthMask: lambda layer: "LengthMask()",
    layers.MergeMasks: lambda layer: f'MergeMasks("{layer.operation}")',
}
"""The constructors of layers without arrays."""


def _with_bias(weights: Weights, weight: Array) -> dict[str, Array]:
    return {"weight": weight, **({"bias": weights["bias"]} if "bias" in weights else {})}


def _sizes(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else str(tuple(values))


def _rank(window: Sequence[int]) -> int:
    if len(window) > 2:
        raise Unsupported(f"a window over {len(window)} axes", remedy="One and two space axes are supported")
    return len(window)
