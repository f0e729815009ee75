"""Convolutions. Channels that come first are moved to the end for the layer, and back after it."""

from __future__ import annotations

from typing import Literal

from normconvert.ir import layers
from normconvert.ir.layers import Padding
from normconvert.sources.keras.building import Builder, Config, Dialect, Part, Weights
from normconvert.sources.keras.plain.options import Options


def channels_last(options: Options, rank: int, *parts: Part) -> tuple[Part, ...]:
    """The parts as they are, or with data_format `channels_first` between two changes of the order of axes."""
    if not options.channels_first():
        return parts
    before = layers.Permute(order=(*range(2, rank + 2), 1))
    after = layers.Permute(order=(rank + 1, *range(1, rank + 1)))
    return (Part(before, suffix="/channels_last"), *parts, Part(after, suffix="/channels_first"))


def same_or_valid(options: Options) -> Literal["valid", "same"]:
    """The padding of a layer that knows no other."""
    return "same" if options.choice("padding", ("valid", "same"), "valid") == "same" else "valid"


def _padding(options: Options) -> Padding:
    word = options.choice("padding", ("valid", "same", "causal"), "valid")
    return "causal" if word == "causal" else "same" if word == "same" else "valid"


def _convolution(rank: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        layer = layers.Convolution(
            window=options.per_axis("kernel_size", rank),
            strides=options.per_axis("strides", rank, 1),
            dilation=options.per_axis("dilation_rate", rank, 1),
            padding=_padding(options),
            groups=options.positive("groups", 1),
            use_bias=options.flag("use_bias", True),
            activation=dialect.activation(config.get("activation")),
        )
        return channels_last(options, rank, Part(layer, weights.take(*layer.weight_names())))

    return build


def _depthwise(rank: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        layer = layers.DepthwiseConvolution(
            window=options.per_axis("kernel_size", rank),
            strides=options.per_axis("strides", rank, 1),
            dilation=options.per_axis("dilation_rate", rank, 1),
            padding=_padding(options),
            use_bias=options.flag("use_bias", True),
            activation=dialect.activation(config.get("activation")),
        )
        # Keras 1 and 2 call it depthwise_kernel, Keras 3 kernel.
        arrays = {"kernel": weights.take("depthwise_kernel")["depthwise_kernel"]}
        if layer.use_bias:
            arrays |= weights.take("bias")
        return channels_last(options, rank, Part(layer, arrays))

    return build


def _separable(rank: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        depthwise = layers.DepthwiseConvolution(
            window=options.per_axis("kernel_size", rank),
            strides=options.per_axis("strides", rank, 1),
            dilation=options.per_axis("dilation_rate", rank, 1),
            padding=_padding(options),
            use_bias=False,
        )
        ones = (1,) * rank
        pointwise = layers.Convolution(
            window=ones,
            strides=ones,
            dilation=ones,
            use_bias=options.flag("use_bias", True),
            activation=dialect.activation(config.get("activation")),
        )
        kernels = weights.take("depthwise_kernel", "pointwise_kernel")
        arrays = {"kernel": kernels["pointwise_kernel"]} | (weights.take("bias") if pointwise.use_bias else {})
        return channels_last(
            options,
            rank,
            Part(depthwise, {"kernel": kernels["depthwise_kernel"]}, suffix="/depthwise"),
            Part(pointwise, arrays),
        )

    return build


def _transposed(rank: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        extra = options.integers("output_padding") if options.has("output_padding") else None
        if extra is not None and len(extra) not in (1, rank):
            options.reject("output_padding", f"{rank} whole numbers")
        layer = layers.TransposedConvolution(
            window=options.per_axis("kernel_size", rank),
            strides=options.per_axis("strides", rank, 1),
            dilation=options.per_axis("dilation_rate", rank, 1),
            padding=same_or_valid(options),
            output_padding=extra * rank if extra is not None and len(extra) < rank else extra,
            use_bias=options.flag("use_bias", True),
            activation=dialect.activation(config.get("activation")),
        )
        return channels_last(options, rank, Part(layer, weights.take(*layer.weight_names())))

    return build


CONVOLUTIONS: dict[str, Builder] = {
    "Conv1D": _convolution(1),
    "Conv2D": _convolution(2),
    "Convolution1D": _convolution(1),
    "Convolution2D": _convolution(2),
    "AtrousConvolution1D": _convolution(1),
    "AtrousConvolution2D": _convolution(2),
    "DepthwiseConv1D": _depthwise(1),
    "DepthwiseConv2D": _depthwise(2),
    "SeparableConv1D": _separable(1),
    "SeparableConv2D": _separable(2),
    "SeparableConvolution1D": _separable(1),
    "SeparableConvolution2D": _separable(2),
    "Conv1DTranspose": _transposed(1),
    "Conv2DTranspose": _transposed(2),
    "Convolution1DTranspose": _transposed(1),
    "Convolution2DTranspose": _transposed(2),
    "Deconvolution2D": _transposed(2),
}
