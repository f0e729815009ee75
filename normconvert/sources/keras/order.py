"""Arrays of layers whose names changed between the architecture and the weights: matched by order.

Keras's `load_weights` (`load_weights_from_hdf5_group`) does so with every legacy file: the n-th layer with weights gets
the n-th group that holds any. Here names decide wherever they agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from normconvert.sources.keras.entries import describe
from normconvert.sources.keras.functional import is_mask_operation
from normconvert.sources.keras.named_store import NamedModel
from normconvert.sources.keras.operands import is_operation
from normconvert.sources.keras.store import Member, Scope

_WITHOUT_ARRAYS = frozenset(
    [
        "Activation", "ActivityRegularization", "Add", "AdditiveAttention", "AlphaDropout", "Attention", "Average",
        "Concatenate", "Dot", "Dropout", "ELU", "Flatten", "GaussianDropout", "GaussianNoise", "Identity", "InputLayer",
        "Lambda", "LeakyReLU", "Masking", "Maximum", "Merge", "Minimum", "Multiply", "Permute", "ReLU", "RepeatVector",
        "Rescaling", "Reshape", "SlicingOpLambda", "Softmax", "SpatialDropout1D", "SpatialDropout2D", "Subtract",
        "TFOpLambda", "ThresholdedReLU", "UnitNormalization",
    ]
)  # fmt: skip
_WITHOUT_ARRAYS_BY_KIND = ("Pooling", "Pool1D", "Pool2D", "UpSampling", "ZeroPadding", "Cropping")


def has_arrays(class_name: str, config: Mapping[str, Any]) -> bool:
    """Whether a layer has weights, as far as its class and what is inside it tell."""
    if is_operation(class_name, config, 3) or is_mask_operation(class_name, config):
        return False
    if class_name in _WITHOUT_ARRAYS or any(kind in class_name for kind in _WITHOUT_ARRAYS_BY_KIND):
        return False
    inner = config.get("layers", config.get("layer"))
    entries = inner if isinstance(inner, list) else [inner] if inner is not None else []
    return not entries or any(has_arrays(*describe(entry)[:2]) for entry in entries if isinstance(entry, dict))


def by_order(scope: Scope, members: Sequence[Member], configs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The groups of the layers whose names a legacy file does not know: group by layer name, empty if names decide.

    Names decide where the file lists every layer with weights. It is empty too where there are not as many of these
    layers as groups with arrays.
    """
    if not isinstance(scope, NamedModel) or any(member.group for member in members):
        return {}
    groups = [name for name, arrays in scope.groups.items() if arrays]
    named = [m.name for m, config in zip(members, configs, strict=True) if has_arrays(m.class_name, config)]
    if len(named) != len(groups) or set(named) <= set(scope.groups):
        return {}
    return dict(zip(named, groups, strict=True))


def regrouped(members: Sequence[Member], groups: Mapping[str, str]) -> list[Member]:
    """The layers with the groups that hold their arrays."""
    return [replace(member, group=groups.get(member.name, member.group)) for member in members]
