"""The file beside stored tensors that says what makes them a model again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from normconvert.errors import CorruptFile, NotEquivalent

T = TypeVar("T")

NAME = "layout.json"
"""What the record of a folder is called."""

ENDING = f".{NAME}"
"""What the record of a single file is called, after the file's own name."""


class CellRecord(msgspec.Struct, frozen=True):
    """How a cell is stored.

    Attributes:
        layout: `family/layout`.
        settings: what its class is constructed with, by dotted name.
        tensors: their names by the layout's names, one for each time step where the layout's has a `{step}`.
    """

    layout: str
    settings: dict[str, Any]
    tensors: dict[str, list[str]]


class Record(msgspec.Struct, frozen=True):
    """What makes the tensors a model again.

    Attributes:
        cells: by layer, or by layer and direction.
        weights: the names of all other arrays by the model's names.
        notes: what the user must tell the classes, one sentence each.
    """

    cells: dict[str, CellRecord]
    weights: dict[str, str]
    notes: tuple[str, ...] = ()


def beside(path: Path) -> Path:
    """Where the record of a single file is."""
    return path.with_name(path.name + ENDING)


def write(record: Record, path: Path) -> None:
    """Write a record as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record)))


def read(path: Path) -> Record:
    """The record in a file.

    Raises:
        CorruptFile: it is missing, or no record.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except OSError as error:
        raise CorruptFile(f"cannot be read: {error.strerror}", where=str(path)) from None
    except msgspec.DecodeError as error:
        raise CorruptFile(f"does not say how the tensors are laid out: {error}", where=str(path)) from None


def entry(entries: Mapping[str, T], name: str) -> T:
    """What a record or file holds under a name; NotEquivalent where another model's has no such thing."""
    if name not in entries:
        raise NotEquivalent(f"holds no {name}: it was written from another model")
    return entries[name]
