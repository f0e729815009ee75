"""A cell: its equations, and the declarations of the names they use."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from normconvert.ir.expressions import Equations
from normconvert.ir.norm import Norm
from normconvert.ir.parser import parse


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A value carried from step to step.

    Attributes:
        shape: shape for one sample, `(units,)` for a plain cell.
        learned: the initial value is the weight `<layer>.initial.<state>` instead of zeros.
    """

    shape: tuple[int, ...]
    learned: bool = False


class Cell(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A recurrent cell, or with no states a stateless layer.

    Attributes:
        equations: the text of the equations; `parsed()` gives their tree.
        dims: the sizes that the text may name in slices, such as `units`.
        input_shapes: shape of each input for one sample and one time step; None for a size that may change.
        states: the carried values, in the order the cell's state tuple has.
        parameters: shape of each parameter; its array is the weight `<layer>.<parameter>`.
        constants: numbers fixed at run time (a forget bias, a zoneout rate).
        norms: the normalisations the equations call.
        written: shapes of inputs, states and parameters, and `(*positions, features)` of norms, as sums of
            `dims` such as `4*units`, by name. They say which of several equal sizes is meant; a name may be missing.
        family: name of the catalogue entry it came from, or empty.
    """

    equations: str
    dims: dict[str, int]
    input_shapes: dict[str, tuple[int | None, ...]]
    states: dict[str, State] = {}
    parameters: dict[str, tuple[int, ...]] = {}
    constants: dict[str, float] = {}
    norms: dict[str, Norm] = {}
    written: dict[str, tuple[str, ...]] = {}
    family: str = ""

    def parsed(self) -> Equations:
        """The tree of the equations; EquationError points at a line and column of the text."""
        return _parse(self.equations)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every stored array, by its name relative to the layer."""
        shapes = dict(self.parameters)
        for name, norm in self.norms.items():
            shapes.update({f"{name}.{role}": shape for role, shape in norm.weight_shapes().items()})
        shapes.update({f"initial.{name}": state.shape for name, state in self.states.items() if state.learned})
        return shapes

    def statistics(self) -> set[str]:
        """Names of the stored arrays that are running statistics."""
        return {f"{name}.{role}" for name, norm in self.norms.items() if norm.has_population for role in STATISTICS}


STATISTICS = ("mean", "variance")
_parse = lru_cache(maxsize=256)(parse)
