"""What a checkpoint holds, where no recipe says what its variables are for: what `inspect` shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from normconvert.cells import family
from normconvert.cells.layout import parameters_in, parse_layout
from normconvert.errors import CorruptFile
from normconvert.sources.tf1.averages import Averages, under_own_names
from normconvert.sources.tf1.beside import GraphBeside, graph_beside
from normconvert.sources.tf1.checkpoint import Checkpoint, Variable, framework_of
from normconvert.sources.tf1.detection import find_cells
from normconvert.sources.tf1.found import FoundCell, Open, still_open
from normconvert.sources.tf1.gate_order import weighed
from normconvert.sources.tf1.graph.settings import GraphCell
from normconvert.sources.tf1.groups import stacks
from normconvert.sources.tf1.hyperparameters import STRUCTURE
from normconvert.sources.tf1.naming import joined
from normconvert.sources.tf1.opening import open_checkpoint
from normconvert.sources.tf1.plain import PlainLayer, plain_layers
from normconvert.sources.tf1.refusals import refusals
from normconvert.sources.tf1.roles import kind_of_role, stored_for_inference
from normconvert.sources.tf1.surveyed import Aside, Question, RecurrentLayer, Survey, SurveyedCell

_SHOWN_BY_SHAPES = (*STRUCTURE, "momentum")
"""Fields of norms that a layout sets and that the shapes show, or that only training reads."""

Guess = Callable[[Mapping[str, Variable]], Iterator[PlainLayer]]
"""The plain layers that variables look like."""


def survey(path: Path) -> Survey:
    """Look at a checkpoint.

    Args:
        path: the prefix, one of the files, or the folder.

    Raises:
        UsageError: there is no checkpoint.
        CorruptFile: its index is damaged.
    """
    return survey_of(open_checkpoint(path))


def survey_of(opened: Checkpoint, guess: Guess = plain_layers) -> Survey:
    """Look at an opened checkpoint.

    Values are read only to judge statistics; without its data files, names and shapes do.

    Args:
        opened: the checkpoint.
        guess: the plain layers that variables look like.

    Raises:
        CorruptFile: a cell lacks the variable of a time step between others.
    """
    checkpoint = under_own_names(opened)
    variables = checkpoint.variables
    usable = stored_for_inference(variables)
    unreadable = _unreadable(checkpoint, usable)
    cells = find_cells(variables, framework=framework_of(checkpoint))
    if not unreadable:
        cells = [weighed(cell, checkpoint) for cell in cells]
    beside, doubts = _beside(checkpoint, cells)
    cells = [beside.resolved(cell) for cell in cells]
    refused = refusals(usable)
    of_cells = {name for cell in cells for stored in cell.tensors.values() for name in stored}
    of_cells |= {joined(cell.scope, name) for cell in cells for name in cell.unused}
    of_cells |= {name for refusal in refused for name in refusal.variables}
    rest = {name: variable for name, variable in usable.items() if name not in of_cells}
    plain = tuple(guess(rest))
    explained = {joined(layer.scope, name) for layer in plain for name in layer.variables}
    return Survey(
        name=checkpoint.place,
        format=checkpoint.format,
        graph=checkpoint.meta.name if checkpoint.meta else "",
        unreadable=unreadable,
        count=len(variables),
        cells=tuple(_surveyed(cell, beside.cell(cell)) for cell in cells),
        scopes=dict(_scopes(cells)),
        plain=plain,
        refused=tuple(refused),
        unknown={name: variable.shape for name, variable in rest.items() if name not in explained},
        aside=tuple(_aside(variables)),
        warnings=(*doubts, *_warnings(checkpoint, cells, plain, readable=not unreadable)),
    )


def _unreadable(checkpoint: Checkpoint, variables: Mapping[str, Variable]) -> str:
    """Why the values cannot be read; tried on the smallest variable."""
    numbers = [variable for variable in variables.values() if variable.dtype != "string"]
    if not numbers:
        return ""
    try:
        checkpoint.load(min(numbers, key=lambda variable: _size(variable.shape)).name)
    except CorruptFile as error:
        return str(error)
    return ""


def _size(shape: Sequence[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def _beside(checkpoint: Checkpoint, cells: Sequence[FoundCell]) -> tuple[GraphBeside, tuple[str, ...]]:
    """The graph beside a checkpoint, and why it is of no use."""
    try:
        beside = graph_beside(checkpoint)
        for cell in cells:
            beside.cell(cell)
    except CorruptFile as error:
        return GraphBeside(checkpoint), (str(error),)
    return beside, beside.notes


def _surveyed(cell: FoundCell, graph: GraphCell | None) -> SurveyedCell:
    shown = dict(graph.settings) if graph else {}
    decided = graph is not None and not graph.family
    return SurveyedCell(
        scope=cell.scope,
        family=cell.family,
        layout=cell.layout,
        title=family(cell.family).title,
        sizes=dict(cell.sizes),
        certainty=cell.certainty,
        evidence=cell.evidence,
        settings={
            name: value for name, value in cell.settings.items() if name.rpartition(".")[2] not in _SHOWN_BY_SHAPES
        },
        graph=shown,
        note=graph.note if graph else "",
        open=() if decided else tuple(_question(question) for question in still_open(cell, shown)),
        unused=dict(cell.unused),
        alternatives=cell.alternatives,
        variables=dict(cell.tensors),
    )


def _question(question: Open) -> Question:
    """The question with its answer on the command line; constants and functions of a cell may be named alone."""
    name = question.setting
    short = name.partition(".")[2] if name.startswith(("constants.", "functions.")) else name
    first = question.options[0] if question.options else "VALUE"
    shown = str(first).lower() if isinstance(first, bool) else str(first)
    value = f"'{shown}'" if " " in shown else shown
    return Question(name, question.options, question.why, f"--set {short}={value}")


def _scopes(cells: Sequence[FoundCell]) -> Iterator[tuple[str, tuple[RecurrentLayer, ...]]]:
    for scope, groups in stacks(cells).items():
        yield (
            scope,
            tuple(
                RecurrentLayer(
                    tuple(cell.scope for cell in group.forward),
                    tuple(cell.scope for cell in group.backward),
                    group.inputs,
                    group.outputs,
                )
                for group in groups
            ),
        )


def _aside(variables: Mapping[str, Variable]) -> Iterator[Aside]:
    kinds: dict[str, dict[str, str]] = {}
    for name in variables:
        kind, owner = kind_of_role(name, variables)
        if kind:
            kinds.setdefault(kind, {})[name] = owner
    for kind, names in kinds.items():
        yield Aside(kind, names)


def _warnings(
    checkpoint: Checkpoint, cells: Sequence[FoundCell], plain: Sequence[PlainLayer], *, readable: bool
) -> Iterator[str]:
    if isinstance(checkpoint, Averages):
        yield f"{checkpoint.which()}: a conversion reads them with --ema."
    if readable:
        for mean, variance in (*_statistics(cells), *_plain_statistics(plain)):
            if not checkpoint.load(mean).any() and bool((checkpoint.load(variance) == 1).all()):
                yield (
                    f"The running statistics {mean} are exactly 0, with a variance of exactly 1: they were never "
                    "trained. A conversion computes with them all the same."
                )
    for cell in cells:
        sources = {fields.get("source") for fields in family(cell.family).norms.values()}
        sources |= {value for name, (value, _) in cell.settings.items() if name.endswith(".source")}
        if "batch" in sources:
            yield (
                f"The cell in {cell.scope or 'the top'} normalises with the statistics of the batch at hand, at "
                "inference too: what it gives for a sample depends on the other samples of the batch."
            )


def _statistics(cells: Sequence[FoundCell]) -> Iterator[tuple[str, str]]:
    """The variables that hold a running mean and its variance, pair by pair."""
    for cell in cells:
        holding: dict[str, tuple[str, ...]] = {}
        for tensor, stored in cell.tensors.items():
            held = parameters_in(parse_layout(family(cell.family).layouts[cell.layout].tensors[tensor]))
            if len(held) == 1:
                holding[held.pop()] = stored
        for name, means in holding.items():
            norm, _, role = name.partition(".")
            if role == "mean" and f"{norm}.variance" in holding:
                yield from zip(means, holding[f"{norm}.variance"], strict=False)


def _plain_statistics(layers: Sequence[PlainLayer]) -> Iterator[tuple[str, str]]:
    for layer in layers:
        if layer.statistics:
            mean, variance = (joined(layer.scope, name) for name in layer.statistics)
            yield mean, variance
