"""The layer class that arrays belong to, from their roles and shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from normconvert.sources.keras.building import Config
from normconvert.sources.keras.recipe import UNKNOWN
from normconvert.sources.toml import Assumed

Shapes = dict[str, tuple[int, ...]]
"""Shapes of a layer's arrays by role, in the order they were created."""


def from_arrays(shapes: Shapes) -> Config:
    """Class and keys of the layer that has arrays of these shapes, by role."""
    for fits, describe in _KINDS:
        if fits(shapes):
            return describe(shapes)
    return {"class": Assumed(UNKNOWN, f"no layer is known with the arrays {', '.join(shapes)}: fill it in")}


def _recurrent(shapes: Shapes) -> Config:
    kernel, inner = shapes["kernel"], shapes["recurrent_kernel"]
    units, bias = inner[-2], shapes.get("bias")
    gates = inner[-1] // units
    if len(inner) > 2:
        config: Config = {"class": f"ConvLSTM{len(inner) - 2}D", "filters": units, "kernel_size": list(kernel[:-2])}
        config |= {"strides": Assumed(1), "padding": Assumed("valid")}
        return config | _gated(bias)
    if gates == 4:
        kind = "CuDNNLSTM" if bias == (8 * units,) else "LSTM"
        return {"class": kind, "units": units} | ({} if kind != "LSTM" else _gated(bias)) | _sequences()
    if gates == 3:
        if bias == (6 * units,):
            return {"class": "CuDNNGRU", "units": units, **_sequences()}
        after: Any = len(bias) == 2 if bias is not None else Assumed(True)
        return {"class": "GRU", "units": units, "reset_after": after, **_gated(bias), **_sequences()}
    return {
        "class": "SimpleRNN",
        "units": units,
        "activation": Assumed("tanh"),
        "use_bias": bias is not None,
        **_sequences(),
    }


def _gated(bias: tuple[int, ...] | None) -> Config:
    return {
        "activation": Assumed("tanh"),
        "recurrent_activation": Assumed("sigmoid"),
        "use_bias": bias is not None,
    }


def _sequences() -> Config:
    return {"return_sequences": Assumed(False), "go_backwards": Assumed(False)}


def _per_gate(shapes: Shapes) -> Config:
    units = next(shape[-1] for role, shape in shapes.items() if role.startswith("U"))
    kind = {12: "LSTM", 9: "GRU"}.get(len(shapes), "SimpleRNN")
    return {
        "class": kind,
        "output_dim": units,
        "activation": Assumed("tanh"),
        **({"inner_activation": Assumed("hard_sigmoid")} if kind != "SimpleRNN" else {}),
        **_sequences(),
    }


def _batch_norm(shapes: Shapes) -> Config:
    return {
        "class": "BatchNormalization",
        "axis": Assumed(-1),
        "epsilon": Assumed(1e-3),
        "scale": "gamma" in shapes,
        "center": "beta" in shapes,
    }


def _layer_norm(shapes: Shapes) -> Config:
    return {
        "class": "LayerNormalization",
        "axis": Assumed([-1]),
        "epsilon": Assumed(1e-3),
        "scale": "gamma" in shapes,
        "center": "beta" in shapes,
    }


def _embedding(shapes: Shapes) -> Config:
    return {"class": "Embedding", "mask_zero": Assumed(False)}


def _separable(shapes: Shapes) -> Config:
    depthwise = shapes["depthwise_kernel"]
    space = len(depthwise) - 2
    kind = "SeparableConv" if "pointwise_kernel" in shapes else "DepthwiseConv"
    config: Config = {"class": f"{kind}{space}D", "kernel_size": list(depthwise[:space])}
    if "pointwise_kernel" in shapes:
        config["filters"] = shapes["pointwise_kernel"][-1]
    return config | _convolved(shapes) | {"depth_multiplier": depthwise[-1]}


def _convolution(shapes: Shapes) -> Config:
    kernel = shapes["kernel"]
    space = len(kernel) - 2
    return {
        "class": f"Conv{space}D",
        "filters": kernel[-1],
        "kernel_size": list(kernel[:space]),
        **_convolved(shapes),
    }


def _convolved(shapes: Shapes) -> Config:
    return {
        "strides": Assumed(1),
        "padding": Assumed("valid"),
        "activation": Assumed("linear"),
        "use_bias": "bias" in shapes,
    }


def _dense(shapes: Shapes) -> Config:
    return {
        "class": "Dense",
        "units": shapes["kernel"][-1],
        "activation": Assumed("linear"),
        "use_bias": "bias" in shapes,
    }


def _keras1_dense(shapes: Shapes) -> Config:
    return {"class": "Dense", "output_dim": shapes["W"][-1], "activation": Assumed("linear"), "bias": "b" in shapes}


def _prelu(shapes: Shapes) -> Config:
    return {"class": "PReLU"}


_KINDS: tuple[tuple[Callable[[Shapes], bool], Callable[[Shapes], Config]], ...] = (
    (lambda s: {"kernel", "recurrent_kernel"} <= set(s), _recurrent),
    (lambda s: any(role.startswith("U") for role in s), _per_gate),
    (lambda s: "moving_mean" in s or "running_mean" in s, _batch_norm),
    (lambda s: bool({"gamma", "beta"} & set(s)), _layer_norm),
    (lambda s: "embeddings" in s, _embedding),
    (lambda s: "depthwise_kernel" in s, _separable),
    (lambda s: "kernel" in s and len(s["kernel"]) > 2, _convolution),
    (lambda s: "kernel" in s and len(s["kernel"]) == 2, _dense),
    (lambda s: "W" in s and len(s["W"]) == 2, _keras1_dense),
    (lambda s: bool({"alpha", "alphas"} & set(s)), _prelu),
)
"""What arrays make a layer, the most telling first."""
