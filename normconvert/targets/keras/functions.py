"""The functions of the equation language in `keras.ops`, and activations as Keras has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from normconvert.errors import Unsupported
from normconvert.ir.activation_text import as_text
from normconvert.ir.functions import FUNCTIONS as INFO
from normconvert.ir.layers import Activation
from normconvert.targets.python_code.numbers import bound_parameters, number

EXPRESSIONS: dict[str, str] = {
    "sigmoid": "ops.sigmoid({x})",
    "tanh": "ops.tanh({x})",
    "relu": "ops.relu({x})",
    "capped_relu": "capped_relu({x}, {slope}, {limit}, {threshold})",
    "leaky_relu": "leaky_relu({x}, {slope})",
    "elu": "elu({x}, {alpha})",
    "celu": "celu({x}, {alpha})",
    "selu": "ops.multiply(1.0507009873554805, elu({x}, 1.6732632423543772))",
    "gelu": "gelu({x})",
    "gelu_tanh": "gelu_tanh({x})",
    "silu": "ops.silu({x})",
    "mish": "ops.multiply({x}, ops.tanh(softplus({x})))",
    "softplus": "softplus({x})",
    "softsign": "ops.softsign({x})",
    "log_sigmoid": "ops.negative(softplus(ops.negative({x})))",
    "hard_sigmoid": "ops.clip({slope} * ({x}) + {offset}, 0.0, 1.0)",
    "hard_silu": "ops.multiply({x}, ops.clip(({x}) / 6.0 + 0.5, 0.0, 1.0))",
    "hard_tanh": "ops.clip({x}, -1.0, 1.0)",
    "hard_shrink": "ops.hard_shrink({x}, {threshold})",
    "soft_shrink": "ops.soft_shrink({x}, {threshold})",
    "tanh_shrink": "ops.tanh_shrink({x})",
    "threshold": "ops.threshold({x}, {limit}, {value})",
    "squareplus": "ops.squareplus({x}, {b})",
    "sparse_plus": "ops.sparse_plus({x})",
    "sparse_sigmoid": "ops.sparse_sigmoid({x})",
    "exp": "ops.exp({x})",
    "log": "ops.log({x})",
    "sqrt": "ops.sqrt({x})",
    "square": "ops.square({x})",
    "abs": "ops.abs({x})",
    "clip": "ops.clip({x}, {low}, {high})",
    "minimum": "ops.minimum({x})",
    "maximum": "ops.maximum({x})",
    "softmax": "ops.softmax({x}, axis={axis})",
    "log_softmax": "ops.log_softmax({x}, axis={axis})",
    "sparsemax": "sparsemax({x}, axis={axis})",
    "cumsum": "ops.cumsum({x}, axis={axis})",
    "sum": "ops.sum({x}, axis={axis}, keepdims={keepdims})",
    "mean": "ops.mean({x}, axis={axis}, keepdims={keepdims})",
    "max": "ops.max({x}, axis={axis}, keepdims={keepdims})",
    "min": "ops.min({x}, axis={axis}, keepdims={keepdims})",
    "glu": "glu({x}, axis={axis})",
    "split": "ops.split({x}, {pieces}, axis={axis})",
    "concat": "ops.concatenate([{x}], axis={axis})",
    "transpose": "ops.swapaxes({x}, -1, -2)",
    "reshape": "ops.reshape({x}, {shape})",
    "conv": 'conv({x}, {strides}, {dilation}, "{padding}")',
}
"""One expression per function; `{x}` stands for the tensor arguments, the rest for parameters and options."""

_NAMED: dict[str, tuple[str, tuple[float, ...]]] = {
    "sigmoid": ("sigmoid", ()),
    "tanh": ("tanh", ()),
    "relu": ("relu", ()),
    "elu": ("elu", (1.0,)),
    "selu": ("selu", ()),
    "silu": ("silu", ()),
    "mish": ("mish", ()),
    "softplus": ("softplus", ()),
    "softsign": ("softsign", ()),
    "log_sigmoid": ("log_sigmoid", ()),
    "hard_sigmoid": ("hard_sigmoid", (1 / 6, 0.5)),
    "hard_silu": ("hard_silu", ()),
    "hard_tanh": ("hard_tanh", ()),
    "exp": ("exponential", ()),
    "softmax": ("softmax", ()),
    "log_softmax": ("log_softmax", ()),
}
"""Keras's name of a function, and the parameters it has there. Keras's `gelu` rounds its constants to float32."""


@dataclass(frozen=True)
class ActivationCode:
    """An activation in the configuration of a layer.

    Attributes:
        name: Keras's own name for it, or that of a function in the file of layers.
        source: that function, or empty.
    """

    name: str
    source: str = ""


def activation_code(activation: Activation | None) -> ActivationCode:
    """An activation as Keras's own, or as a function with its parameters written out.

    Raises:
        Unsupported: the function does not keep the shape of its only argument.
    """
    if activation is None:
        return ActivationCode("linear")
    info = INFO.get(activation.function)
    if info is None or info.tensors != 1 or info.kind not in ("elementwise", "along_axis", "reduction"):
        raise Unsupported(f"{activation.function} is not an activation")
    defaults: list[Any] = list(info.parameters.values())
    values = (*activation.parameters, *defaults[len(activation.parameters) :])
    named = _NAMED.get(activation.function)
    if named is not None and named[1] == values and (activation.axis == -1 or "axis" not in info.options):
        return ActivationCode(named[0])
    texts = bound_parameters(activation.function, [number(value) for value in activation.parameters])
    texts |= {"axis": str(activation.axis)} if "axis" in info.options else {}
    texts |= {"keepdims": "False"} if "keepdims" in info.options else {}
    name = "_".join([activation.function, *map(_in_name, texts.values())])
    name = f"{name}_of_x" if name in EXPRESSIONS or name == "softplus" else name
    code = EXPRESSIONS[activation.function].format(x="x", **texts)
    formula = ", ".join([INFO[activation.function].formula, *(f"{key} = {text}" for key, text in texts.items())])
    told = f'@keras.saving.register_keras_serializable(PACKAGE, "{as_text(activation)}")'
    return ActivationCode(name, f'{told}\ndef {name}(x):\n    """`{formula}`."""\n    return {code}')


def _in_name(text: str) -> str:
    """A number or a word as a part of a name: 0.2 as `0p2`, -1 as `m1`."""
    return "".join(c for c in text.replace(".", "p").replace("-", "m") if c.isalnum())
