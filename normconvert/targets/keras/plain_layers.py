"""The Keras layer for each layer without recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from normconvert.errors import Unsupported
from normconvert.ir import layers
from normconvert.ir.layers import Activation, AnyLayer
from normconvert.targets.keras.functions import activation_code
from normconvert.targets.keras.layer_spec import LayerSpec, Maker, Weights

_ATTENTION = {"scale": "scale", "concat_weight": "concat_score_weight"}
_NORM = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}
_MERGES = {
    "add": "Add",
    "subtract": "Subtract",
    "multiply": "Multiply",
    "average": "Average",
    "maximum": "Maximum",
    "minimum": "Minimum",
}
_NOISES = {"alpha": "AlphaDropout", "gaussian": "GaussianDropout", "gaussian_noise": "GaussianNoise"}


def plain_layer(layer: AnyLayer, weights: Weights) -> LayerSpec:
    """The Keras layer for a layer that has neither equations nor masks of its own.

    Raises:
        Unsupported: Keras has no such layer and neither have we.
    """
    maker = _MAKERS.get(type(layer))
    if maker is None:
        raise Unsupported(f"the layer {layer.kind or type(layer).__name__} has no Keras form")
    return maker(layer, weights)


def activated(
    kind: str, activation: Activation | None, config: dict[str, Any], arrays: Weights, key: str = "activation"
) -> LayerSpec:
    """A layer with an activation: Keras's own by name, or a function of the file of layers."""
    code = activation_code(activation)
    given: Any = {"function": code.name} if code.source else code.name
    functions = {code.name: code.source} if code.source else {}
    return LayerSpec(kind, {**config, key: given}, dict(arrays), functions=functions)


def _dense(layer: layers.Dense, weights: Weights) -> LayerSpec:
    config = {"units": weights["kernel"].shape[1], "use_bias": layer.use_bias}
    return activated("Dense", layer.activation, config, weights)


def _embedding(layer: layers.Embedding, weights: Weights) -> LayerSpec:
    rows, units = weights["embeddings"].shape
    return LayerSpec("Embedding", {"input_dim": rows, "output_dim": units}, dict(weights))


def _apply(layer: layers.Apply, weights: Weights) -> LayerSpec:
    if layer.activation.function == "softmax" and layer.activation.axis != -1:
        return LayerSpec("Softmax", {"axis": layer.activation.axis})
    return activated("Activation", layer.activation, {}, {})


def _prelu(layer: layers.PReLU, weights: Weights) -> LayerSpec:
    return LayerSpec("SharedPRelu", {"shape": list(weights["alpha"].shape)}, dict(weights))


def _windowed(layer: Any) -> dict[str, Any]:
    return {
        "strides": list(layer.strides),
        "dilation_rate": list(layer.dilation),
        "padding": layer.padding,
        "use_bias": layer.use_bias,
        "kernel_size": list(layer.window),
    }


def _space(kind: str, window: Sequence[object]) -> str:
    """A class of Keras for one or two space axes."""
    if len(window) > 2:
        raise Unsupported(f"a window over {len(window)} axes", remedy="One and two space axes are supported")
    return kind.format(rank=len(window))


def _convolution(layer: layers.Convolution, weights: Weights) -> LayerSpec:
    config = {**_windowed(layer), "filters": weights["kernel"].shape[-1], "groups": layer.groups}
    return activated(_space("Conv{rank}D", layer.window), layer.activation, config, weights)


def _depthwise(layer: layers.DepthwiseConvolution, weights: Weights) -> LayerSpec:
    config = {**_windowed(layer), "depth_multiplier": weights["kernel"].shape[-1]}
    return activated(_space("DepthwiseConv{rank}D", layer.window), layer.activation, config, weights)


def _transposed(layer: layers.TransposedConvolution, weights: Weights) -> LayerSpec:
    config = {**_windowed(layer), "filters": weights["kernel"].shape[-2]}
    if layer.output_padding is not None:
        config["output_padding"] = list(layer.output_padding)
    return activated(_space("Conv{rank}DTranspose", layer.window), layer.activation, config, weights)


def _pooling(layer: layers.Pooling, weights: Weights) -> LayerSpec:
    kind = {"max": "MaxPooling{rank}D", "average": "AveragePooling{rank}D"}[layer.operation]
    config = {"pool_size": list(layer.window), "strides": list(layer.strides), "padding": layer.padding}
    return LayerSpec(_space(kind, layer.window), config)


def _up_sampling(layer: layers.UpSampling, weights: Weights) -> LayerSpec:
    if layer.interpolation == "bilinear":  # TensorFlow's resize computes in float32 whatever it is given
        return LayerSpec("LinearUpSampling", {"factors": list(layer.factors)})
    size: Any = layer.factors[0] if len(layer.factors) == 1 else list(layer.factors)
    return LayerSpec(_space("UpSampling{rank}D", layer.factors), {"size": size})


def _ends(kind: str, key: str) -> Maker:
    def make(layer: layers.ZeroPadding | layers.Cropping, weights: Weights) -> LayerSpec:
        amounts: Any = [list(pair) for pair in layer.amounts]
        return LayerSpec(_space(kind, layer.amounts), {key: amounts[0] if len(amounts) == 1 else amounts})

    return make


def _batch_norm(layer: layers.BatchNormalization, weights: Weights) -> LayerSpec:
    shared = {"axis": layer.axis, "scale": layer.scale, "center": layer.center}
    if layer.source == "batch":
        features = next(iter(weights.values())).shape[0] if weights else 0
        return LayerSpec("BatchStatistics", {**shared, "features": features, "eps": layer.epsilon}, dict(weights))
    config = {**shared, "epsilon": layer.epsilon, "momentum": layer.momentum}
    return LayerSpec("BatchNormalization", config, {_NORM[name]: array for name, array in weights.items()})


def _layer_norm(layer: layers.LayerNormalization, weights: Weights) -> LayerSpec:
    axis: Any = list(layer.axes) if len(layer.axes) > 1 else layer.axes[0]
    if layer.moments == "standard" and list(layer.axes) == sorted(layer.axes):  # Keras sorts them
        config = {"axis": axis, "epsilon": layer.epsilon, "scale": layer.scale, "center": layer.center}
        return LayerSpec("LayerNormalization", config, dict(weights))
    shape = list(next(iter(weights.values())).shape) if weights else [1] * len(layer.axes)
    config = {"shape": shape, "axes": list(layer.axes), "eps": layer.epsilon, "moments": layer.moments}
    return LayerSpec("GeneralLayerNorm", config | {"scale": layer.scale, "center": layer.center}, dict(weights))


def _group_norm(layer: layers.GroupNormalization, weights: Weights) -> LayerSpec:
    config = {"groups": layer.groups, "axis": layer.axis, "epsilon": layer.epsilon}
    return LayerSpec("GroupNormalization", config | {"scale": layer.scale, "center": layer.center}, dict(weights))


def _unit_norm(layer: layers.UnitNormalization, weights: Weights) -> LayerSpec:
    if layer.epsilon == 1e-24:  # Keras 3 bounds the length by 1e-12
        return LayerSpec("UnitNormalization", {"axis": list(layer.axes)})
    return LayerSpec("UnitNorm", {"axes": list(layer.axes), "eps": layer.epsilon})


def _standardise(layer: layers.Standardization, weights: Weights) -> LayerSpec:
    config = {"mean_shape": list(weights["mean"].shape), "variance_shape": list(weights["variance"].shape)}
    return LayerSpec("Standardise", config | {"eps": layer.epsilon, "invert": layer.invert}, dict(weights))


def _rescale(layer: layers.Rescaling, weights: Weights) -> LayerSpec:
    if len(layer.scale) == len(layer.offset) == 1:
        return LayerSpec("Rescaling", {"scale": layer.scale[0], "offset": layer.offset[0]})
    return LayerSpec("ScaleAndOffset", {"scale": list(layer.scale), "offset": list(layer.offset)})


def _dropout(layer: layers.Dropout, weights: Weights) -> LayerSpec:
    if layer.noise in _NOISES:
        key = "stddev" if layer.noise == "gaussian_noise" else "rate"
        return LayerSpec(_NOISES[layer.noise], {key: layer.rate})
    if not layer.shared_axes:
        return LayerSpec("Dropout", {"rate": layer.rate})
    if layer.shared_axes in ((1,), (1, 2)):
        return LayerSpec(f"SpatialDropout{len(layer.shared_axes)}D", {"rate": layer.rate})
    raise Unsupported(f"dropout shared along the axes {list(layer.shared_axes)} has no Keras form")


def _attention(layer: layers.Attention, weights: Weights) -> LayerSpec:
    if layer.score == "additive":
        arrays = dict(weights)
        return LayerSpec("AdditiveAttention", {"use_scale": layer.use_scale}, arrays)
    arrays = {_ATTENTION[name]: array.reshape(()) for name, array in weights.items()}
    return LayerSpec("Attention", {"use_scale": layer.use_scale, "score_mode": layer.score}, arrays)


def _heads(layer: layers.MultiHeadAttention, weights: Weights) -> LayerSpec:
    if layer.zero_hidden:
        raise Unsupported("attention to nothing where every key is hidden has no Keras form")
    _, heads, key_size = weights["key.kernel"].shape
    _, value_size, outputs = weights["output.kernel"].shape
    config = {"num_heads": heads, "key_dim": key_size, "value_dim": value_size, "use_bias": layer.use_bias}
    config["output_shape"] = outputs
    arrays = {}
    for name, array in weights.items():
        role, part = name.split(".")
        arrays[f"_{role}_dense.{part}"] = array
    return LayerSpec("MultiHeadAttention", config, arrays)


def _step_mask(layer: layers.StepMask, weights: Weights) -> LayerSpec:
    return LayerSpec("StepMask", {"value": layer.value, "any_feature": layer.any_feature})


def _global_pooling(layer: layers.GlobalPooling, weights: Weights) -> LayerSpec:
    return LayerSpec(f"Global{layer.operation.capitalize()}Pooling", {"keepdims": layer.keepdims})


_MAKERS: dict[type, Maker] = {
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
    layers.ZeroPadding: _ends("ZeroPadding{rank}D", "padding"),
    layers.Cropping: _ends("Cropping{rank}D", "cropping"),
    layers.BatchNormalization: _batch_norm,
    layers.LayerNormalization: _layer_norm,
    layers.GroupNormalization: _group_norm,
    layers.UnitNormalization: _unit_norm,
    layers.Standardization: _standardise,
    layers.Rescaling: _rescale,
    layers.Dropout: _dropout,
    layers.Identity: lambda layer, weights: LayerSpec("Identity"),
    layers.Flatten: lambda layer, weights: LayerSpec("Flatten"),
    layers.Reshape: lambda layer, weights: LayerSpec("Reshape", {"target_shape": list(layer.shape)}),
    layers.Permute: lambda layer, weights: LayerSpec("Permute", {"dims": list(layer.order)}),
    layers.RepeatVector: lambda layer, weights: LayerSpec("RepeatVector", {"n": layer.times}),
    layers.FoldTime: lambda layer, weights: LayerSpec("FoldTime"),
    layers.UnfoldTime: lambda layer, weights: LayerSpec("UnfoldTime"),
    layers.Merge: lambda layer, weights: LayerSpec(_MERGES[layer.operation]),
    layers.Concatenate: lambda layer, weights: LayerSpec("Concatenate", {"axis": layer.axis}),
    layers.Dot: lambda layer, weights: LayerSpec("Dot", {"axes": list(layer.axes), "normalize": layer.normalize}),
    layers.Attention: _attention,
    layers.MultiHeadAttention: _heads,
    layers.LengthMask: lambda layer, weights: LayerSpec("LengthMask"),
    layers.StepMask: lambda layer, weights: LayerSpec(
        "StepMask", {"value": layer.value, "any_feature": layer.any_feature}
    ),
    layers.MergeMasks: lambda layer, weights: LayerSpec("MergedMasks", {"operation": layer.operation}),
    layers.Masking: lambda layer, weights: LayerSpec("MaskedToZero", {"value": layer.value}),
}
"""What makes the Keras layer for every layer that has one."""
