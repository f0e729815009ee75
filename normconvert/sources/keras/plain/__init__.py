"""Keras layers without recurrence: a builder for every class name, of Keras 1, 2 and 3.

A configuration is read with the names of Keras 2 and 3; the reader has translated those of Keras 1.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from normconvert.errors import Unsupported
from normconvert.sources.keras.building import Builder, Config, Dialect, Part, Weights
from normconvert.sources.keras.plain.attention import ATTENTION
from normconvert.sources.keras.plain.basic import BASIC
from normconvert.sources.keras.plain.convolution import CONVOLUTIONS
from normconvert.sources.keras.plain.merging import MERGES
from normconvert.sources.keras.plain.normalization import NORMALIZATIONS
from normconvert.sources.keras.plain.space import SPACE


def _labelled(builder: Builder) -> Builder:
    """A builder whose parts carry the Keras class name and whether they are trainable."""

    def build(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
        _refuse_quantized(class_name, config)
        trainable = config.get("trainable", True) is not False
        return tuple(
            replace(part, layer=msgspec.structs.replace(part.layer, kind=class_name, trainable=trainable))
            for part in builder(class_name, config, weights, dialect)
        )

    return build


def _refuse_quantized(class_name: str, config: Config) -> None:
    policy = config.get("dtype")
    if isinstance(policy, dict) and str(policy.get("class_name", "")).startswith("Quantized"):
        raise Unsupported(f"{class_name} is quantized", remedy="Save the model before it is quantized")


PLAIN: dict[str, Builder] = {
    name: _labelled(builder)
    for builders in (BASIC, CONVOLUTIONS, SPACE, NORMALIZATIONS, MERGES, ATTENTION)
    for name, builder in builders.items()
}
"""Builders by class name."""
