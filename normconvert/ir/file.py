"""The intermediate format on disk: one `.safetensors` file.

Its tensors are the model's weights under their canonical names; its metadata entry `normconvert` is the rest of the
model as JSON. Nothing in the file can execute. `docs/format.md` is the reference.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from normconvert.errors import CorruptFile, NormconvertError, Unsupported, UsageError
from normconvert.ir.layers import AnyLayer
from normconvert.ir.model import Array, Input, Model, Node, Provenance
from normconvert.ir.shapes import infer

FORMAT_VERSION = 1
METADATA_KEY = "normconvert"


class _Version(msgspec.Struct):
    """The one field that every version of the format has."""

    format_version: int


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON of the metadata entry."""

    format_version: int
    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    layers: dict[str, AnyLayer]
    nodes: tuple[Node, ...]
    provenance: Provenance


class _Entry(msgspec.Struct):
    """A tensor in the header of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "U16": np.uint16,
    "I32": np.int32,
    "U32": np.uint32,
    "I64": np.int64,
    "U64": np.uint64,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
}


def save(model: Model, path: Path) -> None:
    """Write a model; the file appears under its name only when it is complete.

    Raises:
        UsageError: the file cannot be written.
    """
    document = _Document(
        FORMAT_VERSION,
        model.name,
        model.inputs,
        model.outputs,
        dict(model.layers),
        model.nodes,
        model.provenance,
    )
    metadata = {METADATA_KEY: msgspec.json.encode(document).decode()}
    arrays = {name: np.ascontiguousarray(array) for name, array in model.weights.items()}
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        try:
            save_file(arrays, partial, metadata)
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(path)) from None


def load(path: Path) -> Model:
    """Read a model; the weights stay on disk, memory-mapped, until they are used.

    Raises:
        CorruptFile: the file is damaged, or is no model in this format.
        Unsupported: a newer version of normconvert wrote it.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (OSError, SafetensorError) as error:
        raise CorruptFile(f"is not a readable safetensors file ({error})", where=str(path)) from None
    if text is None:
        raise CorruptFile(
            f"holds tensors but no model: there is no {METADATA_KEY!r} entry in its metadata",
            where=str(path),
            remedy="Only files written by normconvert are in the intermediate format",
        )
    document = _decode(text, path)
    model = Model(
        document.name,
        document.inputs,
        document.outputs,
        document.layers,
        document.nodes,
        _mapped_weights(path),
        document.provenance,
    )
    try:
        infer(model)
    except NormconvertError as error:
        raise CorruptFile(str(error), where=str(path)) from None
    return model


def _decode(text: str, path: Path) -> _Document:
    try:
        version = msgspec.json.decode(text, type=_Version).format_version
        if version > FORMAT_VERSION:
            raise Unsupported(
                f"is in version {version} of the format; this normconvert reads up to version {FORMAT_VERSION}",
                where=str(path),
                remedy="Update normconvert",
            )
        if version < 1:
            raise CorruptFile(f"claims format version {version}", where=str(path))
        return msgspec.json.decode(text, type=_Document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CorruptFile(f"its model description is damaged: {error}", where=str(path)) from None


def _mapped_weights(path: Path) -> dict[str, Array]:
    """Read-only views of the file's tensors; `safe_open` has checked the header's offsets and sizes."""
    data = np.memmap(path, mode="r", dtype=np.uint8)
    header_size = int.from_bytes(data[:8].tobytes(), "little")
    header = msgspec.json.decode(data[8 : 8 + header_size].tobytes(), type=dict[str, Any])
    header.pop("__metadata__", None)
    entries = msgspec.convert(header, dict[str, _Entry])
    body = data[8 + header_size :]
    weights: dict[str, Array] = {}
    for name, entry in entries.items():
        if entry.dtype not in _DTYPES:
            raise Unsupported(f"has dtype {entry.dtype}", where=f"{path}: tensor {name}")
        start, stop = entry.data_offsets
        weights[name] = body[start:stop].view(_DTYPES[entry.dtype]).reshape(entry.shape)
    return weights
