"""The intermediate format on disk: one `.safetensors` file.

Its tensors are the model's weights under their canonical names; its metadata entry `normconvert` is the rest of the
model as JSON. Nothing in the file can execute. `docs/format.md` is the reference.
"""

from __future__ import annotations

import json
import math
import os
import secrets
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
    metadata = {METADATA_KEY: _encode(document)}
    arrays = {name: _native(name, array) for name, array in model.weights.items()}
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.touch(exist_ok=False)
        mode = partial.stat().st_mode  # what any new file gets here; safetensors makes its files private
        save_file(arrays, partial, metadata)
        partial.chmod(mode)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"cannot be written: {_reason(error)}", where=str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path) -> Model:
    """Read a model; the weights stay on disk, memory-mapped, until they are used.

    Raises:
        CorruptFile: the file is damaged, or is no model in this format.
        Unsupported: a newer version of normconvert wrote it.
        UsageError: there is no such file.
    """
    if not path.is_file():
        raise UsageError("is not a file" if path.exists() else "there is no such file", where=str(path))
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (OSError, SafetensorError) as error:
        raise CorruptFile(f"is not a readable safetensors file ({_reason(error)})", where=str(path)) from None
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
    known = {f"{layer}.{name}" for layer, record in model.layers.items() for name in record.weight_names()}
    for name in sorted(model.weights.keys() ^ known):
        what = f"the tensor {name} is missing" if name in known else f"holds the tensor {name}, which no layer has"
        raise CorruptFile(what, where=str(path))
    try:
        infer(model)
    except NormconvertError as error:
        raise CorruptFile(str(error), where=str(path)) from None
    return model


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _native(name: str, array: Array) -> Array:
    """In this machine's byte order, contiguous, and of a dtype the format has."""
    native = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    if native.dtype not in map(np.dtype, _DTYPES.values()):
        raise Unsupported(f"dtype {array.dtype} has no place in the intermediate format", where=f"weight {name}")
    return native


def _encode(document: _Document) -> str:
    return msgspec.json.encode(_written(msgspec.to_builtins(document))).decode()


def _written(value: Any) -> Any:
    """JSON has no infinity, but a number that overflows: the limit of a ReLU without one is written 1e999."""
    match value:
        case dict():
            return {key: _written(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_written(inner) for inner in value]
        case float() if math.isnan(value):
            raise UsageError("a setting of the model is not a number", remedy="Look for NaN in its constants")
        case float() if math.isinf(value):
            return msgspec.Raw(b"1e999" if value > 0 else b"-1e999")
    return value


def _not_json(token: str) -> Any:
    raise ValueError(f"{token} is no JSON")


def _decode(text: str, path: Path) -> _Document:
    try:
        plain = json.loads(text, parse_constant=_not_json)
        version = msgspec.convert(plain, _Version).format_version
        if version > FORMAT_VERSION:
            raise Unsupported(
                f"is in version {version} of the format; this normconvert reads up to version {FORMAT_VERSION}",
                where=str(path),
                remedy="Update normconvert",
            )
        if version < 1:
            raise CorruptFile(f"claims format version {version}", where=str(path))
        return msgspec.convert(plain, _Document)
    except (ValueError, RecursionError) as error:
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
