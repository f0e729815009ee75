"""The building blocks of the file of layers."""

from __future__ import annotations

from functools import lru_cache

from normconvert.targets.python_code.library import Block, read_blocks

_MODULES = ("functions", "norms", "declared", "recurrence", "directions", "layers")


@lru_cache(maxsize=1)
def library() -> dict[str, Block]:
    """Every block by name, in an order in which each follows what it uses."""
    return read_blocks("normconvert.targets.keras.blocks", _MODULES)
