"""Cells of the catalogue in a checkpoint, recognised by the names and shapes of its variables.

A layout of a family fits a scope where every variable it needs is there and the shapes agree on the sizes of the cell.
Of the layouts that fit the same variables, the one that explains most of them is meant. Those that explain as many
stay: as an open setting where they compute the same but for a constant, as an alternative where they do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from normconvert.cells import Family, family, names
from normconvert.ir.values import show
from normconvert.sources.tf1.checkpoint import Variable, arrays_of
from normconvert.sources.tf1.fitting import Fit, Index, fits_of
from normconvert.sources.tf1.found import Certainty, FoundCell, Open
from normconvert.sources.tf1.groups import natural
from normconvert.sources.tf1.naming import STEP, joined, path_of
from normconvert.sources.tf1.refusals import refusals
from normconvert.sources.tf1.roles import stored_for_inference

_TRAINING_ONLY = ("momentum", "unbiased_running")
"""Fields of a norm that change how statistics are trained, not what is computed with them."""

_CERTAINTIES: tuple[Certainty, ...] = ("low", "medium", "high")
_SHOWN = 6


def find_cells(
    variables: Mapping[str, Variable], families: Iterable[Family] | None = None, *, framework: str = "tf1"
) -> list[FoundCell]:
    """The cells whose variables are stored, in the order of their scopes.

    Args:
        variables: all those of a checkpoint; an optimizer's slots and the like are left aside.
        families: where to look for cells; the whole catalogue if not given.
        framework: whose layouts they may have.

    Raises:
        CorruptFile: a cell lacks the variable of a time step between others.
    """
    index = Index(_convertible(variables))
    catalogue = [family(name) for name in names()] if families is None else families
    layouts = [(each, name) for each in catalogue for name in each.layouts if each.layouts[name].framework == framework]
    fits = [fit for each, name in layouts for fit in fits_of(each, name, index)]
    groups = _strongest(fits)
    for best, _ in groups:
        if best.gap is not None:
            raise best.gap
    elsewhere = {best.scope: best.explained for best, _ in groups}
    found = []
    for best, equals in groups:
        others = frozenset[str]().union(*(known for scope, known in elsewhere.items() if scope != best.scope))
        unknown = [name for name in index.below(best.scope) if name not in best.explained | others]
        found.append(_found(best, equals, unknown, index))
    return sorted(found, key=lambda cell: natural(cell.scope))


def _convertible(variables: Mapping[str, Variable]) -> dict[str, Variable]:
    usable = stored_for_inference(variables)
    for refusal in refusals(usable):
        for name in refusal.variables:
            usable.pop(name, None)
    return usable


def _strongest(fits: Iterable[Fit]) -> list[tuple[Fit, list[Fit]]]:
    """The fits that explain most, each with those that explain as much of the same variables."""
    chosen: list[tuple[Fit, list[Fit]]] = []
    owner: dict[str, int] = {}
    for fit in sorted(fits, key=_strength, reverse=True):
        rivals = {owner[name] for name in fit.explained if name in owner}
        if not rivals:
            owner.update(dict.fromkeys(fit.explained, len(chosen)))
            chosen.append((fit, []))
            continue
        best, equals = chosen[min(rivals)]
        if len(rivals) == 1 and best.explained == fit.explained and bool(best.layout.scope) == bool(fit.layout.scope):
            equals.append(fit)
    return chosen


def _strength(fit: Fit) -> tuple[int, bool, int]:
    return len(fit.explained), bool(fit.layout.scope), _CERTAINTIES.index(fit.layout.certainty)


def _found(best: Fit, equals: Sequence[Fit], unknown: Sequence[str], index: Index) -> FoundCell:
    same = [other for other in equals if other.family is best.family and other.meanings() == best.meanings()]
    others = [other for other in equals if other not in same]
    open_settings = _open(best, same)
    undecided = {question.setting for question in open_settings}
    certainty = best.layout.certainty
    evidence = list(_evidence(best, index))
    if unknown:
        certainty = _lower(certainty, "medium")
        evidence.append(f"The layout does not know {_enumerated(unknown)} in the same scope.")
    if others:
        certainty = "low"
        evidence.append(
            f"The same {arrays_of(best.layout.framework)} fit {_enumerated([other.title for other in others])} as well."
        )
    return FoundCell(
        scope=best.scope,
        family=best.family.name,
        layout=best.name,
        tensors=best.tensors,
        sizes=best.sizes,
        certainty=certainty,
        evidence=tuple(evidence),
        settings={
            name: (value, best.layout.source) for name, value in best.layout.settings.items() if name not in undecided
        },
        open=open_settings,
        unused=best.unused,
        alternatives=tuple(other.title for other in others),
        unexplained=tuple(unknown),
    )


def _lower(a: Certainty, b: Certainty) -> Certainty:
    return min(a, b, key=_CERTAINTIES.index)


def _open(best: Fit, same: Sequence[Fit]) -> tuple[Open, ...]:
    """What the layout says is open, and the settings in which layouts with the same variables differ."""
    questions = {question.setting: question for question in best.layout.open}
    for other in same:
        for setting in sorted(best.layout.settings.keys() | other.layout.settings.keys()):
            values = [_value(fit, setting) for fit in (best, other)]
            if values[0] == values[1] or setting.rpartition(".")[2] in _TRAINING_ONLY:
                continue
            why = f"{best.title} and {other.title} have the same {arrays_of(best.layout.framework)} and differ in it"
            question = questions.get(setting, Open(setting, (values[0],), why))
            added = tuple(value for value in values if value not in question.options)
            questions[setting] = Open(setting, (*question.options, *added), question.why)
        for question in other.layout.open:
            questions.setdefault(question.setting, question)
    return tuple(questions.values())


def _value(fit: Fit, setting: str) -> Any:
    """What a layout sets, or else the family's default."""
    if setting in fit.layout.settings:
        return fit.layout.settings[setting]
    match setting.split("."):
        case ["constants", name]:
            return fit.family.constants[name].default
        case ["functions", name]:
            return fit.family.functions[name]
        case ["norms", "*", entry]:
            return next((fields[entry] for fields in fit.family.norms.values() if entry in fields), "the default")
        case ["norms", norm, entry]:
            wider = fit.layout.settings.get(f"norms.*.{entry}")
            return wider if wider is not None else fit.family.norms[norm].get(entry, "the default")
    return "the default"


def _evidence(fit: Fit, index: Index) -> Iterator[str]:
    layout = fit.layout
    stored = [
        f"{tensor} {show(index.variables[each[0]].shape)}" + (f" for {len(each)} steps" if STEP in tensor else "")
        for tensor, each in fit.tensors.items()
    ]
    source = f" ({layout.source})" if layout.source else ""
    yield f"The {arrays_of(layout.framework)} {_enumerated(stored)} have the names and shapes of {fit.title}{source}."
    if layout.scope:
        yield f"The scope is called as this cell calls it: {fit.scope.rpartition('/')[2]}."
    older = [
        each[0].removeprefix(f"{fit.scope}/")
        for tensor, each in fit.tensors.items()
        if STEP not in tensor and joined(fit.scope, path_of(layout, tensor)) != each[0]
    ]
    if older:
        yield f"Other versions of the code named them so: {_enumerated(older)}."
    if fit.missing:
        yield f"There is no {_enumerated(fit.missing)}: what they would do is left out of the equations."


def _enumerated(items: Sequence[str]) -> str:
    shown = list(items[:_SHOWN]) + ([f"{len(items) - _SHOWN} more"] if len(items) > _SHOWN else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def with_certainty(cell: FoundCell, highest: Certainty, *evidence: str) -> FoundCell:
    """The cell with more evidence, and at most so certain."""
    return replace(cell, certainty=_lower(cell.certainty, highest), evidence=(*cell.evidence, *evidence))
