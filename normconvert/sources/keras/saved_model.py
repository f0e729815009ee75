"""SavedModels that the `tf` target wrote: a description beside the graph, weights in the variables of the graph.

The description, `assets.extra/normconvert.json`, holds the Keras configuration of the model and says which variable
of the checkpoint is which weight. The graph itself is not looked at, and TensorFlow is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from normconvert.errors import CorruptFile, NormconvertError, Unsupported
from normconvert.ir.model import Array
from normconvert.sources.keras.container import MAX_JSON, Container
from normconvert.sources.keras.hdf5 import Stored
from normconvert.sources.tf1.bundle import Bundle, open_bundle

GRAPH = "saved_model.pb"
DESCRIPTION = Path("assets.extra", "normconvert.json")
VARIABLES = Path("variables", "variables")
FORMAT_VERSION = 1


class Description(msgspec.Struct, forbid_unknown_fields=True):
    """The file beside the graph.

    Attributes:
        format_version: of this file.
        keras_version: of the Keras that built the model.
        config: the model's class and configuration, as Keras writes them.
        inputs, outputs: names in the signature, in the model's order.
        layers: for each layer the names of its weights, as Keras has them, with their keys in the checkpoint.
    """

    format_version: int
    keras_version: str
    config: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    layers: dict[str, dict[str, str]]


class Variables:
    """The weights of a SavedModel, by layer and name, in the place of a Keras file's arrays."""

    def __init__(self, bundle: Bundle, place: str, layers: dict[str, dict[str, str]]) -> None:
        self.bundle, self.place, self.layers = bundle, place, layers
        self.arrays = {f"{layer}/{name}": self._stored(layer, name) for layer in layers for name in layers[layer]}

    def _stored(self, layer: str, name: str) -> Stored:
        key = self.layers[layer][name]
        variable = self.bundle.variables.get(key)
        if variable is None:
            raise CorruptFile(f"names the variable {key}, which is not stored", where=f"{self.place}: {layer}/{name}")
        return Stored(f"{layer}/{name}", variable.shape, variable.dtype, self)

    def read(self, stored: Stored) -> Array:
        """A weight's value."""
        layer, _, name = stored.name.partition("/")
        return self.bundle.load(self.layers[layer][name])

    def groups(self) -> dict[str, list[tuple[str, Stored]]]:
        """The weights of each layer with their names."""
        return {
            layer: [(name, self.arrays[f"{layer}/{name}"]) for name in names] for layer, names in self.layers.items()
        }

    def close(self) -> None:
        """Nothing is held open."""


@contextmanager
def opened(folder: Path) -> Iterator[Container]:
    """A SavedModel as a container of a configuration and arrays.

    Raises:
        Unsupported: it was not written by normconvert.
        CorruptFile: it is damaged.
    """
    description = _description(folder)
    try:
        bundle = open_bundle(folder / VARIABLES)
    except NormconvertError as error:
        raise error.at(folder.name) from None
    arrays = Variables(bundle, folder.name, description.layers)
    version = description.keras_version
    yield Container(folder.name, "saved-model", description.config, version, "", arrays, "", bundle.sha256())


def _description(folder: Path) -> Description:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise Unsupported(
            f"a SavedModel without {DESCRIPTION}: a graph does not say which layers it is made of",
            where=folder.name,
            remedy="Convert the Keras file or the checkpoint it was made from",
        )
    where = f"{folder.name}: {DESCRIPTION}"
    if path.stat().st_size > MAX_JSON:
        raise CorruptFile("is too long", where=where)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Description)
    except (ValueError, RecursionError, OSError) as error:
        raise CorruptFile(f"is damaged ({error})", where=where) from None
    if found.format_version != FORMAT_VERSION:
        raise Unsupported(
            f"is in version {found.format_version} of its format", where=where, remedy="Update normconvert"
        )
    if any("/" in layer for layer in found.layers):
        raise CorruptFile("a layer's name has a slash", where=where)
    return found
