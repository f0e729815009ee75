"""NumPy evaluation of a model: the definition of what it means."""

from __future__ import annotations

from normconvert.interpreter.model import States, run

__all__ = ["States", "run"]
