"""Typed reading of a layer's configuration, which comes from a file that may hold anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from normconvert.errors import CorruptFile
from normconvert.ir.model import Array
from normconvert.sources.keras.building import Config


@dataclass(frozen=True)
class Options:
    """A configuration and the name of the class it belongs to.

    Every method reads one key, gives the default where the key is missing or None, and raises CorruptFile where
    the value is not of the kind asked for.
    """

    class_name: str
    config: Config

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._value(key, default)
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if not whole or isinstance(value, bool):
            self.reject(key, "a whole number")
        return int(value)

    def positive(self, key: str, default: int | None = None) -> int:
        """A whole number above zero."""
        value = self.integer(key, default)
        if value < 1:
            self.reject(key, "above zero")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number; an array of one number, as NumPy scalars are saved, counts as one."""
        value = self.numbers(key, None if default is None else [default])
        if len(value) != 1:
            self.reject(key, "one number")
        return value[0]

    def numbers(self, key: str, default: Sequence[float] | None = None) -> tuple[float, ...]:
        """A number or a list of them."""
        return tuple(float(value) for value in np.atleast_1d(self.array(key, default)).ravel())

    def array(self, key: str, default: Any = None) -> Array:
        """A number, nested lists of them, or an array as Keras 3 serializes it; float64."""
        value = self._value(key, default)
        if isinstance(value, dict):
            inner = value.get("config")
            value = inner.get("value") if isinstance(inner, dict) else value.get("value")
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            self.reject(key, "numbers")
        if not np.isfinite(array).all():
            self.reject(key, "finite numbers")
        return array

    def flag(self, key: str, default: bool = False) -> bool:
        """True or False."""
        value = self._value(key, default)
        if not isinstance(value, (bool, int)):
            self.reject(key, "true or false")
        return bool(value)

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """One of several words, in whatever case."""
        value = self._value(key, default)
        if not isinstance(value, str) or value.lower() not in choices:
            self.reject(key, f"one of {', '.join(choices)}")
        return str(value).lower()

    def integers(self, key: str, default: Sequence[int] | int | None = None) -> tuple[int, ...]:
        """A whole number or a list of them."""
        value = self._value(key, default)
        items = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(item, bool) or not isinstance(item, int) for item in items):
            self.reject(key, "whole numbers")
        return tuple(items)

    def shape(self, key: str) -> tuple[int | None, ...]:
        """A list of whole numbers and Nones."""
        value = self._value(key, None)
        if not isinstance(value, (list, tuple)) or any(type(size) not in (int, type(None)) for size in value):
            self.reject(key, "a list of sizes")
        return tuple(value)

    def channels_first(self) -> bool:
        """Whether the channels come before the space axes."""
        return self.choice("data_format", ("channels_first", "channels_last"), "channels_last") == "channels_first"

    def per_axis(self, key: str, rank: int, default: int | None = None) -> tuple[int, ...]:
        """A number above zero for each of `rank` axes, or one for all of them."""
        values = self.integers(key, default)
        values = values * rank if len(values) == 1 else values
        if len(values) != rank or min(values) < 1:
            self.reject(key, f"{rank} whole numbers above zero" if rank > 1 else "a whole number above zero")
        return values

    def ends(self, key: str, rank: int, default: int) -> tuple[tuple[int, int], ...]:
        """Amounts before and after each axis: one number for all, one per axis, or a pair per axis."""
        value = self._value(key, default)
        items = value if isinstance(value, (list, tuple)) else [value] * rank
        if rank == 1 and len(items) == 2:
            items = [items]
        pairs = [tuple(item) if isinstance(item, (list, tuple)) else (item, item) for item in items]
        whole = all(type(amount) is int and amount >= 0 for pair in pairs for amount in pair)
        if len(pairs) != rank or any(len(pair) != 2 for pair in pairs) or not whole:
            self.reject(key, "amounts before and after each axis")
        return tuple((before, after) for before, after in pairs)

    def has(self, key: str) -> bool:
        """Whether the key has a value other than None."""
        return self.config.get(key) is not None

    def reject(self, key: str, expected: str) -> NoReturn:
        """Raise CorruptFile for a key's value."""
        text = repr(self.config.get(key))
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise CorruptFile(f"{key} of {self.class_name} is {shown}, expected {expected}")

    def _value(self, key: str, default: Any) -> Any:
        value = self.config.get(key)
        value = default if value is None else value
        if value is None:
            raise CorruptFile(f"the configuration of {self.class_name} has no {key}")
        return value
