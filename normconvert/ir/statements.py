"""The text of a cell as Python statements: nothing is executed, and the work stays bounded.

A text may come from a hostile file, so every size that work or memory depends on has a limit.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from normconvert.errors import EquationError
from normconvert.ir.expressions import Position, mistake

MAX_CHARACTERS = 65_536
"""Longest text accepted."""

MAX_EQUATION = 4_096
"""Most characters in one equation, over all its lines."""


@dataclass(frozen=True)
class Place:
    """Where the parsed statements stand in the whole text: `lines` further down."""

    lines: int

    def __call__(self, node: ast.AST) -> Position:
        """Line and column of a node in the whole text."""
        return Position(getattr(node, "lineno", 1) + self.lines, getattr(node, "col_offset", 0) + 1)


def _check_characters(lines: list[str]) -> None:
    """Outside comments, plain ASCII: columns are then characters, and no two spellings are one name to Python."""
    for number, line in enumerate(lines, 1):
        for column, character in enumerate(line, 1):
            if character != "\t" and (not " " <= character <= "~" or character == "\\"):
                raise mistake(f"the character {character!a} has no meaning here", Position(number, column))


def _check_lengths(lines: list[str]) -> None:
    """A bound on each equation, whatever Python's own limits are."""
    length = depth = 0
    for number, line in enumerate(lines, 1):
        length += len(line)
        depth += sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")
        if length > MAX_EQUATION:
            raise mistake(f"the equation has more than {MAX_EQUATION} characters", Position(number, 1))
        if depth <= 0:
            length = depth = 0


def code_lines(text: str) -> list[str]:
    """The lines of a text without their comments.

    Raises:
        EquationError: the text or an equation is too long, or holds a character the language does not have.
    """
    if len(text) > MAX_CHARACTERS:
        raise EquationError(f"the text has {len(text)} characters, more than {MAX_CHARACTERS}", where="line 1")
    lines = [line.partition("#")[0].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    _check_characters(lines)
    _check_lengths(lines)
    return lines


def statements(lines: list[str], start: int) -> tuple[list[ast.stmt], Place]:
    """The statements after line `start` of a text.

    An indented body stands under a header of its own, so that its columns stay.

    Raises:
        EquationError: they are no Python statements; `where` gives line and column.
    """
    body = lines[start + 1 :]
    first = next((line for line in body if line), "")
    header = "class _:" if first[:1].isspace() else ""
    if not first:
        return [], Place(start)
    try:
        tree = ast.parse("\n".join([header, *body])).body
    except SyntaxError as error:
        line = min((error.lineno or 2) + start, len(lines))
        position = Position(line, max(error.offset or 1, 1))
        raise EquationError(f"cannot be read: {error.msg}", where=str(position)) from None
    except (RecursionError, MemoryError):
        raise mistake("an equation is nested too deeply", Position(start + 2, 1)) from None
    place = Place(start)
    if not header:
        return tree, place
    if len(tree) > 1:
        raise mistake("this line starts further left than the equations before it", place(tree[1]))
    assert isinstance(tree[0], ast.ClassDef)
    return tree[0].body, place
