"""The functions of the equation language in PyTorch: an expression for each, and the module for an activation."""

from __future__ import annotations

from dataclasses import dataclass

from normconvert.errors import Unsupported
from normconvert.ir.functions import FUNCTIONS as INFO
from normconvert.ir.layers import Activation
from normconvert.targets.python_code.names import class_name
from normconvert.targets.python_code.numbers import bound_parameters, number

EXPRESSIONS: dict[str, str] = {
    "sigmoid": "torch.sigmoid({x})",
    "tanh": "torch.tanh({x})",
    "relu": "torch.relu({x})",
    "capped_relu": "capped_relu({x}, {slope}, {limit}, {threshold})",
    "leaky_relu": "F.leaky_relu({x}, {slope})",
    "elu": "F.elu({x}, {alpha})",
    "celu": "F.celu({x}, {alpha})",
    "selu": "F.selu({x})",
    "gelu": "F.gelu({x})",
    "gelu_tanh": 'F.gelu({x}, approximate="tanh")',
    "silu": "F.silu({x})",
    "mish": "F.mish({x})",
    "softplus": "softplus({x})",
    "softsign": "F.softsign({x})",
    "log_sigmoid": "F.logsigmoid({x})",
    "hard_sigmoid": "hard_sigmoid({x}, {slope}, {offset})",
    "hard_silu": "F.hardswish({x})",
    "hard_tanh": "F.hardtanh({x})",
    "hard_shrink": "F.hardshrink({x}, {threshold})",
    "soft_shrink": "F.softshrink({x}, {threshold})",
    "tanh_shrink": "F.tanhshrink({x})",
    "threshold": "F.threshold({x}, {limit}, {value})",
    "squareplus": "squareplus({x}, {b})",
    "sparse_plus": "sparse_plus({x})",
    "sparse_sigmoid": "sparse_sigmoid({x})",
    "exp": "torch.exp({x})",
    "log": "torch.log({x})",
    "sqrt": "torch.sqrt({x})",
    "square": "torch.square({x})",
    "abs": "torch.abs({x})",
    "clip": "torch.clamp({x}, {low}, {high})",
    "minimum": "torch.minimum({x})",
    "maximum": "torch.maximum({x})",
    "softmax": "torch.softmax({x}, dim={axis})",
    "log_softmax": "torch.log_softmax({x}, dim={axis})",
    "sparsemax": "sparsemax({x}, dim={axis})",
    "cumsum": "torch.cumsum({x}, dim={axis})",
    "sum": "torch.sum({x}, dim={axis}, keepdim={keepdims})",
    "mean": "torch.mean({x}, dim={axis}, keepdim={keepdims})",
    "max": "torch.amax({x}, dim={axis}, keepdim={keepdims})",
    "min": "torch.amin({x}, dim={axis}, keepdim={keepdims})",
    "glu": "F.glu({x}, dim={axis})",
    "split": "torch.chunk({x}, {pieces}, dim={axis})",
    "concat": "torch.cat(({x}), dim={axis})",
    "transpose": "torch.transpose({x}, -1, -2)",
    "reshape": "torch.reshape({x}, {shape})",
    "conv": 'conv_channels_last({x}, {strides}, {dilation}, "{padding}")',
}
"""One expression per function; `{x}` stands for the tensor arguments, the rest for parameters and options."""

_MODULES: dict[str, str] = {
    "sigmoid": "nn.Sigmoid()",
    "tanh": "nn.Tanh()",
    "relu": "nn.ReLU()",
    "leaky_relu": "nn.LeakyReLU({slope})",
    "elu": "nn.ELU({alpha})",
    "celu": "nn.CELU({alpha})",
    "selu": "nn.SELU()",
    "gelu": "nn.GELU()",
    "gelu_tanh": 'nn.GELU(approximate="tanh")',
    "silu": "nn.SiLU()",
    "mish": "nn.Mish()",
    "softsign": "nn.Softsign()",
    "log_sigmoid": "nn.LogSigmoid()",
    "hard_silu": "nn.Hardswish()",
    "hard_tanh": "nn.Hardtanh()",
    "hard_shrink": "nn.Hardshrink({threshold})",
    "soft_shrink": "nn.Softshrink({threshold})",
    "tanh_shrink": "nn.Tanhshrink()",
    "threshold": "nn.Threshold({limit}, {value})",
    "softmax": "nn.Softmax(dim={axis})",
    "log_softmax": "nn.LogSoftmax(dim={axis})",
    "glu": "nn.GLU(dim={axis})",
}


@dataclass(frozen=True)
class ActivationModule:
    """A module that applies an activation.

    Attributes:
        constructor: the expression that makes it.
        source: the class to put into the file, or empty for one of PyTorch's own.
    """

    constructor: str
    source: str = ""


def activation_module(activation: Activation) -> ActivationModule:
    """The module for an activation.

    Raises:
        Unsupported: the function does not keep the shape of its only argument.
    """
    info = INFO.get(activation.function)
    if info is None or info.tensors != 1 or info.kind not in ("elementwise", "along_axis", "reduction"):
        raise Unsupported(f"{activation.function} is not an activation")
    values = bound_parameters(activation.function, [number(value) for value in activation.parameters])
    if "axis" in info.options:
        values["axis"] = str(activation.axis)
    if activation.function in _MODULES:
        return ActivationModule(_MODULES[activation.function].format(**values))
    name = class_name(activation.function)
    return ActivationModule(f"{name}({', '.join(values.values())})", _module_class(name, activation.function, values))


def _module_class(name: str, function: str, values: dict[str, str]) -> str:
    types = {key: "int" if key == "axis" else "float" for key in values}
    fixed = {"keepdims": "False"} if "keepdims" in INFO[function].options else {}
    call = EXPRESSIONS[function].format(x="x", **{key: f"self.{key}" for key in values}, **fixed)
    lines = [f"class {name}(nn.Module):", f'    """`{INFO[function].formula}`."""', ""]
    if values:
        arguments = ", ".join(f"{key}: {kind}" for key, kind in types.items())
        left, right = ", ".join(f"self.{key}" for key in values), ", ".join(values)
        lines += [f"    def __init__(self, {arguments}) -> None:", "        super().__init__()"]
        lines += [f"        {left} = {right}", ""]
    lines += ["    def forward(self, x: Tensor) -> Tensor:", f"        return {call}"]
    return "\n".join(lines)
