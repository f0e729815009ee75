"""Names of layers and values as Python identifiers."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

_NOT_WORD = re.compile(r"\W+", re.ASCII)


class Namer:
    """Gives out identifiers, each once."""

    def __init__(self, taken: Iterable[str] = (), separator: str = "_") -> None:
        self.taken = set(taken)
        self.separator = separator

    def __call__(self, name: str) -> str:
        """An identifier for a name: other characters become `_`, a number is added where it is taken."""
        stem = identifier(name)
        fresh, number = stem, 2
        while fresh in self.taken:
            fresh, number = f"{stem}{self.separator}{number}", number + 1
        self.taken.add(fresh)
        return fresh


def identifier(name: str) -> str:
    """A name with everything that is not a letter, digit or underscore made `_`; a keyword gets one at its end."""
    plain = _NOT_WORD.sub("_", name.replace("'", "_next")).strip("_") or "layer"
    if plain[0].isdigit():
        plain = f"layer_{plain}"
    return plain + "_" if keyword.iskeyword(plain) else plain


def class_name(name: str) -> str:
    """A name as a class: `bn_lstm` becomes `BnLstm`."""
    return "".join(part[:1].upper() + part[1:] for part in identifier(name).split("_"))
