"""The module of each layer without recurrence: its constructor, and its arrays as PyTorch wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from normconvert.errors import Unsupported
from normconvert.ir import layers
from normconvert.ir.layers import AnyLayer
from normconvert.ir.model import Array
from normconvert.targets.python_code.numbers import number
from normconvert.targets.python_code.text import call
from normconvert.targets.torch.functions import activation_module
from normconvert.targets.torch.module import Maker, Module, Weights, with_bias
from normconvert.targets.torch.norm_modules import NORMS
from normconvert.targets.torch.window_modules import WINDOWS


def module(layer: AnyLayer, weights: Weights) -> Module:
    """The module of a layer, without its activation.

    Raises:
        Unsupported: PyTorch has no such layer and neither have we.
    """
    if type(layer) in _CONSTRUCTORS:
        return Module(_CONSTRUCTORS[type(layer)](layer))
    maker = _MAKERS.get(type(layer))
    if maker is None:
        raise Unsupported(f"the layer {layer.kind or type(layer).__name__} has no PyTorch form")
    return maker(layer, weights)


def _dense(layer: layers.Dense, weights: Weights) -> Module:
    inputs, units = weights["kernel"].shape
    flag = "" if layer.use_bias else "bias=False"
    return Module(call("nn.Linear", [str(inputs), str(units), flag]), with_bias(weights, weights["kernel"].T))


def _embedding(layer: layers.Embedding, weights: Weights) -> Module:
    rows, units = weights["embeddings"].shape
    return Module(f"nn.Embedding({rows}, {units})", {"weight": weights["embeddings"]})


def _apply(layer: layers.Apply, weights: Weights) -> Module:
    made = activation_module(layer.activation)
    return Module(made.constructor, source=made.source, class_name=made.constructor.split("(")[0])


def _prelu(layer: layers.PReLU, weights: Weights) -> Module:
    return Module(f"PReLU({list(weights['alpha'].shape)})", {"weight": weights["alpha"]})


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


def _dot(layer: layers.Dot, weights: Weights) -> Module:
    return Module(f"Dot({layer.axes}{', normalize=True' if layer.normalize else ''})")


def _attention(layer: layers.Attention, weights: Weights) -> Module:
    scale = str(list(weights["scale"].shape)) if layer.use_scale else "None"
    arrays = {name: array.reshape(()) if name == "concat_weight" else array for name, array in weights.items()}
    return Module(f'Attention("{layer.score}", {scale}, {layer.causal})', arrays)


def _multi_head_attention(layer: layers.MultiHeadAttention, weights: Weights) -> Module:
    inputs = tuple(weights[f"{role}.kernel"].shape[0] for role in ("query", "key", "value"))
    _, heads, key_size = weights["key.kernel"].shape
    _, value_size, outputs = weights["output.kernel"].shape
    given = [str(inputs), str(heads), str(key_size), str(value_size), str(outputs)]
    given += ["" if layer.use_bias else "bias=False", "causal=True" if layer.causal else ""]
    given.append("zero_hidden=True" if layer.zero_hidden else "")
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


_CONSTRUCTORS: dict[type, Callable[[Any], str]] = {
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

_MAKERS: dict[type, Maker] = {
    **WINDOWS,
    **NORMS,
    layers.Dense: _dense,
    layers.Embedding: _embedding,
    layers.Apply: _apply,
    layers.PReLU: _prelu,
    layers.Dropout: _dropout,
    layers.Dot: _dot,
    layers.Attention: _attention,
    layers.MultiHeadAttention: _multi_head_attention,
}
"""What makes the module of every other layer."""
