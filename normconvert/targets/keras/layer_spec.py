"""A layer as Keras is to make it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from normconvert.ir.model import Array

Weights = Mapping[str, Array]


@dataclass(frozen=True)
class LayerSpec:
    """A layer.

    Attributes:
        kind: a class of `keras.layers`, or one of the file of layers.
        config: arguments of its constructor; `{"spec": LayerSpec}` stands for a layer, `{"function": name}` for a
            function of the file of layers.
        arrays: weights by the path of their attribute, such as `cell.kernel`.
        source: the class for the file of layers, with `{class_name}` for its name; empty for a class of Keras.
        functions: functions for the file of layers, by name.
        weights: attribute path by the name of the weight, where these are not the same.
    """

    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    source: str = ""
    functions: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    def parts(self, name: str) -> Iterator[tuple[str, LayerSpec]]:
        """The layer and those inside it, each with a name of its own."""
        yield name, self
        for key, value in self.config.items():
            if isinstance(value, dict) and "spec" in value:
                yield from value["spec"].parts(f"{name}.{key}")


Maker = Callable[[Any, Weights], LayerSpec]
