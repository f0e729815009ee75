"""Which recurrent layers the cells of a checkpoint make up, from the names of their scopes.

TensorFlow 1 names its containers itself: `multi_rnn_cell/cell_0` is the first cell of a stack, `bidirectional_rnn/fw`
and `/bw` are the two directions of a layer, `stack_bidirectional_rnn/cell_0/bidirectional_rnn/fw` both. Programs with
scopes of their own keep to `fw` and `bw`, or `forward` and `backward`, and to numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

from normconvert.cells import Family, family, names
from normconvert.errors import UsageError
from normconvert.ir.expressions import next_value
from normconvert.ir.parser import parse
from normconvert.ir.values import Shape, show
from normconvert.sources.tf1.found import FoundCell

_MIRRORED = {"fw": "bw", "fwd": "bwd", "forward": "backward", "forwards": "backwards"}
_DIRECTION = re.compile(rf"(?<![A-Za-z])({'|'.join([*_MIRRORED, *_MIRRORED.values()])})(?![A-Za-z])", re.IGNORECASE)
_SHOWN = 8


@dataclass(frozen=True)
class Group:
    """A recurrent layer in one direction or both.

    Attributes:
        scope: the scope that names it.
        forward: its cell; several, in order, for a stack that runs through before the directions are joined
            (`fw/multi_rnn_cell/cell_0`, `cell_1`, ...: each direction is a chain of its own).
        backward: those of the other direction, empty for a layer of one direction. A scope that names the backward
            direction alone has its cell in `forward`, in its own reading order.
    """

    scope: str
    forward: tuple[FoundCell, ...]
    backward: tuple[FoundCell, ...] = ()

    @property
    def cells(self) -> tuple[FoundCell, ...]:
        """Those of both directions."""
        return (*self.forward, *self.backward)

    @property
    def inputs(self) -> Shape:
        """The shape of what it reads at each step, as far as the variables' shapes tell."""
        return input_shape(self.forward[0], self.forward[0].sizes)

    @property
    def outputs(self) -> Shape | None:
        """The shape of what it gives at each step, the directions joined, as far as the variables' shapes tell."""
        ends = [_output_shape(chain[-1]) for chain in (self.forward, self.backward) if chain]
        known = [shape for shape in ends if shape is not None]
        if len(known) < len(ends):
            return None
        features = [shape[-1] for shape in known]
        return (*known[0][:-1], None if None in features else sum(filter(None, features)))


def input_shape(cell: FoundCell, sizes: Mapping[str, int]) -> Shape:
    """The shape of what a cell reads at each step; None for a size that is not among the given ones."""
    if cell.family not in names():
        return (sizes.get("inputs"),)
    known = family(cell.family)
    return _known_sizes(known, known.inputs[parse(known.equations).inputs[0]], sizes)


def layers_under(scope: str, cells: Sequence[FoundCell]) -> tuple[Group, ...]:
    """The recurrent layers that a scope names, the first to read the sequence first.

    Args:
        scope: a cell's own scope, or any that holds cells: a direction, a pair of directions, a stack.
        cells: those of the checkpoint.

    Raises:
        UsageError: there is no cell in the scope, or the names do not say in which order its layers follow each other;
            lists the scopes to choose from.
    """
    scope = scope.strip("/")
    own = [cell for cell in cells if cell.scope == scope]
    inside = own or [cell for cell in cells if not scope or cell.scope.startswith(f"{scope}/")]
    if not inside:
        raise UsageError(
            f"there is no recurrent cell in the scope {scope}" if cells else "no recurrent cell was recognised",
            remedy=f"Those recognised are in {_listed(_scopes(cells))}" if cells else "See 'normconvert inspect'",
        )
    layers = tuple(_layers(scope, inside))
    if len(own) > 1:
        raise UsageError(f"the scope {scope or 'the top'} holds several cells", remedy="Write a recipe")
    for before, after in pairwise(layers):
        if before.outputs is not None and not _same_shape(before.outputs, after.inputs):
            raise UsageError(
                f"the layers in {scope or 'the top'} are no stack: {before.scope} gives {show(before.outputs)}, "
                f"{after.scope} reads {show(after.inputs)}",
                remedy=f"Name one of them: {_listed([layer.scope for layer in layers])}; or write a recipe",
            )
    return layers


def stacks(cells: Sequence[FoundCell]) -> dict[str, tuple[Group, ...]]:
    """Every scope that names whole layers, with those layers: the narrowest scope of each stack, pair or single cell.

    A scope is left out where a wider one adds layers to it.
    """
    found: dict[str, tuple[Group, ...]] = {}
    for cell in cells:
        best: tuple[str, tuple[Group, ...]] = (cell.scope, (Group(cell.scope, (cell,)),))
        for scope in _around(cell.scope):
            try:
                layers = layers_under(scope, cells)
            except UsageError:
                break
            if _scopes_of(layers) != _scopes_of(best[1]):
                best = (scope, layers)
        found[best[0]] = best[1]
    return found


def natural(name: str) -> tuple[tuple[str, ...], ...]:
    """A key that sorts names part by part with their numbers in numeric order: `cell_2` before `cell_10`."""
    return tuple(
        tuple(piece.zfill(20) if number % 2 else piece for number, piece in enumerate(re.split(r"(\d+)", part)))
        for part in name.split("/")
    )


def _around(scope: str) -> Iterator[str]:
    """The scopes that hold a scope, the nearest first."""
    while "/" in scope:
        scope = scope.rpartition("/")[0]
        yield scope


def _scopes_of(layers: Sequence[Group]) -> list[str]:
    return [cell.scope for layer in layers for cell in layer.cells]


def _layers(scope: str, cells: Sequence[FoundCell]) -> Iterator[Group]:
    """The layers of a scope and of those inside it."""
    children: dict[str, list[FoundCell]] = {}
    for cell in cells:
        rest = cell.scope[len(scope) :].lstrip("/") if scope else cell.scope
        child = rest.partition("/")[0]
        if child:
            children.setdefault(f"{scope}/{child}" if scope else child, []).append(cell)
        else:
            yield Group(scope, (cell,))
    units = list(_units(scope, children))
    _refuse_unordered(scope, [name for name, _ in units])
    for _, layers in units:
        yield from layers


def _units(scope: str, children: Mapping[str, Sequence[FoundCell]]) -> Iterator[tuple[str, Sequence[Group]]]:
    """What each child is, or each pair of children for the two directions, by its name, in order."""
    for child in sorted(children, key=natural):
        forward = _mirror(child, {back: front for front, back in _MIRRORED.items()})
        if forward in children:
            continue
        backward = _mirror(child, _MIRRORED)
        if backward not in children:
            yield child, list(_layers(child, children[child]))
            continue
        ahead, back = list(_layers(child, children[child])), list(_layers(backward, children[backward]))
        if any(layer.backward for layer in (*ahead, *back)):
            yield child, [*ahead, *back]
            continue
        chains = [tuple(layer.forward[0] for layer in chain) for chain in (ahead, back)]
        alone = len(children) == 2
        yield _DIRECTION.sub("", child), [Group(scope if alone else child, chains[0], chains[1])]


def _mirror(path: str, directions: Mapping[str, str]) -> str:
    """The name of the other direction's scope; empty if the last part of the path is not one of these directions."""
    parent, _, last = path.rpartition("/")
    match = next((m for m in _DIRECTION.finditer(last) if m[0].lower() in directions), None)
    if match is None:
        return ""
    other = directions[match[0].lower()]
    other = other.upper() if match[0].isupper() else other.capitalize() if match[0][0].isupper() else other
    renamed = last[: match.start()] + other + last[match.end() :]
    return f"{parent}/{renamed}" if parent else renamed


def _refuse_unordered(scope: str, names: Sequence[str]) -> None:
    """Layers side by side follow each other only where their names differ in a number alone."""
    if len({re.sub(r"_?\d+", "", name) for name in names}) > 1:
        raise UsageError(
            f"the names of the layers in {scope or 'the top'} do not say in which order they follow each other",
            remedy=f"Name one of them: {_listed(names)}; or write a recipe",
        )


def _same_shape(given: Shape, read: Shape) -> bool:
    """Whether two shapes can be the same, as far as they are known."""
    pairs = zip_longest(given, read, fillvalue=0)
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _output_shape(cell: FoundCell) -> Shape | None:
    """The shape of the state that the cell gives out; None where it gives something else."""
    if cell.family not in names():
        return None
    known = family(cell.family)
    state = parse(known.equations).outputs[0].removesuffix(next_value(""))
    if state not in known.states:
        return None
    return _known_sizes(known, known.states[state], cell.sizes)


def _known_sizes(known: Family, shape: Sequence[int | str], sizes: Mapping[str, int]) -> Shape:
    found: list[int | None] = []
    for size in shape:
        try:
            found += known.resolved((size,), sizes)
        except UsageError:
            found.append(None)
    return tuple(found)


def _scopes(cells: Sequence[FoundCell]) -> list[str]:
    return [cell.scope or "the top" for cell in cells]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
