"""Operations that sum, join, move, add, remove or cut axes."""

from __future__ import annotations

import re
from math import prod

from normconvert.ir.layers import Activation, AnyLayer, Apply, Concatenate, Permute, Reshape, Reverse
from normconvert.ir.shapes.basics import Shape
from normconvert.sources.keras.operands import Builder, Operands, formula, tensor_names


def _reduce(template: str) -> Builder:
    """A reduction over one axis after the other; `template` holds its argument and what follows the axis."""

    def build(operands: Operands) -> AnyLayer:
        keep = bool(operands.options.get("keepdims", operands.options.get("keep_dims", False)))
        expression = "x"
        for axis in sorted(_axes(operands), reverse=True):
            options = f"axis={axis - 1}" + (", keepdims=True" if keep else "")
            expression = template.format(x=expression, options=options)
        return formula(operands, expression)

    return build


def _spread(root: bool) -> Builder:
    """Variance or standard deviation over some axes together."""

    def build(operands: Operands) -> AnyLayer:
        keep = bool(operands.options.get("keepdims", False))
        axes = sorted(_axes(operands), reverse=True)
        centre, result = "x", ""
        for axis in axes:
            centre = f"mean({centre}, axis={axis - 1}, keepdims=True)"
        result = f"square(x - {centre})"
        for axis in axes:
            result = f"mean({result}, axis={axis - 1}{', keepdims=True' if keep else ''})"
        return formula(operands, f"sqrt({result})" if root else result)

    return build


def _axes(operands: Operands) -> set[int]:
    given = operands.options.get("axis", operands.options.get("reduction_indices"))
    if given is None:
        raise operands.unsupported("works along every axis, the batch axis too")
    return {operands.axis(axis) for axis in (given if isinstance(given, (list, tuple)) else [given])}


def _along(function: str) -> Builder:
    """A function along an axis, the last one unless it is named."""

    def build(operands: Operands) -> AnyLayer:
        axis = operands.axis(operands.options.get("axis", -1))
        return Apply(kind=operands.name, activation=Activation(function, axis=axis))

    return build


def _concatenate(operands: Operands) -> AnyLayer:
    return Concatenate(kind=operands.name, axis=operands.axis(operands.options.get("axis", -1)))


def _stack(operands: Operands) -> AnyLayer:
    axis = operands.axis(operands.options.get("axis", 0), new=1)
    pieces = [
        f"reshape({name}, shape={_tuple(operands, _inserted(shape, axis))})"
        for name, shape in zip(tensor_names(operands), operands.shapes, strict=True)
    ]
    return formula(operands, f"concat({', '.join(pieces)}, axis={axis - 1})")


def _expand(operands: Operands) -> AnyLayer:
    axis = operands.axis(operands.options.get("axis", operands.options.get("dim")), new=1)
    return _reshaped(operands, _inserted(operands.shapes[0], axis))


def _squeeze(operands: Operands) -> AnyLayer:
    given = operands.options.get("axis", operands.options.get("squeeze_dims"))
    axes = given if isinstance(given, (list, tuple)) else [given] if given is not None else []
    if not axes:
        raise operands.unsupported("names no axis")
    removed = {operands.axis(axis) for axis in axes}
    if any(operands.shapes[0][axis - 1] not in (1, None) for axis in removed):
        raise operands.unsupported("removes an axis that is longer than 1")
    return _reshaped(operands, tuple(size for n, size in enumerate(operands.shapes[0], 1) if n not in removed))


def _reshape(operands: Operands) -> AnyLayer:
    """A new shape whose first size is the batch's, which has to be the one that is left open."""
    shape = operands.options.get("newshape", operands.options.get("shape"))
    if not isinstance(shape, (list, tuple)) or any(type(size) is not int for size in shape):
        raise operands.unsupported("has a shape that is computed")
    sizes = operands.shapes[0]
    if shape[:1] != [-1] or None in sizes or prod(shape[1:]) != prod(size or 0 for size in sizes):
        raise operands.unsupported(f"to {list(shape)} may mix the samples of a batch")
    return Reshape(kind=operands.name, shape=tuple(shape[1:]))


def _transpose(operands: Operands) -> AnyLayer:
    order = operands.options.get("axes", operands.options.get("perm"))
    if not isinstance(order, (list, tuple)) or list(order[:1]) != [0]:
        raise operands.unsupported("moves the batch axis")
    return Permute(kind=operands.name, order=tuple(int(axis) for axis in order[1:]))


def _swap(operands: Operands) -> AnyLayer:
    first, second = (operands.axis(operands.options.get(key)) for key in ("axis1", "axis2"))
    order = list(range(1, len(operands.shapes[0]) + 1))
    order[first - 1], order[second - 1] = second, first
    return Permute(kind=operands.name, order=tuple(order))


def _flip(operands: Operands) -> AnyLayer:
    axes = _axes(operands)
    if len(axes) != 1:
        raise operands.unsupported("turns several axes around")
    return Reverse(kind=operands.name, axis=axes.pop())


def _item(operands: Operands) -> AnyLayer:
    """Constant slices such as `:, -1`: an integer takes one position of an axis, and the axis goes away."""
    parts = [part.strip() for part in str(operands.options.get("item", "")).split(",")]
    if "..." in parts:
        place = parts.index("...")
        parts[place : place + 1] = [":"] * (len(operands.shapes[0]) + 2 - len(parts))
    matched = [_PART.fullmatch(part) for part in parts]
    if not all(matched):
        raise operands.unsupported("adds an axis, or cuts at a computed position")
    if parts[0] != ":":
        raise operands.unsupported("cuts the batch axis")
    if "::-1" in parts and set(parts) == {":", "::-1"} and parts.count("::-1") == 1:
        return Reverse(kind=operands.name, axis=parts.index("::-1"))
    if any(part and part["step"] not in (None, "", "1") for part in matched):
        raise operands.unsupported("takes positions that are not next to each other")
    slices = [_ends(part["start"], part["stop"], part["colon"]) for part in matched[1:] if part]
    expression = f"x[{', '.join(slices)}]" if set(slices) - {":"} else "x"
    for axis, part in reversed(list(enumerate(matched[1:]))):
        if part and not part["colon"]:
            expression = f"sum({expression}, axis={axis})"  # of one position: the position itself
    return formula(operands, expression)


def _ends(start: str, stop: str | None, colon: str | None) -> str:
    """A slice of the equation language; one position as the slice that holds it alone."""
    if colon:
        return f"{start}:{stop or ''}"
    return "-1:" if start == "-1" else f"{start}:{int(start) + 1}"


_PART = re.compile(
    r"(?=.)(?P<start>-?\d{1,9}|(?=:))(?P<colon>:(?P<stop>-?\d{1,9}|)(:(?P<step>-?\d{1,9}|))?)?", re.ASCII
)
"""A position, or a slice with start, stop and step."""


def _inserted(shape: Shape, axis: int) -> Shape:
    return (*shape[: axis - 1], 1, *shape[axis - 1 :])


def _reshaped(operands: Operands, shape: Shape) -> Reshape:
    return Reshape(kind=operands.name, shape=_tuple(operands, shape))


def _tuple(operands: Operands, shape: Shape) -> tuple[int, ...]:
    """Sizes for a reshape, which can leave one of them open."""
    if sum(size is None for size in shape) > 1:
        raise operands.unsupported("is of a tensor with several sizes that may change")
    return tuple(-1 if size is None else size for size in shape)


AXIS_OPERATIONS: dict[str, Builder] = {
    **dict.fromkeys(("sum", "reducesum"), _reduce("sum({x}, {options})")),
    **dict.fromkeys(("mean", "reducemean"), _reduce("mean({x}, {options})")),
    **dict.fromkeys(("max", "amax", "reducemax"), _reduce("max({x}, {options})")),
    **dict.fromkeys(("min", "amin", "reducemin"), _reduce("min({x}, {options})")),
    **dict.fromkeys(("var", "reducevariance"), _spread(root=False)),
    **dict.fromkeys(("std", "reducestd"), _spread(root=True)),
    "softmax": _along("softmax"),
    "logsoftmax": _along("log_softmax"),
    **dict.fromkeys(("concat", "concatenate"), _concatenate),
    "stack": _stack,
    "expanddims": _expand,
    "squeeze": _squeeze,
    "reshape": _reshape,
    **dict.fromkeys(("transpose", "permutedimensions"), _transpose),
    "swapaxes": _swap,
    **dict.fromkeys(("flip", "reverse"), _flip),
    "getitem": _item,
}
"""Builders by the operation's name in lower case and without underscores."""
