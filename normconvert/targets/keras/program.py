"""A model as layers of Keras and the calls that join them; and the file of layers that Keras does not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from normconvert.errors import NormconvertError, Unsupported
from normconvert.ir import layers
from normconvert.ir.declaration import Declaration, to_text
from normconvert.ir.layers import AnyLayer, Bidirectional, Formula, Recurrent
from normconvert.ir.model import Model, Node
from normconvert.ir.shapes import infer
from normconvert.targets.keras.layer_spec import LayerSpec
from normconvert.targets.keras.library import library
from normconvert.targets.keras.masks import agree, marked, without_masks
from normconvert.targets.keras.names import LayerNamer
from normconvert.targets.keras.plain_layers import plain_layer
from normconvert.targets.keras.recurrent_layers import (
    both_native,
    both_written,
    formula,
    looped,
    native,
    reordered,
    written,
)
from normconvert.targets.keras.steps import Step

_SKIPPING = ("multiply", "maximum", "minimum")
"""Operations whose Keras layer leaves out the steps that a mask hides."""

_RECURRENT_DROPOUT = "{} drops recurrent values in training; its layer written from the equations does not"


@dataclass
class Program:
    """What Keras is to do.

    Attributes:
        layers: by their Keras names.
        steps: the calls, in order.
        natural: masks travel with the values, as Keras has it; otherwise every call names its mask.
        notes: what the layers leave out, one sentence each.
    """

    layers: dict[str, LayerSpec] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    natural: bool = True
    notes: list[str] = field(default_factory=list)

    def observed(self, values: Sequence[str]) -> dict[str, str]:
        """The value that each layer gives, by the layer's name, where it is called once and gives one of `values`."""
        calls = Counter(step.layer for step in self.steps if step.layer)
        known = set(values)
        return {
            step.layer: step.outputs[0]
            for step in self.steps
            if step.layer and calls[step.layer] == 1 and step.outputs[0] in known
        }


def program(model: Model) -> Program:
    """The Keras form of a model.

    Raises:
        Unsupported: a layer has no Keras form.
    """
    natural = _Writer(model, natural=True)
    if natural.possible():
        made = natural.program()
        if agree(made.steps, made.layers):
            return made
    return _Writer(model, natural=False).program()


class _Writer:
    def __init__(self, model: Model, *, natural: bool) -> None:
        self.model, self.made = model, Program(natural=natural)
        self.shapes = infer(model)
        self.names = LayerNamer()
        for declared in model.inputs:
            self.names(declared.name)
        self.layer_names: dict[str, str] = {}
        self.marks = marked(model)
        self.masked = {
            name: any(node.masks[:1] not in ((), ("",)) for node in model.nodes if node.layer == name)
            for name in model.layers
        }
        self.count = 0

    def possible(self) -> bool:
        """Whether every mask comes from a layer that Keras makes masks with, and is read as a mask only."""
        made = {node.name for node in self.model.nodes if isinstance(self.model.layers[node.layer], layers.StepMask)}
        reading = {name for node in self.model.nodes for name in (*node.inputs, *node.states)} | set(self.model.outputs)
        masks = {name for node in self.model.nodes for name in node.masks if name}
        return masks <= set(self.marks.values()) and not reading & made

    def program(self) -> Program:
        for node in self.model.nodes:
            try:
                self._node(node, self.model.layers[node.layer])
            except NormconvertError as error:
                raise error.at(f"layer {node.layer}") from None
        if not self.made.natural:
            self.made.steps = without_masks(self.made.steps, self.made.layers)
        return self.made

    def _node(self, node: Node, layer: AnyLayer) -> None:
        match layer:
            case layers.StepMask() if self.made.natural:
                pass
            case layers.Masking() if self.made.natural:
                mask = self.marks.get(node.name, "another mask")
                self._call(node, LayerSpec("Masking", {"mask_value": layer.value}), [node.name], gives=mask)
            case layers.Embedding():
                self._embedding(node, layer)
            case layers.Reverse():
                self._op("flip", [node.inputs[0]], {"axis": layer.axis}, node.name)
            case Recurrent():
                self._recurrent(node, layer)
            case Bidirectional():
                self._bidirectional(node, layer)
            case Formula():
                spec = formula(layer, self.model.layer_weights(node.layer))
                count = len(layer.cell.parsed().outputs)
                self._call(node, spec, node.outputs(count))
            case _:
                self._plain(node, layer)

    def _plain(self, node: Node, layer: AnyLayer) -> None:
        weights = self.model.layer_weights(node.layer)
        spec = plain_layer(layer, weights)
        ranks = [len(self.shapes[name]) for name in node.inputs]
        options: dict[str, Any] = {}
        reads: tuple[str, ...] | None = None
        if isinstance(layer, layers.GlobalPooling):
            rank = ranks[0] - 1
            if rank not in (1, 2):
                raise Unsupported(f"pooling over {rank} axes has no Keras form")
            spec = LayerSpec(f"{spec.kind}{rank}D", spec.config)
            reads = node.masks[:1] or ("",) if layer.operation == "average" and rank == 1 else None
        masked = any(node.masks for node in self.model.nodes)
        if isinstance(layer, layers.Merge) and (len(set(ranks)) > 1 or (masked and layer.operation in _SKIPPING)):
            spec = LayerSpec("Merged", {"operation": layer.operation})
        if isinstance(layer, layers.Attention | layers.MultiHeadAttention):
            options = {"use_causal_mask": True} if layer.causal else {}
            reads = tuple((*node.masks, "", "", "")[: len(node.inputs)])
        self._call(node, spec, [node.name], options=options, reads=reads)

    def _embedding(self, node: Node, layer: layers.Embedding) -> None:
        spec = plain_layer(layer, self.model.layer_weights(node.layer))
        mask = self.marks.get(node.name, "") if self.made.natural else ""
        if mask:
            spec = LayerSpec(spec.kind, {**spec.config, "mask_zero": True}, spec.arrays)
        self._call(node, spec, [node.name], gives=mask)

    def _recurrent(self, node: Node, layer: Recurrent) -> None:
        """Apply a layer that reads in one direction."""
        weights = self.model.layer_weights(node.layer)
        outputs = node.outputs(1 + (len(layer.cell.states) if layer.return_state else 0))
        reads = node.masks[:1] or ("",)
        found = native(layer, weights) if len(node.inputs) == 1 else None
        if found is None:
            self._dropout_left_out(node, layer)
            options: dict[str, Any] = {"initial_state": list(node.states)} if node.states else {}
            self._call(node, written(layer, weights), outputs, options=options, reads=reads)
            return
        options = {"initial_state": reordered(node.states, found.order)} if node.states else {}
        given = [outputs[0], *(reordered(outputs[1:], found.order) if layer.return_state else [])]
        turned = layer.reverse and layer.return_sequences
        if turned:
            given[0] = self._fresh(f"{node.name}_backwards")
        self._call(node, looped(found, layer), given, options=options, reads=reads)
        if turned:
            self._op("flip", [given[0]], {"axis": 1}, outputs[0])

    def _bidirectional(self, node: Node, layer: Bidirectional) -> None:
        weights = self.model.layer_weights(node.layer)
        reads = node.masks[:1] or ("",)
        finals = 2 * len(layer.forward.cell.states) if layer.forward.return_state else 0
        merged = 2 if layer.merge is None else 1
        outputs = node.outputs(merged + finals)
        whole = both_native(layer, weights, masked=self.masked[node.layer]) if len(node.inputs) == 1 else None
        if whole is None:
            for part in (layer.forward, layer.backward):
                self._dropout_left_out(node, part)
            options: dict[str, Any] = {"initial_state": list(node.states)} if node.states else {}
            self._call(node, both_written(layer, weights), outputs, options=options, reads=reads)
            return
        spec, ahead = whole
        options = {"initial_state": reordered(node.states, ahead.order)} if node.states else {}
        given = [*outputs[:merged], *(reordered(outputs[merged:], ahead.order) if finals else [])]
        self._call(node, spec, given, options=options, reads=reads)

    def _dropout_left_out(self, node: Node, layer: Recurrent) -> None:
        note = _RECURRENT_DROPOUT.format(node.layer)
        if layer.recurrent_dropout and note not in self.made.notes:
            self.made.notes.append(note)

    def _call(
        self,
        node: Node,
        spec: LayerSpec,
        outputs: Sequence[str],
        *,
        options: Mapping[str, Any] | None = None,
        reads: tuple[str, ...] | None = None,
        gives: str = "",
    ) -> None:
        if node.layer not in self.layer_names:
            self.layer_names[node.layer] = self.names(node.layer)
            layer = self.model.layers[node.layer]
            trainable = {} if layer.trainable else {"trainable": False}
            config = {**spec.config, **trainable, **_declaration(layer, spec)}
            self.made.layers[self.layer_names[node.layer]] = replace(spec, config=config)
        read = list(node.inputs)
        self.made.steps.append(
            Step(
                layer=self.layer_names[node.layer],
                arguments=[read if len(read) > 1 or spec.kind in _LISTS else read[0]],
                options=dict(options or {}),
                outputs=list(outputs),
                reads=reads,
                gives=gives,
                separate=spec.kind == "MultiHeadAttention",
            )
        )

    def _op(self, name: str, arguments: Sequence[Any], options: Mapping[str, Any], output: str) -> None:
        self.made.steps.append(Step(op=name, arguments=list(arguments), options=dict(options), outputs=[output]))

    def _fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}:~{self.count}"


_LISTS = ("MergedMasks",)
"""Classes whose argument is a list even of one value."""


def _declaration(layer: AnyLayer, spec: LayerSpec) -> dict[str, Any]:
    """What the configuration says of a layer that Keras does not have; nothing for Keras's own."""
    if not spec.source and spec.kind not in library():
        return {}
    paths = spec.weights or {name: name for name in spec.arrays}
    stored_last = layer.non_trainable()  # Keras keeps an object's arrays in two lists, and stores that of these last
    arrays = {name: paths[name] for name in sorted(paths, key=lambda name: name in stored_last)}
    return {"declaration": to_text(Declaration(layer, arrays))}
