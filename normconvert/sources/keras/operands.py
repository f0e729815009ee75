"""What counts as an operation on tensors, what it is given, and layers written as a formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from normconvert.errors import CorruptFile, Unsupported
from normconvert.ir.cell import Cell
from normconvert.ir.layers import AnyLayer, Formula
from normconvert.ir.shapes.basics import Shape

Number = (int, float)


@dataclass(frozen=True)
class Operands:
    """One call of an operation.

    Attributes:
        name: of the operation, in lower case and without underscores, such as `reducemean`.
        shapes: of one sample of each tensor.
        arguments: positional ones in order: numbers, and None for each tensor.
        options: named ones, from the operation's configuration and its call; those that are None are left out.
    """

    name: str
    shapes: tuple[Shape, ...]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def numbers(self) -> tuple[float, ...]:
        """The positional arguments that are numbers."""
        return tuple(float(value) for value in self.arguments if isinstance(value, Number))

    def number(self, *names: str, default: float) -> float:
        """A named argument under the first of its names that is given."""
        for name in names:
            if name in self.options:
                return float(self.options[name])
        return default

    def axis(self, value: Any, *, new: int = 0) -> int:
        """An axis of the first tensor, counted from 1 as the batch axis is 0.

        `new` is how many axes the result has more.

        Raises:
            Unsupported: it is the batch axis.
            CorruptFile: there is no such axis.
        """
        rank = len(self.shapes[0]) + 1 + new
        if type(value) is not int or not -rank <= value < rank:
            raise CorruptFile(f"the operation names the axis {value!r} of a tensor with {rank - new} axes")
        if value % rank == 0:
            raise self.unsupported("works along the batch axis")
        return value % rank

    def unsupported(self, why: str) -> Unsupported:
        """The error for a call that has no equivalent."""
        return Unsupported(f"the operation {self.name} {why}", remedy="Replace it by a layer, and save the model again")


Builder = Callable[[Operands], AnyLayer]
"""The layer that computes an operation."""


def formula(operands: Operands, expression: str) -> Formula:
    """A layer `y = expression`, in which the tensors are called x, or x0, x1, ..."""
    names = tensor_names(operands)
    cell = Cell(
        equations=f"layer {operands.name}({', '.join(names)}) -> y:\n    y = {expression}\n",
        dims={},
        input_shapes=dict(zip(names, operands.shapes, strict=True)),
    )
    return Formula(kind=operands.name, cell=cell)


def tensor_names(operands: Operands) -> list[str]:
    """What a formula calls the tensors."""
    count = len(operands.shapes)
    return ["x"] if count == 1 else [f"x{number}" for number in range(count)]


_OPERATIONS = frozenset(
    {
        "Abs", "Absolute", "Add", "Amax", "Amin", "Cast", "Celu", "Clip", "Concatenate", "Copy", "Divide", "Elu", "Exp",
        "ExpandDims", "Flip", "Gelu", "GetItem", "HardSigmoid", "HardSilu", "HardSwish", "HardTanh", "Identity",
        "LeakyRelu", "Log", "LogSigmoid", "LogSoftmax", "Matmul", "Max", "Maximum", "Mean", "Min", "Minimum", "Mish",
        "Multiply", "Negative", "Power", "Reciprocal", "Relu", "Relu6", "Reshape", "Rsqrt", "Selu", "Sigmoid", "Silu",
        "Softmax", "Softplus", "Softsign", "Sqrt", "Square", "Squeeze", "Stack", "Std", "StopGradient", "Subtract",
        "Sum", "Swapaxes", "Tanh", "Transpose", "TrueDivide", "Var",
    }
)  # fmt: skip
"""Operations of `keras.ops` that Keras 3 writes among the layers of a model."""


def is_operation(class_name: str, config: Mapping[str, Any], major: int) -> bool:
    """Whether an entry is an operation; some have the name of a layer, which would say if it is trainable."""
    if class_name in ("TFOpLambda", "SlicingOpLambda"):
        return True
    return major == 3 and class_name in _OPERATIONS and "trainable" not in config
