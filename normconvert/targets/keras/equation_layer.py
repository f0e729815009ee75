"""What the layers of cells and of stateless formulas share: attributes, norms, and equations as code."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from normconvert.ir.cell import Cell
from normconvert.ir.checking import analyse
from normconvert.ir.expressions import Call, Equation, Equations, walk
from normconvert.ir.norm import Norm
from normconvert.ir.printer import print_equations
from normconvert.targets.keras.expressions import KerasCode
from normconvert.targets.keras.library import library
from normconvert.targets.keras.names import LAYER_ATTRIBUTES, LOCAL_NAMES
from normconvert.targets.python_code.names import Namer
from normconvert.targets.python_code.numbers import number
from normconvert.targets.python_code.sizes import Sizes
from normconvert.targets.python_code.text import call, indented, one_line, safe
from normconvert.targets.python_code.values import Value

ROLES = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}
"""Keras's names for a norm's arrays."""


@dataclass(frozen=True)
class EquationLayer:
    """The class for equations, and how one layer makes it.

    Attributes:
        name: of the class, as proposed.
        source: the class, with `{class_name}` for its name.
        config: of one layer.
        weights: attribute path by the weight's name relative to the layer.
    """

    name: str
    source: str
    config: dict[str, object]
    weights: dict[str, str]


class EquationWriter:
    """Writes the parts of a layer's class that follow from its equations alone.

    Args:
        cell: the declarations.
        parsed: its equations, perhaps rewritten.
        locals_of: names that become local variables, in order.
        fixed: names of arrays that training leaves alone.
        frozen: training leaves running statistics alone too.
    """

    def __init__(
        self,
        cell: Cell,
        parsed: Equations,
        locals_of: Iterable[str],
        fixed: Collection[str] = (),
        *,
        frozen: bool = False,
    ) -> None:
        self.cell, self.parsed, self.fixed, self.frozen = cell, parsed, fixed, frozen
        self.sizes = Sizes(cell, parsed)
        self.checked = analyse(cell)
        taken = LAYER_ATTRIBUTES | set(self.sizes.names)
        namer = Namer(taken)
        learned = [f"initial.{name}" for name, state in cell.states.items() if state.learned]
        self.attribute = {name: namer(name) for name in (*cell.parameters, *cell.constants, *cell.norms, *learned)}
        local = Namer(LOCAL_NAMES | library().keys())
        self.local = {name: local(name) for name in dict.fromkeys(locals_of)}
        self.values = {name: Value(len(value.shape), value.batched) for name, value in self.checked.items()}
        self.ranks = self._ranks()
        self.texts = {name: f"self.{text}" for name, text in self.attribute.items()} | self.local
        self.texts |= {name: f"self.{self.attribute[name]}({{x}}, t)" for name in cell.norms}
        self.scope = KerasCode(self.texts, self.values, cell.constants, cell.norms, self.sizes.attributes())

    def _ranks(self) -> dict[str, int]:
        """Axes of what each norm is given, for one sample and one step."""
        scope = KerasCode({}, self.values, self.cell.constants, self.cell.norms, {})
        return {
            node.function: scope.value(node.arguments[0]).rank
            for equation in self.parsed.body
            for node in walk(equation.value)
            if isinstance(node, Call) and node.function in self.cell.norms
        }

    def learn(self, equations: Iterable[Equation]) -> None:
        """Makes names known that equations assign and the cell's own text does not have."""
        for equation in equations:
            for target in equation.targets:
                if target not in self.values:
                    self.values[target] = self.scope.value(equation.value)

    def docstring(self, title: str, closing: str) -> list[str]:
        """The docstring of the class: the equations between a title and a sentence."""
        text = safe(print_equations(self.cell.parsed())).rstrip().split("\n")
        return [f'"""{title}', "", *indented(text), "", one_line(closing), '"""']

    def shape(self, lead: tuple[str, ...], name: str) -> str:
        """The shape of a value for a docstring, with the axes in front of those of one sample."""
        return f"[{', '.join([*lead, *self.sizes.shape(name, self.checked[name].shape)])}]"

    def code(self, equations: Iterable[Equation]) -> list[str]:
        """Equations as lines of code."""
        return [self.scope.equation(e, tuple(self.local[target] for target in e.targets)) for e in equations]

    def init(self, base: Iterable[str] = ()) -> list[str]:
        """The constructor: sizes, constants and norms become attributes."""
        names = list(self.sizes.names)
        lines = [f"def __init__(self, {', '.join([*names, '**options'])}):", "    super().__init__(**options)"]
        lines += indented([f"self.{name} = {name}" for name in names])
        lines += indented([f"self.{self.attribute[name]} = {number(v)}" for name, v in self.cell.constants.items()])
        for name, norm in self.cell.norms.items():
            lines += indented([f"self.{self.attribute[name]} = {self._norm(name, norm)}"])
        return [*lines, *indented(base)]

    def _norm(self, name: str, norm: Norm) -> str:
        rank = self.ranks.get(name, 1)
        *positions, features = self.sizes.shape(name, norm.shape)
        given = {
            "eps": number(norm.epsilon),
            "space": str(rank - 1) if rank > 1 else "",
            "rows": self.sizes.rows(norm) if norm.steps is not None else "",
            "per_step": _flag(norm.scope == "per_step" and norm.has_population),
            "affine_per_step": _flag(norm.affine_per_step),
            "past_end": f'"{norm.past_end}"' if norm.steps is not None and norm.past_end != "last" else "",
            "scale": "" if norm.gamma else "False",
            "center": "" if norm.beta else "False",
            "placement": "" if norm.epsilon_placement == "inside" else f'"{norm.epsilon_placement}"',
            "pooled": _flag(norm.pooled),
            "unbiased": _flag(norm.unbiased),
        }
        if norm.kind == "batch":
            given["momentum"] = number(norm.momentum) if norm.has_population else ""
            given["from_batch"] = _flag(not norm.has_population)
            given["sequence"] = _flag(norm.scope == "sequence")
            given["unbiased_running"] = _flag(norm.unbiased_running and norm.has_population)
            given["frozen"] = _flag(self.frozen and norm.has_population)
            given["positions"] = tuple_of(positions) if positions else ""
        else:
            given["groups"] = str(norm.groups) if norm.groups > 1 else ""
            given["rms"] = _flag(norm.kind == "rms")
        arguments = [f"{key}={value}" for key, value in given.items() if value]
        kind = "CellBatchNorm" if norm.kind == "batch" else "CellLayerNorm"
        return call(kind, [features, *arguments, f'name="{self.attribute[name]}"', *_OF_LAYER])

    def build(self) -> list[str]:
        """The lines that make the weights."""
        lines = []
        shapes = {name: (name, shape) for name, shape in self.cell.parameters.items()}
        shapes |= {f"initial.{name}": (name, s.shape) for name, s in self.cell.states.items() if s.learned}
        for name, (sized, shape) in shapes.items():
            sizes = self.sizes.shape_inside(sized, shape)
            text = f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"
            frozen = ", trainable=False" if name in self.fixed else ""
            attribute = self.attribute[name]
            lines.append(f'self.{attribute} = self.add_weight(name="{attribute}", shape={text}{frozen})')
        return [*lines, *(f"self.{self.attribute[name]}.build()" for name in self.cell.norms)]

    def get_config(self) -> list[str]:
        """The method that gives the sizes back."""
        if not self.sizes.names:
            return []
        pairs = ", ".join(f'"{name}": self.{name}' for name in self.sizes.names)
        return ["def get_config(self):", f"    return {{**super().get_config(), {pairs}}}"]

    def weights(self) -> dict[str, str]:
        """Attribute path of every array by its name relative to the layer."""
        names = {name: self.attribute[name] for name in self.cell.parameters}
        for name, norm in self.cell.norms.items():
            names |= {f"{name}.{role}": f"{self.attribute[name]}.{ROLES[role]}" for role in norm.weight_shapes()}
        names |= {f"initial.{n}": self.attribute[f"initial.{n}"] for n, s in self.cell.states.items() if s.learned}
        return names


_OF_LAYER = ("trainable=self.trainable", "dtype=self.dtype_policy")
"""What a norm takes over from the layer it is in."""


def _flag(value: bool) -> str:
    return "True" if value else ""


def tuple_of(values: Iterable[str]) -> str:
    """Names as a tuple."""
    listed = list(values)
    return f"({', '.join(listed)}{',' if len(listed) == 1 else ''})"
