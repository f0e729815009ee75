"""The sizes of a cell, found from the shapes of stored tensors."""

from __future__ import annotations

from collections.abc import Mapping

from normconvert.cells.layout import Shape
from normconvert.errors import CorruptFile
from normconvert.ir.expressions import Bound


def solve_sizes(
    stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, Shape], known: Mapping[str, int]
) -> dict[str, int]:
    """The cell's sizes (`inputs`, `units`, ...) from the shapes of the stored tensors.

    Raises:
        CorruptFile: the shapes contradict each other or the layout; `where` names the tensor.
    """
    sizes = dict(known)
    equations = []
    for name, shape in stored.items():
        if len(shape) != len(expected[name]):
            raise CorruptFile(f"has {len(shape)} axes, expected {len(expected[name])}", where=f"tensor {name}")
        equations += [(name, bound, size) for bound, size in zip(expected[name], shape, strict=True)]
    progress = True
    while progress:
        progress = False
        for name, bound, size in equations:
            unknown = [(symbol, factor) for symbol, factor in bound.terms if symbol not in sizes]
            if len(unknown) != 1:
                continue
            symbol, factor = unknown[0]
            rest = size - bound.constant - sum(f * sizes[s] for s, f in bound.terms if s in sizes)
            if rest % factor or rest // factor < 1:
                raise CorruptFile(f"an axis of size {size} cannot be {_show(bound)}", where=f"tensor {name}")
            sizes[symbol] = rest // factor
            progress = True
    for name, bound, size in equations:
        if all(symbol in sizes for symbol, _ in bound.terms) and bound.resolve(sizes) != size:
            found = ", ".join(f"{symbol} = {value}" for symbol, value in sizes.items())
            raise CorruptFile(
                f"an axis has size {size}, but {_show(bound)} is {bound.resolve(sizes)} ({found})",
                where=f"tensor {name}",
            )
    return sizes


def _show(bound: Bound) -> str:
    terms = [name if factor == 1 else f"{factor}*{name}" for name, factor in bound.terms]
    return " + ".join(terms + ([str(bound.constant)] if bound.constant or not terms else []))
