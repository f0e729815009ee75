"""A layer's entry in a configuration: its class, its name, and the shapes it tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normconvert.errors import CorruptFile, Unsupported
from normconvert.ir.shapes.basics import Shape
from normconvert.sources.keras.building import Config


def describe(entry: Mapping[str, Any]) -> tuple[str, Config, str]:
    """Class, configuration and name of a layer's entry.

    Raises:
        CorruptFile: it is not such an entry.
    """
    class_name, config = entry.get("class_name"), entry.get("config")
    if not isinstance(class_name, str) or not isinstance(config, (dict, list)):
        raise CorruptFile("a layer without class and configuration")
    body: Config = dict(config) if isinstance(config, dict) else {"layers": config}
    name = entry.get("name") or body.get("name")
    if not isinstance(name, str) or not name:
        name = class_name.lower()
    return class_name, body, name


def plain_name(name: str) -> str:
    """A name without the colon, which separates a node from the number of its output."""
    return name.replace(":", "_")


def built_shape(entry: Mapping[str, Any]) -> Shape | None:
    """Shape of one sample of a layer's input, which newer files note under `build_config`."""
    build = entry.get("build_config")
    shape = build.get("input_shape") if isinstance(build, dict) else None
    if isinstance(shape, list) and shape and isinstance(shape[0], list):
        shape = shape[0]
    return sample_shape(shape)


def sample_shape(shape: Any) -> Shape | None:
    """A batch shape of a configuration without its batch axis; None if it is not one."""
    if not isinstance(shape, (list, tuple)) or not shape:
        return None
    sizes = tuple(shape)[1:]
    return sizes if all(size is None or (isinstance(size, int) and size > 0) for size in sizes) else None


def unsupported_class(class_name: str) -> Unsupported:
    """The error for a layer class that nothing describes."""
    short = class_name.split(">")[-1]
    return Unsupported(
        f"the layer class {class_name} is unknown",
        remedy=f'Describe it in a file and pass --define "{short}={short.lower()}.toml"',
    )
