"""From a path to a configuration and stored arrays, whatever Keras put them in."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import msgspec

from normconvert.errors import CorruptFile, Unsupported, UsageError
from normconvert.sources.keras.archive import Members, model_member, open_archive
from normconvert.sources.keras.hdf5 import Arrays, Hdf5File

CONFIG_MEMBER, WEIGHTS_MEMBER, METADATA_MEMBER = "config.json", "model.weights.h5", "metadata.json"
MAX_JSON = 256 << 20
"""Longest configuration accepted, in bytes."""

REMEDY = "Is it a Keras model saved with model.save() or save_weights()?"


@dataclass(frozen=True)
class Container:
    """What a Keras file holds.

    Attributes:
        place: how errors name it.
        format: `keras-h5` (arrays under their layers' names), `keras-v3` (numbered arrays in a tree) or `saved-model`.
        config: the model's configuration (`class_name`, `config`), or None for a file of weights alone.
        version: the Keras version that wrote it, or empty.
        backend: `tensorflow`, `theano`, ..., or empty.
        file: what holds the arrays; an open HDF5 file, except for `saved-model`.
        root: the group in `file` under which the layers are.
        sha256: of the whole source file, empty for a folder.
    """

    place: str
    format: str
    config: dict[str, Any] | None
    version: str
    backend: str
    file: Arrays
    root: str
    sha256: str = ""


@contextmanager
def opened(path: Path, config: Path | None = None) -> Iterator[Container]:
    """Open a Keras file, and the architecture JSON that belongs to a file of weights.

    Raises:
        CorruptFile: damaged, unsafe, or not a Keras file.
        UsageError: no such file, or an architecture where the file already holds one.
    """
    if not path.exists():
        raise UsageError("no such file", where=str(path))
    container = _open(path)
    try:
        container = replace(container, sha256=_sha256(path))
        yield _with_config(container, config) if config is not None else container
    finally:
        container.file.close()


def _open(path: Path) -> Container:
    if path.is_dir() or (zipfile.is_zipfile(path) and not h5py.is_hdf5(path)):
        return _from_archive(open_archive(path, path.name))
    return _from_hdf5(Hdf5File(path, path.name), path.name)


def _from_archive(members: Members, *, inner: bool = False) -> Container:
    if CONFIG_MEMBER not in members.names():
        name = model_member(members)
        place = f"{members.place}: {name}"
        data = members.read(name)
        if not zipfile.is_zipfile(io.BytesIO(data)):
            return _from_hdf5(Hdf5File(data, place), place)
        if inner:
            raise CorruptFile("an archive in an archive in an archive", where=place, remedy="Unpack the model first")
        return _from_archive(open_archive(data, place), inner=True)
    config = decode_object(members.read(CONFIG_MEMBER), f"{members.place}: {CONFIG_MEMBER}")
    metadata = {}
    if METADATA_MEMBER in members.names():
        metadata = decode_object(members.read(METADATA_MEMBER), f"{members.place}: {METADATA_MEMBER}")
    if WEIGHTS_MEMBER not in members.names():
        others = ", ".join(sorted(name for name in members.names() if "weights" in name)) or "none"
        raise Unsupported(
            f"its weights are not in {WEIGHTS_MEMBER} (found: {others})",
            where=members.place,
            remedy="Save the model again with weights_format='h5'",
        )
    file = Hdf5File(members.read(WEIGHTS_MEMBER), f"{members.place}: {WEIGHTS_MEMBER}")
    return Container(members.place, "keras-v3", config, str(metadata.get("keras_version", "")), "", file, "")


def _from_hdf5(file: Hdf5File, place: str) -> Container:
    try:
        return _described(file, place)
    except CorruptFile:
        file.close()
        raise


def _described(file: Hdf5File, place: str) -> Container:
    root = "model_weights" if file.group("model_weights") is not None else ""
    group = file.group(root)
    assert group is not None
    text = file.attribute(file.root, "model_config")
    config = None if text is None else decode_object(str(text).encode("utf-8", "replace"), f"{place}: model_config")
    version, backend = (
        str(file.attribute(file.root, name) or file.attribute(group, name) or "")
        for name in ("keras_version", "backend")
    )
    if file.names(group, "layer_names") is not None:
        return Container(place, "keras-h5", config, version, backend, file, root)
    if _is_tree(file):
        return Container(place, "keras-v3", config, version, backend, file, root)
    raise CorruptFile("an HDF5 file, but not of a Keras model", where=place, remedy=REMEDY)


def _is_tree(file: Hdf5File) -> bool:
    return any(isinstance(file.root.get(name), h5py.Group) for name in ("layers", "_layer_checkpoint_dependencies"))


def _with_config(container: Container, path: Path) -> Container:
    if container.config is not None:
        raise UsageError(
            "the file holds its own architecture", where=container.place, remedy="Leave out the separate one"
        )
    try:
        config = decode_object(path.read_bytes(), path.name)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None
    return replace(
        container,
        config=config,
        version=container.version or str(config.get("keras_version", "")),
        backend=container.backend or str(config.get("backend", "")),
    )


def decode_object(data: bytes, place: str) -> dict[str, Any]:
    """A JSON object from bytes.

    Raises:
        CorruptFile: not JSON, not an object, too long or too deeply nested.
    """
    if len(data) > MAX_JSON:
        raise CorruptFile(f"a configuration of {len(data):,} bytes", where=place)
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptFile(f"not JSON ({error})", where=place) from None
    except RecursionError:
        raise CorruptFile("nested too deeply", where=place) from None
    if not isinstance(value, dict):
        raise CorruptFile(f"holds a {type(value).__name__}, not an object", where=place)
    return value


def _sha256(path: Path) -> str:
    if path.is_dir():
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
