"""A cell family: equations, declarations and tensor layouts from a TOML file, and cells built from it.

One file describes a cell for detection, reading and writing alike; `docs/equations.md` explains the format.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from normconvert.cells.binding import bind, without, without_neutral
from normconvert.cells.declarations import ConstantInfo, Layout
from normconvert.cells.layout import (
    Part,
    Shape,
    assemble,
    parameters_in,
    parse_layout,
    shape_of,
    take_apart,
)
from normconvert.cells.norm_fields import Fields, Size, array_shapes, bound, norm_from, norm_shape
from normconvert.cells.same_sizes import renamed, untold
from normconvert.cells.settings import Settings, decided
from normconvert.cells.solving import solve_sizes
from normconvert.errors import CorruptFile, NormconvertError, UsageError
from normconvert.ir.cell import STATISTICS, Cell, State
from normconvert.ir.checking import check
from normconvert.ir.expressions import is_next, names_in
from normconvert.ir.layers import Activation
from normconvert.ir.model import Array
from normconvert.ir.norm import Norm
from normconvert.ir.parser import parse
from normconvert.ir.printer import print_equations


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A family file.

    Attributes:
        title, source: what it is and where it is from (paper, repository file).
        equations: text; may call the placeholders listed in `functions`, and use `"$name"` as an option's value.
        gates: names of the equal blocks of the last axis of gate-wise parameters, in the equations' order.
        inputs, states, parameters: shapes in integers and sizes such as `"4*units"`.
        learned_states: states whose initial value is stored (`initial.NAME` in layouts).
        constants: run-time constants with defaults.
        functions: placeholder activations with their default function.
        norms: fields of `ir.norm.Norm`; `features`, `positions`, `groups` and `steps` may be sizes.
        optional: parameters and norms a file may lack, and constants that do nothing as a term of 0 or as an infinite
            bound of a clip: their terms, projections and clips drop out of the equations.
        same_sizes: the size that another is the same as without the optional parameter (a projection) that has it.
        layouts: by name of the framework or repository.
        name: the file's name.
    """

    title: str
    equations: str
    source: str = ""
    gates: tuple[str, ...] = ()
    inputs: dict[str, tuple[Size, ...]] = msgspec.field(default_factory=lambda: {"x": ("inputs",)})
    states: dict[str, tuple[Size, ...]] = msgspec.field(default_factory=lambda: {"h": ("units",)})
    learned_states: tuple[str, ...] = ()
    parameters: dict[str, tuple[Size, ...]] = {}
    constants: dict[str, ConstantInfo] = {}
    functions: dict[str, str] = {}
    norms: dict[str, dict[str, Any]] = {}
    optional: tuple[str, ...] = ()
    same_sizes: dict[str, str] = {}
    layouts: dict[str, Layout] = {}
    name: str = ""

    def layout(self, name: str) -> Layout:
        """A layout by name; UsageError lists the known ones."""
        if name not in self.layouts:
            known = ", ".join(self.layouts) or "none"
            raise UsageError(f"the cell {self.name} has no layout {name}", remedy=f"Known layouts: {known}")
        return self.layouts[name]

    def optional_in(self, layout: str) -> set[str]:
        """The parameters and norms that a file in this layout may lack."""
        return set(self.optional) - set(self.layout(layout).required) - self.constants.keys()

    def states_in(self, layout: str) -> dict[str, tuple[Size, ...]]:
        """The shapes of the states, in the order of a layout's framework."""
        return {name: self.states[name] for name in self.layout(layout).states or self.states}

    def gives_a_state(self) -> bool:
        """Whether the cell's output is the next value of one of its states."""
        return all(map(is_next, parse(self.equations).outputs))

    def sizes(self, layout: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """The cell's sizes from the shapes of stored tensors, by the layout's names.

        Raises:
            CorruptFile: the shapes contradict each other or the layout.
        """
        texts = self.layout(layout).tensors
        parts = {name: parse_layout(texts[name]) for name in shapes}
        if self.same_sizes:
            return self._without_untold(set().union(*map(parameters_in, parts.values()))).sizes(layout, shapes)
        fixed = self._settings(self.layout(layout), {}, {}, {})
        declared = self.shapes({name: {**fields, **fixed.of_norm(name)} for name, fields in self.norms.items()})
        expected = {name: shape_of(part, declared, self.gates) for name, part in parts.items()}
        return solve_sizes(shapes, expected, fixed.dims)

    def build(
        self,
        layout: str,
        tensors: Mapping[str, Array],
        *,
        config: Mapping[str, Any] | None = None,
        functions: Mapping[str, Activation | None] | None = None,
        settings: Mapping[str, Any] | None = None,
        dims: Mapping[str, int] | None = None,
    ) -> tuple[Cell, dict[str, Array]]:
        """A cell and its weights from stored tensors.

        Args:
            layout: which layout the tensors have.
            tensors: arrays by the layout's names; those of optional parameters may be missing.
            config: the framework's own configuration of the cell; only entries the layout lists are read.
            functions: what the placeholder functions stand for; None is the identity.
            settings: by dotted name, see `cells.settings`; they replace the layout's own.
            dims: sizes that the stored tensors do not tell.

        Returns:
            The checked cell, and its arrays by names relative to the layer.

        Raises:
            CorruptFile: a tensor is missing, left over, or has the wrong shape.
            UsageError: a function or constant is not the family's, or a setting does not fit.
        """
        chosen = self._settings(self.layout(layout), config or {}, settings or {}, dims or {})
        parts = {name: parse_layout(text) for name, text in self.layout(layout).tensors.items()}
        present = self._present(layout, parts, tensors)
        if self.same_sizes:
            same = self._without_untold(present)
            return same.build(layout, tensors, config=config, functions=functions, settings=settings, dims=dims)
        norms = {name: {**fields, **chosen.of_norm(name)} for name, fields in self.norms.items()}
        shapes = self.shapes(norms)
        stored_shapes = {name: array.shape for name, array in tensors.items()}
        expected = {name: shape_of(parts[name], shapes, self.gates) for name in tensors}
        sizes = solve_sizes(stored_shapes, expected, chosen.dims)

        equations = bind(
            parse(self.equations), self._bindings({**chosen.functions, **(functions or {})}), chosen.options
        )
        absent = set(self.optional) - {_owner(parameter) for parameter in present}
        for name in absent - self.constants.keys():
            equations = without(equations, name)
        for name in absent & self.constants.keys():
            equations = without_neutral(equations, name, chosen.constants[name])
        read = set().union(*(names_in(equation.value) for equation in equations.body))
        order = list(self.states_in(layout))
        equations = replace(equations, states=tuple(sorted(equations.states, key=order.index)))
        cell = Cell(
            equations=print_equations(equations),
            dims=sizes,
            input_shapes={name: self.resolved(shape, sizes) for name, shape in self.inputs.items()},
            states={
                name: State(self.resolved(self.states[name], sizes), name in self.learned_states)
                for name in equations.states
            },
            parameters={
                name: self.resolved(shape, sizes) for name, shape in self.parameters.items() if name not in absent
            },
            constants={n: value for n, value in chosen.constants.items() if n not in absent or n in read},
            norms={name: self._norm(name, f, sizes) for name, f in norms.items() if name not in absent},
            written=self._written(norms, absent, states=bool(equations.states)),
            family=self.name,
        )
        check(cell)
        return cell, self._arrays(cell, parts, tensors)

    def store(self, layout: str, cell: Cell, weights: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors of a layout from a cell's weights: the inverse of `build`."""
        parts = {name: parse_layout(text) for name, text in self.layout(layout).tensors.items()}
        return {
            name: assemble(part, weights, self.gates)
            for name, part in parts.items()
            if parameters_in(part) <= weights.keys()
        }

    def _without_untold(self, present: Collection[str]) -> Family:
        """The family without names for sizes that none of the present optional parameters has."""
        shapes = [self.parameters[name] for name in self.optional if name in self.parameters and name in present]
        names = untold(self.same_sizes, shapes)
        tables = {table: renamed(getattr(self, table), names) for table in ("inputs", "states", "parameters", "norms")}
        return msgspec.structs.replace(self, equations=renamed(self.equations, names), same_sizes={}, **tables)

    def _settings(
        self, layout: Layout, config: Mapping[str, Any], given: Mapping[str, Any], dims: Mapping[str, int]
    ) -> Settings:
        """The family's defaults, then what the layout fixes, the configuration says, and the caller sets."""
        settings = decided({n: info.default for n, info in self.constants.items()}, dims, layout, config, given)
        for kind, names, known in (
            ("constant", settings.constants, self.constants),
            ("function", settings.functions, self.functions),
            ("norm", settings.norms, {**self.norms, "*": None}),
        ):
            for name in names:
                if name not in known:
                    has = ", ".join(entry for entry in known if entry != "*") or "none"
                    raise UsageError(f"the cell {self.name} has no {kind} {name}", remedy=f"It has: {has}")
        return settings

    def _present(self, layout: str, parts: Mapping[str, Part], tensors: Mapping[str, Array]) -> set[str]:
        """Names of the arrays the given tensors hold; an optional parameter or norm is there as a whole, or not."""
        unknown = set(tensors) - set(parts)
        if unknown:
            raise CorruptFile(f"tensor {sorted(unknown)[0]} is not one of {', '.join(parts)}")
        present = set().union(*(parameters_in(parts[name]) for name in tensors))
        owners = {_owner(parameter) for parameter in present}
        for name, part in parts.items():
            own = {_owner(parameter) for parameter in parameters_in(part)}
            if name not in tensors and not own <= self.optional_in(layout) - owners:
                raise CorruptFile(
                    f"tensor {name} is missing",
                    remedy=f"The cell {self.name} stores {', '.join(parts)}",
                )
        return present

    def shapes(self, norms: Mapping[str, Fields]) -> dict[str, Shape]:
        """Shape of everything a layout may hold, for the given declarations of the norms."""
        shapes = {name: tuple(map(bound, shape)) for name, shape in self.parameters.items()}
        shapes |= {f"initial.{n}": tuple(map(bound, self.states[n])) for n in self.learned_states}
        for name, fields in norms.items():
            shapes |= {f"{name}.{role}": shape for role, shape in array_shapes(fields).items()}
        return shapes

    def _norm(self, name: str, fields: Fields, sizes: Mapping[str, int]) -> Norm:
        try:
            return norm_from(fields, lambda size: self.resolved((size,), sizes)[0])
        except UsageError as error:
            raise error.at(f"cell {self.name}, norm {name}") from None

    def _written(self, norms: Mapping[str, Fields], absent: set[str], *, states: bool) -> dict[str, tuple[str, ...]]:
        """The declared shapes as this file writes them."""
        declared = {**self.inputs, **(self.states if states else {}), **self.parameters}
        declared |= {name: norm_shape(fields) for name, fields in norms.items()}
        return {name: tuple(map(str, shape)) for name, shape in declared.items() if name not in absent}

    def resolved(self, shape: tuple[Size, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
        """A declared shape in numbers; UsageError names a size that is not known."""
        same = {name: sizes[other] for name, other in self.same_sizes.items() if other in sizes}
        try:
            return tuple(bound(size).resolve({**same, **sizes}) for size in shape)
        except KeyError as error:
            raise UsageError(
                f"the size {error.args[0]} cannot be found from the stored tensors", where=f"cell {self.name}"
            ) from None

    def _bindings(self, functions: Mapping[str, Activation | None]) -> dict[str, Activation | None]:
        unknown = set(functions) - set(self.functions)
        if unknown:
            raise UsageError(f"the cell {self.name} has no function {sorted(unknown)[0]}")
        defaults = {name: Activation(function) for name, function in self.functions.items()}
        return {**defaults, **functions}

    def _arrays(self, cell: Cell, parts: Mapping[str, Part], tensors: Mapping[str, Array]) -> dict[str, Array]:
        dtype = np.result_type(*(array.dtype for array in tensors.values())) if tensors else np.dtype(np.float32)
        arrays = {name: np.zeros(shape, dtype) for name, shape in cell.weight_shapes().items()}
        unread = {f"{n}.{role}" for n, norm in cell.norms.items() if not norm.has_population for role in STATISTICS}
        for name, stored in tensors.items():
            if parameters_in(parts[name]) <= unread:
                continue  # running statistics beside a norm that takes those of the batch at hand
            try:
                take_apart(parts[name], stored, arrays, self.gates)
            except NormconvertError as error:
                raise error.at(f"tensor {name}") from None
            except KeyError as error:
                raise CorruptFile(
                    f"holds {error.args[0]}, which the cell does not have", where=f"tensor {name}"
                ) from None
        return arrays


def _owner(parameter: str) -> str:
    """The parameter itself, or the norm whose array it is."""
    return parameter.partition(".")[0]
