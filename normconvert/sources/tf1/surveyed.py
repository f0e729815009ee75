"""What `inspect` shows of a checkpoint, as data."""

from __future__ import annotations

from typing import Any

import msgspec

from normconvert.ir.values import Shape
from normconvert.sources.tf1.plain import PlainLayer
from normconvert.sources.tf1.refusals import Refusal


class Question(msgspec.Struct, frozen=True):
    """Something open, with how to answer it.

    Attributes:
        setting, options, why: as in `found.Open`.
        answer: the option of the command line that takes the first of `options`.
    """

    setting: str
    options: tuple[Any, ...]
    why: str
    answer: str


class SurveyedCell(msgspec.Struct, frozen=True):
    """A recognised cell; see `found.FoundCell`.

    Attributes:
        title: the family's.
        settings: what the layout fixes, each with where that is known from.
        graph: what the graph shows, each with its place in it.
        note: why the graph's cell is not of the family, or empty.
        variables: by the layout's names of the tensors.
    """

    scope: str
    family: str
    layout: str
    title: str
    sizes: dict[str, int]
    certainty: str
    evidence: tuple[str, ...]
    settings: dict[str, tuple[Any, str]]
    graph: dict[str, tuple[Any, str]]
    note: str
    open: tuple[Question, ...]
    unused: dict[str, str]
    alternatives: tuple[str, ...]
    variables: dict[str, tuple[str, ...]]


class RecurrentLayer(msgspec.Struct, frozen=True):
    """A recurrent layer that a scope names.

    Attributes:
        forward, backward: scopes of the cells of each direction; several for a stack in each direction.
        inputs, outputs: their shapes for one sample and one step, the features last; None for a size that the
            variables' shapes do not tell, and for outputs that are not a state.
    """

    forward: tuple[str, ...]
    backward: tuple[str, ...]
    inputs: Shape
    outputs: Shape | None


class Aside(msgspec.Struct, frozen=True):
    """Variables that inference does not read, for the same reason.

    Attributes:
        reason: why, as half a sentence.
        variables: each with the variable it is about, or empty.
    """

    reason: str
    variables: dict[str, str]


class Survey(msgspec.Struct, frozen=True):
    """What a checkpoint holds.

    Attributes:
        name: of the checkpoint.
        format: `tf1-v2`, `tf1-v1`.
        graph: name of the graph's file beside it, or empty.
        unreadable: why the values cannot be read, or empty; names and shapes can.
        count: of the variables.
        cells: the recurrent cells.
        scopes: the recurrent layers by the scope that names them to `--scope`, in the order of the data.
        plain: other layers, guessed.
        refused: recurrent layers that are recognised but not converted.
        unknown: variables nothing is known about, with their shapes.
        aside: variables that inference does not read.
        warnings: what makes a conversion doubtful, one sentence each.
    """

    name: str
    format: str
    graph: str
    unreadable: str
    count: int
    cells: tuple[SurveyedCell, ...]
    scopes: dict[str, tuple[RecurrentLayer, ...]]
    plain: tuple[PlainLayer, ...]
    refused: tuple[Refusal, ...]
    unknown: dict[str, tuple[int, ...]]
    aside: tuple[Aside, ...]
    warnings: tuple[str, ...]
