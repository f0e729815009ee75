"""Moves recurrent networks with normalisation between frameworks, and proves that nothing changed.

One function per verb of the command line: `convert`, `inspect`, `plan`, `validate`, `diff`, `bench`;
`normconvert.cells` lists the known cells. Importing this package loads no framework.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normconvert.api import Conversion, ConversionError, bench, convert, inspect, plan, validate
    from normconvert.comparison import diff

__all__ = ["Conversion", "ConversionError", "__version__", "bench", "convert", "diff", "inspect", "plan", "validate"]

__version__ = metadata.version("normconvert")


def __getattr__(name: str) -> Any:
    """The functions of the API, imported when first used, so that `import normconvert` is quick."""
    if name == "diff":
        from normconvert.comparison import diff

        return diff
    if name in __all__:
        from normconvert import api

        return getattr(api, name)
    raise AttributeError(f"module 'normconvert' has no attribute {name!r}")
