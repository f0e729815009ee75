"""Where Keras's masks agree with those of a model.

In Keras a mask travels beside a value, out of sight, from the layer that makes it through the layers that pass it on.
In a model every mask is a value, and every reader names it. Where both say the same, a model is written as a user of
Keras would write it; otherwise every call names its mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from normconvert.ir import layers
from normconvert.ir.model import Model
from normconvert.targets.keras.layer_spec import LayerSpec
from normconvert.targets.keras.steps import Step

_PASSING = {
    "Activation",
    "AdditiveAttention",
    "AlphaDropout",
    "Attention",
    "BatchNormalization",
    "Dense",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "GroupNormalization",
    "Identity",
    "LayerNormalization",
    "Masking",
    "MultiHeadAttention",
    "PReLU",
    "Rescaling",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "UnitNormalization",
}
"""Keras layers whose output has the mask of their first input."""

_MERGING = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"}
_UNKNOWN = "a mask of several"


def marked(model: Model) -> dict[str, str]:
    """The mask that Keras makes together with each `Masking` and `Embedding`, if the model has it: names by node."""
    found: dict[str, str] = {}
    for node in model.nodes:
        layer = model.layers[node.layer]
        if isinstance(layer, layers.Masking):
            wanted = layers.StepMask(value=layer.value, any_feature=True)
        elif isinstance(layer, layers.Embedding):
            wanted = layers.StepMask(value=0.0)
        else:
            continue
        for other in model.nodes:
            mask = model.layers[other.layer]
            if not isinstance(mask, layers.StepMask) or other.inputs != node.inputs:
                continue
            if (mask.value, mask.any_feature) == (wanted.value, wanted.any_feature):
                found[node.name] = other.name
    return found


def agree(steps: Sequence[Step], made: Mapping[str, LayerSpec]) -> bool:
    """Whether every layer that reads a mask would get, from Keras, the one it should."""
    masks: dict[str, str] = {}
    for step in steps:
        incoming = [masks.get(name, "") for name in step.inputs()]
        if step.reads is not None and tuple(incoming[: len(step.reads)]) != step.reads:
            return False
        for position, output in enumerate(step.outputs):
            masks[output] = _after(step, made, incoming) if position == 0 else ""
    return True


def without_masks(steps: Sequence[Step], made: Mapping[str, LayerSpec]) -> list[Step]:
    """The calls, with a copy before each that reads no mask where Keras would hand one on: a copy has none."""
    masks: dict[str, str] = {}
    result = []
    for step in steps:
        incoming = [masks.get(name, "") for name in step.inputs()]
        if step.reads is not None:
            for name, mask, wanted in zip(step.inputs(), incoming, step.reads, strict=False):
                if mask and not wanted:
                    bare = f"{name}:bare"
                    result.append(Step(op="copy", arguments=[name], outputs=[bare]))
                    step.arguments = [_other(argument, name, bare) for argument in step.arguments]
            incoming = [*step.reads, *incoming[len(step.reads) :]]
        for position, output in enumerate(step.outputs):
            masks[output] = _after(step, made, incoming) if position == 0 else ""
        result.append(step)
    return result


def _other(argument: Any, name: str, bare: str) -> Any:
    if isinstance(argument, list):
        return [bare if each == name else each for each in argument]
    return bare if argument == name else argument


def _after(step: Step, made: Mapping[str, LayerSpec], incoming: Sequence[str]) -> str:
    """The mask of a layer's first output."""
    if step.gives:
        return step.gives
    if not step.layer or not any(incoming):
        return ""
    spec = made[step.layer]
    inner = spec.config.get("layer")
    options = inner["spec"].config if isinstance(inner, dict) and "spec" in inner else spec.config
    if "return_sequences" in options:
        return incoming[0] if options["return_sequences"] else ""
    looped = options.get("forward", {"spec": spec})["spec"]
    if "(Recurrence):" in looped.source:
        return incoming[0] if looped.config.get("sequences") else ""
    if spec.kind in _MERGING:
        if len(set(incoming)) == 1:
            return incoming[0]
        return _UNKNOWN if spec.kind == "Concatenate" or all(incoming) else ""
    return incoming[0] if spec.kind in _PASSING else ""
