"""The sizes of a cell as names, so that layers of different sizes share one class.

Where a cell says how its shapes are written (`4*units`), that is used. Otherwise a number stands for the size that
has its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from normconvert.ir.cell import Cell
from normconvert.ir.expressions import Binary, Bound, Equations, Name, walk
from normconvert.ir.norm import Norm
from normconvert.ir.sizes import parse_size
from normconvert.targets.python_code.names import Namer

_LARGEST_FACTOR = 8


def size_code(bound: Bound, names: Mapping[str, str]) -> str:
    """The code of a size; `names` is how the code writes the cell's sizes."""
    text = str(bound.constant) if bound.constant or not bound.terms else ""
    for name, factor in bound.terms:
        sign = "-" if factor < 0 else "+"
        term = names[name] if abs(factor) == 1 else f"{abs(factor)} * {names[name]}"
        text = f"{text} {sign} {term}" if text else term if factor > 0 else f"-{term}"
    return text


class Sizes:
    """Which number of a cell's shapes is which size.

    Attributes:
        names: the sizes that the constructor may take, in order.
    """

    def __init__(self, cell: Cell, equations: Equations) -> None:
        namer = Namer({"reverse", "sequences", "dropout", "self"})
        self.of_dim = {dim: namer(dim) for dim in cell.dims}
        self.values = {self.of_dim[dim]: value for dim, value in cell.dims.items()}
        self.written = {name: [parse_size(text) for text in shape] for name, shape in cell.written.items()}
        shape = cell.input_shapes[equations.inputs[0]]
        self.inputs = self.of_dim.get("inputs", "")
        if not self.inputs and len(shape) == 1 and shape[0] is not None and equations.inputs[0] not in self.written:
            self.inputs = namer("inputs")
            self.values = {self.inputs: shape[0], **self.values}
        steps = {norm.steps for norm in cell.norms.values() if norm.steps is not None}
        self.steps = ""
        if len(steps) == 1:
            (rows,) = steps
            self.steps = self.of_dim["steps"] if cell.dims.get("steps") == rows else namer("steps")
            self.values[self.steps] = rows
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

    def shape(self, name: str, shape: Sequence[int | None]) -> list[str]:
        """The shape of what has a name in the cell, in the constructor and in docstrings; `?` for a free size."""
        if name in self.written:
            codes = [size_code(bound, self.of_dim) for bound in self.written[name]]
            return ["?" if size is None else code for code, size in zip(codes, shape, strict=True)]
        texts = ["?" if size is None else self._by_value(size) for size in shape]
        if self.inputs and name in self.input_matrices and shape[0] == self.values[self.inputs]:
            texts[0] = self.inputs
        return texts

    def shape_inside(self, name: str, shape: Sequence[int]) -> list[str]:
        """The same inside a method."""
        if name in self.written:
            return [size_code(bound, self.attributes()) for bound in self.written[name]]
        return [self._by_value_inside(size) for size in shape]

    def _by_value(self, value: int) -> str:
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

    def _by_value_inside(self, value: int) -> str:
        text = self._by_value(value)
        for name in self.of_dim.values():
            if text == name or text.endswith(f" * {name}"):
                return f"{text[: -len(name)]}self.{name}"
        return str(value)

    def rows(self, norm: Norm) -> str:
        """The number of rows of per-step arrays."""
        return self.steps or str(norm.steps)

    def read_by(self, code: str) -> dict[str, int]:
        """The sizes that a constructor's code reads: its arguments by name, with their values for this cell."""
        return {name: value for name, value in self.values.items() if re.search(rf"\b{name}\b", code)}

    def kept(self, code: str) -> list[str]:
        """Sizes that code reads as attributes."""
        return [name for name in self.of_dim.values() if re.search(rf"self\.{name}\b", code)]

    def attributes(self) -> dict[str, str]:
        """Code of each size of the cell inside a method."""
        return {dim: f"self.{name}" for dim, name in self.of_dim.items()}
