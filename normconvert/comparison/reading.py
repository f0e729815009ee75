"""Two sources read and compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from normconvert.artefacts import kind_of, read_model
from normconvert.comparison.models import compare, side_of
from normconvert.comparison.records import Difference, Side
from normconvert.errors import CorruptFile, UsageError
from normconvert.ir.model import Model, Provenance
from normconvert.sources.reading import Reading, ReadingOptions, reading_from

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from normconvert.comparison.code import Code

AnyPath = str | PathLike[str]
_LONGEST_RECORD = 64 << 20


def diff(
    a: AnyPath,
    b: AnyPath,
    *,
    options_a: ReadingOptions | None = None,
    options_b: ReadingOptions | None = None,
    weights: bool = True,
    evaluate: bool = True,
    progress: Callable[[str], None] = lambda _: None,
    **options: Unpack[ReadingOptions],
) -> Difference:
    """What differs between two models: layers, equations, settings, statistics and weights.

    Args:
        a, b: source files, the intermediate format, or PyTorch folders that normconvert wrote; of such a folder the
            text and the weights are compared, and nothing in it is run.
        options_a, options_b: how to read each, see `convert`; they go before `options`.
        weights: compare arrays too.
        evaluate: run both in the interpreter where it is not shown that they are the same.
        progress: told of each stage.
        options: how to read both.

    Returns:
        Every difference; `same` says whether both compute the same, as far as was established.

    Raises:
        UsageError, Unsupported, CorruptFile: as their names say.
    """
    paths = Path(a), Path(b)
    readings = [reading_from(**(options | (own or {}))) for own in (options_a, options_b)]
    folders = [_is_folder(path) for path in paths]
    for path, folder, own in zip(paths, folders, (options_a, options_b), strict=True):
        if folder and own:
            raise UsageError("a PyTorch folder is complete and takes no options", where=str(path))
    models = [
        None if folder else _read(path, reading, progress)
        for path, reading, folder in zip(paths, readings, folders, strict=True)
    ]
    if models[0] is not None and models[1] is not None:
        names = paths[0].name, paths[1].name
        return compare(models[0], models[1], names=names, weights=weights, evaluate=evaluate, progress=progress)
    from normconvert.comparison.folders import compare_code

    codes = [_code(path, model) for path, model in zip(paths, models, strict=True)]
    sides = [
        _folder_side(path) if model is None else side_of(model, path.name)
        for path, model in zip(paths, models, strict=True)
    ]
    return compare_code(codes[0], codes[1], (sides[0], sides[1]), weights=weights)


def _is_folder(path: Path) -> bool:
    kind = kind_of(path)
    return kind is not None and kind.name == "torch"


def _read(path: Path, reading: Reading, progress: Callable[[str], None]) -> Model:
    progress(f"reading {path.name}")
    return read_model(path, reading).model


def _code(path: Path, model: Model | None) -> Code:
    from normconvert.comparison.code import code_of_folder, code_of_model

    return code_of_folder(path) if model is None else code_of_model(model)


def _folder_side(folder: Path) -> Side:
    """What the record beside the code says of it."""
    record = folder / "equivalence.json"
    source = Provenance()
    if record.is_file() and record.stat().st_size <= _LONGEST_RECORD:
        try:
            source = msgspec.convert(json.loads(record.read_bytes()).get("source"), Provenance)
        except (ValueError, AttributeError, RecursionError, msgspec.ValidationError):
            raise CorruptFile("is damaged", where=str(record)) from None
    return Side("", folder.name, "torch folder", f"from {source.source}" if source.source else "")
