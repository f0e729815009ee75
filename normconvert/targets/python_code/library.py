"""The source text of building blocks, and which of them a piece of code needs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Block:
    """A top-level class or function of the blocks: its source, and every name the source reads."""

    name: str
    source: str
    uses: frozenset[str]


def read_blocks(package: str, modules: Sequence[str]) -> dict[str, Block]:
    """The blocks of a package's modules by name, in an order in which each follows what it uses."""
    blocks: dict[str, Block] = {}
    for module in modules:
        text = files(package).joinpath(f"{module}.py").read_text(encoding="utf-8")
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                # Whole lines: ast.get_source_segment splits the text anew for every block.
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                source = "\n".join(lines[first - 1 : node.end_lineno])
                blocks[node.name] = Block(node.name, source, frozenset(_names_in(node)))
    return blocks


def needed_blocks(library: Mapping[str, Block], names: Iterable[str]) -> list[Block]:
    """The blocks among `names` and those they use in turn, in the library's order."""
    needed: set[str] = set()
    waiting = [name for name in names if name in library]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(library[name].uses & library.keys())
    return [block for name, block in library.items() if name in needed]


def names_read(source: str) -> set[str]:
    """Every bare name that Python source reads."""
    return _names_in(ast.parse(source))


def _names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
