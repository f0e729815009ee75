"""A lifted cell as a family file declares it: equations, shapes, fields of norms, and which variable holds what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normconvert.cells.norm_fields import array_shapes
from normconvert.errors import CorruptFile
from normconvert.sources.tf1.checkpoint import Variable
from normconvert.sources.tf1.graph.lines import PARAMETER
from normconvert.sources.tf1.graph.norm_patterns import NormSpec
from normconvert.sources.tf1.graph.recurrence import LiftedCell
from normconvert.sources.tf1.graph.values import Row, Term


def norm_variables(spec: NormSpec) -> dict[str, str]:
    """The variable of each array of a norm, by its role."""
    roles: Mapping[str, Term | Row | None] = {
        "gamma": spec.gamma,
        "beta": spec.beta,
        "mean": spec.mean,
        "variance": spec.variance,
    }
    found = {}
    for role, value in roles.items():
        if isinstance(value, Row):
            found[role] = value.variable
        elif value is not None:
            found[role] = value.name[len(PARAMETER) :]
    return found


def norm_fields(spec: NormSpec) -> dict[str, Any]:
    """The fields of `ir.norm.Norm` that declare a norm."""
    fields: dict[str, Any] = {
        "kind": spec.kind,
        "features": spec.features,
        "epsilon": spec.epsilon,
        "gamma": spec.gamma is not None,
        "beta": spec.beta is not None,
    }
    fields |= {name: getattr(spec, name) for name in ("unbiased", "pooled") if getattr(spec, name)}
    if spec.positions:
        fields["positions"] = list(spec.positions)
    if spec.groups > 1:
        fields["groups"] = spec.groups
    if spec.epsilon_placement != "inside":
        fields["epsilon_placement"] = spec.epsilon_placement
    if spec.kind == "batch" and spec.mean is None:
        fields["source"] = "batch"
    rows = [value for value in (spec.mean, spec.variance, spec.gamma, spec.beta) if isinstance(value, Row)]
    if rows:
        fields |= {"steps": rows[0].steps, "past_end": rows[0].past_end}
    if isinstance(spec.mean, Row):
        fields["scope"] = "per_step"
    if isinstance(spec.gamma or spec.beta, Row):
        fields["affine_per_step"] = True
    return fields


def cell_table(
    cell: LiftedCell, variables: Mapping[str, Variable], learned: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The table of a recipe for a lifted cell: its equations, and which variable holds what.

    Args:
        cell: the cell.
        variables: those of the checkpoint.
        learned: the variable that each learned initial state starts from.

    Raises:
        CorruptFile: the checkpoint lacks a variable.
    """
    learned = learned or {}
    held = {**cell.parameters, **cell.norm_variables}
    for name in (*held.values(), *learned.values()):
        if name not in variables:
            raise CorruptFile(f"the checkpoint has no variable {name}, which the graph reads")
    axes = {f"{norm}.{role}": len(shape) for norm, of in cell.norms.items() for role, shape in array_shapes(of).items()}
    held |= {f"initial.{state}": name for state, name in learned.items()}
    axes |= {f"initial.{state}": len(cell.states[state]) for state in learned}
    rows = {array for array, count in axes.items() if array in held and len(variables[held[array]].shape) == count + 1}
    tensors = {name: f"row({array})" if array in rows else array for array, name in held.items()}
    table: dict[str, Any] = {
        "equations": cell.equations,
        "inputs": {name: list(shape) for name, shape in cell.inputs.items()},
        "states": {name: list(shape) for name, shape in cell.states.items()},
        "parameters": {name: list(variables[held[name]].shape) for name in cell.parameters},
        "norms": {name: dict(fields) for name, fields in cell.norms.items()},
        "learned_states": list(learned),
        "tensors": tensors,
    }
    return {key: value for key, value in table.items() if value}
