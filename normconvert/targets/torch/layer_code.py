"""How a layer without recurrence is called: one module, perhaps followed by an activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from normconvert.ir import layers
from normconvert.ir.layers import AnyLayer
from normconvert.targets.python_code.text import call
from normconvert.targets.torch.formula_module import formula_module
from normconvert.targets.torch.functions import activation_module
from normconvert.targets.torch.layer_modules import module
from normconvert.targets.torch.module import Module, Weights, state_name


@dataclass(frozen=True)
class Call:
    """What a node gives a layer; all are names in the code, a mask that is not there is empty.

    Attributes:
        inputs, masks, states: as in `ir.model.Node`.
        scratch: variables for values in between.
    """

    inputs: tuple[str, ...]
    masks: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()


Writer = Callable[[Mapping[str, str], Sequence[str], Call], list[str]]
"""The lines that apply a layer, from its submodules' code by suffix, the names of its outputs, and the call."""


@dataclass(frozen=True)
class LayerCode:
    """A layer as code.

    Attributes:
        modules: its submodules by the suffix their attribute has after the layer's ("" for the layer itself).
        write: the lines that assign its outputs.
        picks: where each output shows up: the suffix of a submodule and what to pick of that one's output.
        scratch: endings for the names of values in between.
    """

    modules: Mapping[str, Module]
    write: Writer
    picks: tuple[tuple[str, str], ...] = (("", "output"),)
    scratch: tuple[str, ...] = ()


def plain_layer(layer: AnyLayer, weights: Weights) -> LayerCode:
    """The code of a layer that is one module, perhaps followed by an activation.

    Raises:
        Unsupported: PyTorch has no such layer and neither have we.
    """
    fixed = tuple(state_name(name) for name in layer.fixed if name not in layer.statistics())
    modules = {"": replace(module(layer, weights), fixed=fixed)}
    activation = getattr(layer, "activation", None)
    if activation is None or isinstance(layer, layers.Apply):
        return LayerCode(modules, lambda own, outputs, given: [f"{outputs[0]} = {own['']}({arguments(layer, given)})"])
    after = activation_module(activation)
    modules["activation"] = Module(after.constructor, source=after.source, class_name=after.constructor.split("(")[0])
    return LayerCode(
        modules,
        lambda own, outputs, given: [f"{outputs[0]} = {own['activation']}({own['']}({arguments(layer, given)}))"],
        (("activation", "output"),),
    )


def formula_layer(layer: layers.Formula, weights: Weights, *, exported: bool = False) -> LayerCode:
    """The code of a layer that is equations over whole samples."""
    written = formula_module(layer, exported=exported)
    arrays = {written.weights[name]: array for name, array in weights.items()}
    made = Module(call("{class_name}", written.arguments), arrays, written.source, written.name)
    count = len(layer.cell.parsed().outputs)

    def write(own: Mapping[str, str], outputs: Sequence[str], given: Call) -> list[str]:
        return [f"{', '.join(outputs)} = {own['']}({', '.join(given.inputs)})"]

    return LayerCode(
        {"": made}, write, (("", "output"),) if count == 1 else tuple(("", f"item:{n}") for n in range(count))
    )


def arguments(layer: AnyLayer, given: Call) -> str:
    """The arguments of a layer's module."""
    inputs = list(given.inputs)
    match layer:
        case layers.Merge() | layers.Concatenate() | layers.MergeMasks():
            return f"[{', '.join(inputs)}]"
        case layers.BatchNormalization() | layers.GlobalPooling(operation="average"):
            return ", ".join([*inputs, *(mask for mask in given.masks[:1] if mask)])
        case layers.Attention() | layers.MultiHeadAttention():
            three = [*inputs, *inputs[1:2]] if len(inputs) == 2 else inputs
            named = zip(("query_mask", "value_mask", "key_mask"), given.masks, strict=False)
            taken = 2 if isinstance(layer, layers.Attention) else 3
            return ", ".join([*three, *(f"{name}={mask}" for name, mask in list(named)[:taken] if mask)])
        case _:
            return ", ".join(inputs)
