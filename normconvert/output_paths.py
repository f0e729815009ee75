"""Where an artefact goes, and how it gets there whole or not at all.

An artefact is written beside its final place under a hidden name, checked there, and then renamed. A single file has
a companion `<name>.json` with its measured equivalence; a folder holds that as `equivalence.json`. Either tells that
the artefact is ours, and so may be replaced when the user says so.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from normconvert.errors import UsageError
from normconvert.targets import Target, by_suffix, target
from normconvert.targets.layouts import record
from normconvert.targets.onnx import stream_file
from normconvert.targets.python_code.names import identifier
from normconvert.validation.report import PRODUCER

_FORMS = {"torch": ("torchscript", "export", "ir", "state-dict"), "keras": ("keras-h5",)}
"""Other targets that the suffix of an output chooses, by the one that was asked for."""

REPORT_NAME = "equivalence.json"
_ELSEWHERE = "Move it away, or choose another place with -o"
_FOREIGN_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".onnx", ".h5", ".hdf5", ".keras", ".json", ".toml", ".npz")
_SOURCE_SUFFIXES = (".weights.h5", ".h5", ".hdf5", ".keras", ".safetensors", ".zip", ".index", ".meta", ".ckpt")
_FAILED = ".failed"
_COMPANION = ".json"
_DATA = ".data"
"""What the arrays of an ONNX file over 2 GB are called, after the file's own name."""
_CELLS = "_cells.py"
"""What the layers that Keras does not have are called, after the name of the Keras file without its suffix."""
_KERAS = {".keras": _CELLS, ".h5": f"_h5{_CELLS}"}
_FOLDER_ENTRIES = {"model.py", "model.safetensors", "README.md", REPORT_NAME, "__pycache__"} | {
    "saved_model.pb",
    "fingerprint.pb",
    "variables",
    "assets",
    "assets.extra",
    "checkpoint",
    "layout.json",
    "model.ckpt.index",
    "model.ckpt.data-00000-of-00001",
}
"""All that a folder of ours holds; with anything else in it, it is the user's."""


@dataclass(frozen=True)
class Destination:
    """A place for an artefact.

    Attributes:
        target: what goes there.
        path: the folder or file.
        overwrite: an artefact of ours that is there already may be replaced.
    """

    target: Target
    path: Path
    overwrite: bool = False

    @property
    def failed(self) -> Path:
        """Where an artefact goes that did not pass the proof, if it is to be kept."""
        return self.path.with_name(self.path.name + _FAILED)

    def check(self) -> None:
        """Refuse a place that cannot be written to, or that holds something.

        Raises:
            UsageError: with the reason and what to do.
        """
        if self.path.name in ("", ".."):
            raise UsageError("this is not the name of something new", where=str(self.path), remedy="Name a folder")
        parent = self.path.parent
        if not parent.is_dir():
            raise UsageError("the folder does not exist", where=str(parent), remedy="Create it first")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UsageError("the folder is not writable", where=str(parent), remedy="Choose another with -o")
        taken = files(self.path)
        if taken and not is_ours(self.path):
            raise UsageError(
                "exists and was not made by normconvert, or not all of it",
                where=str(taken[0]),
                remedy=_ELSEWHERE,
            )
        if taken and not self.overwrite:
            raise UsageError("exists already", where=str(taken[0]), remedy="Replace it with --force")


def destination(source: Path, to: str, output: Path | None, *, overwrite: bool = False) -> Destination:
    """Where the artefact of a source goes; the suffix of `output` decides between the forms of PyTorch.

    Raises:
        UsageError: the target is unknown, `output` contradicts it, or the source lies there.
    """
    place = _destination(source, to, output, overwrite)
    if place.path.resolve() in (source.resolve(), *source.resolve().parents) and place.path.exists():
        raise UsageError("the source is there, and would be replaced", where=str(place.path), remedy=_ELSEWHERE)
    return place


def _destination(source: Path, to: str, output: Path | None, overwrite: bool) -> Destination:
    chosen = target(to)
    if output is None:
        return Destination(chosen, Path(chosen.default_name(stem(source))), overwrite)
    if chosen.may_be_called(output):
        return Destination(chosen, output, overwrite)
    named = by_suffix(output)
    if named is not None and named.name in _FORMS.get(to, ()):
        return Destination(named, output, overwrite)
    if named is not None:
        raise UsageError(f"--to {to} writes {chosen.title}, and this name stands for {named.title}", where=str(output))
    if chosen.suffix:
        endings = " or ".join((chosen.suffix, *chosen.other_suffixes))
        raise UsageError(f"the name of {chosen.title} ends in {endings}", where=str(output))
    if output.name.lower().endswith(_FOREIGN_SUFFIXES):
        known = ", ".join(f"{each.suffix}" for each in map(target, ("torchscript", "export", "ir")))
        raise UsageError(
            f"--to {to} writes a folder, and this is the name of a file",
            where=str(output),
            remedy=f"Leave out the suffix, or use one of {known}",
        )
    return Destination(chosen, output, overwrite)


def stem(source: Path) -> str:
    """A source's name without what tells its format."""
    name = source.name
    suffix = next((each for each in _SOURCE_SUFFIXES if name.lower().endswith(each)), source.suffix)
    return name[: len(name) - len(suffix)] or name


def companion(path: Path) -> Path:
    """Where the measured equivalence of an artefact stands."""
    return path / REPORT_NAME if path.is_dir() else path.with_name(path.name + _COMPANION)


def files(path: Path) -> list[Path]:
    """What there is of an artefact: the folder, or the file and those beside it that belong to it."""
    if path.is_dir() and not path.is_symlink():
        return [path]
    return [each for each in _places(path) if os.path.lexists(each)]


def _places(path: Path) -> list[Path]:
    """Where the files of an artefact of one file may be, in a fixed order."""
    places = _beside(path)
    name = path.name.removesuffix(_FAILED)
    suffix = next((each for each in _KERAS if name.lower().endswith(each)), None)
    if suffix is not None:
        failed = path.name[len(name) :]
        places.append(path.with_name(identifier(name[: -len(suffix)]) + _KERAS[suffix] + failed))
    stream = _stream(path)
    return places if stream is None else [*places, *_beside(stream)]


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in ("", _COMPANION, _DATA, record.ENDING)]


def _stream(path: Path) -> Path | None:
    """Where the streaming model beside an ONNX file is."""
    name = path.name.removesuffix(_FAILED)
    if not name.lower().endswith(".onnx"):
        return None
    return path.with_name(stream_file(Path(name)).name + path.name[len(name) :])


def is_ours(path: Path) -> bool:
    """Whether an artefact was made by normconvert, by the record of its proof."""
    if path.is_symlink() or (path.is_dir() and not {entry.name for entry in path.iterdir()} <= _FOLDER_ENTRIES):
        return False
    try:
        record = json.loads(companion(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    stream = _stream(path)
    if stream is not None and os.path.lexists(stream) and not is_ours(stream):
        return False
    return isinstance(record, dict) and record.get("producer") == PRODUCER


@contextmanager
def staged(place: Destination, *, keep_failed: bool = False) -> Iterator[Path]:
    """A path to write the artefact to; it takes its final place if the block ends without an error.

    On an error it is removed, or kept as `<name>.failed` if that is asked for and it was written.

    Raises:
        UsageError: the place cannot be written to, or was taken in the meantime.
    """
    place.check()
    spare = Destination(place.target, place.failed, overwrite=True)
    if keep_failed:
        spare.check()
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{place.path.name}.partial-", dir=place.path.parent))
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(place.path)) from None
    try:
        inner = folder / place.path.name
        try:
            yield inner
        except (OSError, SafetensorError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise UsageError(f"cannot be written: {reason}", where=str(place.path)) from None
        except BaseException:
            if keep_failed and inner.exists():
                _move(inner, spare)
            raise
        _open_permissions(inner)
        _move(inner, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open_permissions(artefact: Path) -> None:
    """Give every file the permissions that new files have here; some libraries write for the owner alone."""
    for path in artefact.iterdir() if artefact.is_dir() else (artefact,):
        shutil.copymode(companion(artefact), path)


def _move(new: Path, place: Destination) -> None:
    """Put an artefact and its companion in their place; what was there before is set aside until that is done."""
    place.check()
    aside = new.parent / "replaced"
    aside.mkdir()
    places = zip(_places(new), _places(place.path), strict=True)
    pairs = [(path, destined) for path, destined in places if os.path.lexists(path)]
    old = [(path, aside / path.name) for path in files(place.path)]
    moved: list[tuple[Path, Path]] = []
    try:
        for source, destined in old + pairs:
            os.rename(source, destined)
            moved.append((source, destined))
    except OSError as error:
        for source, destined in reversed(moved):
            os.rename(destined, source)
        raise UsageError(f"cannot be written: {error.strerror}", where=str(place.path)) from None
