"""Attention layers.

Whether a layer is causal is an argument of its call in newer versions (`use_causal_mask`), which the reader puts
into the configuration, and was an option of the layer (`causal`) in older ones.
"""

from __future__ import annotations

from typing import Literal

from normconvert.errors import Unsupported
from normconvert.ir import layers
from normconvert.sources.keras.building import Builder, Config, Dialect, Part, Weights
from normconvert.sources.keras.plain.options import Options


def _causal(options: Options) -> bool:
    return options.flag("use_causal_mask", False) or options.flag("causal", False)


def _attention(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    score: Literal["dot", "concat"] = "dot"
    if options.choice("score_mode", ("dot", "concat"), "dot") == "concat":
        score = "concat"
    layer = layers.Attention(score=score, use_scale=options.flag("use_scale", False), causal=_causal(options))
    roles = {"scale": "scale", "concat_weight": "concat_score_weight"}
    taken = weights.take(*(roles[name] for name in layer.weight_names()))
    return (Part(layer, {name: taken[roles[name]] for name in layer.weight_names()}),)


def _additive_attention(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    layer = layers.Attention(score="additive", use_scale=options.flag("use_scale", True), causal=_causal(options))
    return (Part(layer, weights.take(*layer.weight_names())),)


def _multi_head_attention(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    axes = options.integers("attention_axes") if options.has("attention_axes") else (1,)
    output = options.integers("output_shape") if options.has("output_shape") else (1,)
    for unusual, what in (
        (axes not in ((1,), (-2,)), f"attention_axes {list(axes)}"),
        (len(output) != 1, f"output_shape {list(output)}"),
        (options.has("sliding_window"), "a sliding window"),
        (options.flag("use_gate", False), "a gate"),
    ):
        if unusual:
            raise Unsupported(
                f"{class_name} with {what}", remedy="Sequences [batch, time, features] with plain attention work"
            )
    layer = layers.MultiHeadAttention(
        use_bias=options.flag("use_bias", True),
        causal=_causal(options),
        # With dropout Keras 3 masks in its Softmax layer, which zeroes what is masked (keras-team/keras#21149).
        zero_hidden=dialect.major >= 3 and options.number("dropout", 0.0) > 0,
    )
    return (Part(layer, weights.take(*layer.weight_names())),)


ATTENTION: dict[str, Builder] = {
    "Attention": _attention,
    "AdditiveAttention": _additive_attention,
    "MultiHeadAttention": _multi_head_attention,
}
