"""A norm as a family declares it: fields of `ir.norm.Norm`, of which some may be sizes such as `"4*units"`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from normconvert.errors import UsageError
from normconvert.ir.expressions import Bound
from normconvert.ir.norm import Norm
from normconvert.ir.sizes import parse_size

Size = int | str
Fields = Mapping[str, Any]

_SIZED = ("features", "groups", "steps")


def bound(size: Size) -> Bound:
    """A declared size as an expression."""
    return Bound(size) if isinstance(size, int) else parse_size(str(size))


def norm_shape(fields: Fields) -> tuple[Size, ...]:
    """What `Norm.shape` is for declared fields.

    Raises:
        UsageError: the features are missing, or the positions are not a list.
    """
    if "features" not in fields:
        raise UsageError("it does not say how many features it has")
    positions = fields.get("positions", ())
    if not isinstance(positions, (list, tuple)):
        raise UsageError('positions is a list of sizes, such as ["rows", "columns"]')
    return (*positions, fields["features"])


def array_shapes(fields: Fields) -> dict[str, tuple[Bound, ...]]:
    """The shape of every array that a layout may hold of a norm, by its role."""
    rows = (fields["steps"],) if "steps" in fields else ()
    affine = (*(rows if fields.get("affine_per_step", False) else ()), fields["features"])
    statistics = (*(rows if fields.get("scope") == "per_step" else ()), *norm_shape(fields))
    shapes = {"gamma": affine, "beta": affine, "mean": statistics, "variance": statistics}
    return {role: tuple(map(bound, shape)) for role, shape in shapes.items()}


def norm_from(fields: Fields, resolve: Callable[[Size], int]) -> Norm:
    """The norm for sizes in numbers.

    Raises:
        UsageError: a field is not a norm's, or its value does not fit.
    """
    *positions, _ = map(resolve, norm_shape(fields))
    resolved = {**fields, "positions": positions, **{name: resolve(fields[name]) for name in _SIZED if name in fields}}
    try:
        return msgspec.convert(resolved, Norm)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from None
