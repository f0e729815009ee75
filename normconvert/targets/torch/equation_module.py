"""What the modules of cells and of stateless formulas share: attributes, norms, and equations as code."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from normconvert.ir.cell import STATISTICS, Cell
from normconvert.ir.checking import analyse
from normconvert.ir.expressions import Call, Equation, Equations, walk
from normconvert.ir.printer import print_equations
from normconvert.targets.python_code.names import Namer
from normconvert.targets.python_code.numbers import number
from normconvert.targets.python_code.sizes import Sizes
from normconvert.targets.python_code.text import broken, safe
from normconvert.targets.python_code.values import Value
from normconvert.targets.torch.affine_norms import affine_call
from normconvert.targets.torch.cell_norms import ROLES, NormModule, norm_module
from normconvert.targets.torch.expressions import TorchCode
from normconvert.targets.torch.library import library
from normconvert.targets.torch.names import LOOP_NAMES, MODULE_ATTRIBUTES


@dataclass(frozen=True)
class EquationModule:
    """The class for equations, and how one layer makes it.

    Attributes:
        name: of the class, as proposed.
        source: the class, with `{class_name}` for its name.
        arguments: of its constructor.
        weights: name in the module's state dict by the weight's name relative to the layer.
    """

    name: str
    source: str
    arguments: tuple[str, ...]
    weights: dict[str, str]


class EquationWriter:
    """Writes the parts of a module that follow from its equations alone.

    Args:
        cell: the declarations.
        parsed: its equations, perhaps rewritten.
        locals_of: names that become local variables, in order.
        attributes_of: further names that become attributes.
        trainable: whether training moves the running statistics.
        fixed: names of arrays that training leaves alone.
    """

    def __init__(
        self,
        cell: Cell,
        parsed: Equations,
        locals_of: Iterable[str],
        attributes_of: Iterable[str] = (),
        *,
        trainable: bool = True,
        fixed: Collection[str] = (),
    ) -> None:
        self.cell, self.parsed, self.trainable, self.fixed = cell, parsed, trainable, fixed
        self.sizes = Sizes(cell, parsed)
        self.checked = analyse(cell)
        namer = Namer(
            MODULE_ATTRIBUTES
            | set(self.sizes.names)
            | {"reverse", "sequences", "dropout", "recurrent_dropout", "steps_read"}
        )
        names = [*cell.parameters, *cell.constants, *cell.norms, *attributes_of]
        self.attribute = {name: namer(name) for name in names}
        local = Namer(LOOP_NAMES | library().keys())
        self.local = {name: local(name) for name in dict.fromkeys(locals_of)}
        self.values = {name: Value(len(value.shape), value.batched) for name, value in self.checked.items()}
        self.norms = self._norms()
        self.texts = {name: f"self.{text}" for name, text in self.attribute.items()} | self.local
        self.texts |= {name: norm.call for name, norm in self.norms.items()}
        shifted = {name: norm.shifted for name, norm in self.norms.items() if norm.shifted}
        matrices = [name for name, shape in cell.parameters.items() if len(shape) == 2 and shape[1] > 1]
        dims = self.sizes.attributes()
        self.scope = TorchCode(self.texts, self.values, cell.constants, cell.norms, dims, shifted, matrices)

    def _norms(self) -> dict[str, NormModule]:
        scope = TorchCode({}, self.values, self.cell.constants, self.cell.norms, {})
        ranks = {
            node.function: scope.value(node.arguments[0]).rank
            for equation in self.parsed.body
            for node in walk(equation.value)
            if isinstance(node, Call) and node.function in self.cell.norms
        }
        return {
            name: norm_module(
                self.attribute[name],
                norm,
                self.sizes.shape(name, norm.shape),
                self.sizes.rows(norm),
                ranks.get(name, 1),
                frozen=not self.trainable or f"{name}.mean" in self.fixed,
            )
            for name, norm in self.cell.norms.items()
        }

    def text(self) -> list[str]:
        """The equations for a docstring."""
        return safe(print_equations(self.cell.parsed())).rstrip().split("\n")

    def shape(self, lead: tuple[str, ...], name: str) -> str:
        """The shape of a value for a docstring, with the axes in front of those of one sample."""
        shape = self.checked[name].shape
        sizes = self.sizes.shape(name, shape)
        if name == self.parsed.inputs[0] and self.sizes.inputs and len(shape) == 1:
            sizes = [self.sizes.inputs]
        return f"[{', '.join([*lead, *sizes])}]"

    def members(self) -> list[str]:
        """The lines of the constructor that make constants, parameters and norms."""
        lines = [f"self.{self.attribute[name]} = {number(v)}" for name, v in self.cell.constants.items()]
        for name, shape in self.cell.parameters.items():
            sizes = ", ".join(self.sizes.shape(name, shape)) or "()"
            lines.append(self.array(name, f"torch.empty({sizes})"))
        lines += [f"self.{self.attribute[name]} = {norm.constructor}" for name, norm in self.norms.items()]
        return [*lines, *(f"self.{name}.requires_grad_(False)" for name in self._fixed_in_norms())]

    def array(self, name: str, value: str) -> str:
        """The line that makes a weight an attribute: a parameter, or a buffer if it is fixed."""
        if name in self.fixed:
            return f'self.register_buffer("{self.attribute[name]}", {value})'
        return f"self.{self.attribute[name]} = nn.Parameter({value})"

    def _fixed_in_norms(self) -> Iterator[str]:
        for name, norm in self.cell.norms.items():
            for role in norm.weight_shapes():
                if role not in STATISTICS and f"{name}.{role}" in self.fixed:
                    yield f"{self.attribute[name]}.{ROLES[role]}"

    def weights(self) -> dict[str, str]:
        """Names in the state dict of the parameters and the norms' arrays."""
        names = {name: self.attribute[name] for name in self.cell.parameters}
        for name, norm in self.cell.norms.items():
            names |= {f"{name}.{role}": f"{self.attribute[name]}.{ROLES[role]}" for role in norm.weight_shapes()}
        return names

    def code(
        self, equations: Iterable[Equation], *, in_step: bool = False, products_batch_first: bool = False
    ) -> list[str]:
        """Equations as lines of code, of a step or of whole sequences; the options are those of `TorchCode`."""
        scope = replace(self.scope, in_step=in_step, products_batch_first=products_batch_first)
        return [broken(scope.equation(e, tuple(self.local[target] for target in e.targets)), 8) for e in equations]

    def needs_step(self, equations: Iterable[Equation]) -> bool:
        """Whether a norm in them needs the index of the time step."""
        timed = {name for norm, module in self.norms.items() if module.affine for name in (norm, affine_call(norm))}
        nodes = (node for equation in equations for node in walk(equation.value))
        return any(isinstance(node, Call) and node.function in timed for node in nodes)

    def learn(self, equations: Iterable[Equation]) -> None:
        """Makes names known that equations assign and the cell's own text does not have."""
        for equation in equations:
            for target in equation.targets:
                if target not in self.values:
                    self.values[target] = self.scope.value(equation.value)
