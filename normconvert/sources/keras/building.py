"""What a builder of one Keras layer class is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from normconvert.ir.layers import Activation, AnyLayer
from normconvert.ir.model import Array

Config = dict[str, Any]
"""A layer's configuration with the key names of Keras 2/3 and the version's defaults filled in."""


@dataclass(frozen=True)
class Part:
    """One layer of the intermediate format; a Keras layer becomes a chain of one or more.

    Attributes:
        layer: the layer, its `kind` already set.
        weights: its arrays by their names relative to it.
        suffix: appended to the Keras layer's name (`/depthwise`); empty for the part that carries the name.
    """

    layer: AnyLayer
    weights: dict[str, Array] = field(default_factory=dict)
    suffix: str = ""


class Weights(Protocol):
    """The stored arrays of one Keras layer, taken by role in the order Keras creates them."""

    def take(self, *roles: str) -> dict[str, Array]:
        """The next arrays in creation order, one per role (`kernel`, `bias`, `gamma`, ...).

        Raises:
            CorruptFile: an array is missing, or the name stored with it contradicts the role.
        """
        ...


class Dialect(Protocol):
    """What the version of Keras that wrote the file decides."""

    @property
    def major(self) -> int:
        """1, 2 or 3."""
        ...

    def activation(self, spec: Any) -> Activation | None:
        """The meaning of an `activation` entry of a configuration; None for linear.

        Raises:
            Unsupported: an activation that is unknown or would need to run code.
        """
        ...


Builder = Callable[[str, Config, Weights, Dialect], tuple[Part, ...]]
"""Builds the parts of a layer from its class name, configuration, weights and dialect."""
