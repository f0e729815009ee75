"""How long the free axes of a model's inputs may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from normconvert.errors import NormconvertError
from normconvert.ir.model import Model
from normconvert.ir.shapes import infer


def concrete(shape: Sequence[int | None], length: int) -> tuple[int, ...]:
    """A shape with its free sizes set: `length` for the first, one more for each further one."""
    sizes, free = [], 0
    for size in shape:
        sizes.append(length + free if size is None else size)
        free += size is None
    return tuple(sizes)


def fits(model: Model, length: int) -> bool:
    """Whether every value of the graph has a shape, none of it empty, at this length."""
    inputs = tuple(
        msgspec.structs.replace(declared, shape=concrete(declared.shape, length)) for declared in model.inputs
    )
    try:
        shapes = infer(replace(model, inputs=inputs))
    except NormconvertError:
        return False
    return all(size is None or size > 0 for shape in shapes.values() for size in shape)
