"""Pieces of Python source: indentation, and text from a file made safe to stand in a docstring or comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

WIDTH = 100


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


def wrapped(text: str, indent: str = "") -> list[str]:
    """A sentence broken into lines."""
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


def tuple_type(count: int) -> str:
    """The annotation of a result of `count` tensors."""
    return "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"
