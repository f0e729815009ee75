"""The names that a source has for its tensors, kept where the same arrays are written again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from normconvert.ir.model import Array
from normconvert.sources.reading import TensorUse
from normconvert.targets.layouts.storing import STEP, StoredCell

_STEP = re.escape(STEP)


@dataclass(frozen=True)
class Kept:
    """A tensor of the source that holds an array.

    Attributes:
        name, shape: of the tensor.
        position: of the array among those that it holds.
    """

    name: str
    shape: tuple[int, ...]
    position: int

    def holds(self, array: Array) -> bool:
        """Whether an array can be this tensor or a part of it."""
        rest = self.shape[len(self.shape) - array.ndim :]
        return rest == array.shape and (self.shape == rest or self.position < self.shape[0])

    def place(self, array: Array) -> str:
        """Its name, with the place of an array that is a part of it."""
        if self.shape == array.shape:
            return self.name
        rest = len(self.shape) - array.ndim - 1
        return f"{self.name}[{','.join(map(str, (self.position, *[0] * rest)))}]"


Names = Mapping[str, Sequence[Kept]]
"""The tensors of a source by what they hold, as its plan says it: several for an array with one for each time step."""


def kept_names(uses: Iterable[TensorUse]) -> Names:
    """What each array of a model is called in its source."""
    names: dict[str, list[Kept]] = {}
    for use in uses:
        for position, text in enumerate(_arrays_in(use.used_as)):
            names.setdefault(text, []).append(Kept(use.name, use.shape, position))
    return names


def _arrays_in(used_as: str) -> Iterator[str]:
    """The arrays that one tensor holds, separated by commas outside of brackets: `l0.b[i, f], l1.b[i, f]`."""
    start = depth = 0
    for index, character in enumerate(used_as):
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            yield used_as[start:index].strip()
            start = index + 1
    if used_as:
        yield used_as[start:].strip()


@dataclass(frozen=True)
class Keeping:
    """What is known of a source's names.

    Attributes:
        names: see the type; empty where none are to be kept.
        separator: between the parts of a name.
    """

    names: Names
    separator: str

    def weight(self, weight: str, array: Array) -> str:
        """The source's name for an array of the model; empty where it has none, or the array of another shape."""
        found = self.names.get(weight, ())
        return found[0].place(array) if len(found) == 1 and found[0].holds(array) else ""

    def cell(self, part: str, stored: StoredCell, *, alike: bool) -> dict[str, list[str]]:
        """The source's names for all tensors of a stored cell, by the layout's; none where one is not known.

        Args:
            part: the recurrent layer.
            stored: its cell.
            alike: whether they must end as the layout's names do. Else it is enough that they hold the same arrays in
                the same arrangement.
        """
        layout = stored.chosen.declared
        result: dict[str, list[str]] = {}
        for tensor, array in stored.tensors.items():
            rows = list(array) if STEP in tensor else [array]
            found = sorted(self.names.get(f"{part}.{layout.tensors[tensor]}", ()), key=_step)
            fits = len(found) == len(rows) and all(map(Kept.holds, found, rows))
            if not fits or (alike and not self._alike(found, (tensor, *layout.aliases.get(tensor, ())))):
                return {}
            result[tensor] = [each.place(row) for each, row in zip(found, rows, strict=True)]
        return result

    def _alike(self, found: Sequence[Kept], tensors: Sequence[str]) -> bool:
        endings = "|".join(re.escape(each).replace(f"_{_STEP}", r"(_\d+)?").replace(_STEP, r"\d+") for each in tensors)
        pattern = re.compile(rf"(.*{re.escape(self.separator)})?({endings})(_l\d+(_reverse)?)?")
        return all(pattern.fullmatch(each.name) for each in found)


def _step(kept: Kept) -> list[int]:
    """The numbers in a name; of tensors stored one for each time step, all but the step's are the same."""
    return [int(number) for number in re.findall(r"\d+", kept.name)]
