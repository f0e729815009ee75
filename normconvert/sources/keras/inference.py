"""A recipe for weights without an architecture, from the names and shapes of their arrays.

What the arrays show (a class, units, biases, scales) is filled in; what they cannot show (activations, strides, the
order of the layers) gets Keras's default and the mark `# assumed`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from normconvert.sources.keras.building import Config
from normconvert.sources.keras.container import Container
from normconvert.sources.keras.hdf5 import Hdf5File, Stored
from normconvert.sources.keras.recipe import FREE, UNKNOWN
from normconvert.sources.keras.shapes_to_layers import Shapes, from_arrays
from normconvert.sources.keras.tree_store import snake_case
from normconvert.sources.keras.versions import KerasDialect, dialect_of
from normconvert.sources.toml import Assumed, write_toml

_CLASSES = [
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout",
    "Activation", "Flatten", "Reshape", "Permute", "RepeatVector", "Masking", "MaxPooling1D", "MaxPooling2D",
    "AveragePooling1D", "AveragePooling2D", "GlobalMaxPooling1D", "GlobalAveragePooling1D", "GlobalMaxPooling2D",
    "GlobalAveragePooling2D", "Concatenate", "Add", "Multiply", "Average", "Maximum", "ReLU", "LeakyReLU", "ELU",
    "Softmax", "UpSampling1D", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "InputLayer",
]  # fmt: skip
_BY_NAME = {snake_case(name): name for name in _CLASSES} | {"input": "InputLayer", "input_layer": "InputLayer"}
"""Layers without arrays, by the beginning of the name Keras gives them."""

_NEEDED: dict[str, Config] = {
    "Dropout": {"rate": 0.5},
    "Activation": {"activation": "linear"},
    "Reshape": {"target_shape": [-1]},
    "Permute": {"dims": [2, 1]},
    "RepeatVector": {"n": 1},
    "GaussianNoise": {"stddev": 0.1},
}


_NORMS = ("BatchNormalization", "LayerNormalization")


@dataclass(frozen=True)
class _Found:
    """A group of a file of weights."""

    name: str
    scope: str
    arrays: Shapes
    parts: dict[str, Shapes]


def infer_recipe(container: Container) -> str:
    """A recipe to start from."""
    found = _legacy(container) if container.format == "keras-h5" else _tree(container)
    layers = [_layer(one) for one in found if not (_class_of(one.name) == "InputLayer" and not one.arrays)]
    _chain(layers)
    keras1 = any(role in ("W", "U") or role.startswith(("W_", "U_")) for one in found for role in one.arrays)
    era = "1.2.2" if keras1 else "2.15" if container.format == "keras-h5" else "3.0"
    version: Any = container.version or Assumed(era, "the file names no version of Keras")
    _date(layers, dialect_of(container.version or era))
    backend: Any = container.backend or None
    if keras1 and not any(name.endswith(":0") for name in container.file.arrays):
        backend = Assumed("theano", "no name ends in ':0'")
    return write_toml(
        {
            "model": {"name": "model", "keras": version, "backend": backend},
            "inputs": [_input(found)],
            "layers": layers,
        }
    )


def _chain(layers: list[Config]) -> None:
    """A recurrent layer before another layer over time gives sequences."""
    timed = [layer for layer in layers if isinstance(layer["class"], str) and layer["class"] not in _NORMS]
    for layer, following in pairwise(timed):
        owner = layer.get("layer", layer)
        if "return_sequences" in owner and {"return_sequences", "layer"} & set(following):
            owner["return_sequences"] = Assumed(True, "another layer over time follows")


def _date(layers: list[Config], dialect: KerasDialect) -> None:
    """The gates' activation is the default of the version that wrote the file."""
    for layer in layers:
        owner = layer.get("layer", layer)
        if "recurrent_activation" in owner:
            default = dialect.default(owner["class"], "recurrent_activation", noted=False)
            owner["recurrent_activation"] = Assumed(default, f"the default of Keras {dialect.text}")


def _legacy(container: Container) -> list[_Found]:
    file = container.file
    assert isinstance(file, Hdf5File)
    group = file.group(container.root)
    assert group is not None
    found = []
    for name in file.names(group, "layer_names") or []:
        inner = file.group(f"{container.root}/{name}".lstrip("/"))
        arrays = file.names(inner, "weight_names") or [] if inner is not None else []
        shapes = {array: file.arrays[_path(container.root, name, array)].shape for array in arrays}
        found.append(_Found(name, name, _by_role(shapes), _directions(shapes)))
    return found


def _tree(container: Container) -> list[_Found]:
    """The groups of a Keras 3 file; their alphabetical order stands in for the model's."""
    file = container.file
    assert isinstance(file, Hdf5File)
    groups: dict[str, list[Stored]] = {}
    names: dict[str, str] = {}
    for stored in file.arrays.values():
        parts = stored.name.split("/")
        if parts[0] in ("layers", "_layer_checkpoint_dependencies") and len(parts) > 2:
            groups.setdefault(parts[1], []).append(stored)
            own = file.group("/".join((*parts[:2], "vars")))
            if own is not None and (given := file.attribute(own, "name")):
                names[parts[1]] = str(given)
    found = []
    for scope, arrays in sorted(groups.items(), key=lambda item: _natural(item[0])):
        relative = {stored.name.split("/", 2)[2]: stored.shape for stored in arrays}
        found.append(_Found(names.get(scope, scope), scope, _by_number(relative), _directions(relative)))
    return found


def _natural(name: str) -> tuple[str, int]:
    """`dense_2` before `dense_10`."""
    base, _, number = name.rpartition("_")
    return (base, int(number)) if number.isdigit() else (name, 0)


def _path(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _by_role(shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    return {
        re.sub(r".*_(?=[WUb](_\w+)?$)", "", name.split(":")[0].split("/")[-1]): shape for name, shape in shapes.items()
    }


def _by_number(shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Numbered arrays by the roles their shapes suggest."""
    own = [shape for name, shape in sorted(shapes.items()) if re.fullmatch(r"((cell|layer)/)?vars/\d+", name)]
    recurrent = any(name.startswith("cell/") for name in shapes)
    if len(own) == 4 and len({*own}) == 1 and len(own[0]) == 1:
        roles = ["gamma", "beta", "moving_mean", "moving_variance"]
    elif recurrent:
        roles = ["kernel", "recurrent_kernel", "bias"]
    elif own and len(own[0]) == 1:
        roles = ["gamma", "beta"]
    else:
        roles = ["kernel", "bias"]
    return dict(zip(roles, own, strict=False))


def _directions(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Shapes]:
    """The arrays of the two directions of a Bidirectional, if the names show them."""
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        for direction in ("forward", "backward"):
            if any(part.startswith(f"{direction}_") for part in name.split("/")):
                inner = name.split("/", 1)[1] if name.startswith(f"{direction}_layer/") else name
                halves.setdefault(direction, {})[inner] = shape
    read = _by_number if any("vars/" in name for name in shapes) else _by_role
    return {direction: read(half) for direction, half in halves.items()}


def _layer(found: _Found) -> Config:
    head: Config = {"name": found.name, "scope": found.scope if found.scope != found.name else None}
    if len(found.parts) == 2:
        inner = from_arrays(found.parts["forward"])
        inner["return_sequences"] = Assumed(False)
        return {
            **head,
            "class": "Bidirectional",
            "merge_mode": Assumed("concat"),
            "layer": {"name": found.name, **inner},
        }
    if found.arrays and found.scope.startswith("time_distributed"):
        return {
            **head,
            "class": "TimeDistributed",
            "layer": {"name": "layer", **from_arrays(found.arrays)},
        }
    if found.arrays:
        return {**head, **from_arrays(found.arrays)}
    known = _class_of(found.name)
    if not known:
        return {**head, "class": Assumed(UNKNOWN, "its arrays do not tell: fill it in")}
    settings = {key: Assumed(value) for key, value in _NEEDED.get(known, {}).items()}
    return {**head, "class": Assumed(known, "from the layer's name"), **settings}


def _class_of(name: str) -> str:
    return _BY_NAME.get(re.sub(r"_\d+$", "", name), "")


def _input(found: list[_Found]) -> Config:
    """The input that the first layer with arrays needs."""
    for layer in found:
        shapes = layer.arrays or layer.parts.get("forward", {})
        kernel = (
            shapes.get("kernel") or shapes.get("W") or next((s for r, s in shapes.items() if r.startswith("W")), None)
        )
        if "embeddings" in shapes:
            return {"name": "input", "shape": Assumed([FREE])}
        if kernel is not None:
            sequence = "recurrent_kernel" in shapes or any(role.startswith("U") for role in shapes) or len(kernel) > 2
            free = [FREE] * max(len(kernel) - 2, 1 if sequence else 0)
            return {"name": "input", "shape": Assumed([*free, kernel[-2]])}
        if shapes:
            return {"name": "input", "shape": Assumed([FREE, next(iter(shapes.values()))[-1]])}
    return {"name": "input", "shape": Assumed([FREE])}
