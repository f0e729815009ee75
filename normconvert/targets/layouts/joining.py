"""Tensors that hold several arrays of a model: `h0[1,0]` is the array at this place of the first axes of `h0`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

import numpy as np

from normconvert.errors import UsageError
from normconvert.ir.model import Array
from normconvert.targets.layouts.record import entry

_PLACE = re.compile(r"(?P<name>.+)\[(?P<place>\d+(?:,\d+)*)\]")


def joined(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors, those named by places put together.

    Raises:
        UsageError: a place of a tensor has no array, or arrays of different shapes meet in one.
    """
    whole: dict[str, Array] = {}
    parts: dict[str, dict[tuple[int, ...], Array]] = {}
    for name, array in tensors.items():
        found = _PLACE.fullmatch(name)
        if found is None:
            whole[name] = array
        else:
            parts.setdefault(found["name"], {})[_place(found["place"])] = array
    for name, arrays in parts.items():
        sizes = tuple(max(places) + 1 for places in zip(*arrays, strict=True))
        shape, dtype = next((array.shape, array.dtype) for array in arrays.values())
        if name in whole or prod(sizes) != len(arrays) or any(array.shape != shape for array in arrays.values()):
            raise UsageError(f"the tensor {name} holds an array of every layer, and some are missing or do not fit")
        whole[name] = np.empty((*sizes, *shape), dtype)
        for place, array in arrays.items():
            whole[name][place] = array
    return whole


def part(tensors: Mapping[str, Array], name: str) -> Array:
    """A tensor, or the array at a place of one; NotEquivalent where there is none."""
    found = _PLACE.fullmatch(name)
    if found is None:
        return entry(tensors, name)
    return np.asarray(entry(tensors, found["name"])[_place(found["place"])])


def _place(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
