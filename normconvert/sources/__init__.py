"""Source formats: telling which one a file has, and reading it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from normconvert.errors import CorruptFile, Unsupported, UsageError
from normconvert.sources.reading import Assumption, Plan, Reading, ReadResult, TensorUse

if TYPE_CHECKING:
    from normconvert.sources.tf1.surveyed import Survey

__all__ = ["FORMATS", "Assumption", "Format", "Plan", "ReadResult", "Reading", "TensorUse", "detect", "plan", "read"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Format:
    """A source format.

    Attributes:
        title: what to call it before a user.
        matches: whether a path, of which the first bytes are given, looks like it.
        read: reads it, with what the user says about it.
        plan: says how it is or would be read.
        survey: says what it holds where that alone makes no model; None where it always does.
    """

    title: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Path, Reading], ReadResult]
    plan: Callable[[Path, Reading], Plan]
    survey: Callable[[Path], Survey] | None = None


def _is_keras(path: Path, start: bytes) -> bool:
    if path.is_dir():
        return (path / "config.json").is_file() or (path / "saved_model.pb").is_file()
    return start.startswith(_HDF5) or path.suffix in (".h5", ".hdf5", ".keras") or zipfile.is_zipfile(path)


def _read_keras(path: Path, reading: Reading) -> ReadResult:
    from normconvert.sources import keras

    _no_checkpoint_options(path, reading)
    return keras.read(path, config=reading.config, recipe=reading.recipe, define=reading.define)


def _plan_keras(path: Path, reading: Reading) -> Plan:
    from normconvert.sources import keras

    _no_checkpoint_options(path, reading)
    return keras.plan(path, config=reading.config, recipe=reading.recipe, define=reading.define)


def _no_checkpoint_options(path: Path, reading: Reading) -> None:
    """Options that take something out of a checkpoint, or decide what one leaves open, fit nothing else."""
    given = (reading.scope, reading.family, *reading.settings, *reading.outputs)
    if any(given) or reading.single_step or reading.ema:
        raise UsageError("--scope, --cell, --family, --set, --ema and --outputs are for checkpoints", where=str(path))


def _is_tf1(path: Path, start: bytes) -> bool:
    from normconvert.sources.tf1.opening import looks_like_checkpoint

    return looks_like_checkpoint(path, start)


def _read_tf1(path: Path, reading: Reading) -> ReadResult:
    from normconvert.sources.tf1 import source

    return source.read(path, reading)


def _plan_tf1(path: Path, reading: Reading) -> Plan:
    from normconvert.sources.tf1 import source

    return source.plan(path, reading)


def _survey_tf1(path: Path) -> Survey:
    from normconvert.sources.tf1.survey import survey

    return survey(path)


def _is_torch(path: Path, start: bytes) -> bool:
    from normconvert.sources.pytorch.files import looks_like_torch

    return looks_like_torch(path, start)


def _read_torch(path: Path, reading: Reading) -> ReadResult:
    from normconvert.sources.pytorch import source

    return source.read(path, reading)


def _plan_torch(path: Path, reading: Reading) -> Plan:
    from normconvert.sources.pytorch import source

    return source.plan(path, reading)


def _survey_torch(path: Path) -> Survey:
    from normconvert.sources.pytorch import source

    return source.survey(path)


def _is_ours(path: Path, start: bytes) -> bool:
    return path.suffix == ".safetensors" or (len(start) > 8 and start[8:9] == b"{")


def _read_ours(path: Path, reading: Reading) -> ReadResult:
    from normconvert.ir.file import load

    _no_checkpoint_options(path, reading)
    if reading.config is not None or reading.recipe is not None or reading.define:
        raise UsageError("the file is complete and takes no configuration, recipe or definition", where=str(path))
    model = load(path)
    uses = (TensorUse(name, array.shape, str(array.dtype), name) for name, array in model.weights.items())
    return ReadResult(model, Plan(tuple(uses), (), ""))


def _plan_ours(path: Path, reading: Reading) -> Plan:
    return _read_ours(path, reading).plan


FORMATS: dict[str, Format] = {
    "torch": Format(
        "PyTorch .pt, .pth, .bin, .ckpt, .safetensors of tensors", _is_torch, _read_torch, _plan_torch, _survey_torch
    ),
    "normconvert": Format("normconvert's own .safetensors", _is_ours, _read_ours, _plan_ours),
    "tf1": Format(
        "TF1 checkpoints (.index and .data-*), stable-baselines .zip, .npz", _is_tf1, _read_tf1, _plan_tf1, _survey_tf1
    ),
    "keras": Format(
        "Keras .h5, .hdf5, .keras, .weights.h5, SavedModels of normconvert", _is_keras, _read_keras, _plan_keras
    ),
}
"""Source formats by the name the command line has for them, the most telling first."""


def is_prefix(path: Path) -> bool:
    """Whether a path is the prefix of a checkpoint's files, which is no file itself."""
    return not path.exists() and path.with_name(f"{path.name}.index").is_file()


def detect(path: Path) -> str:
    """The name of a file's format.

    Raises:
        UsageError: no such file, or none that can be read.
        CorruptFile: it is empty.
        Unsupported: none of the known formats.
    """
    start = _start(path)
    for name, known in FORMATS.items():
        if known.matches(path, start):
            return name
    titles = "; ".join(known.title for known in FORMATS.values())
    raise Unsupported("the format of the file is not known", where=path.name, remedy=f"Known: {titles}")


def _start(path: Path) -> bytes:
    """The first bytes of a file, none of a folder.

    Raises:
        UsageError: nothing is there, it cannot be opened, or it is a device or a pipe, which could be endless.
        CorruptFile: it is empty.
    """
    if path.is_dir() or is_prefix(path):
        return b""
    if not path.exists():
        raise UsageError("no such file", where=str(path))
    if not path.is_file():
        raise UsageError("not a regular file", where=str(path), remedy="Copy its content to one")
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None
    if not start:
        raise CorruptFile("the file is empty", where=path.name, remedy="Take it from its source again")
    return start


def read(path: Path, reading: Reading | None = None) -> ReadResult:
    """Read a model.

    Args:
        path: the file, or of a checkpoint the prefix or folder.
        reading: what the user says about it.

    Raises:
        UsageError: no such file or format, or an option that does not fit it.
        Unsupported: a format, layer or cell that is not known.
        CorruptFile: the file is damaged or unsafe.
    """
    reading = reading or Reading()
    return _format(path, reading.from_format).read(path, reading)


def plan(path: Path, reading: Reading | None = None) -> Plan:
    """How a file is or would be read, with a recipe to edit; arguments and errors as in `read`.

    Unlike `read`, this also answers for weights without an architecture.
    """
    reading = reading or Reading()
    return _format(path, reading.from_format).plan(path, reading)


def _format(path: Path, name: str | None) -> Format:
    name = name or detect(path)
    _start(path)
    if name not in FORMATS:
        raise UsageError(f"there is no source format {name}", remedy=f"Known: {', '.join(FORMATS)}")
    return FORMATS[name]
