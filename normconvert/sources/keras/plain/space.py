"""Pooling, and layers that make the space axes longer or shorter."""

from __future__ import annotations

from typing import Literal

from normconvert.errors import Unsupported
from normconvert.ir import layers
from normconvert.sources.keras.building import Builder, Config, Dialect, Part, Weights
from normconvert.sources.keras.plain.convolution import channels_last, same_or_valid
from normconvert.sources.keras.plain.options import Options

Operation = Literal["max", "average"]


def _pooling(operation: Operation, rank: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        window = options.per_axis("pool_size", rank, 2)
        layer = layers.Pooling(
            operation=operation,
            window=window,
            strides=options.per_axis("strides", rank) if options.has("strides") else window,
            padding=same_or_valid(options),
        )
        return channels_last(options, rank, Part(layer))

    return build


def _global_pooling(operation: Operation, rank: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        keepdims = options.flag("keepdims", False)
        parts = channels_last(options, rank, Part(layers.GlobalPooling(operation=operation, keepdims=keepdims)))
        # Without space axes there is no order to restore.
        return parts if keepdims else parts[:2] if len(parts) > 1 else parts

    return build


def _up_sampling(rank: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        factors = options.per_axis("size", rank, 2)
        match config.get("interpolation", "nearest"):
            case "nearest":
                layer = layers.UpSampling(factors=factors)
            case "bilinear":
                layer = layers.UpSampling(factors=factors, interpolation="bilinear")
            case other:
                raise Unsupported(
                    f"{class_name} with interpolation {other!r}", remedy="nearest and bilinear are supported"
                )
        return channels_last(options, rank, Part(layer))

    return build


def _zero_padding(rank: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        return channels_last(options, rank, Part(layers.ZeroPadding(amounts=options.ends("padding", rank, 1))))

    return build


def _cropping(rank: int, default: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        return channels_last(options, rank, Part(layers.Cropping(amounts=options.ends("cropping", rank, default))))

    return build


SPACE: dict[str, Builder] = {
    "MaxPooling1D": _pooling("max", 1),
    "MaxPooling2D": _pooling("max", 2),
    "MaxPool1D": _pooling("max", 1),
    "MaxPool2D": _pooling("max", 2),
    "AveragePooling1D": _pooling("average", 1),
    "AveragePooling2D": _pooling("average", 2),
    "AvgPool1D": _pooling("average", 1),
    "AvgPool2D": _pooling("average", 2),
    "GlobalMaxPooling1D": _global_pooling("max", 1),
    "GlobalMaxPooling2D": _global_pooling("max", 2),
    "GlobalMaxPool1D": _global_pooling("max", 1),
    "GlobalMaxPool2D": _global_pooling("max", 2),
    "GlobalAveragePooling1D": _global_pooling("average", 1),
    "GlobalAveragePooling2D": _global_pooling("average", 2),
    "GlobalAvgPool1D": _global_pooling("average", 1),
    "GlobalAvgPool2D": _global_pooling("average", 2),
    "UpSampling1D": _up_sampling(1),
    "UpSampling2D": _up_sampling(2),
    "ZeroPadding1D": _zero_padding(1),
    "ZeroPadding2D": _zero_padding(2),
    "Cropping1D": _cropping(1, 1),
    "Cropping2D": _cropping(2, 0),
}
