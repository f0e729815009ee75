"""HDF5 files read without trusting them.

A file from a stranger may link to other files, declare arrays larger than any memory, or be cut off. Every link is
looked at before anything is read, and every array's size is held against the file's before it is allocated.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import h5py
import ml_dtypes
import numpy as np

from normconvert.errors import CorruptFile
from normconvert.ir.model import Array

MAX_OBJECTS = 500_000
"""Most groups and arrays accepted in one file."""

MAX_DEPTH = 64
"""Deepest nesting of groups accepted."""

MAX_EXPANSION = 64
"""How many times its own size a file's arrays may take in memory: compressed weights hardly shrink."""

ALLOWANCE = 64 << 20
"""Bytes allowed whatever the file's size."""

REMEDY = "Take the file from its source again"


class Arrays(Protocol):
    """What holds arrays: a file, or the variables of a graph.

    Attributes:
        place: how errors name it.
        arrays: by their names.
    """

    place: str
    arrays: dict[str, Stored]

    def read(self, stored: Stored) -> Array:
        """An array's numbers."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


@dataclass
class Stored:
    """One array of a file.

    Attributes:
        name: its path in the file.
        shape, dtype: as stored.
        used_as: the weight it became, or empty.
        ignored: why it was left out, or empty.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Arrays = field(repr=False)
    used_as: str = ""
    ignored: str = ""

    def read(self) -> Array:
        """The array itself."""
        return self.file.read(self)


class Hdf5File:
    """An HDF5 file opened for reading, all its links checked.

    Args:
        source: the path, or the bytes of a file inside an archive.
        place: how errors name the file.

    Raises:
        CorruptFile: not HDF5, cut off, or holding links to other places.
    """

    def __init__(self, source: Path | bytes, place: str) -> None:
        self.place = place
        self.size = len(source) if isinstance(source, bytes) else source.stat().st_size
        self._budget = MAX_EXPANSION * self.size + ALLOWANCE
        try:
            self.root = h5py.File(io.BytesIO(source) if isinstance(source, bytes) else source, "r")
        except OSError as error:
            cut = "truncated" in str(error)
            what = "the HDF5 file is cut off" if cut else "neither a whole HDF5 file nor a whole zip archive"
            raise CorruptFile(what, where=place, remedy=REMEDY) from None
        try:
            with _damage(place):
                self.arrays = {stored.name: stored for stored in self._walk()}
        except CorruptFile:
            self.close()
            raise

    def close(self) -> None:
        """Release the file."""
        self.root.close()

    def group(self, path: str) -> h5py.Group | None:
        """The group at a path, if there is one."""
        with _damage(f"{self.place}: {path}"):
            found = self.root.get(path) if path else self.root
            return found if isinstance(found, h5py.Group) else None

    def attribute(self, group: h5py.Group, name: str) -> Any:
        """An attribute, its bytes decoded; None where there is none.

        Raises:
            CorruptFile: the attribute cannot be read.
        """
        with _damage(f"{self.place}: {name}"):
            value = group.attrs.get(name)
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def names(self, group: h5py.Group, attribute: str) -> list[str] | None:
        """An attribute that lists names; a long one is spread over `attribute0`, `attribute1`, ..."""
        with _damage(f"{self.place}: {attribute}"):
            chunks = [attribute] if attribute in group.attrs else []
            while attribute not in group.attrs and (chunk := f"{attribute}{len(chunks)}") in group.attrs:
                chunks.append(chunk)
        if not chunks:
            return None
        return [_text(name) for chunk in chunks for name in np.atleast_1d(self.attribute(group, chunk))]

    def read(self, stored: Stored) -> Array:
        """An array's numbers.

        Raises:
            CorruptFile: it is larger than the file allows, not numeric, or damaged.
        """
        where = f"{self.place}: {stored.name}"
        with _damage(where):
            dataset = self.root[stored.name]
            if dataset.dtype.kind not in "fiub" and not _is_bfloat16(dataset):
                raise CorruptFile(f"holds {dataset.dtype}, not numbers", where=where)
            self._budget -= dataset.nbytes
            if self._budget < 0:
                what = f"declares {dataset.nbytes:,} bytes in a file of {self.size:,}"
                raise CorruptFile(what, where=where, remedy=REMEDY)
            array: Array = np.asarray(dataset[()])
            return array.view(ml_dtypes.bfloat16) if dataset.dtype.kind == "V" else array

    def _walk(self) -> Iterator[Stored]:
        pending = [(self.root, name, 1) for name in reversed(list(self.root))]
        seen = {_address(self.root)}
        while pending:
            group, name, depth = pending.pop()
            if depth > MAX_DEPTH or len(seen) > MAX_OBJECTS:
                raise CorruptFile("too many or too deeply nested groups", where=self.place, remedy=REMEDY)
            path = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CorruptFile(
                    "is a link to another place, which a model file never needs",
                    where=f"{self.place}: {path}",
                    remedy="Do not trust this file",
                )
            child = group[name]
            if _address(child) in seen:
                continue
            seen.add(_address(child))
            if isinstance(child, h5py.Group):
                pending += [(child, inner, depth + 1) for inner in reversed(list(child))]
            elif isinstance(child, h5py.Dataset):
                self._check(child, path)
                yield Stored(path.lstrip("/"), tuple(child.shape or ()), _dtype_name(child), self)

    def _check(self, dataset: h5py.Dataset, path: str) -> None:
        if dataset.is_virtual or dataset.external:
            raise CorruptFile(
                "keeps its numbers in another file, which a model file never needs",
                where=f"{self.place}: {path}",
                remedy="Do not trust this file",
            )


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Turns what h5py raises on damaged structures into an error that names the place."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise CorruptFile(f"the HDF5 file is damaged ({_first_line(error)})", where=where, remedy=REMEDY) from None


def _address(item: Any) -> Any:
    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    return (
        dataset.dtype.kind == "V"
        and dataset.dtype.itemsize == 2
        and _text(dataset.attrs.get("dtype", "")) == "bfloat16"
    )


def _dtype_name(dataset: h5py.Dataset) -> str:
    return "bfloat16" if _is_bfloat16(dataset) else str(dataset.dtype)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
