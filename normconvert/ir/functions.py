"""The functions of the equation language: one table that the checker, the interpreter and every target share.

A function is listed once here with its kind and its options; the interpreter and each target hold one
implementation per name, and a test compares the key sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from normconvert.ir.expressions import Constant

Kind = Literal["elementwise", "along_axis", "reduction", "structure"]


@dataclass(frozen=True)
class FunctionInfo:
    """What the checker knows of a function.

    Attributes:
        kind: `elementwise` keeps (broadcasts) shapes; `along_axis` keeps the shape but reads a whole axis;
            `reduction` removes or shrinks an axis; `structure` rearranges.
        tensors: how many tensor arguments it takes; None for one or more.
        parameters: further positional numbers (a slope, a limit), by name, with defaults; None has no default.
        options: keyword options with defaults; None has no default.
        formula: what it computes.
    """

    kind: Kind
    tensors: int | None
    formula: str
    parameters: dict[str, float | None] = field(default_factory=dict)
    options: dict[str, Constant | None] = field(default_factory=dict)


def _unary(formula: str, **parameters: float | None) -> FunctionInfo:
    return FunctionInfo("elementwise", 1, formula, parameters)


_AXIS: dict[str, Constant | None] = {"axis": -1}
_REDUCE: dict[str, Constant | None] = {"axis": -1, "keepdims": False}

FUNCTIONS: dict[str, FunctionInfo] = {
    "sigmoid": _unary("1 / (1 + exp(-x))"),
    "tanh": _unary("tanh(x)"),
    "relu": _unary("max(x, 0)"),
    "capped_relu": _unary(
        "limit if x >= limit, x if threshold < x < limit, else slope * (x - threshold)",
        slope=0.0,
        limit=float("inf"),
        threshold=0.0,
    ),
    "leaky_relu": _unary("x if x >= 0 else slope * x", slope=None),
    "elu": _unary("x if x > 0 else alpha * (exp(x) - 1)", alpha=1.0),
    "celu": _unary("max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)", alpha=1.0),
    "selu": _unary("1.0507009873554805 * elu(x, 1.6732632423543772)"),
    "gelu": _unary("x * (1 + erf(x / sqrt(2))) / 2"),
    "gelu_tanh": _unary("x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2"),
    "silu": _unary("x * sigmoid(x)"),
    "mish": _unary("x * tanh(softplus(x))"),
    "softplus": _unary("log(1 + exp(x))"),
    "softsign": _unary("x / (1 + |x|)"),
    "log_sigmoid": _unary("log(sigmoid(x))"),
    "hard_sigmoid": _unary("clip(slope * x + offset, 0, 1)", slope=None, offset=0.5),
    "hard_silu": _unary("x * hard_sigmoid(x, 1/6, 1/2)"),
    "hard_tanh": _unary("clip(x, -1, 1)"),
    "hard_shrink": _unary("x if |x| > threshold else 0", threshold=0.5),
    "soft_shrink": _unary("sign(x) * max(|x| - threshold, 0)", threshold=0.5),
    "tanh_shrink": _unary("x - tanh(x)"),
    "threshold": _unary("x if x > limit else value", limit=None, value=0.0),
    "squareplus": _unary("(x + sqrt(x^2 + b)) / 2", b=4.0),
    "sparse_plus": _unary("0 if x <= -1, x if x >= 1, else (x + 1)^2 / 4"),
    "sparse_sigmoid": _unary("clip((x + 1) / 2, 0, 1)"),
    "exp": _unary("e^x"),
    "log": _unary("natural logarithm"),
    "sqrt": _unary("square root"),
    "square": _unary("x * x"),
    "abs": _unary("|x|"),
    "clip": _unary("min(max(x, low), high)", low=None, high=None),
    "minimum": FunctionInfo("elementwise", 2, "the smaller of two"),
    "maximum": FunctionInfo("elementwise", 2, "the larger of two"),
    "softmax": FunctionInfo("along_axis", 1, "exp(x) / sum(exp(x)) along an axis", options=dict(_AXIS)),
    "log_softmax": FunctionInfo("along_axis", 1, "log(softmax(x)) along an axis", options=dict(_AXIS)),
    "sparsemax": FunctionInfo("along_axis", 1, "Euclidean projection onto the simplex", options=dict(_AXIS)),
    "cumsum": FunctionInfo("along_axis", 1, "running sum along an axis", options=dict(_AXIS)),
    "sum": FunctionInfo("reduction", 1, "sum along an axis", options=dict(_REDUCE)),
    "mean": FunctionInfo("reduction", 1, "mean along an axis", options=dict(_REDUCE)),
    "max": FunctionInfo("reduction", 1, "largest along an axis", options=dict(_REDUCE)),
    "min": FunctionInfo("reduction", 1, "smallest along an axis", options=dict(_REDUCE)),
    "glu": FunctionInfo("reduction", 1, "a * sigmoid(b) where a, b are the halves of an axis", options=dict(_AXIS)),
    "split": FunctionInfo("structure", 1, "equal pieces of an axis", {"pieces": None}, dict(_AXIS)),
    "concat": FunctionInfo("structure", None, "join along an axis", options=dict(_AXIS)),
    "transpose": FunctionInfo("structure", 1, "swap the last two axes"),
    "reshape": FunctionInfo("structure", 1, "other axes, same order of elements", options={"shape": None}),
    "conv": FunctionInfo(
        "structure",
        2,
        "convolution of [*space, channels] with a kernel [*window, channels, filters]",
        options={"strides": 1, "padding": "valid", "dilation": 1},
    ),
}
"""Every function, by the name it has in the language.

Axes in options are those of one sample (the batch axis is not counted); a negative axis counts from the end.
"""
