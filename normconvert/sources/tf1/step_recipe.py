"""The recipe of one step of a cell: its states, and where it needs it the number of the step, as inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from normconvert.cells import Family, family
from normconvert.cells.settings import flattened
from normconvert.errors import UsageError
from normconvert.sources.tf1.cell_layers import INLINE, inline_family
from normconvert.sources.tf1.found import FoundCell
from normconvert.sources.tf1.hyperparameters import norm_fields
from normconvert.sources.tf1.single_step import differs_per_step
from normconvert.sources.toml import stripped

STEP = "step"
"""The input that is the number of the step."""


def step_recipe(
    cells: Sequence[FoundCell], layers: Sequence[Mapping[str, Any]], inputs: Sequence[int]
) -> dict[str, Any]:
    """Inputs, layer and outputs of the recipe of one step.

    Args:
        cells: those that were asked for.
        layers: the recipe's layers that run them over a sequence.
        inputs: the shape of a step.

    Raises:
        UsageError: there are several cells.
    """
    if len(cells) != 1:
        scopes = ", ".join(cell.scope for cell in cells)
        raise UsageError("--cell takes out one cell, and there are several", remedy=f"Choose a scope: {scopes}")
    chosen, layout, norms = _described(cells[0], layers[0])
    sizes = {name: chosen.resolved(shape, cells[0].sizes) for name, shape in chosen.states_in(layout).items()}
    values = [{"name": name, "shape": list(shape)} for name, shape in sizes.items()]
    if any(map(differs_per_step, norms.values())):
        values.append({"name": STEP, "shape": []})
    layer = {**layers[0], "single_step": True, "inputs": ["x", *(value["name"] for value in values)]}
    count = len(sizes) + (0 if chosen.gives_a_state() else 1)
    outputs = [layer["name"], *(f"{layer['name']}:{number}" for number in range(1, count))]
    return {"outputs": outputs, "inputs": [{"name": "x", "shape": list(inputs)}, *values], "layers": [layer]}


def _described(cell: FoundCell, layer: Mapping[str, Any]) -> tuple[Family, str, Mapping[str, Mapping[str, Any]]]:
    """The cell's family, its layout, and its norms: of the catalogue, or as the recipe writes it out."""
    table = stripped(layer)
    if isinstance(table["cell"], Mapping):
        written = inline_family(table["cell"])
        return written, INLINE, written.norms
    return family(cell.family), cell.layout, norm_fields(cell, flattened(table))
