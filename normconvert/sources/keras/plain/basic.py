"""Dense layers, tables, activations, dropout, and layers that only rearrange."""

from __future__ import annotations

from typing import Literal

from normconvert.errors import Unsupported
from normconvert.ir import layers
from normconvert.ir.layers import Activation
from normconvert.sources.keras.building import Builder, Config, Dialect, Part, Weights
from normconvert.sources.keras.plain.options import Options

Noise = Literal["dropout", "alpha", "gaussian", "gaussian_noise"]

NO_LIMIT = 3.4028234663852886e38
"""Largest float32: an upper limit that is none, in a form JSON can hold."""


def _dense(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    layer = layers.Dense(
        use_bias=Options(class_name, config).flag("use_bias", True),
        activation=dialect.activation(config.get("activation")),
    )
    return (Part(layer, weights.take(*layer.weight_names())),)


def _embedding(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    return (Part(layers.Embedding(), weights.take("embeddings")),)


def _applied(activation: Activation | None) -> tuple[Part, ...]:
    return (Part(layers.Identity() if activation is None else layers.Apply(activation=activation)),)


def _activation(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    return _applied(dialect.activation(config.get("activation")))


def relu(slope: float, limit: float | None, threshold: float) -> Activation:
    """The simplest function that computes Keras's `relu` with these parameters."""
    match slope, limit, threshold:
        case 0.0, None, 0.0:
            return Activation("relu")
        case _, None, 0.0:
            return Activation("leaky_relu", (slope,))
        case 0.0, None, _:
            return Activation("threshold", (threshold, 0.0))
    return Activation("capped_relu", (slope, NO_LIMIT if limit is None else limit, threshold))


def _relu(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    limit = options.number("max_value") if options.has("max_value") else None
    return _applied(relu(options.number("negative_slope", 0.0), limit, options.number("threshold", 0.0)))


def _leaky_relu(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    key = "negative_slope" if options.has("negative_slope") else "alpha"
    return _applied(Activation("leaky_relu", (options.number(key, 0.3),)))


def _elu(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    return _applied(Activation("elu", (Options(class_name, config).number("alpha", 1.0),)))


def _thresholded_relu(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    return _applied(Activation("threshold", (Options(class_name, config).number("theta", 1.0), 0.0)))


def _softmax(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    axes = Options(class_name, config).integers("axis", -1)
    if len(axes) != 1:
        raise Unsupported(f"Softmax over the axes {list(axes)} together", remedy="One axis is supported")
    return _applied(Activation("softmax", axis=axes[0]))


def _prelu(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    return (Part(layers.PReLU(), weights.take("alpha")),)


def _dropout(noise: Noise, key: str = "rate") -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        sizes = options.shape("noise_shape") if options.has("noise_shape") else ()
        shared = tuple(axis for axis, size in enumerate(sizes) if size == 1)
        return (Part(layers.Dropout(rate=options.number(key), noise=noise, shared_axes=shared)),)

    return build


def _spatial_dropout(rank: int) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        options = Options(class_name, config)
        first = 2 if options.channels_first() else 1
        return (Part(layers.Dropout(rate=options.number("rate"), shared_axes=tuple(range(first, first + rank)))),)

    return build


def _identity(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    return (Part(layers.Identity()),)


def _flatten(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    if Options(class_name, config).channels_first():
        raise Unsupported(
            "Flatten with data_format channels_first", remedy="Put a Permute before it and set channels_last"
        )
    return (Part(layers.Flatten()),)


def _reshape(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    sizes = Options(class_name, config).shape("target_shape")
    return (Part(layers.Reshape(shape=tuple(-1 if size is None else size for size in sizes))),)


def _permute(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    return (Part(layers.Permute(order=Options(class_name, config).integers("dims"))),)


def _repeat_vector(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    return (Part(layers.RepeatVector(times=Options(class_name, config).positive("n"))),)


BASIC: dict[str, Builder] = {
    "Dense": _dense,
    "TimeDistributedDense": _dense,
    "Embedding": _embedding,
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "ThresholdedReLU": _thresholded_relu,
    "Softmax": _softmax,
    "PReLU": _prelu,
    "Dropout": _dropout("dropout"),
    "AlphaDropout": _dropout("alpha"),
    "GaussianDropout": _dropout("gaussian"),
    "GaussianNoise": _dropout("gaussian_noise", "stddev"),
    "SpatialDropout1D": _spatial_dropout(1),
    "SpatialDropout2D": _spatial_dropout(2),
    "ActivityRegularization": _identity,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
}
