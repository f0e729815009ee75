"""The sizes of a cell as names, so that layers of different sizes share one class."""

from __future__ import annotations

import re

from normconvert.ir.cell import Cell
from normconvert.ir.expressions import Binary, Equations, Name, walk
from normconvert.ir.norm import Norm
from normconvert.targets.torch.names import Namer

_LARGEST_FACTOR = 8


class Sizes:
    """Which number of a cell's shapes is which size.

    Attributes:
        names: the sizes the constructor takes, in order.
    """

    def __init__(self, cell: Cell, equations: Equations) -> None:
        namer = Namer({"reverse", "sequences", "dropout", "self"})
        self.of_dim = {dim: namer(dim) for dim in cell.dims}
        self.values = {self.of_dim[dim]: value for dim, value in cell.dims.items()}
        shape = cell.input_shapes[equations.inputs[0]]
        self.inputs = self.of_dim.get("inputs", "")
        if not self.inputs and len(shape) == 1 and shape[0] is not None:
            self.inputs = namer("inputs")
            self.values = {self.inputs: shape[0], **self.values}
        steps = {norm.steps for norm in cell.norms.values() if norm.steps is not None}
        self.steps = namer("steps") if len(steps) == 1 else ""
        if self.steps:
            self.values[self.steps] = next(iter(value for value in steps if value is not None))
        self.input_matrices = {
            node.right.name
            for equation in equations.body
            for node in walk(equation.value)
            if isinstance(node, Binary) and node.operator == "@" and isinstance(node.right, Name)
            if isinstance(node.left, Name) and node.left.name == equations.inputs[0]
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments' names."""
        return tuple(self.values)

    def text(self, value: int) -> str:
        """A number as a size, a multiple of one, or itself."""
        sizes = {name: size for name, size in self.values.items() if name not in (self.inputs, self.steps)}
        for name, size in sizes.items():
            if value == size:
                return name
        if self.inputs and value == self.values[self.inputs]:
            return self.inputs
        for name, size in sizes.items():
            if size > 1 and value % size == 0 and value // size <= _LARGEST_FACTOR:
                return f"{value // size} * {name}"
        return str(value)

    def inside(self, value: int) -> str:
        """A number as a size, inside a method."""
        text = self.text(value)
        for name in self.of_dim.values():
            if text == name or text.endswith(f" * {name}"):
                return f"{text[: -len(name)]}self.{name}"
        return str(value)

    def shape(self, parameter: str, shape: tuple[int, ...]) -> str:
        """The shape of a parameter."""
        texts = [self.text(value) for value in shape]
        if self.inputs and parameter in self.input_matrices and shape[0] == self.values[self.inputs]:
            texts[0] = self.inputs
        return ", ".join(texts) if texts else "()"

    def rows(self, norm: Norm) -> str:
        """The number of rows of per-step arrays."""
        return self.steps or str(norm.steps)

    def arguments(self) -> tuple[str, ...]:
        """The constructor's arguments for this cell."""
        return tuple(str(value) for value in self.values.values())

    def kept(self, code: str) -> list[str]:
        """Sizes that code reads as attributes."""
        return [name for name in self.of_dim.values() if re.search(rf"self\.{name}\b", code)]

    def attributes(self) -> dict[str, str]:
        """Code of each size of the cell inside a method."""
        return {dim: f"self.{name}" for dim, name in self.of_dim.items()}
