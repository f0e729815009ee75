"""The source text of the building blocks, and which of them a piece of code needs."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files

from normconvert.targets.torch.library import Block, names_read

__all__ = ["blocks_for", "library", "names_read"]

_FILES = ("functions", "norms", "declared", "recurrence", "directions", "layers")


@lru_cache(maxsize=1)
def library() -> dict[str, Block]:
    """Every block by name, in an order in which each follows what it uses."""
    blocks: dict[str, Block] = {}
    for file in _FILES:
        text = files("normconvert.targets.keras.blocks").joinpath(f"{file}.py").read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                source = "\n".join(lines[first - 1 : node.end_lineno])
                blocks[node.name] = Block(node.name, source, frozenset(names_read(source)))
    return blocks


def blocks_for(names: Iterable[str]) -> list[Block]:
    """The blocks among `names` and those they use in turn, in the library's order."""
    known = library()
    needed: set[str] = set()
    waiting = [name for name in names if name in known]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(known[name].uses & known.keys())
    order = {name: position for position, name in enumerate(known)}
    return [known[name] for name in sorted(needed, key=order.__getitem__)]
