"""A checkpoint as a model: what is described - by a recipe, a scope, or the graph beside it - filled with variables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from normconvert.cells import Family, read_family
from normconvert.errors import CorruptFile, NormconvertError, Unsupported, UsageError
from normconvert.ir.layers import AnyLayer
from normconvert.ir.model import Array, Model, Provenance
from normconvert.runtimes.graph_reference import GraphReference
from normconvert.sources.keras import layers as _layers
from normconvert.sources.keras import operations as _operations
from normconvert.sources.keras import recurrent as _recurrent
from normconvert.sources.keras.assembly import Assembly
from normconvert.sources.keras.entries import describe
from normconvert.sources.keras.graph import read_model
from normconvert.sources.keras.reader import typed_input
from normconvert.sources.keras.recipe import model_config
from normconvert.sources.keras.versions import KerasDialect
from normconvert.sources.reading import Assumption, Plan, Reading, ReadResult, TensorUse
from normconvert.sources.tf1 import cell_layers as _cell_layers
from normconvert.sources.tf1 import cudnn as _cudnn
from normconvert.sources.tf1.checkpoint import Checkpoint, framework_of
from normconvert.sources.tf1.roles import why_unused
from normconvert.sources.tf1.scope import CheckpointScope, Store
from normconvert.sources.toml import stripped, write_toml

HANDLER_MODULES = (_cell_layers, _cudnn, _layers, _operations, _recurrent)
"""Imported for the layers they register."""

DIALECT = KerasDialect("", 2, 15, tf=True)
"""Plain layers of a recipe mean what tf.keras means by them."""

_LARGEST_RECIPE = 4_000_000
_FRAMEWORKS = {"tf1": "TensorFlow 1", "torch": "PyTorch"}


@dataclass(frozen=True)
class Described:
    """What the layers of a checkpoint are, before any variable is read.

    Attributes:
        document: the recipe; its values may carry the reason they were chosen.
        define: cells from files, by the text that names them in the document.
        reference: the graph beside the checkpoint, as something to compare with.
        constants: arrays of the graph that layers use as if they were variables.
        assumptions: what neither the checkpoint nor the user says.
        notes: what the user should know.
        outside: why a variable that no layer uses is left out, unless its own role says more.
    """

    document: Mapping[str, Any]
    define: Mapping[str, Family] = field(default_factory=dict)
    reference: GraphReference | None = None
    constants: Mapping[str, Array] = field(default_factory=dict)
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[str, ...] = ()
    outside: str = "not in the recipe"


def read_recipe_file(path: Path, define: Mapping[str, Path]) -> Described:
    """What a recipe file describes.

    Raises:
        UsageError: it cannot be read, or is no recipe.
    """
    try:
        if path.stat().st_size > _LARGEST_RECIPE:
            raise UsageError("is too large for a recipe", where=str(path))
        document = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"is not TOML ({error})", where=str(path)) from None
    families = {name: read_family(file) for name, file in define.items()}
    layers = document.get("layers", [])
    for layer in layers if isinstance(layers, list) else []:
        cell = layer.get("cell") if isinstance(layer, dict) else None
        if isinstance(cell, str) and cell.endswith(".toml"):
            families[cell] = read_family(path.parent / cell)
    return Described(document, families)


def build(checkpoint: Checkpoint, described: Described, reading: Reading, averages: Mapping[str, str]) -> ReadResult:
    """The model.

    Raises:
        UsageError: the description does not fit the variables.
        Unsupported, CorruptFile: with the checkpoint and the layer as the place.
    """
    store = Store(checkpoint, described.constants, averages)
    assembly = Assembly(checkpoint.place, DIALECT, described.define)
    try:
        config = model_config(stripped(described.document))
        class_name, body, name = describe(config)
        inputs, outputs = read_model(assembly, class_name, body, CheckpointScope(store))
    except NormconvertError as error:
        raise error if error.where.startswith(checkpoint.place) else error.at(checkpoint.place) from None
    except RecursionError:
        raise CorruptFile("the recipe is nested too deeply", where=checkpoint.place) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"the recipe does not make sense ({type(error).__name__}: {error})", where=checkpoint.place
        ) from error
    model = Model(
        name=name,
        inputs=tuple(typed_input(item, assembly) for item in inputs),
        outputs=tuple(outputs),
        layers=dict(_fixing(assembly.layers, {held.used_as for held in store.taken_constants})),
        nodes=tuple(assembly.nodes),
        weights=assembly.weights,
        provenance=Provenance(
            source=checkpoint.place,
            sha256=checkpoint.sha256(),
            format=checkpoint.format,
            framework=_FRAMEWORKS[framework_of(checkpoint)],
            options=_options(reading),
            notes=(*(f"{a.sentence} ({a.source})." for a in described.assumptions), *described.notes, *assembly.notes),
            warnings=tuple(assembly.warnings),
        ),
    )
    plan = Plan(_uses(checkpoint, store, described.outside), described.assumptions, write_toml(described.document))
    return ReadResult(model, plan, described.reference)


def _fixing(layers: Mapping[str, AnyLayer], constants: Collection[str]) -> Iterator[tuple[str, AnyLayer]]:
    """The layers, told which of their weights are constants of the graph."""
    for name, layer in layers.items():
        found = tuple(weight for weight in layer.weight_names() if f"{name}.{weight}" in constants)
        yield (
            name,
            msgspec.structs.replace(layer, fixed=tuple(dict.fromkeys((*layer.fixed, *found)))) if found else layer,
        )


def _uses(checkpoint: Checkpoint, store: Store, outside: str) -> tuple[TensorUse, ...]:
    """What became of every variable."""
    uses = []
    for name, held in store.held.items():
        variable = held.variable
        why, like = ("", "") if held.used_as else why_unused(name, checkpoint.variables, outside)
        uses.append(TensorUse(name, variable.shape, variable.dtype, held.used_as, why, like))
    return tuple(uses)


def _options(reading: Reading) -> dict[str, str]:
    """What the user decided, as strings."""
    given = {
        "recipe": reading.recipe.name if reading.recipe else "",
        "scope": reading.scope or "",
        "cell": "yes" if reading.single_step else "",
        "ema": "yes" if reading.ema else "",
        "family": reading.family or "",
        "outputs": ", ".join(reading.outputs),
        **{name: str(value) for name, value in reading.settings.items()},
    }
    return {name: value for name, value in given.items() if value}


def undescribed(checkpoint: Checkpoint) -> Unsupported:
    """The error for variables without an order of layers."""
    return Unsupported(
        "a checkpoint holds variables, but not which layers use them in which order",
        where=checkpoint.place,
        remedy="Put its .meta file beside it; or take out one layer with --scope (see 'normconvert inspect'); "
        "or run 'normconvert plan', complete the recipe and pass it with --recipe",
    )
