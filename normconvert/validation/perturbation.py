"""The same model in float32 with other roundings: its weights are moved by one rounding each.

The float32 error of one run is one draw. Where a function is ill-conditioned (a sharp softmax), another program that
is just as right may be ten times nearer or further by luck. A run with moved weights rounds differently everywhere,
as another right program does, and so is a further draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from normconvert.ir.model import Array, Model
from normconvert.validation.measure import UNIT_32

LAST_PLACE = 2 * UNIT_32
"""The smallest relative change that survives the rounding to float32."""

DRAWS = 2
"""How many times every weight is moved."""


def perturbed(model: Model) -> Iterator[Model]:
    """The model with each weight moved up or down by 2^-23 of itself, one after the other to save memory.

    The arrays are float64 `[same shapes]`, the same ones every time.
    """
    for seed in range(DRAWS):
        random = np.random.default_rng(seed)
        yield replace(model, weights={name: _moved(array, random) for name, array in model.weights.items()})


def _moved(array: Array, random: np.random.Generator) -> Array:
    signs = random.integers(0, 2, array.shape, dtype=np.int8) * 2 - 1
    return np.asarray(array, np.float64) * (1 + LAST_PLACE * signs)
