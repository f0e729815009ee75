"""Pieces of Python source: indentation, and text from a file made safe to stand in a docstring or comment."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 100
"""Calls and signatures are broken over several lines from about here."""
LONGEST = 120
"""No line of code is longer."""


def indented(lines: Iterable[str], level: int = 1) -> list[str]:
    """Lines moved right by `level` steps of four spaces; empty lines stay empty."""
    return ["    " * level + line if line else "" for text in lines for line in text.split("\n")]


def safe(text: str) -> str:
    """Text that may stand inside a docstring: no backslash and no quotes can end it or start an escape."""
    printable = "".join(character if character.isprintable() or character == "\n" else " " for character in text)
    return printable.replace("\\", "\\\\").replace('"', "'")


def one_line(text: str) -> str:
    """Text that may stand in a comment or in one line of a docstring."""
    return " ".join(safe(text).split())


def call(name: str, arguments: Iterable[str]) -> str:
    """A call, over several lines if it is long."""
    given = [argument for argument in arguments if argument]
    flat = f"{name}({', '.join(given)})"
    if len(flat) <= WIDTH - 20:
        return flat
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in given), ")"])


def signature(name: str, arguments: Iterable[str], result: str) -> str:
    """The first line of a method, or several lines if it is long."""
    given = list(arguments)
    flat = f"def {name}({', '.join(given)}) -> {result}:"
    if len(flat) <= WIDTH:
        return flat
    return "\n".join([f"def {name}(", *(f"    {argument}," for argument in given), f") -> {result}:"])


def assignment(targets: Iterable[str], function: str, arguments: Iterable[str], indent: int) -> str:
    """Results of a call assigned to names, broken as a formatter would where `indent` columns stand before it."""
    head, given = f"{', '.join(targets)} = {function}(", list(arguments)
    flat = ", ".join(given)
    if indent + len(head) + len(flat) < LONGEST:
        return f"{head}{flat})"
    inside = [flat] if indent + 4 + len(flat) <= LONGEST else [f"{argument}," for argument in given]
    return "\n".join([head, *(f"    {line}" for line in inside), ")"])


def broken(line: str, indent: int) -> str:
    """A statement broken inside its last brackets, as a formatter would where `indent` columns make it too long."""
    if indent + len(line) <= LONGEST or not line.endswith(")"):
        return line
    depth, start, commas = 1, len(line) - 1, []
    while depth:
        start -= 1
        depth += {")": 1, "]": 1, "(": -1, "[": -1}.get(line[start], 0)
        commas += [start] if line[start] == "," and depth == 1 else []
    inside = [line[start + 1 : -1]]
    if indent + 4 + len(inside[0]) > LONGEST:
        ends = [start, *reversed(commas), len(line) - 1]
        end = "," if commas else ""
        inside = [broken(line[a + 1 : b].strip(), indent + 4) + end for a, b in itertools.pairwise(ends)]
    return "\n".join([line[: start + 1], *indented(inside), ")"])


def wrapped(text: str) -> list[str]:
    """A paragraph of a docstring inside a method as lines."""
    return textwrap.wrap(text, LONGEST - 8, break_long_words=False, break_on_hyphens=False)


def docstring(text: str) -> list[str]:
    """A docstring of one paragraph inside a method."""
    lines = wrapped(f'"""{text}"""')
    return lines if len(lines) == 1 else [*lines[:-1], lines[-1].removesuffix('"""'), '"""']


def tuple_of(items: Sequence[str]) -> str:
    """Pieces of code as a tuple."""
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def kept_arguments(names: list[str]) -> list[str]:
    """The lines of a constructor that make attributes of arguments."""
    line = f"{', '.join(f'self.{name}' for name in names)} = {', '.join(names)}"
    return [line] if len(line) <= LONGEST - 8 else [f"self.{name} = {name}" for name in names]


def tuple_type(count: int) -> str:
    """The annotation of a result of `count` tensors."""
    return "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"
