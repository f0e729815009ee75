"""A Keras file as a model: the entry that the other modules of this package serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from normconvert.cells import Family
from normconvert.errors import CorruptFile, UsageError
from normconvert.ir.layers import (
    Embedding,
    Flatten,
    FoldTime,
    Formula,
    LengthMask,
    Masking,
    Permute,
    Recurrent,
    RepeatVector,
    Reshape,
    Reverse,
    StepMask,
)
from normconvert.ir.model import Input, Model, Node, Provenance, value_name
from normconvert.sources.keras import declared as _declared
from normconvert.sources.keras import layers as _layers
from normconvert.sources.keras import operations as _operations
from normconvert.sources.keras import recurrent as _recurrent
from normconvert.sources.keras.assembly import Assembly
from normconvert.sources.keras.container import Container
from normconvert.sources.keras.entries import describe
from normconvert.sources.keras.graph import read_model
from normconvert.sources.keras.hdf5 import Hdf5File, Stored
from normconvert.sources.keras.named_store import NamedModel
from normconvert.sources.keras.saved_model import Variables
from normconvert.sources.keras.store import Scope
from normconvert.sources.keras.tree_store import TreeScope
from normconvert.sources.keras.versions import KerasDialect, dialect_of
from normconvert.sources.reading import Assumption, TensorUse

HANDLER_MODULES = (_declared, _layers, _operations, _recurrent)
"""Imported for the layer classes they register."""

_REARRANGING = (FoldTime, Flatten, Permute, RepeatVector, Reshape, Reverse)


@dataclass(frozen=True)
class Reading:
    """A model with the account of its arrays and of what was assumed."""

    model: Model
    tensors: tuple[TensorUse, ...]
    assumptions: tuple[Assumption, ...]


def read_container(container: Container, define: Mapping[str, Family], options: Mapping[str, str]) -> Reading:
    """The model of an opened file that holds its configuration.

    Raises:
        UsageError: there is no configuration.
        Unsupported, CorruptFile: with the file and the layer as the place.
    """
    if container.config is None:
        raise UsageError(
            "holds weights but no architecture",
            where=container.place,
            remedy="Pass its JSON with --config, or run 'normconvert plan' and pass the recipe with --recipe",
        )
    dialect = dialect_for(container)
    assembly = Assembly(container.place, dialect, define)
    class_name, config, name = describe(_root(container.config))
    scope = open_scope(container)
    inputs, outputs = read_model(assembly, class_name, config, scope)
    tensors = _account(container, assembly)
    model = Model(
        name=name,
        inputs=tuple(typed_input(item, assembly) for item in inputs),
        outputs=tuple(outputs),
        layers=assembly.layers,
        nodes=tuple(assembly.nodes),
        weights=assembly.weights,
        provenance=Provenance(
            source=container.place,
            sha256=container.sha256,
            format=container.format,
            framework=_framework(dialect),
            options=dict(options),
            notes=(*(f"{a.sentence} ({a.source})." for a in _assumed(dialect)), *assembly.notes),
            warnings=tuple(assembly.warnings),
        ),
    )
    return Reading(model, tensors, _assumed(dialect))


def open_scope(container: Container) -> Scope:
    """The arrays of a whole model."""
    if isinstance(container.file, Variables):
        return NamedModel(container.place, container.file.groups())
    assert isinstance(container.file, Hdf5File)
    if container.format == "keras-v3":
        return TreeScope(container.file, container.root)
    return NamedModel.of_file(container.file, container.root)


def dialect_for(container: Container) -> KerasDialect:
    """The dialect of the Keras that wrote a file."""
    return dialect_of(container.version, backend=_backend(container), config=container.config)


def _root(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The model's own entry; a `.json` of some tools wraps it once more."""
    inner = config.get("model_config")
    return inner if isinstance(inner, dict) else config


def _backend(container: Container) -> str:
    """The backend that wrote the file: Keras 1 does not say, but only Theano's arrays have no `:0`."""
    if container.backend or container.format != "keras-h5" or not container.version.startswith("1"):
        return container.backend
    names = list(container.file.arrays)
    return "theano" if names and not any(name.endswith(":0") for name in names) else ""


def _framework(dialect: KerasDialect) -> str:
    name = "tf.keras" if dialect.tf and dialect.major == 2 else "Keras"
    return f"{name} {dialect.text or dialect.major}"


def _assumed(dialect: KerasDialect) -> tuple[Assumption, ...]:
    return tuple(Assumption(sentence, source) for sentence, source in dialect.used.items())


def typed_input(declared: Input, assembly: Assembly) -> Input:
    """The input: integers if it looks up rows of a table (and whatever else is made of it, such as a mask) or is the
    number of a step or the lengths of samples, its batch size free unless a state ties it."""
    readers = _readers(assembly.nodes, declared.name, assembly)
    indices = Embedding in readers or readers == {StepMask} or _counts(declared.name, assembly)
    stateful = any(isinstance(layer, Recurrent) and layer.stateful for layer in assembly.layers.values())
    return Input(declared.name, declared.shape, "int" if indices else "float", declared.batch if stateful else None)


def _counts(value: str, assembly: Assembly) -> bool:
    """Whether an input is the number of the time step, or the lengths of samples, of every layer that reads it."""
    readers = [node for node in assembly.nodes if value in node.inputs]
    layers = [assembly.layers[node.layer] for node in readers]
    return (
        bool(readers)
        and all(isinstance(layer, LengthMask) or (isinstance(layer, Formula) and layer.step_input) for layer in layers)
        and all(value == node.inputs[-1] and value not in node.inputs[:-1] for node in readers)
    )


def _readers(nodes: Sequence[Node], value: str, assembly: Assembly) -> set[type]:
    """The classes of the layers a value reaches, looking through layers that only rearrange.

    A mask of features stands for the `Masking` that it belongs to.
    """
    found: set[type] = set()
    reached = {value}
    for node in nodes:
        if not reached & set(node.inputs):
            continue
        layer = assembly.layers[node.layer]
        if isinstance(layer, _REARRANGING):
            reached.add(value_name(node.name))
        else:
            of_features = isinstance(layer, StepMask) and layer.any_feature
            found.add(Masking if of_features else type(layer))
    return found


def _account(container: Container, assembly: Assembly) -> tuple[TensorUse, ...]:
    """Every stored array with its use, or the reason why it has none.

    Raises:
        CorruptFile: an array under the model's layers that nothing in the configuration uses.
    """
    uses = []
    for stored in container.file.arrays.values():
        reason = "" if stored.used_as else stored.ignored or _why_ignored(container, stored)
        if not stored.used_as and not reason:
            raise CorruptFile(
                f"the array of shape {list(stored.shape)} is used by nothing in the configuration",
                where=f"{container.place}: {stored.name}",
                remedy="Do the weights belong to this architecture?",
            )
        uses.append(TensorUse(stored.name, stored.shape, stored.dtype, stored.used_as, reason))
    return tuple(uses)


_IGNORED = (
    ("optimizer", "state of the optimizer"),
    ("seed_generator", "state of a random number generator"),
    ("seed_gen", "state of a random number generator"),
    ("metrics", "a training metric"),
    ("compile_metrics", "a training metric"),
    ("loss_tracker", "a training metric"),
)


def _why_ignored(container: Container, stored: Stored) -> str:
    parts = stored.name.split("/")
    for word, reason in _IGNORED:
        if any(part.lstrip("_").startswith(word) for part in parts):
            return reason
    if parts[-1].split(":")[0] == "count" or (stored.shape == () and "int" in stored.dtype):
        return "a counter of training"
    if container.format == "keras-h5" and container.root and parts[0] != container.root:
        return "outside the model's weights"
    return ""
