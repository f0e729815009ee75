"""The containers that `torch.save` and safetensors write: where in a file the pickle and the storages are."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from normconvert.errors import CorruptFile, Unsupported
from normconvert.ir.file import METADATA_KEY
from normconvert.ir.model import Array
from normconvert.sources.keras.archive import DAMAGED, open_archive
from normconvert.sources.pytorch.mapped_stream import MappedStream
from normconvert.sources.pytorch.pickle_globals import REBUILD, Global
from normconvert.sources.pytorch.pickles import read_bytes, read_pickle
from normconvert.sources.pytorch.safetensors_file import read_safetensors, safetensors_header
from normconvert.sources.pytorch.storages import Storage, dtype_of, number_type
from normconvert.sources.tf1.files import mapped

INDEX = ".index.json"
"""How the names of indices end, which name the files of a sharded state dict; see `shards`."""

_AGAIN = "Take the file from its source again"
_MAGIC = 0x1950A86A20F9469CFC6C
"""The first number in what `torch.save` wrote before version 1.6 (torch/serialization.py, MAGIC_NUMBER)."""

_LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_MOST_LOOKED_AT = 1 << 16
_LOCAL = struct.Struct("<4s5H3I2H")


@dataclass(frozen=True)
class Content:
    """What a file holds, before anything in it is called a weight.

    Attributes:
        value: nested dicts and lists with `StoredTensor` and other values as leaves.
        format: `pytorch`, `pytorch-legacy`, `pytorch-pickle`, `pytorch-script`, `pytorch-safetensors` or
            `pytorch-shards`.
    """

    value: Any
    format: str


def looks_like_torch(path: Path, start: bytes) -> bool:
    """Whether a path is that of a PyTorch file, or of safetensors that are no model of ours.

    Args:
        path: the file.
        start: its first bytes.
    """
    if path.is_dir() or not path.is_file():
        return False
    if path.name.endswith(INDEX):
        return True
    if start.startswith(b"PK"):
        return _is_torch_archive(path)
    if start[8:9] == b"{":
        return _is_state_dict(path)
    if start.startswith(_LEGACY_START):
        return True
    return path.suffix in (".pt", ".pth") or (_PICKLE.match(start) is not None and _speaks_of_torch(path))


def _speaks_of_torch(path: Path) -> bool:
    with path.open("rb") as stream:
        return b"torch" in stream.read(_MOST_LOOKED_AT)


def _is_torch_archive(path: Path) -> bool:
    """Whether a zip archive is PyTorch's; for one that is damaged, whether its name says so."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except DAMAGED:
        return path.suffix in (".pt", ".pth", ".bin", ".ckpt", ".tar")
    return any(name == "data.pkl" or name.endswith("/data.pkl") for name in names) or path.suffix in (".pt", ".pth")


def _is_state_dict(path: Path) -> bool:
    """Whether safetensors lack the description that our own models have."""
    try:
        header, _ = safetensors_header(path)
    except CorruptFile:
        return False
    return METADATA_KEY not in (header.get("__metadata__") or {}) and bool(header)


def read_content(path: Path, start: bytes) -> Content:
    """What a file holds; values of tensors are not read.

    Raises:
        CorruptFile: it is damaged, or loading it would run code.
        Unsupported: a container that is not read.
    """
    if start.startswith(b"PK"):
        return _zip(path)
    if start[8:9] == b"{":
        return Content(read_safetensors(path), "pytorch-safetensors")
    if _is_tar(path):
        raise Unsupported(
            "a tar archive, which PyTorch wrote before version 0.1.11",
            where=path.name,
            remedy="Load it with PyTorch and save the state dict again",
        )
    return _pickled(path)


def _zip(path: Path) -> Content:
    archive = open_archive(path, path.name, paths=False)
    pickled = [name for name in archive.names() if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise Unsupported(
            f"a zip archive with {len(pickled)} files data.pkl, where one of PyTorch has one",
            where=path.name,
            remedy="Of a Stable-Baselines3 model, unpack policy.pth and give that; of others, save the state dict",
        )
    top = pickled[0].removesuffix("data.pkl")
    names = set(archive.names())
    little = f"{top}byteorder" not in names or archive.read(f"{top}byteorder").strip() != b"big"
    script = f"{top}constants.pkl" in names
    data = mapped(path)

    def load(reference: tuple[Any, ...]) -> Storage:
        kind, of, key, _, count = _reference(reference)
        if kind != "storage" or f"{top}data/{key}" not in names:
            raise CorruptFile(f"its storage {key} is missing", remedy=_AGAIN)
        assert isinstance(archive.source, zipfile.ZipFile)
        info = archive.source.getinfo(f"{top}data/{key}")
        return Storage(
            str(key), dtype_of(str(of)), count, partial(_member, data, archive.source, info, path.name), little
        )

    value = read_bytes(archive.read(pickled[0]), f"{path.name}: data.pkl", load)
    return Content(value, "pytorch-script" if script else "pytorch")


def _reference(reference: Any) -> tuple[str, Global, Any, Any, int]:
    """The parts of a persistent id; torch/serialization.py, `persistent_id`."""
    if not isinstance(reference, tuple) or len(reference) < 5 or not isinstance(reference[1], Global):
        raise ValueError("a reference to no storage")
    kind, of, key, location, count = reference[:5]
    if not isinstance(count, int) or count < 0 or not isinstance(key, (str, int)):
        raise ValueError("a storage without a size")
    return str(kind), of, key, location, count


def _member(data: Array, archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str) -> Array:
    """The bytes of a member, mapped where they are stored as they are; their checksum is verified."""
    where = f"{place}: {info.filename}"
    if info.compress_type != zipfile.ZIP_STORED:
        try:
            return np.frombuffer(archive.read(info), np.uint8)
        except DAMAGED as error:
            raise CorruptFile(f"cannot be unpacked ({error})", where=where, remedy=_AGAIN) from None
    header = data[info.header_offset : info.header_offset + _LOCAL.size].tobytes()
    if len(header) < _LOCAL.size or header[:4] != b"PK\x03\x04":
        raise CorruptFile("its header is damaged", where=where, remedy=_AGAIN)
    *_, name, extra = _LOCAL.unpack(header)
    begin = info.header_offset + _LOCAL.size + name + extra
    values = data[begin : begin + info.file_size]
    if values.size != info.file_size or (info.CRC and zlib.crc32(values.data) != info.CRC):
        raise CorruptFile("its values are damaged: the checksum differs", where=where, remedy=_AGAIN)
    return values


def _pickled(path: Path) -> Content:
    """What PyTorch wrote before version 1.6, or a plain pickle of arrays."""
    data = mapped(path)
    if data[: len(_LEGACY_START)].tobytes() == _LEGACY_START:
        return _legacy(data, path.name)
    value = read_pickle(MappedStream(data), path.name, partial(_no_storage, path.name))
    return Content(value, "pytorch-pickle")


def _legacy(data: Array, place: str) -> Content:
    """Three pickles about the file, that of the value, one that lists the storages, and then these one by one."""
    stream = MappedStream(data)
    found: dict[str, int] = {}
    sizes: dict[str, int] = {}

    def load(reference: tuple[Any, ...]) -> Storage | Global:
        if isinstance(reference, tuple) and reference[:1] == ("module",) and isinstance(reference[1], Global):
            return reference[1]  # the class of a whole pickled model, with its source
        kind, of, key, _, count = _reference(reference)
        if kind != "storage":
            raise ValueError("a reference to no storage")
        dtype, start, view = dtype_of(str(of)), 0, reference[5] if len(reference) > 5 else None
        if view is not None:  # a part of another storage: its key, offset and size
            _, start, count = view
            if not all(isinstance(each, int) and each >= 0 for each in (start, count)):
                raise ValueError("a part of a storage without a place")
        sizes[str(key)] = number_type(dtype).itemsize
        return Storage(str(key), dtype, count, partial(_run, data, found, str(key), dtype, start, place))

    head = [read_pickle(stream, place, load) for _ in range(3)]
    if head[0] != _MAGIC or not isinstance(head[2], dict):
        raise CorruptFile("its head is damaged", where=place, remedy=_AGAIN)
    if not head[2].get("little_endian", True):
        raise Unsupported("was written on a big-endian machine", where=place, remedy="Save it again on another")
    value = read_pickle(stream, place, load)
    keys = read_pickle(stream, place, load)
    if not isinstance(keys, list):
        raise CorruptFile("its list of storages is damaged", where=place, remedy=_AGAIN)
    position = stream.tell()
    for key in keys:
        count = int.from_bytes(data[position : position + 8].tobytes(), "little", signed=True)
        if count < 0 or str(key) not in sizes or position + 8 + count * sizes[str(key)] > data.size:
            raise CorruptFile(f"is cut short: its storage {key} is missing", where=place, remedy=_AGAIN)
        found[str(key)] = position + 8
        position += 8 + count * sizes[str(key)]
    return Content(value, "pytorch-legacy")


def _from_bytes(data: bytes, *_: Any) -> Any:
    """A storage that is pickled as what `torch.save` writes: `torch.storage._load_from_bytes`."""
    return _legacy(np.frombuffer(data, np.uint8), "a tensor").value


REBUILD["torch.storage._load_from_bytes"] = _from_bytes


def _run(data: Array, found: Mapping[str, int], key: str, dtype: str, start: int, place: str) -> Array:
    """The bytes of a storage from its first number to the end of the file."""
    if key not in found:
        raise CorruptFile(f"its storage {key} is missing", where=place, remedy=_AGAIN)
    return data[found[key] + start * number_type(dtype).itemsize :]


def _no_storage(place: str, _: Any) -> Storage:
    raise CorruptFile("is a pickle that refers to values outside of it", where=place, remedy=_AGAIN)


def _is_tar(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(257)
        return stream.read(5) == b"ustar"
