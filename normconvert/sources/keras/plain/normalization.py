"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from normconvert.errors import CorruptFile, Unsupported
from normconvert.ir import layers
from normconvert.ir.model import Array
from normconvert.sources.keras.building import Builder, Config, Dialect, Part, Weights
from normconvert.sources.keras.plain.options import Options


def _affine(weights: Weights, scale: bool, center: bool) -> dict[str, Array]:
    return weights.take(*(("gamma",) if scale else ()), *(("beta",) if center else ()))


def _batch(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    axes = options.integers("axis", -1)
    if len(axes) != 1:
        raise Unsupported(f"{class_name} over the axes {list(axes)} together", remedy="One axis is supported")
    if config.get("renorm"):
        raise Unsupported(f"{class_name} with renorm=True", remedy="Train it again without batch renormalisation")
    mode = options.integer("normconvert_mode", 0)  # Keras 1: 2 takes the moments of the batch at inference too
    layer = layers.BatchNormalization(
        axis=axes[0],
        epsilon=options.number("epsilon", 1e-3),
        momentum=options.number("momentum", 0.99),
        scale=options.flag("scale", True),
        center=options.flag("center", True),
        source="batch" if mode == 2 else "population",
    )
    arrays = _affine(weights, layer.scale, layer.center)
    if layer.source == "population":
        moving = weights.take("moving_mean", "moving_variance")
        arrays |= {"mean": moving["moving_mean"], "variance": moving["moving_variance"]}
    return (Part(layer, arrays),)


def _layer(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    # With rms_scaling Keras has a gamma and no beta, whatever scale and center say.
    rms = options.flag("rms_scaling", False)
    layer = layers.LayerNormalization(
        axes=options.integers("axis", -1),
        epsilon=options.number("epsilon", 1e-3),
        scale=rms or options.flag("scale", True),
        center=not rms and options.flag("center", True),
        moments="uncentred" if rms else "standard",
    )
    return (Part(layer, _affine(weights, layer.scale, layer.center)),)


def _root_mean_square(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    layer = layers.LayerNormalization(
        axes=options.integers("axis", -1), epsilon=options.number("epsilon", 1e-6), center=False, moments="rms"
    )
    return (Part(layer, {"gamma": weights.take("scale")["scale"]}),)


def _group(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    scale, center = options.flag("scale", True), options.flag("center", True)
    arrays = _affine(weights, scale, center)
    groups = options.integer("groups", 32)
    if groups == -1:  # instance normalisation: one group per channel
        if not arrays:
            raise Unsupported(f"{class_name} with groups=-1 and no weights", remedy="State the number of channels")
        groups = len(next(iter(arrays.values())))
    layer = layers.GroupNormalization(
        groups=groups,
        axis=options.integer("axis", -1),
        epsilon=options.number("epsilon", 1e-3),
        scale=scale,
        center=center,
    )
    return (Part(layer, arrays),)


def _unit(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    # Smallest length: tf.keras bounds the squared length by 1e-12, Keras 3 the length itself.
    epsilon = 1e-24 if dialect.major >= 3 else 1e-12
    return (Part(layers.UnitNormalization(axes=Options(class_name, config).integers("axis", -1), epsilon=epsilon)),)


def _standardization(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    if options.has("mean"):
        arrays = {key: options.array(key).astype(np.float32) for key in ("mean", "variance")}
    else:
        arrays = weights.take("mean", "variance", "count")
        del arrays["count"]
    axes = options.integers("axis", -1) if options.has("axis") else ()
    if "axis" not in config:
        axes = (-1,)
    placed = {key: _placed(array, axes, _rank(config)) for key, array in arrays.items()}
    return (Part(layers.Standardization(invert=options.flag("invert", False)), placed),)


def _placed(array: Array, axes: tuple[int, ...], rank: int | None) -> Array:
    """Statistics of some axes, with axes of size 1 put in so that they broadcast over one sample."""
    if array.ndim == 0:
        return array
    if any(axis >= 0 for axis in axes) and rank is None:
        raise Unsupported(
            f"Normalization over the axes {list(axes)} of an input whose number of axes the file does not say",
            remedy="Count its axes from the end (axis=-1)",
        )
    from_end = sorted(axis - (rank or 0) if axis >= 0 else axis for axis in axes)
    if array.ndim > len(from_end):
        raise CorruptFile(f"the statistics have shape {list(array.shape)} for the axes {list(axes)}")
    # Statistics with fewer axes belong to the last of them.
    sizes = dict(zip(from_end[-array.ndim :], array.shape, strict=True))
    return array.reshape([sizes.get(axis, 1) for axis in range(min(sizes), 0)])


def _rank(config: Config) -> int | None:
    """How many axes the input has, if the configuration says."""
    built = config.get("build_config")
    shapes: list[Any] = [built.get("input_shape")] if isinstance(built, dict) else []
    shapes += [config.get("batch_shape"), config.get("batch_input_shape")]
    return next((len(shape) for shape in shapes if isinstance(shape, (list, tuple))), None)


def _rescaling(class_name: str, config: Config, weights: Weights, dialect: Dialect) -> tuple[Part, ...]:
    options = Options(class_name, config)
    return (Part(layers.Rescaling(scale=options.numbers("scale"), offset=options.numbers("offset", [0.0]))),)


NORMALIZATIONS: dict[str, Builder] = {
    "BatchNormalization": _batch,
    "BatchNormalizationV1": _batch,
    "BatchNormalizationV2": _batch,
    "SyncBatchNormalization": _batch,
    "LayerNormalization": _layer,
    "RMSNormalization": _root_mean_square,
    "GroupNormalization": _group,
    "UnitNormalization": _unit,
    "Normalization": _standardization,
    "Rescaling": _rescaling,
}
