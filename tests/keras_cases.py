"""Keras layers to compare with, and random values for their inputs and weights, none of them neutral."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normconvert.ir.model import Array

BATCH = 3
SEQUENCE = (7, 5)
IMAGE = (7, 6, 4)


@dataclass(frozen=True)
class Case:
    """One layer applied to random inputs.

    Attributes:
        layer: class name in Keras 3 and tf_keras; run in each that has it.
        options: constructor arguments.
        shapes: of one sample of each input.
        masked: whether some steps of each input are masked.
        integers: upper bound of an integer input; 0 for floats.
        call: further arguments of the call.
        only: the one framework to run in, if not both.
    """

    layer: str
    options: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = (SEQUENCE,)
    masked: bool = False
    integers: int = 0
    call: dict[str, Any] = field(default_factory=dict)
    only: str = ""

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in {**self.options, **self.call}.items()]
        return f"{self.layer}({', '.join(parts)}){'masked' if self.masked else ''}{list(self.shapes)}"


def _case(layer: str, *shapes: tuple[int, ...], **options: Any) -> Case:
    return Case(layer, options, shapes or (SEQUENCE,))


CASES: tuple[Case, ...] = (
    # Dense, tables, activations
    _case("Dense", (5,), units=3, activation="tanh"),
    _case("Dense", units=3, use_bias=False, activation="softmax"),
    Case("Embedding", {"input_dim": 11, "output_dim": 3}, ((7,),), integers=11),
    Case("Embedding", {"input_dim": 11, "output_dim": 3, "mask_zero": True}, ((7, 2),), integers=11),
    _case("Activation", activation="gelu"),
    _case("Activation", activation="linear"),
    _case("Activation", activation="hard_sigmoid"),
    _case("ReLU"),
    _case("ReLU", max_value=0.7),
    _case("ReLU", max_value=6.0),
    _case("ReLU", negative_slope=0.3),
    _case("ReLU", threshold=0.4),
    _case("ReLU", negative_slope=0.3, threshold=0.4),
    _case("ReLU", max_value=0.7, negative_slope=0.3, threshold=0.4),
    _case("LeakyReLU"),
    Case("LeakyReLU", {"negative_slope": 0.17}, only="keras"),
    Case("LeakyReLU", {"alpha": 0.17}, only="tf_keras"),
    _case("ELU"),
    _case("ELU", alpha=0.6),
    _case("ThresholdedReLU", theta=0.3),
    _case("Softmax"),
    _case("Softmax", axis=1),
    _case("Softmax", axis=[-1]),
    _case("PReLU"),
    _case("PReLU", shared_axes=[1]),
    _case("PReLU", IMAGE, shared_axes=[1, 2]),
    # Dropout and its kin
    _case("Dropout", rate=0.3),
    _case("Dropout", rate=0.3, noise_shape=(None, 1, None)),
    _case("SpatialDropout1D", rate=0.3),
    _case("SpatialDropout2D", IMAGE, rate=0.3),
    _case("AlphaDropout", rate=0.3),
    _case("GaussianDropout", rate=0.3),
    _case("GaussianNoise", stddev=0.3),
    _case("ActivityRegularization", l1=0.1),
    # Rearranging
    _case("Flatten", IMAGE),
    _case("Flatten", (5,)),
    _case("Reshape", target_shape=(5, 7)),
    _case("Reshape", IMAGE, target_shape=(-1, 8)),
    _case("Permute", dims=(2, 1)),
    _case("Permute", IMAGE, dims=(3, 1, 2)),
    _case("RepeatVector", (5,), n=3),
    # Convolutions
    _case("Conv1D", filters=4, kernel_size=3),
    _case("Conv1D", filters=4, kernel_size=3, padding="causal", activation="relu"),
    _case("Conv1D", filters=4, kernel_size=3, padding="causal", dilation_rate=2, use_bias=False),
    _case("Conv1D", filters=4, kernel_size=4, padding="same"),
    _case("Conv1D", filters=4, kernel_size=4, padding="same", strides=3),
    _case("Conv1D", (8, 5), filters=4, kernel_size=3, padding="same", strides=2),
    _case("Conv1D", filters=4, kernel_size=3, padding="same", dilation_rate=2),
    _case("Conv1D", filters=4, kernel_size=2, strides=2, padding="causal"),
    _case("Conv1D", (7, 6), filters=9, kernel_size=3, groups=3),
    _case("Conv2D", IMAGE, filters=3, kernel_size=(3, 2)),
    _case("Conv2D", IMAGE, filters=3, kernel_size=(2, 3), strides=(2, 3), padding="same", activation="elu"),
    _case("Conv2D", IMAGE, filters=3, kernel_size=(2, 3), dilation_rate=(2, 1), padding="same"),
    _case("Conv2D", IMAGE, filters=6, kernel_size=(2, 3), groups=2, use_bias=False),
    _case("DepthwiseConv1D", kernel_size=3, depth_multiplier=2, padding="same", activation="tanh"),
    _case("DepthwiseConv1D", kernel_size=3, strides=2, use_bias=False),
    _case("DepthwiseConv2D", IMAGE, kernel_size=(3, 2), depth_multiplier=3),
    _case("DepthwiseConv2D", IMAGE, kernel_size=(3, 2), strides=2, padding="same"),
    _case("DepthwiseConv2D", IMAGE, kernel_size=(3, 2), dilation_rate=(2, 2), padding="same", use_bias=False),
    _case("SeparableConv1D", filters=3, kernel_size=3, depth_multiplier=2, activation="relu"),
    _case("SeparableConv1D", filters=3, kernel_size=3, strides=2, padding="same", use_bias=False),
    _case("SeparableConv2D", IMAGE, filters=3, kernel_size=(3, 2), depth_multiplier=2, padding="same"),
    _case("Conv1DTranspose", filters=4, kernel_size=3),
    _case("Conv1DTranspose", filters=4, kernel_size=2, strides=3),
    _case("Conv1DTranspose", filters=4, kernel_size=5, strides=2, padding="same", activation="tanh"),
    _case("Conv1DTranspose", filters=4, kernel_size=3, strides=2, padding="same", output_padding=0),
    _case("Conv1DTranspose", filters=4, kernel_size=4, strides=3, padding="valid", output_padding=2, use_bias=False),
    _case("Conv1DTranspose", filters=4, kernel_size=3, dilation_rate=2),
    _case("Conv2DTranspose", IMAGE, filters=3, kernel_size=(3, 2), strides=(2, 3)),
    _case("Conv2DTranspose", IMAGE, filters=3, kernel_size=(4, 3), strides=(2, 2), padding="same"),
    _case("Conv2DTranspose", IMAGE, filters=3, kernel_size=3, strides=2, padding="same", output_padding=(1, 0)),
    _case("Conv1D", filters=4, kernel_size=3, strides=2, data_format="channels_first"),
    # Keras 3 has no kernel for it on a CPU.
    Case("Conv2D", {"filters": 3, "kernel_size": (3, 2), "data_format": "channels_first"}, (IMAGE,), only="tf_keras"),
    # Space
    _case("MaxPooling1D", pool_size=3),
    _case("MaxPooling1D", pool_size=3, strides=2, padding="same"),
    _case("MaxPooling2D", IMAGE),
    _case("MaxPooling2D", IMAGE, pool_size=(3, 2), strides=(2, 1), padding="same"),
    _case("MaxPooling2D", IMAGE, pool_size=(3, 2), data_format="channels_first", padding="same"),
    _case("AveragePooling1D", pool_size=3),
    _case("AveragePooling1D", pool_size=4, strides=3, padding="same"),
    _case("AveragePooling2D", IMAGE, pool_size=(3, 2), strides=(2, 1), padding="same"),
    _case("GlobalMaxPooling1D"),
    _case("GlobalMaxPooling2D", IMAGE, keepdims=True),
    _case("GlobalAveragePooling1D"),
    _case("GlobalAveragePooling1D", keepdims=True, data_format="channels_first"),
    _case("GlobalAveragePooling2D", IMAGE),
    _case("GlobalAveragePooling2D", IMAGE, data_format="channels_first"),
    Case("GlobalAveragePooling1D", masked=True),
    Case("GlobalAveragePooling1D", {"keepdims": True}, masked=True),
    _case("UpSampling1D", size=3),
    _case("UpSampling2D", IMAGE, size=(3, 2)),
    _case("UpSampling2D", IMAGE, size=(3, 2), interpolation="bilinear"),
    _case("UpSampling2D", IMAGE, size=2, data_format="channels_first"),
    _case("ZeroPadding1D", padding=2),
    _case("ZeroPadding1D", padding=(1, 3)),
    _case("ZeroPadding2D", IMAGE, padding=1),
    _case("ZeroPadding2D", IMAGE, padding=(1, 2)),
    _case("ZeroPadding2D", IMAGE, padding=((1, 0), (2, 3))),
    _case("Cropping1D", cropping=2),
    _case("Cropping1D", cropping=(1, 3)),
    _case("Cropping2D", IMAGE, cropping=((1, 0), (2, 3))),
    _case("Cropping2D", IMAGE, cropping=((1, 0), (1, 0)), data_format="channels_first"),
    # Normalisation
    _case("BatchNormalization"),
    _case("BatchNormalization", (5,), epsilon=0.02, scale=False),
    _case("BatchNormalization", axis=1, center=False),
    _case("BatchNormalization", IMAGE, axis=2),
    _case("BatchNormalization", scale=False, center=False),
    _case("LayerNormalization"),
    _case("LayerNormalization", epsilon=0.02, scale=False),
    _case("LayerNormalization", axis=1, center=False),
    _case("LayerNormalization", IMAGE, axis=[1, 3]),
    _case("LayerNormalization", IMAGE, axis=[-2, -1]),
    Case("LayerNormalization", {"rms_scaling": True}, only="keras"),
    Case("LayerNormalization", {"rms_scaling": True, "axis": [1, 2], "scale": False}, only="keras"),
    _case("RMSNormalization"),
    _case("RMSNormalization", axis=[1, 2], epsilon=0.01),
    _case("GroupNormalization", (7, 6), groups=3),
    _case("GroupNormalization", IMAGE, groups=-1, epsilon=0.02),
    _case("GroupNormalization", IMAGE, groups=3, axis=2, scale=False),
    _case("GroupNormalization", IMAGE, groups=2, center=False),
    _case("UnitNormalization"),
    _case("UnitNormalization", axis=[1, 2]),
    _case("Normalization"),
    _case("Normalization", invert=True),
    _case("Normalization", axis=None),
    _case("Normalization", axis=(-2, -1)),
    _case("Normalization", axis=-2),
    _case("Normalization", axis=1),
    _case("Normalization", IMAGE, axis=(1, 3)),
    _case("Normalization", IMAGE, axis=(1, 3), mean=[0.3, 0.1, -0.2, 0.9], variance=[0.3, 1.4, 2.0, 0.2]),
    _case("Normalization", mean=[0.3, 0.1, -0.2, 0.9, 0.5], variance=[0.3, 1.4, 2.0, 0.2, 1.1]),
    _case("Normalization", mean=0.3, variance=1.7),
    _case("Rescaling", scale=0.3, offset=0.9),
    _case("Rescaling", scale=[0.3, 0.1, -0.2, 0.9, 0.5]),
    # Several inputs
    *(_case(name, *[SEQUENCE] * 3) for name in ("Add", "Multiply", "Average", "Maximum", "Minimum")),
    _case("Subtract", SEQUENCE, SEQUENCE),
    _case("Add", SEQUENCE, (5,)),
    _case("Multiply", (1, 5), SEQUENCE),
    _case("Concatenate", SEQUENCE, (7, 3)),
    _case("Concatenate", SEQUENCE, (4, 5), axis=1),
    _case("Dot", SEQUENCE, SEQUENCE, axes=2),
    _case("Dot", (5,), (5,), axes=1),
    _case("Dot", (5,), (5,), axes=-1, normalize=True),
    _case("Dot", (7, 5), (7, 3), axes=(1, 1), normalize=True),
    _case("Dot", (7, 5), (5,), axes=(2, 1)),
    _case("Dot", (5,), (7, 5), axes=(1, 2)),
    _case("Attention", (4, 5), (7, 5)),
    _case("Attention", (4, 5), (7, 3), (7, 5), use_scale=True),
    Case("Attention", {"use_scale": True}, ((4, 5), (7, 5)), masked=True),
    Case("Attention", {}, ((7, 5), (7, 5)), masked=True, call={"use_causal_mask": True}),
    Case("Attention", {}, ((4, 5), (7, 5)), call={"use_causal_mask": True}),
    _case("Attention", (4, 5), (7, 5), score_mode="concat"),
    _case("Attention", (4, 5), (7, 5), score_mode="concat", use_scale=True),
    _case("AdditiveAttention", (4, 5), (7, 5)),
    _case("AdditiveAttention", (4, 5), (7, 5), use_scale=False),
    Case("AdditiveAttention", {}, ((4, 5), (7, 5), (7, 5)), masked=True, call={"use_causal_mask": True}),
    Case("AdditiveAttention", {}, ((4, 5), (7, 3), (7, 5)), only="keras"),
    _case("MultiHeadAttention", (4, 5), (7, 6), num_heads=2, key_dim=3),
    _case("MultiHeadAttention", (4, 5), (7, 6), (7, 4), num_heads=2, key_dim=3, value_dim=4, output_shape=8),
    _case("MultiHeadAttention", (4, 5), (7, 6), num_heads=3, key_dim=2, use_bias=False),
    Case("MultiHeadAttention", {"num_heads": 2, "key_dim": 3}, ((4, 5), (7, 6)), masked=True),
    Case(
        "MultiHeadAttention",
        {"num_heads": 2, "key_dim": 3},
        ((7, 5), (7, 6), (7, 4)),
        masked=True,
        call={"use_causal_mask": True},
    ),
    Case("MultiHeadAttention", {"num_heads": 2, "key_dim": 3, "dropout": 0.2}, ((4, 5), (7, 6)), masked=True),
)


def random_inputs(case: Case, rng: np.random.Generator) -> tuple[list[Array], list[Array | None]]:
    """The inputs of a case, and their masks; a masked step is zero and the first step never masked."""
    if case.integers:
        return [rng.integers(0, case.integers, (BATCH, *shape)) for shape in case.shapes], []
    arrays = [rng.normal(0, 1.3, (BATCH, *shape)).astype(np.float32) for shape in case.shapes]
    if not case.masked:
        return arrays, []
    masks: list[Array | None] = []
    for array in arrays:
        mask = rng.uniform(size=array.shape[:2]) < 0.6
        mask[:, 0] = True
        array *= mask[:, :, None]
        masks.append(mask)
    return arrays, masks


def weight_names(layer: Any) -> list[str]:
    """Names or paths of a layer's weights, in the order of `get_weights`."""
    return [str(getattr(weight, "path", weight.name)).split(":")[0] for weight in layer.weights]


def random_weights(layer: Any, rng: np.random.Generator) -> None:
    """Give a built layer other weights."""
    arrays = zip(weight_names(layer), layer.get_weights(), strict=True)
    layer.set_weights([_random(name, array.shape, array.dtype, rng) for name, array in arrays])
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()


def _random(name: str, shape: Sequence[int], dtype: Any, rng: np.random.Generator) -> Array:
    if "variance" in name:
        return rng.uniform(0.3, 2.5, shape).astype(dtype)
    if "count" in name:
        return np.asarray(7, dtype)
    if "gamma" in name or name.endswith("scale"):
        return rng.uniform(0.5, 1.5, shape).astype(dtype)
    return rng.normal(0, 0.6, shape).astype(dtype)
