"""The calls of a functional model, made on demand, and the masks that calls name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from normconvert.errors import CorruptFile, Unsupported
from normconvert.ir.layers import StepMask
from normconvert.sources.keras.assembly import Assembly, Call, Spec, Value
from normconvert.sources.keras.inbound import Inbound, Reference

_SHAPE_OPERATIONS = frozenset({"ZerosLike", "OnesLike"})
_MASK_OPERATIONS = _SHAPE_OPERATIONS | frozenset(
    {"NotEqual", "Any", "All", "LogicalOr", "LogicalAnd", "ExpandDims", "Concatenate", "ConvertToTensor", "Cast"}
)
"""Operations of `keras.ops` that Keras 3 makes masks with."""


def is_mask_operation(class_name: str, config: Mapping[str, Any]) -> bool:
    """Whether an entry is an operation that Keras 3 makes masks with, rather than a layer of that name."""
    return class_name in _MASK_OPERATIONS and "trainable" not in config


class Graph:
    """The calls of a functional model, made on demand and once each."""

    def __init__(
        self,
        assembly: Assembly,
        specs: Mapping[str, Spec],
        calls: Mapping[str, list[Inbound]],
        numbering: Mapping[str, int],
    ) -> None:
        self.assembly, self.specs, self.calls, self.numbering = assembly, specs, calls, numbering
        self.values: dict[tuple[str, int], list[Value]] = {}

    def spec(self, reference: Reference) -> Spec:
        """The layer of a reference."""
        if reference.layer not in self.specs:
            raise CorruptFile(f"a layer named {reference.layer} is read but not there", where=self.assembly.place)
        return self.specs[reference.layer]

    def value(self, reference: Reference) -> Value:
        """The value of a reference, after everything it depends on."""
        pending = [reference]
        open_calls: set[tuple[str, int]] = set()
        while pending:
            key, inbound = self._call(pending[-1])
            if key in self.values:
                pending.pop()
                continue
            missing = [r for r in inbound.references() if self._call(r)[0] not in self.values]
            if missing:
                if key in open_calls:
                    raise CorruptFile("the graph of layers runs in a circle", where=f"{self.assembly.place}: {key[0]}")
                open_calls.add(key)
                pending += missing
                continue
            self.values[key] = self._apply(self.specs[key[0]], inbound)
            pending.pop()
        return self._output(reference)

    def _call(self, reference: Reference) -> tuple[tuple[str, int], Inbound]:
        self.spec(reference)
        number = reference.node - self.numbering.get(reference.layer, 0)
        calls = self.calls[reference.layer]
        if (reference.layer, number) in self.values:
            return (reference.layer, number), Inbound(())
        if not 0 <= number < len(calls):
            raise CorruptFile(
                f"call {reference.node} of the layer is read but not there",
                where=f"{self.assembly.place}: {reference.layer}",
            )
        return (reference.layer, number), calls[number]

    def _output(self, reference: Reference) -> Value:
        values = self.values[self._call(reference)[0]]
        if reference.output >= len(values):
            raise CorruptFile(
                f"output {reference.output} of the layer is read but it has {len(values)}",
                where=f"{self.assembly.place}: {reference.layer}",
            )
        return values[reference.output]

    def _apply(self, spec: Spec, inbound: Inbound) -> list[Value]:
        inputs = tuple(self._output(reference) for reference in inbound.inputs)
        if not inputs:
            raise CorruptFile("a call without inputs", where=f"{self.assembly.place}: {spec.path}")
        if inbound.masks:
            masks = (*inbound.masks, *[None] * len(inputs))
            inputs = tuple(
                value if mask is None else replace(value, mask=self._mask(value, mask))
                for value, mask in zip(inputs, masks, strict=False)
            )
        states = tuple(self._output(reference) for reference in inbound.states)
        return self.assembly.apply(spec, Call(inputs, states, inbound.arguments, inbound.options))

    def _mask(self, value: Value, given: Reference) -> str:
        """The mask of an argument that a call names.

        Keras 3 writes the masks it worked out into the graph, as operations on the tensors they come from. They are
        those that came along with the value, unless the user gave another one.
        """
        if not self._is_mask_operation(given):
            return self.value(given).name
        if not value.mask and self._hides_nothing(given):
            return ""
        origins = {self.value(reference).name for reference in self._origins(given)}
        if value.mask and origins == self._known_origins(value.mask):
            return value.mask
        raise Unsupported(
            "its mask is computed by operations of the user's own",
            where=f"{self.assembly.place}: {given.layer}",
            remedy="Make the mask with a Masking layer or Embedding(mask_zero=True)",
        )

    def _hides_nothing(self, mask: Reference) -> bool:
        """Whether a mask is true everywhere: Keras 3 gives one to values joined with an unmasked value."""
        class_name, config = self.spec(mask).class_name, self.spec(mask).config
        if not self._is_mask_operation(mask) or class_name == "ZerosLike":
            return False
        if class_name == "OnesLike":
            return True
        along_time = class_name == "Concatenate" and config.get("axis", -1) not in (-1, 2)
        over_all = all if along_time or class_name == "LogicalAnd" else any
        return over_all(self._hides_nothing(reference) for reference in self._call(mask)[1].inputs)

    def _is_mask_operation(self, reference: Reference) -> bool:
        spec = self.spec(reference)
        return is_mask_operation(spec.class_name, spec.config)

    def _origins(self, reference: Reference) -> Iterator[Reference]:
        """The tensors that a mask is worked out from; those that only lend it their shape do not count."""
        pending, seen = [reference], set()
        while pending:
            current = pending.pop()
            if (current.layer, current.node) in seen:
                continue
            seen.add((current.layer, current.node))
            if not self._is_mask_operation(current):
                yield current
            elif self.spec(current).class_name not in _SHAPE_OPERATIONS:
                pending += self._call(current)[1].inputs

    def _known_origins(self, mask: str) -> set[str]:
        """The values that a mask of the model is worked out from."""
        producers = {node.name: node for node in self.assembly.nodes}
        found: set[str] = set()
        pending = [mask]
        while pending:
            node = producers.get(pending.pop())
            if node is None:
                continue
            if isinstance(self.assembly.layers[node.layer], StepMask):
                found |= set(node.inputs)
            else:
                pending += node.inputs
        return found
