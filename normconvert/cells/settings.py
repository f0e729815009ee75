"""Settings of a cell by dotted names: what equations and weights leave open.

    constants.forget_bias   a run-time constant
    functions.activation    a placeholder function: its name, `linear`, or [name, number, ...]
    norms.bn_x.epsilon      a field of a norm; `norms.*.epsilon` of every norm
    options.padding         what `"$padding"` stands for in the equations
    dims.units              a size

A later setting replaces an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from normconvert.cells.declarations import Layout
from normconvert.errors import UsageError
from normconvert.ir.expressions import Constant
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.layers import Activation
from normconvert.ir.norm import Norm
from normconvert.ir.values import suggestion

LINEAR = "linear"
"""The function that is none."""


class Settings(msgspec.Struct, frozen=True):
    """Settings sorted by what they are of; later ones have replaced earlier ones."""

    constants: dict[str, float]
    functions: dict[str, Activation | None]
    norms: dict[str, dict[str, Any]]
    options: dict[str, Constant]
    dims: dict[str, int]

    def put(self, name: str, value: Any) -> None:
        """Add one setting.

        Raises:
            UsageError: there is no such setting, or the value does not fit it.
        """
        try:
            match name.split("."):
                case ["constants", constant]:
                    self.constants[constant] = float(value)
                case ["functions", function]:
                    self.functions[function] = activation(value)
                case ["norms", norm, field] if field in Norm.__struct_fields__:
                    self.norms.setdefault(norm, {})[field] = value
                case ["options", option]:
                    self.options[option] = tuple(value) if isinstance(value, list) else value
                case ["dims", size]:
                    self.dims[size] = _whole(value)
                case _:
                    raise UsageError(
                        f"there is no setting {name}",
                        remedy="Settings are constants.NAME, functions.NAME, norms.NAME.FIELD, options.NAME, dims.NAME",
                    )
        except (TypeError, ValueError):
            raise UsageError(f"{value!r} is no value for {name}") from None

    def of_norm(self, name: str) -> dict[str, Any]:
        """The fields that are set for a norm, by its own name or for all."""
        return {**self.norms.get("*", {}), **self.norms.get(name, {})}


def decided(
    constants: Mapping[str, float],
    dims: Mapping[str, int],
    layout: Layout,
    config: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Settings:
    """Defaults, then what a layout fixes, what the framework's configuration says, and what the caller sets.

    Raises:
        UsageError: there is no such setting, or the value does not fit it.
    """
    settings = Settings(dict(constants), {}, {}, {}, dict(dims))
    for name, value in layout.settings.items():
        settings.put(name, value)
    for key, targets in layout.config.items():
        if key in config:
            for target in targets.split(","):
                settings.put(target.strip(), config[key])
    for name, value in given.items():
        settings.put(name, value)
    return settings


def activation(value: Any) -> Activation | None:
    """A function from its name, or from its name and numbers; None for `linear`.

    Raises:
        UsageError: it is not a function of the language.
    """
    name, *numbers = value if isinstance(value, (list, tuple)) and value else [value]
    if name == LINEAR:
        return None
    if not isinstance(name, str) or name not in FUNCTIONS or FUNCTIONS[name].tensors != 1:
        raise UsageError(f"there is no function {name}", remedy=suggestion(str(name), FUNCTIONS))
    return Activation(name, tuple(float(number) for number in numbers))


def sizes_of(given: Mapping[str, Any]) -> dict[str, int]:
    """The sizes among settings.

    Raises:
        UsageError: there is no such setting, or the value does not fit it.
    """
    settings = Settings({}, {}, {}, {}, {})
    for name, value in given.items():
        settings.put(name, value)
    return settings.dims


def _whole(value: Any) -> int:
    """A size of an axis; ValueError for anything else than a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is no size")
    return value


def flattened(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names from the tables of a recipe: `{"norms": {"bn_x": {"epsilon": 1e-5}}}` is `norms.bn_x.epsilon`.

    Raises:
        UsageError: a table stands where a value should, or the other way round.
    """
    result = {}
    for kind in ("constants", "functions", "options", "dims"):
        for name, value in _table(tables.get(kind, {}), kind).items():
            result[f"{kind}.{name}"] = value
    for norm, fields in _table(tables.get("norms", {}), "norms").items():
        for field, value in _table(fields, f"norms.{norm}").items():
            result[f"norms.{norm}.{field}"] = value
    return result


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} is a table, such as {name} = {{ NAME = VALUE }}")
    return value
