"""Sizes such as `4*units`: what slices and shapes in a cell are written in."""

from __future__ import annotations

import ast
from collections import Counter

from normconvert.errors import EquationError
from normconvert.ir.expressions import Bound, Position, mistake
from normconvert.ir.statements import MAX_EQUATION

MAX_DEPTH = 100
"""Deepest nesting of one expression; a sum of n terms counts as n."""

MAX_INTEGER = 2**53
"""Largest integer in a size or an option; every one up to it is exact as a float too."""


def parse_size(text: str) -> Bound:
    """Read a size such as `4*units` or `inputs + units`.

    Raises:
        EquationError: it is not an integer or a sum of sizes.
    """
    if len(text) > MAX_EQUATION:
        raise EquationError(f"a size of {len(text)} characters is too long")
    try:
        return read_size(ast.parse(text.strip(), mode="eval").body, Position(1, 1))
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        raise EquationError(f"{text!r} is not a size") from None


def read_size(node: ast.expr, position: Position, depth: int = 0) -> Bound:
    """The size a Python expression stands for; EquationError points at `position`."""
    if depth > MAX_DEPTH:
        raise mistake(f"the size is nested more than {MAX_DEPTH} levels deep", position)
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return _exact(Bound(value), position)
        case ast.Name(id=name):
            return Bound(0, ((name, 1),))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _scaled(read_size(operand, position, depth + 1), -1)
        case ast.BinOp(op=ast.Add() | ast.Sub() as op, left=left, right=right):
            sign = 1 if isinstance(op, ast.Add) else -1
            total = _added(read_size(left, position, depth + 1), _scaled(read_size(right, position, depth + 1), sign))
            return _exact(total, position)
        case ast.BinOp(op=ast.Mult(), left=left, right=right):
            a, b = read_size(left, position, depth + 1), read_size(right, position, depth + 1)
            if not (a.terms and b.terms):
                return _exact(_scaled(a, b.constant) if a.terms else _scaled(b, a.constant), position)
    raise mistake("a size is an integer or a sum such as inputs + 2*units", position)


def _exact(bound: Bound, position: Position) -> Bound:
    if max(map(abs, (bound.constant, *(factor for _, factor in bound.terms)))) > MAX_INTEGER:
        raise mistake("the integer is larger than 2**53", position)
    return bound


def _scaled(bound: Bound, factor: int) -> Bound:
    terms = tuple((name, count * factor) for name, count in bound.terms if factor)
    return Bound(bound.constant * factor, terms)


def _added(a: Bound, b: Bound) -> Bound:
    counts: Counter[str] = Counter()
    for name, count in a.terms + b.terms:
        counts[name] += count
    return Bound(a.constant + b.constant, tuple(sorted((name, n) for name, n in counts.items() if n)))
