"""What a reader did with a file: each stored array, each assumption, and a recipe that says it all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from normconvert.ir.model import Model
from normconvert.runtimes.graph_reference import GraphReference

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class Reading:
    """What the user says about a source that the file itself does not.

    Attributes:
        from_format: the source format, instead of looking at the file.
        config: architecture of a weights-only file: JSON of Keras, or a cfg of pytorch-kaldi.
        recipe: TOML file that says what the file holds.
        define: cell definitions (TOML) by the class names they stand for.
        scope: the cell, layer or stack of a checkpoint to take out, by the scope of its variables.
        single_step: take the cell alone, its states as inputs and outputs, instead of a layer over a sequence.
        ema: read the moving averages of the variables that have one.
        family: `family` or `family/layout` of the cells in the scope, instead of recognising it.
        settings: values for what the file leaves open, by dotted name (`constants.forget_bias`).
        outputs: tensors of the graph that are the model's outputs.
        source_module: `path/to/file.py:Class` or `package.module:Class`: the PyTorch module of a state dict, which is
            run as the reference of a proof.
        source_args: arguments of that class by name.
    """

    from_format: str | None = None
    config: Path | None = None
    recipe: Path | None = None
    define: Mapping[str, Path] = field(default_factory=dict)
    scope: str | None = None
    single_step: bool = False
    ema: bool = False
    family: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    source_module: str | None = None
    source_args: Mapping[str, Any] = field(default_factory=dict)


class ReadingOptions(TypedDict, total=False):
    """The attributes of `Reading` as keyword arguments; paths may be text."""

    from_format: str | None
    config: str | PathLike[str] | None
    recipe: str | PathLike[str] | None
    define: Mapping[str, str | PathLike[str]] | None
    scope: str | None
    single_step: bool
    ema: bool
    family: str | None
    settings: Mapping[str, Any]
    outputs: tuple[str, ...]
    source_module: str | None
    source_args: Mapping[str, Any]


def reading_from(**options: Unpack[ReadingOptions]) -> Reading:
    """What the user says, from keyword arguments; TypeError where there is no such option."""
    for name in options.keys() - ReadingOptions.__annotations__.keys():
        raise TypeError(f"there is no option {name!r}")
    config, recipe = options.get("config"), options.get("recipe")
    return Reading(
        from_format=options.get("from_format"),
        config=None if config is None else Path(config),
        recipe=None if recipe is None else Path(recipe),
        define={name: Path(path) for name, path in (options.get("define") or {}).items()},
        scope=options.get("scope"),
        single_step=options.get("single_step", False),
        ema=options.get("ema", False),
        family=options.get("family"),
        settings=options.get("settings", {}),
        outputs=tuple(options.get("outputs", ())),
        source_module=options.get("source_module"),
        source_args=options.get("source_args", {}),
    )


@dataclass(frozen=True)
class TensorUse:
    """One stored array.

    Attributes:
        name: its path in the file.
        shape, dtype: as stored.
        used_as: the weight of the model it became (with the part of it in parentheses), or empty.
        ignored: why it was left out, or empty.
        ignored_like: the same without the array that it names, where it is one reason for many; or empty.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    used_as: str = ""
    ignored: str = ""
    ignored_like: str = ""


@dataclass(frozen=True)
class Assumption:
    """Something the file does not say.

    Attributes:
        sentence: what was assumed.
        source: where the assumption comes from.
    """

    sentence: str
    source: str


@dataclass(frozen=True)
class Plan:
    """How a file is read.

    Attributes:
        tensors: every stored array, in the file's order.
        assumptions: what the file does not say.
        recipe: TOML that reads the same file the same way, to be edited.
    """

    tensors: tuple[TensorUse, ...]
    assumptions: tuple[Assumption, ...]
    recipe: str


@dataclass(frozen=True)
class ReadResult:
    """A model and how it was read.

    Attributes:
        model: what the file computes.
        plan: what became of each stored array.
        reference: the file's own graph, to compare with; None where it has none.
    """

    model: Model
    plan: Plan
    reference: GraphReference | None = None
