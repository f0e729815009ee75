"""TOML text from nested values, with a comment where a value was assumed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Assumed:
    """A value the file does not say; its line is marked with `# assumed` and the reason."""

    value: Any
    reason: str = ""


def write_toml(document: Mapping[str, Any]) -> str:
    """A document as TOML: tables of tables get headers, everything else one line.

    A value is a text, number, truth value, list, mapping, or `Assumed`; None is left out.
    """
    return "\n".join(_table(document, "")).strip() + "\n"


def _table(table: Mapping[str, Any], path: str) -> Iterator[str]:
    nested: list[tuple[str, Any]] = []
    for key, item in table.items():
        value = item.value if isinstance(item, Assumed) else item
        if value is None:
            continue
        if isinstance(value, Mapping) or (isinstance(value, list) and value and isinstance(value[0], Mapping)):
            nested.append((key, value))
            continue
        comment = f"  # assumed{': ' + item.reason if item.reason else ''}" if isinstance(item, Assumed) else ""
        yield f"{_key(key)} = {_value(value)}{comment}"
    for key, value in nested:
        name = f"{path}.{_key(key)}" if path else _key(key)
        for part in [value] if isinstance(value, Mapping) else value:
            lines = list(_table(part, name))
            if isinstance(value, list) or not lines or lines[0]:  # a table of tables alone needs no header
                yield ""
                yield f"[{name}]" if isinstance(value, Mapping) else f"[[{name}]]"
            yield from lines


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _number(value: float) -> str:
    text = repr(value)
    return text if any(mark in text for mark in ".en") else text + ".0"
