"""How the layers of two models are connected, and what goes in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from normconvert.comparison.alignment import Pairs, places_of_values
from normconvert.comparison.records import Effect, Setting
from normconvert.comparison.settings import ABSENT, shown
from normconvert.ir.layers import AnyLayer
from normconvert.ir.model import Model, Node


class Wiring:
    """The connections of two models.

    Args:
        a, b: the models.
        pairs: their nodes that stand in the same place.
        idle: whether a layer passes its input on; one that only one model has is looked through.
    """

    def __init__(self, a: Model, b: Model, pairs: Pairs, idle: Callable[[AnyLayer], bool]) -> None:
        self.a, self.b, self.idle = a, b, idle
        self.pairs = dict(pairs)
        self.places = places_of_values(a), places_of_values(b)
        self.paired = {x for x, _ in pairs}, {y for _, y in pairs}
        inputs = zip(a.inputs, b.inputs, strict=False)
        self.inputs = {one.name: other.name for one, other in inputs}

    def of_pair(self, x: Node, y: Node) -> Iterator[Setting]:
        """What two nodes in the same place read, where it is not the same."""
        for what in ("inputs", "masks", "states"):
            one = [self._source(name, 0) for name in getattr(x, what) if name]
            other = [self._source(name, 1) for name in getattr(y, what) if name]
            if [self._there(name) for name in one] != other:
                label = "reads" if what == "inputs" else what
                yield Setting(label, ", ".join(one) or ABSENT, ", ".join(other) or ABSENT)

    def interface(self) -> Iterator[Setting]:
        """Inputs and outputs of the models."""
        if len(self.a.inputs) != len(self.b.inputs):
            yield Setting("inputs", str(len(self.a.inputs)), str(len(self.b.inputs)))
        for one, other in zip(self.a.inputs, self.b.inputs, strict=False):
            place = f"input {one.name}"
            if one.name != other.name:
                yield Setting(f"{place} name", one.name, other.name, "interface")
            if one.shape != other.shape:
                fits = len(one.shape) == len(other.shape) and all(
                    None in sizes or sizes[0] == sizes[1] for sizes in zip(one.shape, other.shape, strict=True)
                )
                effect: Effect = "interface" if fits else "function"
                yield Setting(f"{place} shape", _sizes(one.shape), _sizes(other.shape), effect)
            if one.dtype != other.dtype:
                yield Setting(f"{place} type", one.dtype, other.dtype)
            if one.batch != other.batch:
                yield Setting(f"{place} batch", shown(one.batch), shown(other.batch), "interface")
        mine = [self._source(name, 0) for name in self.a.outputs]
        theirs = [self._source(name, 1) for name in self.b.outputs]
        if [self._there(name) for name in mine] != theirs:
            yield Setting("outputs", ", ".join(mine), ", ".join(theirs))

    def _source(self, value: str, side: int) -> str:
        """The value that a value is, past layers of this model alone that pass it on."""
        model = (self.a, self.b)[side]
        while value in self.places[side]:
            node = model.nodes[self.places[side][value]]
            if node.name in self.paired[side] or not self.idle(model.layers[node.layer]):
                break
            value = node.inputs[0]
        return value

    def _there(self, value: str) -> str:
        """The same value in the other model; one that it does not have stays as it is, and fits nothing."""
        if value in self.inputs:
            return self.inputs[value]
        place = self.places[0].get(value)
        if place is None:
            return f"{value} of the first"
        node = self.a.nodes[place]
        if node.name not in self.pairs:
            return f"{value} of the first"
        other = next(each for each in self.b.nodes if each.name == self.pairs[node.name])
        if value == node.name:
            return other.name
        further = list(node.further)
        number = further.index(value) + 1 if value in further else int(value.rpartition(":")[2])
        return other.outputs(number + 1)[number] if number <= len(other.further) or not other.further else value


def _sizes(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('None' if size is None else str(size) for size in shape)})"
