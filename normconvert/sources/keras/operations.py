"""Arithmetic on tensors inside a functional model: `x + y`, `2 * x`, `ops.relu(x)`.

Keras 3 writes them as entries without `trainable`, named after the operation; tf.keras as `TFOpLambda` with the name of
a TensorFlow function. A mask does not pass through them.
"""

from __future__ import annotations

from typing import Literal

from normconvert.errors import Unsupported
from normconvert.ir.layers import Activation, AnyLayer, Apply, Merge, Rescaling
from normconvert.sources.keras.assembly import Assembly, Call, Spec, Value, handles

_Merged = Literal["add", "subtract", "multiply", "maximum", "minimum"]

_MERGED: dict[str, _Merged] = {
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "maximum": "maximum",
    "minimum": "minimum",
}
_SYNONYMS = {
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "truedivide": "divide",
    "neg": "negative",
    "absolute": "abs",
}
_FUNCTIONS = {
    "relu": Activation("relu"),
    "sigmoid": Activation("sigmoid"),
    "tanh": Activation("tanh"),
    "softmax": Activation("softmax"),
    "softplus": Activation("softplus"),
    "silu": Activation("silu"),
    "exp": Activation("exp"),
    "log": Activation("log"),
    "sqrt": Activation("sqrt"),
    "square": Activation("square"),
    "abs": Activation("abs"),
}


@handles("operation")
def operation(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """One operation on one tensor and a number, or on two tensors."""
    name = str(spec.config.get("function", spec.class_name)).split(".")[-1].lower().replace("_", "")
    name = _SYNONYMS.get(name, name)
    layer = _layer(name, call)
    if layer is None:
        raise Unsupported(
            f"the operation {spec.config.get('function', spec.class_name)} is unknown",
            remedy=f"Known: {', '.join(sorted({*_MERGED, 'divide', 'negative', *_FUNCTIONS}))}",
        )
    return [Value(assembly.add_once(spec.path, layer, [value.name for value in call.inputs]))]


def _layer(name: str, call: Call) -> AnyLayer | None:
    """The layer that computes the operation; numbers among its arguments are bound in it."""
    numbers = [argument for argument in call.arguments if isinstance(argument, (int, float))]
    if name in _MERGED and len(call.inputs) == 2:
        return Merge(kind=name, operation=_MERGED[name])
    if len(call.inputs) != 1:
        return None
    if name in _FUNCTIONS and not numbers:
        return Apply(kind=name, activation=_FUNCTIONS[name])
    if name == "negative":
        return _affine(name, -1.0, 0.0)
    if len(numbers) != 1:
        return None
    number, first = float(numbers[0]), isinstance(call.arguments[0], (int, float))
    affine: dict[str, tuple[float, float]] = {
        "add": (1.0, number),
        "multiply": (number, 0.0),
        "subtract": (-1.0, number) if first else (1.0, -number),
    }
    if name == "divide" and not first and number:
        return _affine(name, 1.0 / number, 0.0)
    return _affine(name, *affine[name]) if name in affine else None


def _affine(name: str, scale: float, offset: float) -> Rescaling:
    return Rescaling(kind=name, scale=(scale,), offset=(offset,))
