"""State dicts in several files beside an index, as Hugging Face's libraries save large models.

`model.safetensors.index.json` and `pytorch_model.bin.index.json` name the file of each tensor under `weight_map`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from normconvert.errors import CorruptFile, Unsupported
from normconvert.sources.pytorch.files import INDEX, Content, read_content

_START = 16
_LARGEST_INDEX = 100 << 20
_AGAIN = "Take all files of the model from their source again"


class _Index(msgspec.Struct):
    """What an index says of the tensors; other entries are about the whole."""

    weight_map: dict[str, str]


def content_of(path: Path) -> Content:
    """What a file, or an index with the files that it names, holds; see `read_content`.

    Raises:
        OSError: it cannot be read.
        CorruptFile, Unsupported: as `read_content`; or a file or tensor that the index names is missing.
    """
    if not path.name.endswith(INDEX):
        return _read(path)
    value: dict[str, Any] = {}
    weights = _weight_map(path)
    for shard in shards(path):
        held = _read(shard).value
        if not isinstance(held, dict):
            raise Unsupported("is no state dict, as the files of an index are", where=shard.name)
        twice = value.keys() & held.keys()
        if twice:
            raise CorruptFile(f"holds {min(twice)}, which another file holds too", where=shard.name, remedy=_AGAIN)
        value |= held
        missing = [name for name, file in weights.items() if file == shard.name and name not in held]
        if missing:
            raise CorruptFile(f"lacks {missing[0]}, which the index says it holds", where=shard.name, remedy=_AGAIN)
    return Content(value, "pytorch-shards")


def shards(path: Path) -> list[Path]:
    """The files that an index names, beside it; no file for any other path.

    Raises:
        OSError: the index cannot be read.
        CorruptFile: it is no index, or names a file that is not beside it.
    """
    if not path.name.endswith(INDEX):
        return []
    files = [path.with_name(name) for name in dict.fromkeys(_weight_map(path).values())]
    for file in files:
        if not file.is_file():
            raise CorruptFile(
                f"names {file.name}, which is not beside it",
                where=path.name,
                remedy="Put the files of the model side by side, under their own names",
            )
    return files


def _weight_map(path: Path) -> dict[str, str]:
    if path.stat().st_size > _LARGEST_INDEX:
        raise CorruptFile("is too large for an index", where=path.name, remedy=_AGAIN)
    try:
        weights = msgspec.json.decode(path.read_bytes(), type=_Index).weight_map
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CorruptFile(f"is no index of tensors ({error})", where=path.name, remedy=_AGAIN) from None
    outside = [name for name in weights.values() if not name or Path(name).name != name or name.endswith(INDEX)]
    if outside or not weights:
        what = f"names {outside[0]!r}, which is no file beside it" if outside else "names no tensors"
        raise CorruptFile(what, where=path.name, remedy="Do not load this file unless you trust its source")
    return weights


def _read(path: Path) -> Content:
    with path.open("rb") as stream:
        start = stream.read(_START)
    return read_content(path, start)
