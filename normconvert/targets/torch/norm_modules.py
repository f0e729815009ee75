"""Modules of the normalisation layers."""

from __future__ import annotations

import numpy as np

from normconvert.errors import Unsupported
from normconvert.ir import layers
from normconvert.targets.python_code.numbers import number
from normconvert.targets.python_code.text import call
from normconvert.targets.torch.module import Maker, Module, Weights


def _batch_norm(layer: layers.BatchNormalization, weights: Weights) -> Module:
    features = next(iter(weights.values())).shape[0] if weights else 0
    if not weights and (layer.scale or layer.center or layer.source == "population"):
        raise Unsupported("a batch normalisation without arrays")
    given = [
        str(features),
        f"axis={layer.axis}" if layer.axis != -1 else "",
        f"eps={number(layer.epsilon)}",
        f"momentum={number(layer.momentum)}" if layer.momentum != 0.99 else "",
        "" if layer.scale else "scale=False",
        "" if layer.center else "center=False",
        "frozen=True" if not layer.trainable or "mean" in layer.fixed else "",
        "" if layer.source == "population" else "from_batch=True",
    ]
    names = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
    return Module(call("BatchNorm", given), {names[name]: array for name, array in weights.items()})


def _layer_norm(layer: layers.LayerNormalization, weights: Weights) -> Module:
    arrays = {{"gamma": "weight", "beta": "bias"}[name]: array for name, array in weights.items()}
    eps = f"eps={number(layer.epsilon)}"
    if layer.axes == (-1,) and layer.moments == "standard" and layer.scale:
        (features,) = weights["gamma"].shape
        return Module(call("nn.LayerNorm", [str(features), eps, "" if layer.center else "bias=False"]), arrays)
    shape = list(next(iter(weights.values())).shape) if weights else [1] * len(layer.axes)
    given = [
        str(shape),
        str(list(layer.axes)),
        eps,
        "" if layer.scale else "scale=False",
        "" if layer.center else "center=False",
        f'moments="{layer.moments}"' if layer.moments != "standard" else "",
    ]
    return Module(call("LayerNorm", given), arrays)


def _group_norm(layer: layers.GroupNormalization, weights: Weights) -> Module:
    channels = next(iter(weights.values())).shape[0] if weights else 1
    given = [
        str(layer.groups),
        str(channels),
        f"axis={layer.axis}" if layer.axis != -1 else "",
        f"eps={number(layer.epsilon)}",
        "" if layer.scale else "scale=False",
        "" if layer.center else "center=False",
    ]
    arrays = {{"gamma": "weight", "beta": "bias"}[name]: array for name, array in weights.items()}
    return Module(call("GroupNorm", given), arrays)


def _unit_norm(layer: layers.UnitNormalization, weights: Weights) -> Module:
    return Module(f"UnitNorm({list(layer.axes)}, eps={number(layer.epsilon)})")


def _standardise(layer: layers.Standardization, weights: Weights) -> Module:
    given = [str(list(weights["mean"].shape)), f"eps={number(layer.epsilon)}", "invert=True" if layer.invert else ""]
    arrays = dict(weights)
    if arrays["variance"].shape != arrays["mean"].shape:
        arrays["variance"] = np.broadcast_to(arrays["variance"], arrays["mean"].shape)
    return Module(call("Standardise", given), arrays)


def _rescale(layer: layers.Rescaling, weights: Weights) -> Module:
    scale, offset = ([float(value) for value in values] for values in (layer.scale, layer.offset))
    return Module(call("Rescale", [repr(scale), repr(offset)]))


NORMS: dict[type, Maker] = {
    layers.BatchNormalization: _batch_norm,
    layers.LayerNormalization: _layer_norm,
    layers.GroupNormalization: _group_norm,
    layers.UnitNormalization: _unit_norm,
    layers.Standardization: _standardise,
    layers.Rescaling: _rescale,
}
