"""Which layout a name stands for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from normconvert.cells import Family, family, names
from normconvert.cells.declarations import Layout
from normconvert.ir.cell import Cell


@dataclass(frozen=True)
class Chosen:
    """A layout of a family."""

    family: Family
    layout: str

    @property
    def title(self) -> str:
        """How it is named to the user."""
        return f"{self.family.name}/{self.layout}"

    @property
    def declared(self) -> Layout:
        """What the family's file says of it."""
        return self.family.layout(self.layout)


def choose(cell: Cell, text: str, framework: str) -> tuple[Chosen, ...]:
    """The layouts that a user may mean, those of the cell's own family first; none where the name is not known.

    Args:
        cell: what is to be stored.
        text: `family/layout`, the name of a layout, of a family, or of a public repository or class, in which case and
            `-` or `_` do not matter; empty for any layout of the cell's own family.
        framework: `tf1` or `torch`.
    """
    wanted = _plain(text)
    found = [
        each
        for each in layouts_of(framework)
        if (wanted in map(_plain, _names(each)) if text else each.family.name == cell.family)
    ]
    return tuple(sorted(found, key=lambda each: each.family.name != cell.family))


def layouts_of(framework: str) -> Iterator[Chosen]:
    """Every layout of a framework."""
    for name in names():
        known = family(name)
        for layout, declared in known.layouts.items():
            if declared.framework == framework:
                yield Chosen(known, layout)


def _names(each: Chosen) -> tuple[str, ...]:
    return (each.title, each.layout, each.family.name, *each.declared.also)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
