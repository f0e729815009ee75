"""The building blocks of PyTorch folders."""

from __future__ import annotations

from functools import lru_cache

from normconvert.targets.python_code.library import Block, read_blocks

_MODULES = ("functions", "shape", "masking", "noise", "convolution", "normalisation", "attention", "cells", "recurrent")


@lru_cache(maxsize=1)
def library() -> dict[str, Block]:
    """Every block by name, in an order in which each follows what it uses."""
    return read_blocks("normconvert.targets.torch.blocks", _MODULES)
