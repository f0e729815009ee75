"""The source text of the building blocks, and which of them a piece of code needs."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

_FILES = (
    "functions",
    "shape",
    "masking",
    "noise",
    "convolution",
    "normalisation",
    "attention",
    "cells",
    "recurrent",
)


@dataclass(frozen=True)
class Block:
    """A top-level class or function of the blocks: its source, and every name the source reads."""

    name: str
    source: str
    uses: frozenset[str]


@lru_cache(maxsize=1)
def library() -> dict[str, Block]:
    """Every block by name, in an order in which each follows what it uses."""
    blocks: dict[str, Block] = {}
    for file in _FILES:
        text = files("normconvert.targets.torch.blocks").joinpath(f"{file}.py").read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                # Whole lines: ast.get_source_segment splits the text anew for every block.
                source = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                blocks[node.name] = Block(node.name, source, frozenset(_names_in(node)))
    return blocks


def names_read(source: str) -> set[str]:
    """Every bare name that Python source reads."""
    return _names_in(ast.parse(source))


def _names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


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
