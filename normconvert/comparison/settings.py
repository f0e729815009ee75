"""Hyper-parameters of two layers, field by field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np

from normconvert.comparison.records import Effect, Setting
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.layers import Activation, AnyLayer, Dropout, Recurrent
from normconvert.ir.norm import Norm

_TRAINING = {"trainable", "fixed", "dropout", "recurrent_dropout", "momentum", "unbiased_running"}
"""Fields that the function at inference does not depend on."""

_ELSEWHERE = {"kind", "cell", "forward", "backward", "features", "gamma", "beta", "scale", "center", "use_bias"}
"""What is compared otherwise: cells by their equations, and what a layer stores by its arrays."""

_OF_ROWS = {"past_end", "steps"}
"""Fields of a norm that mean something only where it differs per time step."""

ABSENT = "-"


def layer_settings(a: AnyLayer, b: AnyLayer, rank: int) -> tuple[Setting, ...]:
    """The fields in which two layers of one class differ.

    Args:
        a, b: the layers.
        rank: number of axes of what they read, the batch axis included; an axis may be counted from either end.
    """
    if isinstance(a, Dropout):
        return tuple(_fields(a, b, rank, everything="training"))
    return tuple(_fields(a, b, rank))


def function_settings(layer: AnyLayer) -> tuple[Any, ...]:
    """The fields of a layer that the function depends on, without its cells and arrays."""
    names = [name for name in layer.__struct_fields__ if name not in _ELSEWHERE | _TRAINING]
    return () if isinstance(layer, Dropout) else tuple(getattr(layer, name) for name in names)


def norm_settings(name: str, a: Norm, b: Norm, *, groups: bool) -> tuple[Setting, ...]:
    """The fields in which two norms differ, as `name.field`; `groups` too only if they are asked for."""
    found = _fields(a, b, 0)
    of_rows = a.steps is not None or b.steps is not None
    kept = [each for each in found if (each.name != "groups" or groups) and (each.name not in _OF_ROWS or of_rows)]
    return tuple(msgspec.structs.replace(each, name=f"{name}.{each.name}") for each in kept)


def norms_alike(a: Norm, b: Norm) -> bool:
    """Whether two norms compute the same but for their arrays and groups."""
    return all(setting.effect != "function" for setting in norm_settings("", a, b, groups=False))


def number_settings(a: dict[str, float], b: dict[str, float]) -> tuple[Setting, ...]:
    """Named numbers that differ."""
    return tuple(_differing((name, a.get(name), b.get(name)) for name in {**a, **b}))


def effect_of(a: Any, b: Any) -> Effect:
    """What two unlike values of a setting touch that the function depends on."""
    if isinstance(a, float) and isinstance(b, float) and np.float32(a) == np.float32(b):
        return "rounding"
    return "function"


def shown(value: Any) -> str:
    """A setting for people."""
    match value:
        case None:
            return ABSENT
        case bool():
            return "yes" if value else "no"
        case float():
            return repr(value) if value != int(value or 0) or abs(value) > 1e15 else str(int(value))
        case Activation(function=function, parameters=parameters):
            return f"{function}({', '.join(f'{n:g}' for n in parameters)})" if parameters else function
        case list() | tuple():
            return ", ".join(map(shown, value)) or ABSENT
    return str(value)


def _fields(a: Any, b: Any, rank: int, everything: Effect | None = None) -> Iterator[Setting]:
    for name in a.__struct_fields__:
        if name in _ELSEWHERE:
            continue
        one, other = (_counted(name, getattr(each, name), rank) for each in (a, b))
        if isinstance(a, Recurrent) and name == "fixed":
            continue  # names of arrays, which the two may call differently
        if one != other:
            effect: Effect = everything or ("training" if name in _TRAINING else effect_of(one, other))
            yield Setting(name, _text(name, one), _text(name, other), effect)


def _counted(name: str, value: Any, rank: int) -> Any:
    """An axis counted from the front, and a function with all its numbers."""
    if name == "axis" and isinstance(value, int):
        return value + rank if value < 0 else value
    if isinstance(value, Activation):
        info = FUNCTIONS[value.function]
        defaults = list(info.parameters.values())[len(value.parameters) :]
        axis = _counted("axis", value.axis, rank) if "axis" in info.options else -1
        numbers = (*value.parameters, *(number for number in defaults if number is not None))
        return Activation(value.function, numbers, axis)
    if name == "axes" and rank:
        return tuple(_counted("axis", each, rank) for each in value)
    return value


def _text(name: str, value: Any) -> str:
    return "linear" if value is None and name == "activation" else shown(value)


def _differing(named: Iterable[tuple[str, Any, Any]]) -> Iterator[Setting]:
    for name, one, other in named:
        if one != other:
            yield Setting(name, shown(one), shown(other), effect_of(one, other))
