"""A recipe for weights without an architecture, from the names and shapes of their arrays.

What the arrays show (a class, units, biases, scales) is filled in; what they cannot show (activations, strides, the
order of the layers) gets Keras's default and the mark `# assumed`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from normconvert.sources.keras.building import Config
from normconvert.sources.keras.container import Container
from normconvert.sources.keras.hdf5 import Stored
from normconvert.sources.keras.recipe import FREE
from normconvert.sources.keras.store import snake_case
from normconvert.sources.toml import Assumed, write_toml

Shapes = dict[str, tuple[int, ...]]
"""Shapes of a layer's arrays by role, in the order they were created."""

_CLASSES = (
    "Dropout SpatialDropout1D SpatialDropout2D GaussianDropout GaussianNoise AlphaDropout Activation Flatten Reshape "
    "Permute RepeatVector Masking MaxPooling1D MaxPooling2D AveragePooling1D AveragePooling2D GlobalMaxPooling1D "
    "GlobalAveragePooling1D GlobalMaxPooling2D GlobalAveragePooling2D Concatenate Add Multiply Average Maximum ReLU "
    "LeakyReLU ELU Softmax UpSampling1D UpSampling2D ZeroPadding1D ZeroPadding2D Cropping1D InputLayer"
).split()
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
    layers = [layer for layer in map(_layer, found) if layer["class"] != "InputLayer"]
    version: Any = container.version or Assumed("2.15", "the file names no version of Keras")
    return write_toml(
        {
            "model": {"name": "model", "keras": version, "backend": container.backend or None},
            "inputs": [_input(found)],
            "layers": layers,
        }
    )


def _legacy(container: Container) -> list[_Found]:
    group = container.file.group(container.root)
    assert group is not None
    found = []
    for name in container.file.names(group, "layer_names") or []:
        inner = container.file.group(f"{container.root}/{name}".lstrip("/"))
        arrays = container.file.names(inner, "weight_names") or [] if inner is not None else []
        shapes = {array: container.file.arrays[_path(container.root, name, array)].shape for array in arrays}
        found.append(_Found(name, name, _by_role(shapes), _directions(shapes)))
    return found


def _tree(container: Container) -> list[_Found]:
    """The groups of a Keras 3 file; their alphabetical order stands in for the model's."""
    groups: dict[str, list[Stored]] = {}
    for stored in container.file.arrays.values():
        parts = stored.name.split("/")
        if parts[0] in ("layers", "_layer_checkpoint_dependencies") and len(parts) > 2:
            groups.setdefault(parts[1], []).append(stored)
    found = []
    for name, stored_arrays in groups.items():
        relative = {stored.name.split("/", 2)[2]: stored.shape for stored in stored_arrays}
        found.append(_Found(name, name, _by_number(relative), _directions(relative)))
    return found


def _path(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _by_role(shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    return {re.sub(r".*_(?=[WUb](_\w+)?$)", "", name.split(":")[0].split("/")[-1]): shape for name, shape in shapes.items()}


def _by_number(shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Numbered arrays by the roles their shapes suggest."""
    own = [shape for name, shape in sorted(shapes.items()) if re.fullmatch(r"(cell/)?vars/\d+", name)]
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
    head: Config = {"name": found.name}
    if len(found.parts) == 2:
        inner = _from_arrays(found.name, found.parts["forward"])
        inner["return_sequences"] = Assumed(False)
        return {**head, "class": "Bidirectional", "merge_mode": Assumed("concat"), "layer": {"name": found.name, **inner}}
    if found.arrays:
        return {**head, **_from_arrays(found.name, found.arrays)}
    known = _class_of(found.name)
    settings = {key: Assumed(value) for key, value in _NEEDED.get(known, {}).items()}
    return {**head, "class": Assumed(known, "from the layer's name"), **settings}


def _class_of(name: str) -> str:
    base = re.sub(r"_\d+$", "", name)
    return _BY_NAME.get(base, _BY_NAME.get(re.sub(r"_(?=\d)", "", base), "Identity"))


def _from_arrays(name: str, shapes: Shapes) -> Config:
    for fits, describe in _KINDS:
        if fits(shapes):
            return describe(name, shapes)
    return {"class": Assumed("Identity", f"no layer is known with the arrays {', '.join(shapes)}")}


def _recurrent(name: str, shapes: Shapes) -> Config:
    kernel, inner = shapes["kernel"], shapes["recurrent_kernel"]
    units, bias = inner[-2], shapes.get("bias")
    gates = inner[-1] // units
    if len(inner) > 2:
        config: Config = {"class": f"ConvLSTM{len(inner) - 2}D", "filters": units, "kernel_size": list(kernel[:-2])}
        config |= {"strides": Assumed(1), "padding": Assumed("valid")}
        return config | _gated(bias)
    if gates == 4:
        kind = "CuDNNLSTM" if bias == (8 * units,) else "LSTM"
        return {"class": kind, "units": units} | ({} if kind != "LSTM" else _gated(bias)) | _sequences()
    if gates == 3:
        if bias == (6 * units,):
            return {"class": "CuDNNGRU", "units": units, **_sequences()}
        after: Any = len(bias) == 2 if bias is not None else Assumed(True)
        return {"class": "GRU", "units": units, "reset_after": after, **_gated(bias), **_sequences()}
    return {"class": "SimpleRNN", "units": units, "activation": Assumed("tanh"), "use_bias": bias is not None, **_sequences()}


def _gated(bias: tuple[int, ...] | None) -> Config:
    return {
        "activation": Assumed("tanh"),
        "recurrent_activation": Assumed("sigmoid", "hard_sigmoid before Keras 2.3"),
        "use_bias": bias is not None,
    }


def _sequences() -> Config:
    return {"return_sequences": Assumed(False), "go_backwards": Assumed(False)}


def _per_gate(name: str, shapes: Shapes) -> Config:
    units = next(shape[-1] for role, shape in shapes.items() if role.startswith("U"))
    kind = {12: "LSTM", 9: "GRU"}.get(len(shapes), "SimpleRNN")
    return {
        "class": kind,
        "output_dim": units,
        "activation": Assumed("tanh"),
        **({"inner_activation": Assumed("hard_sigmoid")} if kind != "SimpleRNN" else {}),
        **_sequences(),
    }


def _batch_norm(name: str, shapes: Shapes) -> Config:
    return {
        "class": "BatchNormalization",
        "axis": Assumed(-1),
        "epsilon": Assumed(1e-3),
        "scale": "gamma" in shapes,
        "center": "beta" in shapes,
    }


def _layer_norm(name: str, shapes: Shapes) -> Config:
    return {
        "class": "LayerNormalization",
        "axis": Assumed([-1]),
        "epsilon": Assumed(1e-3),
        "scale": "gamma" in shapes,
        "center": "beta" in shapes,
    }


def _embedding(name: str, shapes: Shapes) -> Config:
    return {"class": "Embedding", "mask_zero": Assumed(False)}


def _separable(name: str, shapes: Shapes) -> Config:
    depthwise = shapes["depthwise_kernel"]
    space = len(depthwise) - 2
    kind = "SeparableConv" if "pointwise_kernel" in shapes else "DepthwiseConv"
    config: Config = {"class": f"{kind}{space}D", "kernel_size": list(depthwise[:space])}
    if "pointwise_kernel" in shapes:
        config["filters"] = shapes["pointwise_kernel"][-1]
    return config | _convolved(shapes) | {"depth_multiplier": depthwise[-1]}


def _convolution(name: str, shapes: Shapes) -> Config:
    kernel = shapes["kernel"]
    space = len(kernel) - 2
    return {
        "class": f"Conv{space}D",
        "filters": kernel[-1],
        "kernel_size": list(kernel[:space]),
        **_convolved(shapes),
    }


def _convolved(shapes: Shapes) -> Config:
    return {
        "strides": Assumed(1),
        "padding": Assumed("valid"),
        "activation": Assumed("linear"),
        "use_bias": "bias" in shapes,
    }


def _dense(name: str, shapes: Shapes) -> Config:
    return {
        "class": "Dense",
        "units": shapes["kernel"][-1],
        "activation": Assumed("linear"),
        "use_bias": "bias" in shapes,
    }


def _keras1_dense(name: str, shapes: Shapes) -> Config:
    return {"class": "Dense", "output_dim": shapes["W"][-1], "activation": Assumed("linear"), "bias": "b" in shapes}


def _prelu(name: str, shapes: Shapes) -> Config:
    return {"class": "PReLU"}


_KINDS: tuple[tuple[Callable[[Shapes], bool], Callable[[str, Shapes], Config]], ...] = (
    (lambda s: {"kernel", "recurrent_kernel"} <= set(s), _recurrent),
    (lambda s: any(role.startswith("U") for role in s), _per_gate),
    (lambda s: "moving_mean" in s or "running_mean" in s, _batch_norm),
    (lambda s: bool({"gamma", "beta"} & set(s)), _layer_norm),
    (lambda s: "embeddings" in s, _embedding),
    (lambda s: "depthwise_kernel" in s, _separable),
    (lambda s: "kernel" in s and len(s["kernel"]) > 2, _convolution),
    (lambda s: "kernel" in s and len(s["kernel"]) == 2, _dense),
    (lambda s: "W" in s and len(s["W"]) == 2, _keras1_dense),
    (lambda s: bool({"alpha", "alphas"} & set(s)), _prelu),
)
"""What arrays make a layer, the most telling first."""


def _input(found: list[_Found]) -> Config:
    """The input that the first layer with arrays needs."""
    for layer in found:
        shapes = layer.arrays or layer.parts.get("forward", {})
        kernel = shapes.get("kernel") or shapes.get("W") or next((s for r, s in shapes.items() if r.startswith("W")), None)
        if "embeddings" in shapes:
            return {"name": "input", "shape": Assumed([FREE])}
        if kernel is not None:
            sequence = "recurrent_kernel" in shapes or any(role.startswith("U") for role in shapes) or len(kernel) > 2
            free = [FREE] * max(len(kernel) - 2, 1 if sequence else 0)
            return {"name": "input", "shape": Assumed([*free, kernel[-2]])}
        if shapes:
            return {"name": "input", "shape": Assumed([FREE, next(iter(shapes.values()))[-1]])}
    return {"name": "input", "shape": Assumed([FREE])}
