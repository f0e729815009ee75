"""Source formats: telling which one a file has, and reading it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from normconvert.errors import CorruptFile, Unsupported, UsageError
from normconvert.sources.reading import Assumption, Plan, ReadResult, TensorUse

__all__ = ["FORMATS", "Assumption", "Format", "Plan", "ReadResult", "TensorUse", "detect", "plan", "read"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Format:
    """A source format.

    Attributes:
        title: what to call it before a user.
        matches: whether a path, of which the first bytes are given, looks like it.
        read: reads it; takes path, config, recipe, define.
        plan: says how it is or would be read; takes the same.
    """

    title: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Path, Path | None, Path | None, Mapping[str, Path]], ReadResult]
    plan: Callable[[Path, Path | None, Path | None, Mapping[str, Path]], Plan]


def _is_keras(path: Path, start: bytes) -> bool:
    if path.is_dir():
        return (path / "config.json").is_file()
    return start.startswith(_HDF5) or path.suffix in (".h5", ".hdf5", ".keras") or zipfile.is_zipfile(path)


def _read_keras(path: Path, config: Path | None, recipe: Path | None, define: Mapping[str, Path]) -> ReadResult:
    from normconvert.sources import keras

    return keras.read(path, config=config, recipe=recipe, define=define)


def _plan_keras(path: Path, config: Path | None, recipe: Path | None, define: Mapping[str, Path]) -> Plan:
    from normconvert.sources import keras

    return keras.plan(path, config=config, recipe=recipe, define=define)


def _is_ours(path: Path, start: bytes) -> bool:
    return path.suffix == ".safetensors" or (len(start) > 8 and start[8:9] == b"{")


def _read_ours(path: Path, config: Path | None, recipe: Path | None, define: Mapping[str, Path]) -> ReadResult:
    from normconvert.ir.file import load

    if config is not None or recipe is not None or define:
        raise UsageError("the file is complete and takes no configuration, recipe or definition", where=str(path))
    model = load(path)
    uses = (TensorUse(name, array.shape, str(array.dtype), name) for name, array in model.weights.items())
    return ReadResult(model, Plan(tuple(uses), (), ""))


def _plan_ours(path: Path, config: Path | None, recipe: Path | None, define: Mapping[str, Path]) -> Plan:
    return _read_ours(path, config, recipe, define).plan


FORMATS: dict[str, Format] = {
    "normconvert": Format("normconvert's own .safetensors", _is_ours, _read_ours, _plan_ours),
    "keras": Format("Keras .h5, .hdf5, .keras, .weights.h5", _is_keras, _read_keras, _plan_keras),
}
"""Source formats by the name the command line has for them, the most telling first."""


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
    if not path.exists():
        raise UsageError("no such file", where=str(path))
    if path.is_dir():
        return b""
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


def read(
    path: Path,
    *,
    from_format: str | None = None,
    config: Path | None = None,
    recipe: Path | None = None,
    define: Mapping[str, Path] | None = None,
) -> ReadResult:
    """Read a model.

    Args:
        path: the file.
        from_format: its format, a name of `FORMATS`; found out where None.
        config: the architecture JSON of a Keras file of weights.
        recipe: a TOML recipe.
        define: files that describe the user's own classes, by class name.

    Raises:
        UsageError: no such file or format, or an option that does not fit it.
        Unsupported: a format, layer or cell that is not known.
        CorruptFile: the file is damaged or unsafe.
    """
    return _format(path, from_format).read(path, config, recipe, define or {})


def plan(
    path: Path,
    *,
    from_format: str | None = None,
    config: Path | None = None,
    recipe: Path | None = None,
    define: Mapping[str, Path] | None = None,
) -> Plan:
    """How a file is or would be read, with a recipe to edit; arguments and errors as in `read`.

    Unlike `read`, this also answers for weights without an architecture.
    """
    return _format(path, from_format).plan(path, config, recipe, define or {})


def _format(path: Path, name: str | None) -> Format:
    name = name or detect(path)
    _start(path)
    if name not in FORMATS:
        raise UsageError(f"there is no source format {name}", remedy=f"Known: {', '.join(FORMATS)}")
    return FORMATS[name]
