"""Layers that combine several values."""

from __future__ import annotations

from typing import Literal

from normconvert.ir import layers
from normconvert.sources.keras.building import Builder, Config, Dialect, Part, Weights
from normconvert.sources.keras.plain.options import Options

Operation = Literal["add", "subtract", "multiply", "average", "maximum", "minimum"]


def _merge(operation: Operation) -> Builder:
    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        return (Part(layers.Merge(operation=operation)),)

    return build


def _concatenate(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    return (Part(layers.Concatenate(axis=Options(class_name, config).integer("axis", -1))),)


def _dot(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    axes = options.integers("axes")
    if len(axes) not in (1, 2):
        options.reject("axes", "one axis, or one of each input")
    return (Part(layers.Dot(axes=(axes[0], axes[-1]), normalize=options.flag("normalize", False))),)


MERGES: dict[str, Builder] = {
    "Add": _merge("add"),
    "Subtract": _merge("subtract"),
    "Multiply": _merge("multiply"),
    "Average": _merge("average"),
    "Maximum": _merge("maximum"),
    "Minimum": _merge("minimum"),
    "Concatenate": _concatenate,
    "Dot": _dot,
}
