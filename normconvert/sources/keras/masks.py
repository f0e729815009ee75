"""Where masks come from, where they go, and where they end, as each version of Keras has it.

Keras carries a mask beside a tensor, out of the user's sight. Here every mask becomes a value of the graph, and
every layer that reads one names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from normconvert.errors import Unsupported
from normconvert.ir.layers import Concatenate, MergeMasks, StepMask
from normconvert.sources.keras.assembly import Assembly, Call, Spec

Rule = Callable[[Assembly, Spec, Call], str]
"""The mask of a layer's output: the name of a value, or empty."""

READERS = frozenset({"GlobalAveragePooling1D", "Attention", "AdditiveAttention", "MultiHeadAttention"})
"""Layers that compute something else where there is a mask (recurrent layers do so in `recurrent`)."""


def masks_read(assembly: Assembly, spec: Spec, call: Call) -> tuple[str, ...]:
    """The masks that a layer reads, aligned with its inputs."""
    version = (assembly.dialect.major, assembly.dialect.minor)
    if spec.class_name == "Softmax" and version >= (2, 4) and any(value.mask for value in call.inputs):
        raise Unsupported("a Softmax layer with a mask", remedy="Remove the mask before it")
    if spec.class_name not in READERS:
        return ()
    if spec.class_name == "MultiHeadAttention" and version < (2, 10):
        return ()  # it did not read Keras masks before 2.10
    return tuple(value.mask for value in call.inputs)


def mask_after(assembly: Assembly, spec: Spec, call: Call) -> str:
    """The mask of a layer's output."""
    rule = _RULES.get(spec.class_name)
    if rule is not None:
        return rule(assembly, spec, call)
    if any(value.mask for value in call.inputs):
        assembly.notes.append(f"The mask ends at {spec.path}: {spec.class_name} does not pass it on.")
    return ""


def _first(assembly: Assembly, spec: Spec, call: Call) -> str:
    return call.inputs[0].mask


def _none(assembly: Assembly, spec: Spec, call: Call) -> str:
    return ""


def _keras3(assembly: Assembly, spec: Spec, call: Call) -> str:
    return call.inputs[0].mask if assembly.dialect.major == 3 else ""


def _embedding(assembly: Assembly, spec: Spec, call: Call) -> str:
    if not spec.config.get("mask_zero"):
        return ""
    return assembly.add_once(f"{spec.path}/mask", StepMask(value=0.0), [call.inputs[0].name])


def _masking(assembly: Assembly, spec: Spec, call: Call) -> str:
    layer = StepMask(value=float(spec.config["mask_value"]), any_feature=True)
    return assembly.add_once(f"{spec.path}/mask", layer, [call.inputs[0].name])


def _merged(assembly: Assembly, spec: Spec, call: Call) -> str:
    """Keras 3 takes the `or` of the masks, and none if one input has none; before it was the `and` of those there."""
    masks = [value.mask for value in call.inputs]
    if assembly.dialect.major == 3:
        return _combined(assembly, spec, masks, "or") if all(masks) else ""
    return _combined(assembly, spec, [mask for mask in masks if mask], "and")


def _concatenated(assembly: Assembly, spec: Spec, call: Call) -> str:
    masks = [value.mask for value in call.inputs]
    if not any(masks):
        return ""
    axis = int(spec.config.get("axis", -1))
    rank = len(assembly.shapes[call.inputs[0].name]) + 1
    if axis % rank == 1 and rank > 2:
        if not all(masks):
            raise Unsupported("joins masked and unmasked values along time", remedy="Mask all of them, or none")
        return assembly.add_once(f"{spec.path}/mask", Concatenate(axis=1), masks)
    return _merged(assembly, spec, call)


def _combined(assembly: Assembly, spec: Spec, masks: Sequence[str], operation: str) -> str:
    distinct = list(dict.fromkeys(masks))
    if len(distinct) < 2:
        return distinct[0] if distinct else ""
    layer = MergeMasks(operation="or" if operation == "or" else "and")
    return assembly.add_once(f"{spec.path}/mask", layer, distinct)


_PASSING = [
    "Activation", "ActivityRegularization", "AdditiveAttention", "AlphaDropout", "Attention", "BatchNormalization",
    "BatchNormalizationV1", "BatchNormalizationV2", "Dense", "Dropout", "ELU", "GaussianDropout", "GaussianNoise",
    "GroupNormalization", "Identity", "LayerNormalization", "LeakyReLU", "MultiHeadAttention", "PReLU", "ReLU",
    "Softmax", "SpatialDropout1D", "SpatialDropout2D", "SyncBatchNormalization", "ThresholdedReLU", "TimeDistributed",
    "UnitNormalization",
]  # fmt: skip
"""Layers whose output has the mask of their first input."""

_RULES: dict[str, Rule] = {
    **dict.fromkeys(_PASSING, _first),
    **dict.fromkeys(("Normalization", "Rescaling"), _keras3),
    **dict.fromkeys(["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"], _merged),
    "Concatenate": _concatenated,
    "Embedding": _embedding,
    "Masking": _masking,
    "GlobalAveragePooling1D": _none,
    "Dot": _none,
}
"""Layers that keep, make or merge masks. For any other a mask ends."""
