"""Recurrences of a graph as layers of the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from normconvert.errors import CorruptFile, Unsupported
from normconvert.sources.tf1.graph.arranging import natural
from normconvert.sources.tf1.graph.declarations import cell_table
from normconvert.sources.tf1.graph.document import FINAL, LAST
from normconvert.sources.tf1.graph.handlers import REMEDY, TimeMajor
from normconvert.sources.tf1.graph.layout import Data, plain, transposed
from normconvert.sources.tf1.graph.recurrence import Recurrence
from normconvert.sources.tf1.graph.tensors import Entry, Known, Parameter, Value
from normconvert.sources.tf1.graph.view import View

if TYPE_CHECKING:
    from normconvert.sources.tf1.graph.walker import Walk

_COPYING = ("Tile", "ExpandDims", "Reshape", "BroadcastTo", "Squeeze")
_MOST_COPIES = 8
"""How many of them in a row are looked through."""


class Recurrences:
    """The recurrences of a graph, by the tensors that they give.

    Args:
        view: the graph.
        found: the recurrences.
    """

    def __init__(self, view: View, found: Sequence[Recurrence]) -> None:
        self.view, self.found = view, tuple(found)
        self.layers: dict[int, Data] = {}
        self._last: dict[str, int] = {}
        self._reversed: set[int] = set()
        self._giving: dict[str, int] = {}
        for number, recurrence in enumerate(self.found):
            for tensor in (recurrence.outputs, *recurrence.step_outputs, *recurrence.finals.values()):
                if tensor:
                    self._giving.setdefault(view.resolve(tensor), number)

    def giving(self, tensor: str) -> int | None:
        """The recurrence that gives a tensor, by its number."""
        return self._giving.get(tensor)

    def last_read(self, sequence: Data) -> int:
        """Which step of a recurrent layer's output is the one that it reads last; -1 where lengths differ."""
        return self._last[sequence.name]

    def needs(self, number: int) -> tuple[str, ...]:
        """The tensors that a recurrence reads from outside its loop."""
        recurrence = self.found[number]
        below = self.needs(self._below(number)) if recurrence.below else ()
        sequence = (recurrence.sequence,) if recurrence.sequence else recurrence.step_inputs
        states = [tensor for tensor in map(self._initial, filter(None, recurrence.initial.values())) if tensor]
        own = (*sequence, *states, *((recurrence.lengths,) if recurrence.lengths else ()))
        return (*below, *(self.view.resolve(tensor) for tensor in own))

    def value(self, walk: Walk, number: int, tensor: str) -> Value:
        """What a tensor is that a recurrence gives."""
        recurrence, layer = self.found[number], self._layer(walk, number)
        if recurrence.outputs and self.view.resolve(recurrence.outputs) == tensor:
            return transposed(layer, (1, 0, *range(2, len(layer.sizes)))) if recurrence.time_major else layer
        steps = [self.view.resolve(entry) for entry in recurrence.step_outputs]
        if tensor in steps:
            index = steps.index(tensor)
            others = tuple((axis,) for axis in range(len(layer.sizes)) if axis != 1)
            return Entry(layer, 1, len(steps) - 1 - index if number in self._reversed else index, others)
        state = next(name for name, final in recurrence.finals.items() if self.view.resolve(final) == tensor)
        return self._final(recurrence, layer, state)

    def _final(self, recurrence: Recurrence, layer: Data, state: str) -> Data:
        """A state after the last step; the one that is the output needs no output of its own."""
        is_output = self.view.resolve(recurrence.step.next_states[state]) == self.view.resolve(recurrence.step.output)
        place = list(recurrence.cell.states).index(state)
        name = f"{layer.name}{LAST}" if is_output else f"{layer.name}{FINAL}{place}"
        shape = recurrence.cell.states[state]
        return plain(name, (layer.sizes[0], *shape), (layer.origins[0], *(frozenset() for _ in shape)))

    def _layer(self, walk: Walk, number: int) -> Data:
        """The layer's output at every step, `[batch, time, ...]`; the layer is added the first time."""
        if number in self.layers:
            return self.layers[number]
        recurrence = self.found[number]
        sequence, reverse = self._sequence(walk, number)
        walk.times.update(sequence.origins[1])
        table: dict[str, Any] = {"cell": cell_table(recurrence.cell, walk.variables, self._learned(recurrence))}
        if reverse:
            table["reverse"] = True
            self._reversed.add(number)
        states = self._states(walk, recurrence)
        if states:
            table["states"] = states
        read: Data | str = sequence
        if self._has_lengths(walk, recurrence, sequence):
            lengths = natural(walk, walk.data(walk.values[self.view.resolve(recurrence.lengths)]))
            read = walk.document.add("mask", {"class": "LengthMask"}, [sequence, lengths])
            table["zero_masked"] = True
        name = walk.document.add(recurrence.scope or "rnn", table, [read])
        shape = self._output_shape(recurrence)
        outputs = [
            place
            for place, state in enumerate(recurrence.cell.states)
            if self.view.resolve(recurrence.step.next_states[state]) == self.view.resolve(recurrence.step.output)
        ]
        walk.document.recurrent[name] = outputs[0] if outputs else None
        self._last[name] = -1 if read is not sequence else 0 if reverse else sequence.sizes[1] - 1
        sizes = (*sequence.sizes[:2], *shape)
        origins = (*sequence.origins[:2], *(frozenset() for _ in shape))
        layer = plain(name, sizes, origins)
        self.layers[number] = layer
        return layer

    def _below(self, number: int) -> int:
        """The recurrence of the same loop whose output one reads."""
        recurrence = self.found[number]
        read = {self.view.resolve(tensor) for tensor in recurrence.step.inputs}
        named = [
            other
            for other, candidate in enumerate(self.found)
            if candidate.scope == recurrence.below and other != number
        ]
        exact = [other for other in named if self.view.resolve(self.found[other].step.output) in read]
        for other in (*exact, *named[:1]):
            return other
        raise CorruptFile(f"the recurrent layer {recurrence.scope} reads one that is not there: {recurrence.below}")

    def _sequence(self, walk: Walk, number: int) -> tuple[Data, bool]:
        """The value `[batch, time, ...]` that a recurrence reads, and whether from its end."""
        recurrence = self.found[number]
        if recurrence.below:
            return self._layer(walk, self._below(number)), recurrence.reverse
        if recurrence.sequence:
            data = walk.data(walk.values[self.view.resolve(recurrence.sequence)])
            if recurrence.time_major:
                if data.groups[:2] == ((0,), (1,)):
                    raise TimeMajor({walk.fed[name][0] for name, _ in data.origins[0]})
                data = transposed(data, (1, 0, *range(2, len(data.groups))))
            return natural(walk, data), recurrence.reverse
        entries = [walk.values[self.view.resolve(tensor)] for tensor in recurrence.step_inputs]
        return _of_entries(walk, entries, recurrence)

    # Initial states: zeros, other values, or learned.

    def _initial(self, tensor: str) -> str:
        """The tensor of an initial state that is a value of the model; empty for zeros and variables."""
        node = self.view.producer(tensor)
        source = node.inputs[0] if node.op == "PlaceholderWithDefault" else tensor
        return "" if self._zeros(source) or self._variable(source) else source

    def _zeros(self, tensor: str) -> bool:
        for _ in range(_MOST_COPIES):
            node = self.view.producer(tensor)
            if node.op in ("Fill", "ZerosLike"):
                return node.op == "ZerosLike" or self.view.number(node.inputs[1]) == 0
            if node.op not in _COPYING:
                break
            tensor = node.inputs[0]
        value = self.view.constant(tensor)
        return value is not None and not value.any()

    def _variable(self, tensor: str) -> str:
        for _ in range(_MOST_COPIES):
            name = self.view.variable(tensor)
            if name is not None:
                return name
            node = self.view.producer(tensor)
            if node.op not in _COPYING:
                break
            tensor = node.inputs[0]
        return ""

    def _learned(self, recurrence: Recurrence) -> Mapping[str, str]:
        found = {state: self._variable(tensor) for state, tensor in recurrence.initial.items() if tensor}
        return {state: name for state, name in found.items() if name}

    def _states(self, walk: Walk, recurrence: Recurrence) -> list[str]:
        """The values that the states start from, where they are not zeros or learned."""
        given: dict[str, str] = {}
        for state, tensor in recurrence.initial.items():
            if not tensor:
                continue
            if self.view.producer(tensor).op == "PlaceholderWithDefault":
                walk.note(
                    f"The state {state} of {recurrence.scope} may be fed in the graph; the layer starts from zeros"
                )
            source = self._initial(tensor)
            if not source:
                continue
            value = walk.values[self.view.resolve(source)]
            if isinstance(value, Known) and value.number == 0:
                continue
            if isinstance(value, (Known, Parameter)):
                raise Unsupported(f"the state {state} starts from a value other than zeros", remedy=REMEDY)
            given[state] = natural(walk, walk.data(value)).name
        if given and set(given) != set(recurrence.cell.states):
            raise Unsupported("some states start from values of the model and others do not", remedy=REMEDY)
        return [given[state] for state in recurrence.cell.states] if given else []

    def _has_lengths(self, walk: Walk, recurrence: Recurrence, sequence: Data) -> bool:
        """Whether the samples end at different steps; lengths that are the whole length say nothing."""
        if not recurrence.lengths:
            return False
        lengths = walk.values[self.view.resolve(recurrence.lengths)]
        lengths = natural(walk, lengths) if isinstance(lengths, Data) else lengths
        by_step = any(norm.get("steps") for norm in recurrence.cell.norms.values())
        if (
            isinstance(lengths, Data)
            and lengths.name in walk.fed
            and (by_step or lengths.sizes[0] != sequence.sizes[0])
        ):
            _take_whole(walk, recurrence, lengths, sequence)
            return False
        if not isinstance(lengths, Known):
            return True
        if lengths.number != sequence.sizes[1]:
            raise Unsupported("the lengths of the sequences are constants", remedy=REMEDY)
        return False

    def _output_shape(self, recurrence: Recurrence) -> tuple[int, ...]:
        for state, shape in recurrence.cell.states.items():
            if self.view.resolve(recurrence.step.next_states[state]) == self.view.resolve(recurrence.step.output):
                return tuple(shape)
        known = self.view.shape(recurrence.step.output)
        if known is None or None in known[1:]:
            raise Unsupported(f"the shape of the output of {recurrence.scope} is not known", remedy=REMEDY)
        return tuple(size for size in known[1:] if size is not None)


def _take_whole(walk: Walk, recurrence: Recurrence, lengths: Data, sequence: Data) -> None:
    """Leaves fed lengths out of the model's inputs, which then takes every sequence whole.

    They are lengths of steps which have become samples, or of sequences whose cell counts the steps that are real:
    from the end, a model counts from the last step there is.
    """
    samples = sequence.sizes[0]
    fold = next((fold for fold in walk.folds.values() if fold.after.sizes[0] == samples), None)
    steps = 1 if fold is None else fold.before.sizes[1]
    if lengths.sizes[0] * steps != samples or steps in walk.free or sequence.sizes[1] in walk.free:
        raise Unsupported(f"the lengths that {recurrence.scope} reads are not those of its sequences", remedy=REMEDY)
    tensor, _ = walk.fed[lengths.name]
    walk.whole[tensor] = (steps, sequence.sizes[1])
    walk.fix(sequence.origins[1])
    walk.note(f"The graph is fed lengths at {tensor}; the model takes every sequence of {sequence.sizes[1]} whole")


def _of_entries(walk: Walk, entries: Sequence[Value], recurrence: Recurrence) -> tuple[Data, bool]:
    """The value whose entries, in order or from the end, are the steps of an unrolled loop."""
    first = entries[0]
    if isinstance(first, Entry) and all(isinstance(entry, Entry) for entry in entries):
        source = first.source
        indices = [entry.index for entry in entries if isinstance(entry, Entry)]
        alike = {(entry.source, entry.axis, entry.groups) for entry in entries if isinstance(entry, Entry)}
        whole = list(range(source.sizes[first.axis]))
        if len(alike) == 1 and indices in (whole, whole[::-1]):
            walk.note(
                f"{recurrence.scope} is unrolled over {len(whole)} steps in the graph; the layer takes any number"
            )
            steps = replace(source, groups=(first.groups[0], (first.axis,), *first.groups[1:]))
            return natural(walk, steps), recurrence.reverse or (indices != whole)
    raise Unsupported(f"the steps that {recurrence.scope} reads are not those of one sequence", remedy=REMEDY)
