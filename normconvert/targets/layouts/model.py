"""The tensors of a whole model under the names of a framework: cells by their layouts, other layers by their roles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from normconvert.errors import CorruptFile, NormconvertError, Unsupported, UsageError
from normconvert.ir.layers import AnyLayer, Bidirectional, Recurrent
from normconvert.ir.model import Array, Model
from normconvert.targets.layouts.choosing import Chosen, choose, layouts_of
from normconvert.targets.layouts.joining import joined
from normconvert.targets.layouts.joining import part as part_at
from normconvert.targets.layouts.keeping import Keeping, Names
from normconvert.targets.layouts.record import CellRecord, Record, entry
from normconvert.targets.layouts.storing import STEP, StoredCell, rebuilt, store_cell

Arrange = Callable[[AnyLayer, str, Array], tuple[str, Array]]
"""The framework's name for an array of a plain layer, and the array as it has it."""

Restore = Callable[[AnyLayer, str, Array], Array]
"""The inverse, for the array."""


@dataclass(frozen=True)
class Naming:
    """How a framework names tensors.

    Attributes:
        framework: as layouts have it.
        separator: between the parts of a name.
        arrange, restore: see the types.
        tensor: the name of a tensor of a cell, from the scope, the layout's name for it, the layout and the direction
            (empty where the scope is the direction's own).
        step: the same for one time step, where a tensor is stored for each.
    """

    framework: str
    separator: str
    arrange: Arrange
    restore: Restore
    tensor: Callable[[str, str, Chosen, str], str]
    step: Callable[[str, int], str]


@dataclass(frozen=True)
class StoredModel:
    """A model's tensors, and how to read them back."""

    tensors: dict[str, Array]
    record: Record


def store_model(
    model: Model, naming: Naming, *, layout: str = "", scope: str = "", names: Names | None = None
) -> StoredModel:
    """Store a model.

    Args:
        model: what to store.
        naming: of the framework.
        layout: `family/layout` or a layout's name, or empty for one of each cell's own family.
        scope: what the names of tensors begin with. `LAYER=SCOPE` says it for a layer, or for a direction of one
            (`LAYER.forward=SCOPE`), and `LAYER.WEIGHT=NAME` names one tensor of a plain layer; several are separated
            by commas. Without, the layer's name.
        names: of a source of the same framework. A layer without a scope here keeps them, if it has the same layout.

    Raises:
        Unsupported: a layout's class computes something else, or a layer has no names in this framework.
        UsageError: the layout is not known, or two tensors have one name.
    """
    scopes = _Scopes(model, scope, naming)
    source = Keeping(names or {}, naming.separator)
    tensors: dict[str, Array] = {}
    cells: dict[str, CellRecord] = {}
    weights: dict[str, str] = {}
    notes: list[str] = []

    def add(name: str, array: Array, *, shared: bool = False) -> None:
        if name in tensors and not (shared and np.array_equal(tensors[name], array)):
            raise UsageError(
                f"two tensors would have the name {name}", remedy="Give the layers scopes of their own with --to-scope"
            )
        tensors[name] = array

    for layer_name, layer in model.layers.items():
        own = model.layer_weights(layer_name)
        kept = Keeping({}, naming.separator) if scopes.decide(layer_name) else source
        try:
            for part, side, recurrent, arrays in parts_of(layer_name, layer, own):
                stored, listed = _stored(recurrent, arrays, part, layout, naming, kept)
                place, own_side = scopes(part, layer_name, side)
                for tensor, array in stored.tensors.items():
                    rows = list(array) if STEP in tensor else [array]
                    name = naming.tensor(place, tensor, stored.chosen, own_side)
                    listed.setdefault(tensor, [naming.step(name, row) for row in range(len(rows))])
                    for each, value in zip(listed[tensor], rows, strict=True):
                        add(each, np.asarray(value), shared=bool(side))
                cells[part] = CellRecord(stored.chosen.title, stored.settings, listed)
                notes += [f"{part}: {note}" for note in stored.notes]
            if not isinstance(layer, Recurrent | Bidirectional):
                for role, array in own.items():
                    role_name, arranged = naming.arrange(layer, role, array)
                    place, _ = scopes(layer_name, layer_name, "")
                    name = scopes.given.get(f"{layer_name}.{role}") or kept.weight(f"{layer_name}.{role}", arranged)
                    weights[f"{layer_name}.{role}"] = name or naming.separator.join(filter(None, [place, role_name]))
                    add(weights[f"{layer_name}.{role}"], arranged)
        except NormconvertError as error:
            raise error.at(f"layer {layer_name}") from None
    return StoredModel(joined(tensors), Record(cells, weights, tuple(notes)))


def _stored(
    layer: Recurrent, arrays: Mapping[str, Array], part: str, layout: str, naming: Naming, kept: Keeping
) -> tuple[StoredCell, dict[str, list[str]]]:
    """The cell in a layout that the user may mean, and the names of the source for its tensors.

    The source's own layout goes first, which its names tell; otherwise the first that holds the cell.
    """
    candidates = choose(layer.cell, layout, naming.framework)
    if not candidates:
        raise UsageError(
            f"there is no layout {layout} of {naming.framework}" if layout else _NO_OWN.format(naming.framework),
            remedy=_fitting(layer, arrays, naming.framework),
        )
    found: list[StoredCell] = []
    first: NormconvertError | None = None
    for chosen in candidates:
        try:
            found.append(store_cell(layer.cell, arrays, chosen))
        except NormconvertError as error:
            first = first or error
    for alike in (True,) if layout else (True, False):
        for stored in found:
            names = kept.cell(part, stored, alike=alike)
            if names:
                return stored, names
    if not found and first is not None:
        raise type(first)(first.what, where=first.where, remedy=_fitting(layer, arrays, naming.framework))
    return found[0], {}


_NO_OWN = "the cell's family has no layout of {}"


def _fitting(layer: Recurrent, arrays: Mapping[str, Array], framework: str) -> str:
    """Advice: the layouts that hold a cell."""
    fitting = []
    for chosen in layouts_of(framework):
        with suppress(NormconvertError):
            store_cell(layer.cell, arrays, chosen)
            fitting.append(chosen.title)
    if not fitting:
        return f"No known layout of {framework} holds this cell; see 'normconvert cells list'"
    return f"Layouts that hold this cell, for --layout: {', '.join(fitting)}"


def restore_model(model: Model, record: Record, tensors: Mapping[str, Array], naming: Naming) -> Model:
    """The model with the cells and weights that stored tensors hold; the rest of it is as given.

    Raises:
        NotEquivalent: the record or the tensors are of another model.
    """
    weights: dict[str, Array] = {}
    made: dict[str, AnyLayer] = {}
    for layer_name, layer in model.layers.items():
        parts: dict[str, Recurrent] = {}
        for part, side, recurrent, _ in parts_of(layer_name, layer, {}):
            stored = entry(record.cells, part)
            chosen = next(iter(choose(recurrent.cell, stored.layout, naming.framework)), None)
            if chosen is None:
                raise CorruptFile(f"the record names a layout {stored.layout}, which is not known")
            own = {
                tensor: np.stack([part_at(tensors, name) for name in names])
                if STEP in tensor
                else part_at(tensors, names[0])
                for tensor, names in stored.tensors.items()
            }
            cell, arrays = rebuilt(StoredCell(chosen, {}, stored.settings, ()), own)
            cell = _in_order(cell, recurrent)
            parts[side] = msgspec.structs.replace(recurrent, cell=cell)
            weights |= {f"{part}.{name}": array for name, array in arrays.items()}
        if isinstance(layer, Bidirectional):
            made[layer_name] = msgspec.structs.replace(layer, forward=parts["forward"], backward=parts["backward"])
        else:
            made[layer_name] = parts.get("", layer)
        for role in layer.weight_names() if not parts else ():
            weight = f"{layer_name}.{role}"
            weights[weight] = naming.restore(layer, role, part_at(tensors, entry(record.weights, weight)))
    return replace(model, layers=made, weights=weights)


def _in_order(cell: Any, recurrent: Recurrent) -> Any:
    """The cell with its states in the order that the model has them, if they have the same names."""
    order = list(recurrent.cell.states)
    if set(order) != set(cell.states) or order == list(cell.states):
        return cell
    equations = replace(cell.parsed(), states=tuple(order))
    states = {name: cell.states[name] for name in order}
    return msgspec.structs.replace(cell, equations=str(equations), states=states)


def parts_of(
    name: str, layer: AnyLayer, weights: Mapping[str, Array]
) -> Iterator[tuple[str, str, Recurrent, dict[str, Array]]]:
    """The recurrent layers in a layer: name, direction, and arrays."""
    if isinstance(layer, Recurrent):
        yield name, "", layer, dict(weights)
    elif isinstance(layer, Bidirectional):
        for side, part in (("forward", layer.forward), ("backward", layer.backward)):
            own = {key[len(side) + 1 :]: array for key, array in weights.items() if key.startswith(f"{side}.")}
            yield f"{name}.{side}", side, part, own


class _Scopes:
    """What the names of a layer's tensors begin with."""

    def __init__(self, model: Model, text: str, naming: Naming) -> None:
        self.naming = naming
        pairs = [part.strip() for part in text.split(",") if part.strip()]
        self.given = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        plain = [pair for pair in pairs if "=" not in pair]
        if len(plain) > 1:
            raise UsageError(f"--to-scope has two general parts, {plain[0]} and {plain[1]}")
        self.prefix = plain[0] if plain else ""
        holders = [name for name in model.layers if model.layers[name].weight_names()]
        self.single = len(holders) == 1 and bool(self.prefix)
        known = {*model.layers, *(f"{name}.{side}" for name in model.layers for side in ("forward", "backward"))}
        known |= {weight for weight in model.weights if _is_plain(model.layers.get(weight.rpartition(".")[0]))}
        for name in self.given:
            if name not in known:
                raise UsageError(f"--to-scope speaks of a layer {name}, which the model does not have")

    def decide(self, layer: str) -> bool:
        """Whether the user says where a layer's tensors go."""
        return bool(self.prefix) or any(name in self.given for name in (layer, f"{layer}.forward", f"{layer}.backward"))

    def __call__(self, part: str, layer: str, side: str) -> tuple[str, str]:
        """The scope, and the direction that it does not say yet."""
        if part in self.given:
            return self.given[part], ""
        base = self.given.get(layer)
        if base is None:
            base = self.prefix if self.single else self.naming.separator.join(filter(None, [self.prefix, layer]))
        return base, side


def _is_plain(layer: AnyLayer | None) -> bool:
    return layer is not None and not isinstance(layer, Recurrent | Bidirectional)


def unknown_layer(layer: AnyLayer, framework: str) -> Unsupported:
    """The error for a layer whose arrays have no usual names."""
    return Unsupported(f"the layer {layer.kind or type(layer).__name__} has no usual names of tensors in {framework}")
