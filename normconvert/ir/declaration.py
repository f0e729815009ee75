"""A layer of the intermediate format inside another format's configuration: a text that names its arrays.

What a class computes that no other program knows is said here in the words of `ir.layers`, equations as text, so that
a file can be read without the code of that class.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from normconvert.errors import CorruptFile
from normconvert.ir.layers import AnyLayer

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer and where its arrays are.

    Attributes:
        layer: what it computes.
        arrays: for each weight of the layer the path of the attribute that holds it, such as `bn_x.moving_mean`; of
            one object's arrays, those come first that are stored first.
    """

    layer: AnyLayer
    arrays: dict[str, str] = {}


def to_text(declaration: Declaration) -> str:
    """The declaration as JSON; infinity is a text in it."""
    return json.dumps(_finite(msgspec.to_builtins(declaration)))


def from_text(text: str) -> Declaration:
    """The declaration that `to_text` gave.

    Raises:
        CorruptFile: it is not one.
    """
    try:
        declaration = msgspec.convert(json.loads(text), Declaration, strict=False)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"its declaration is damaged ({error})") from None
    for path in declaration.arrays.values():
        if not _PATH.fullmatch(path):
            raise CorruptFile(f"its declaration is damaged ({path!r} is not the path of an attribute)")
    return declaration


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case float() if math.isinf(value):
            return "inf" if value > 0 else "-inf"
    return value
