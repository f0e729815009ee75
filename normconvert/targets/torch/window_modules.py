"""Modules of the layers that slide windows over space axes, or stretch, pad and crop them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from normconvert.errors import Unsupported
from normconvert.ir import layers
from normconvert.ir.model import Array
from normconvert.ir.windows import padding_amounts, transposed_length
from normconvert.targets.python_code.text import call
from normconvert.targets.torch.module import Maker, Module, Weights, with_bias


def _convolution(layer: layers.Convolution, weights: Weights) -> Module:
    kernel = weights["kernel"]
    channels, filters = kernel.shape[-2] * layer.groups, kernel.shape[-1]
    return _conv(layer, channels, filters, layer.groups, np.moveaxis(kernel, (-1, -2), (0, 1)), weights)


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
    return Module(call(f"Conv{_rank(layer.window)}d", given), with_bias(weights, kernel))


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
    return Module(call(f"ConvTranspose{_rank(layer.window)}d", given), with_bias(weights, kernel))


def _pooling(layer: layers.Pooling, weights: Weights) -> Module:
    pad = f'pad="{layer.padding}"' if layer.padding != "valid" else ""
    given = [f'"{layer.operation}"', _sizes(layer.window), _sizes(layer.strides), pad]
    return Module(call(f"Pool{_rank(layer.window)}d", given))


def _global_pooling(layer: layers.GlobalPooling, weights: Weights) -> Module:
    name = "GlobalAveragePooling" if layer.operation == "average" else "GlobalMaxPooling"
    return Module(f"{name}({'keepdims=True' if layer.keepdims else ''})")


def _up_sampling(layer: layers.UpSampling, weights: Weights) -> Module:
    if layer.interpolation == "bilinear":
        return Module(f"LinearUpSampling({[float(factor) for factor in layer.factors]})")
    return Module(f"UpSampling({list(layer.factors)})")


def _zero_padding(layer: layers.ZeroPadding, weights: Weights) -> Module:
    return Module(f"ZeroPadding({_pads(layer.amounts, 1)})")


def _cropping(layer: layers.Cropping, weights: Weights) -> Module:
    return Module(f"ZeroPadding({_pads(layer.amounts, -1)})")


def _pads(amounts: Sequence[tuple[int, int]], sign: int) -> list[int]:
    """Amounts in the order of `F.pad`: the channels, then the space axes from the last to the first."""
    return [0, 0, *(sign * n for pair in reversed(amounts) for n in pair)]


def _sizes(values: Sequence[int]) -> str:
    return str(values[0]) if len(values) == 1 else str(tuple(values))


def _rank(window: Sequence[int]) -> int:
    if len(window) > 2:
        raise Unsupported(f"a window over {len(window)} axes", remedy="One and two space axes are supported")
    return len(window)


WINDOWS: dict[type, Maker] = {
    layers.Convolution: _convolution,
    layers.DepthwiseConvolution: _depthwise,
    layers.TransposedConvolution: _transposed,
    layers.Pooling: _pooling,
    layers.GlobalPooling: _global_pooling,
    layers.UpSampling: _up_sampling,
    layers.ZeroPadding: _zero_padding,
    layers.Cropping: _cropping,
}
