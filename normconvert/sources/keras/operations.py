"""Operations on tensors inside a functional model: `x + y`, `2 * x`, `ops.relu(x)`, `x[:, -1]`.

Keras 3 writes them as entries without `trainable`, named after the operation; tf.keras as `TFOpLambda` with the name of
a TensorFlow function, and slices as `SlicingOpLambda`. A mask does not pass through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from normconvert.errors import Unsupported
from normconvert.ir.layers import Activation, AnyLayer, Apply, Identity, Merge, Rescaling
from normconvert.sources.keras.assembly import Assembly, Call, Spec, Value, handles
from normconvert.sources.keras.axis_operations import AXIS_OPERATIONS
from normconvert.sources.keras.operands import Builder, Number, Operands, formula, tensor_names

_Merged = Literal["add", "subtract", "multiply", "maximum", "minimum"]
_Parameters = tuple[tuple[tuple[str, ...], float], ...]

_SYNONYMS = {
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "truedivide": "divide",
    "div": "divide",
    "neg": "negative",
    "absolute": "abs",
    "pow": "power",
    "swish": "silu",
    "hardswish": "hard_silu",
    "addv2": "add",
    "clipbyvalue": "clip",
}


def _merge(operation: _Merged) -> Builder:
    """Two tensors, or a tensor and a number."""

    def build(operands: Operands) -> AnyLayer:
        numbers = operands.numbers()
        if len(operands.shapes) == 2 and not numbers:
            _same_rank(operands)
            return Merge(kind=operation, operation=operation)
        if len(operands.shapes) != 1 or len(numbers) != 1:
            raise operands.unsupported("is not of two tensors, or a tensor and a number")
        (number,) = numbers
        first = isinstance(operands.arguments[0], Number)
        layers: dict[str, AnyLayer] = {
            "add": _affine(operation, 1.0, number),
            "subtract": _affine(operation, -1.0, number) if first else _affine(operation, 1.0, -number),
            "multiply": _affine(operation, number, 0.0),
            "maximum": Apply(kind=operation, activation=Activation("clip", (number, float("inf")))),
            "minimum": Apply(kind=operation, activation=Activation("clip", (float("-inf"), number))),
        }
        return layers[operation]

    return build


def _same_rank(operands: Operands) -> None:
    """Operations align the last axes, batch axis included: only layers put axes of size 1 after it."""
    if len({len(shape) for shape in operands.shapes}) > 1:
        raise operands.unsupported("is of tensors with different numbers of axes")


def _divide(operands: Operands) -> AnyLayer:
    numbers = operands.numbers()
    if len(operands.shapes) == 2 and not numbers:
        _same_rank(operands)
        return formula(operands, "x0 / x1")
    if len(operands.shapes) != 1 or len(numbers) != 1:
        raise operands.unsupported("is not of two tensors, or a tensor and a number")
    if isinstance(operands.arguments[0], Number):
        return formula(operands, f"{numbers[0]!r} / x")
    if numbers[0] == 0:
        raise operands.unsupported("divides by zero")
    return _affine("divide", 1.0 / numbers[0], 0.0)


def _negative(operands: Operands) -> AnyLayer:
    return _affine("negative", -1.0, 0.0)


def _power(operands: Operands) -> AnyLayer:
    numbers = operands.numbers()
    expressions = {0.5: "sqrt(x)", 1.0: "x", 2.0: "square(x)", 3.0: "x * x * x", 4.0: "square(square(x))"}
    expressions |= {-0.5: "1 / sqrt(x)", -1.0: "1 / x"}
    if len(numbers) != 1 or isinstance(operands.arguments[0], Number) or numbers[0] not in expressions:
        raise operands.unsupported(f"has an exponent other than {', '.join(map(str, sorted(expressions)))}")
    return formula(operands, expressions[numbers[0]])


def _clip(operands: Operands) -> AnyLayer:
    limits = operands.numbers()
    low = operands.number("x_min", "clip_value_min", default=limits[0] if limits else float("-inf"))
    high = operands.number("x_max", "clip_value_max", default=limits[1] if len(limits) > 1 else float("inf"))
    return Apply(kind="clip", activation=Activation("clip", (low, high)))


def _matmul(operands: Operands) -> AnyLayer:
    if len(operands.shapes) != 2 or operands.options.get("adjoint_a") or operands.options.get("adjoint_b"):
        raise operands.unsupported("is not of two tensors")
    _same_rank(operands)
    a, b = (
        f"transpose({name})" if operands.options.get(option) else name
        for name, option in zip(tensor_names(operands), ("transpose_a", "transpose_b"), strict=True)
    )
    return formula(operands, f"{a} @ {b}")


def _identity(operands: Operands) -> AnyLayer:
    dtype = operands.options.get("dtype", "float32")
    if not str(dtype).endswith(("float32", "float64", "float16", "bfloat16")):
        raise operands.unsupported(f"gives {dtype}")
    return Identity(kind=operands.name)


def _affine(name: str, scale: float, offset: float) -> Rescaling:
    return Rescaling(kind=name, scale=(scale,), offset=(offset,))


@dataclass(frozen=True)
class _Function:
    """A function of the equation language with the named arguments that bind its parameters."""

    name: str
    parameters: _Parameters = ()

    def __call__(self, operands: Operands) -> AnyLayer:
        if len(operands.shapes) != 1 or operands.numbers():
            raise operands.unsupported("is not of one tensor")
        values = tuple(operands.number(*names, default=default) for names, default in self.parameters)
        return Apply(kind=operands.name, activation=Activation(self.name, values))


def _relu(operands: Operands) -> AnyLayer:
    """`tf.nn.relu` and `ops.relu` take no parameters, `keras.backend.relu` does."""
    if operands.number("alpha", "negative_slope", default=0.0):
        raise operands.unsupported("has a slope below zero")
    return _Function("relu")(operands)


def _gelu(operands: Operands) -> AnyLayer:
    """`tf.nn.gelu` is exact unless told otherwise; Keras 3 always says."""
    return _Function("gelu_tanh" if operands.options.get("approximate") else "gelu")(operands)


_PLAIN = (
    "sigmoid", "tanh", "softplus", "softsign", "silu", "selu", "mish", "exp", "log", "sqrt", "square", "abs",
    "log_sigmoid", "hard_silu", "hard_tanh", "tanh_shrink", "sparse_plus", "sparse_sigmoid",
)  # fmt: skip
"""Functions without parameters, by their names in the equation language."""

OPERATIONS: dict[str, Builder] = {
    "add": _merge("add"),
    "subtract": _merge("subtract"),
    "multiply": _merge("multiply"),
    "maximum": _merge("maximum"),
    "minimum": _merge("minimum"),
    "divide": _divide,
    "negative": _negative,
    "power": _power,
    "matmul": _matmul,
    "clip": _clip,
    "cast": _identity,
    "identity": _identity,
    "stopgradient": _identity,
    "relu": _relu,
    "gelu": _gelu,
    "relu6": lambda operands: Apply(kind="relu6", activation=Activation("capped_relu", (0.0, 6.0, 0.0))),
    "rsqrt": lambda operands: formula(operands, "1 / sqrt(x)"),
    "reciprocal": lambda operands: formula(operands, "1 / x"),
    "leakyrelu": _Function("leaky_relu", ((("negative_slope", "alpha"), 0.2),)),
    "elu": _Function("elu", ((("alpha",), 1.0),)),
    "celu": _Function("celu", ((("alpha",), 1.0),)),
    "hardsigmoid": _Function("hard_sigmoid", (((), 1 / 6), ((), 0.5))),
    **{name.replace("_", ""): _Function(name) for name in _PLAIN},
    **AXIS_OPERATIONS,
}
"""Builders by the operation's name in lower case and without underscores."""


@handles("operation")
def operation(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """One operation on tensors and numbers."""
    given = str(spec.config.get("function", spec.class_name))
    name = given.split(".")[-1].lower().replace("_", "")
    name = _SYNONYMS.get(name, name).replace("_", "")
    if name == "copy":  # the same value without a mask
        return [Value(call.inputs[0].name)]
    builder = OPERATIONS.get(name)
    if builder is None:
        raise Unsupported(
            f"the operation {given} is unknown", remedy=f"Known: {', '.join(sorted({*OPERATIONS, *_SYNONYMS}))}"
        )
    shapes = tuple(assembly.shapes[value.name] for value in call.inputs)
    operands = Operands(name, shapes, call.arguments, _options(spec.config, call))
    return [Value(assembly.add_once(spec.path, builder(operands), [value.name for value in call.inputs]))]


def _options(config: dict[str, Any], call: Call) -> dict[str, Any]:
    """Named arguments: Keras 3 keeps them in the operation's configuration, tf.keras in the call."""
    options = {key: value for key, value in {**config, **call.options}.items() if value is not None}
    for key in set(options) - _OPTIONS:
        if options[key] is not False:
            raise Unsupported(f"the operation has the option {key}={options[key]!r}, which is unknown")
    return options


_OPTIONS = frozenset(
    {
        "name", "dtype", "function", "trainable", "adjoint_a", "adjoint_b", "alpha", "approximate", "axes", "axis",
        "axis1", "axis2", "clip_value_max", "clip_value_min", "dim", "item", "keep_dims", "keepdims", "negative_slope",
        "newshape", "perm", "reduction_indices", "shape", "squeeze_dims", "transpose_a", "transpose_b", "x_max",
        "x_min",
    }
)  # fmt: skip
"""Named arguments that a builder reads, or that change nothing."""
