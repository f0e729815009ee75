"""Layers without recurrence, and the wrapper that applies a layer to every time step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from normconvert.errors import Unsupported
from normconvert.ir.layers import FoldTime, Identity, Masking, UnfoldTime
from normconvert.sources.keras.assembly import Assembly, Call, Spec, Value, handles
from normconvert.sources.keras.building import Part
from normconvert.sources.keras.entries import describe, unsupported_class
from normconvert.sources.keras.masks import mask_after, masks_read
from normconvert.sources.keras.plain import PLAIN

_POINTWISE = frozenset({"Dense", "Activation", "Dropout", "ReLU", "LeakyReLU", "ELU", "Identity"})
"""Layers that do the same to `[batch, time, features]` as to each time step."""

_SKIPPING = frozenset({"Multiply", "Maximum", "Minimum"})
"""Layers that skip what a mask hides, since https://github.com/keras-team/keras/pull/19685."""

_CODE = frozenset({"Lambda", "TensorFlowOpLayer"})


@handles("plain")
def plain(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """A layer that a builder of `plain` knows."""
    parts = _parts(assembly, spec, call)
    names = [value.name for value in call.inputs]
    masks = masks_read(assembly, spec, call)
    for part in parts:
        names = [assembly.add_node(spec.path + part.suffix, names, masks=masks)]
        masks = ()
    if not parts:
        return list(call.inputs)
    return [Value(names[0], mask_after(assembly, spec, call))]


@handles("Identity")
def identity(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """A layer that passes its input on."""
    name = assembly.add_once(spec.path, Identity(kind="Identity"), [call.inputs[0].name])
    return [Value(name, mask_after(assembly, spec, call))]


@handles("Masking")
def masking(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """Masked steps set to zero, and the mask itself beside them."""
    layer = Masking(kind="Masking", value=float(spec.config["mask_value"]))
    name = assembly.add_once(spec.path, layer, [call.inputs[0].name])
    return [Value(name, mask_after(assembly, spec, call))]


def _parts(assembly: Assembly, spec: Spec, call: Call) -> tuple[Part, ...]:
    """The layer's parts, built and added to the model the first time."""
    if spec.path not in assembly.built:
        _refuse(assembly, spec, call)
        builder = PLAIN.get(spec.class_name)
        if builder is None:
            raise unsupported_class(spec.class_name)
        config = {**spec.config, **_from_call(assembly, spec, call)}
        parts = builder(spec.class_name, config, spec.scope, assembly.dialect)
        weights = {}
        for part in parts:
            assembly.add_layer(spec.path + part.suffix, part.layer, part.weights, spec.config)
            prefix = part.suffix.lstrip("/")
            weights.update({f"{prefix}.{n}" if prefix else n: array for n, array in part.weights.items()})
        assembly.record(spec.path, weights, spec.scope.taken())
        assembly.built[spec.path] = parts
    parts_built: tuple[Part, ...] = assembly.built[spec.path]
    return parts_built


def _refuse(assembly: Assembly, spec: Spec, call: Call) -> None:
    if spec.class_name in _CODE:
        raise Unsupported(
            f"a {spec.class_name} layer runs Python code, which is never run",
            remedy="Replace it by a layer, and save the model again",
        )
    old = not assembly.dialect.tf and (2, 0) <= (assembly.dialect.major, assembly.dialect.minor) < (2, 4)
    if old and spec.class_name == "UpSampling2D" and spec.config.get("interpolation") == "bilinear":
        raise Unsupported(  # keras/backend/tensorflow_backend.py: resize_bilinear of TensorFlow 1
            "bilinear UpSampling2D of Keras 2.0 to 2.3 interpolates between pixel corners, not centres",
            remedy="Use interpolation='nearest', or train it again with a newer Keras",
        )
    version = (assembly.dialect.major, assembly.dialect.minor)
    if spec.class_name in _SKIPPING and version >= (3, 4) and any(value.mask for value in call.inputs):
        raise Unsupported(  # keras/src/layers/merging/multiply.py, base_merge.py: where masks hide, an input has no say
            f"{spec.class_name} of Keras 3.4 and later leaves masked steps of an input out of the result",
            remedy="Let the masks end before it, or use an operation such as x * y, which takes every step",
        )
    for option in ("return_attention_scores", "attention_mask"):
        if call.options.get(option):
            raise Unsupported(f"it is called with {option}", remedy="Call it without, and save the model again")


def _from_call(assembly: Assembly, spec: Spec, call: Call) -> dict[str, Any]:
    """What a call decides about the layer: the shape of its input, and causal attention."""
    settings: dict[str, Any] = {"build_config": {"input_shape": [None, *assembly.shapes[call.inputs[0].name]]}}
    if call.options.get("use_causal_mask"):
        settings |= {"causal": True, "use_causal_mask": True}
    if call.options.get("training") is True and spec.class_name == "BatchNormalization":
        raise Unsupported("it is called with training=True", remedy="Call it without, and save the model again")
    return settings


@handles("TimeDistributed")
def time_distributed(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """A layer applied to each time step by itself."""
    entry = spec.config["layer"]
    _, _, name = describe(entry)
    inner = assembly.spec(entry, f"{spec.path}/", spec.scope.child("layer", name))
    if inner.class_name in _POINTWISE and assembly.defined(inner.class_name) is None:
        values = assembly.apply(replace(inner, path=spec.path), call)
        return [replace(values[0], mask=call.inputs[0].mask)]
    folded = [Value(assembly.add_once(f"{spec.path}/fold", FoldTime(), [value.name])) for value in call.inputs]
    outputs = []
    for value in assembly.apply(inner, replace(call, inputs=tuple(folded))):
        assembly.layers.setdefault(f"{spec.path}/unfold", UnfoldTime())
        node = assembly.add_node(f"{spec.path}/unfold", [value.name, call.inputs[0].name], name=spec.path)
        outputs.append(Value(node, call.inputs[0].mask))
    return outputs
