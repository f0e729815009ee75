"""The shapes that functions give and ask for: one rule per function, or per kind of function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard

from normconvert.ir.expressions import Call, Constant, Number, mistake
from normconvert.ir.values import Value, show
from normconvert.ir.windows import PADDINGS, window_length

Options = dict[str, "Constant | None"]

MAX_STRIDE = 65_536
"""Largest stride or dilation of a convolution: what a hostile text can make us pad stays bounded."""


def _axis(call: Call, value: Value, options: Options) -> int:
    axis = options["axis"]
    rank = len(value.shape)
    if not _is_whole(axis) or not -rank <= axis < rank:
        raise mistake(f"axis {axis} of a value with {rank} axes", call.position)
    return axis % rank


def _along_axis(call: Call, values: list[Value], options: Options) -> Value:
    _axis(call, values[0], options)
    return values[0]


def _reduction(call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    axis = _axis(call, value, options)
    if not isinstance(options["keepdims"], bool):
        raise mistake(f"keepdims of {call.function} is True or False", call.position)
    kept = (1,) if options["keepdims"] else ()
    return Value((*value.shape[:axis], *kept, *value.shape[axis + 1 :]), value.batched, value.recurrent)


def _halves(call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    axis = _axis(call, value, options)
    size = value.shape[axis]
    if size is not None and size % 2:
        raise mistake(f"an axis of size {size} has no halves", call.position)
    shape = (*value.shape[:axis], None if size is None else size // 2, *value.shape[axis + 1 :])
    return Value(shape, value.batched, value.recurrent)


def _split(call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    axis = _axis(call, value, options)
    count = call.arguments[1]
    if not isinstance(count, Number) or not count.value.is_integer() or count.value < 1:
        raise mistake("split takes a number of pieces", call.position)
    pieces, size = int(count.value), value.shape[axis]
    if size is None or size % pieces:
        raise mistake(f"an axis of size {size} does not make {pieces} equal pieces", call.position)
    piece = (*value.shape[:axis], size // pieces, *value.shape[axis + 1 :])
    return Value((pieces, *piece), value.batched, value.recurrent)


def _concat(call: Call, values: list[Value], options: Options) -> Value:
    axis = _axis(call, values[0], options)
    shapes = [value.shape for value in values]
    if any(len(shape) != len(shapes[0]) for shape in shapes) or len({value.batched for value in values}) > 1:
        raise mistake("concat joins values with the same number of axes", call.position)
    for shape in shapes[1:]:
        if shape[:axis] + shape[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :]:
            raise mistake(f"concat: shapes {show(shapes[0])} and {show(shape)} do not fit", call.position)
    sizes = [shape[axis] for shape in shapes]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    shape = (*shapes[0][:axis], total, *shapes[0][axis + 1 :])
    return Value(shape, values[0].batched, any(value.recurrent for value in values))


def _transpose(call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    if len(value.shape) < 2:
        raise mistake("transpose needs two axes", call.position)
    shape = (*value.shape[:-2], value.shape[-1], value.shape[-2])
    return Value(shape, value.batched, value.recurrent)


def _reshape(call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    if not value.shape and not value.batched:
        raise mistake("reshape of a number: numbers fit every shape as they are", call.position)
    wanted = options["shape"]
    shape = wanted if isinstance(wanted, tuple) else (wanted,)
    if not all(_is_whole(size) and (size > 0 or size == -1) for size in shape) or shape.count(-1) > 1:
        raise mistake("shape=(...) takes sizes, at most one of them -1", call.position)
    sizes = tuple(size for size in shape if isinstance(size, int))
    if None in value.shape:
        return Value(tuple(None if size == -1 else size for size in sizes), value.batched, value.recurrent)
    total = math.prod(size for size in value.shape if size is not None)
    given = math.prod(size for size in sizes if size != -1)
    if total % given if -1 in sizes else total != given:
        raise mistake(f"{show(value.shape)} does not reshape to {show(sizes)}", call.position)
    return Value(tuple(total // given if size == -1 else size for size in sizes), value.batched, value.recurrent)


def _conv(call: Call, values: list[Value], options: Options) -> Value:
    value, kernel = values
    rank = len(value.shape) - 1
    if rank < 1 or kernel.batched or len(kernel.shape) != rank + 2 or kernel.shape[-2] != value.shape[-1]:
        raise mistake(f"conv of {show(value.shape)} with a kernel {show(kernel.shape)}", call.position)
    window = [size for size in kernel.shape[:rank] if size is not None]
    strides, dilation = (_per_axis(call, name, options[name], rank) for name in ("strides", "dilation"))
    padding = options["padding"]
    if padding not in PADDINGS:
        raise mistake(f"conv has no padding {padding!r}", call.position, f"Known: {', '.join(PADDINGS)}")
    space = tuple(
        window_length(size, w, s, d, str(padding))
        for size, w, s, d in zip(value.shape[:-1], window, strides, dilation, strict=True)
    )
    if 0 in space:
        raise mistake(f"the window of conv is larger than {show(value.shape)}", call.position)
    return Value((*space, kernel.shape[-1]), value.batched, value.recurrent)


def _per_axis(call: Call, name: str, option: Constant | None, rank: int) -> tuple[int, ...]:
    sizes = option if isinstance(option, tuple) else (option,) * rank
    if len(sizes) != rank or not all(_is_whole(size) and 1 <= size <= MAX_STRIDE for size in sizes):
        raise mistake(f"{name} of conv is a whole number from 1 to {MAX_STRIDE}, or {rank} of them", call.position)
    return per_axis(option, rank)


def _is_whole(value: Constant | None) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def per_axis(option: Constant | None, rank: int) -> tuple[int, ...]:
    """An option that is one number for all axes or one per axis, as one per axis."""
    values = option if isinstance(option, tuple) else (option,) * rank
    return tuple(int(value) for value in values if value is not None)


RULES: dict[str, Callable[[Call, list[Value], Options], Value]] = {
    "along_axis": _along_axis,
    "reduction": _reduction,
    "glu": _halves,
    "split": _split,
    "concat": _concat,
    "transpose": _transpose,
    "reshape": _reshape,
    "conv": _conv,
}
"""By function, or by kind for functions without a rule of their own. A `split` gets its pieces on a leading axis."""
