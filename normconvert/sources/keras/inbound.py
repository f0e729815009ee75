"""Who feeds whom: the `inbound_nodes` of a functional model, in the words of every Keras version.

Keras 1 and 2 write `[[["lstm", 0, 0, {"mask": null}]]]`, Keras 3 `[{"args": [...], "kwargs": {...}}]` with tensors
as `{"class_name": "__keras_tensor__", "config": {"keras_history": ["lstm", 0, 0]}}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from normconvert.errors import CorruptFile


@dataclass(frozen=True)
class Reference:
    """An output of a call of a layer: `layer`'s call number `node`, output number `output`."""

    layer: str
    node: int
    output: int


@dataclass(frozen=True)
class Inbound:
    """The arguments of one call of a layer.

    Attributes:
        inputs: its tensors, in order.
        states: initial states given by name.
        masks: given by name, aligned with the inputs; None for an input without one.
        arguments: of an operation, in order: numbers, and None for each tensor.
        options: arguments that are no tensors; `item` is what stands between the brackets of `x[:, -1]`.
    """

    inputs: tuple[Reference, ...]
    states: tuple[Reference, ...] = ()
    masks: tuple[Reference | None, ...] = ()
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def references(self) -> Iterator[Reference]:
        """Every tensor the call computes with; what masks are made from is looked at apart."""
        yield from (*self.inputs, *self.states)


_INPUT_ARGUMENTS = ("inputs", "sequence", "sequences", "x", "y", "b", "query", "value", "key")
"""Arguments that are tensors to compute with, in the order the model's layers take them."""

_MASK_ARGUMENTS = ("query_mask", "value_mask", "key_mask")
"""Arguments that are masks of the tensors of a `MultiHeadAttention`, in its order."""


def inbound_calls(nodes: Any) -> list[Inbound]:
    """The calls of a layer.

    Raises:
        CorruptFile: not in the form of any version.
    """
    if not isinstance(nodes, list):
        raise CorruptFile("its inbound nodes are not a list")
    return [_keras3(node) if isinstance(node, dict) and "args" in node else _keras2(node) for node in nodes]


def references(data: Any) -> list[Reference]:
    """All references in nested lists and dictionaries, in order: the outputs of a model, the inputs of a layer."""
    if (found := _tensor(data)) is not None:
        return [found]
    if isinstance(data, (list, tuple)):
        return [reference for item in data for reference in references(item)]
    if isinstance(data, dict):
        return [reference for item in data.values() for reference in references(item)]
    return []


def offsets(calls: Mapping[str, list[Inbound]], outputs: list[Reference]) -> dict[str, int]:
    """By how much each layer's calls are numbered too high: 0 or 1.

    A nested model that was built on its own has a call of its own, number 0, which a configuration leaves out while
    the numbers still count it. Every call that is kept is read by something, so the highest number read tells.
    """
    highest: dict[str, int] = {}
    for reference in (
        *outputs,
        *(r for inbounds in calls.values() for i in inbounds for r in (*i.references(), *i.masks) if r is not None),
    ):
        highest[reference.layer] = max(highest.get(reference.layer, 0), reference.node)
    return {layer: int(highest.get(layer, 0) == max(len(inbounds), 1)) for layer, inbounds in calls.items()}


def keras3_outputs(outputs: list[Reference], nested: set[str]) -> list[Reference]:
    """The outputs of a Keras 3 model, where only these references count a nested functional model's own call."""
    counted = nested - {reference.layer for reference in outputs if reference.node == 0}
    return [replace(r, node=r.node - 1) if r.layer in counted else r for r in outputs]


def _keras3(node: Mapping[str, Any]) -> Inbound:
    arguments, keywords = node.get("args"), node.get("kwargs") or {}
    if not isinstance(arguments, (list, tuple)) or not isinstance(keywords, dict):
        raise CorruptFile("an inbound node without arguments")
    plain: list[Any] = []
    for argument in arguments:
        if _is_item(argument):
            keywords = {**keywords, "slice_spec": argument}
        else:
            plain += [None] * len(references(argument)) or [argument]
    return _with_keywords(references(arguments), keywords, plain)


def _is_item(argument: Any) -> bool:
    """Whether an argument is what stands between the brackets of `x[:, -1]`."""
    return isinstance(argument, list) and any(_named(part, "__slice__", "__ellipsis__") for part in argument)


def _named(part: Any, *names: str) -> bool:
    return isinstance(part, dict) and part.get("class_name") in names


def _item(parts: Any) -> str:
    """Slices in Python's words, from Keras 2's dictionaries or Keras 3's."""
    return ", ".join(_part(part) for part in (parts if isinstance(parts, list) else [parts]))


def _part(part: Any) -> str:
    if _named(part, "__ellipsis__"):
        return "..."
    body = part.get("config", part) if isinstance(part, dict) else part
    if isinstance(body, dict):
        start, stop, step = ("" if body.get(key) is None else body[key] for key in ("start", "stop", "step"))
        return f"{start}:{stop}" + (f":{step}" if step != "" else "")
    return str(body)


def _keras2(node: Any) -> Inbound:
    found: list[Reference] = []
    keywords: dict[str, Any] = {}
    arguments: list[Any] = []
    for item in [node] if _tensor(node) is not None else _leaves(node):
        reference = _tensor(item)
        if reference is not None:
            found.append(reference)
        arguments.append(None if reference is not None or len(item) < 3 else item[2])
        if len(item) > 3 and isinstance(item[3], dict):
            keywords.update(item[3])
    for name in ("x", "y"):
        if name in keywords:
            arguments.append(None if _tensor(keywords[name]) is not None else keywords[name])
    return _with_keywords(found, keywords, arguments)


def _leaves(node: Any) -> Iterator[list[Any]]:
    """The lists of a Keras 2 node that stand for a tensor, or for a constant (`_CONSTANT_VALUE`)."""
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list) and node and isinstance(node[0], str):
        yield node
    elif isinstance(node, list):
        for item in node:
            yield from _leaves(item)


def _with_keywords(found: list[Reference], keywords: Mapping[str, Any], arguments: list[Any]) -> Inbound:
    inputs = list(found)
    for name in _INPUT_ARGUMENTS:
        inputs += references(keywords.get(name))
    states = tuple(references(keywords.get("initial_state")))
    special = ("initial_state", "mask", "slice_spec", *_MASK_ARGUMENTS, *_INPUT_ARGUMENTS)
    options = {name: True if references(value) else value for name, value in keywords.items() if name not in special}
    if "slice_spec" in keywords:
        options["item"] = _item(keywords["slice_spec"])
    return Inbound(tuple(inputs), states, _masks(keywords), tuple(arguments), options)


def _masks(keywords: Mapping[str, Any]) -> tuple[Reference | None, ...]:
    """The masks that a call names: one, a list of them for several inputs, or an argument for each."""
    given = keywords.get("mask")
    if given is None:
        given = [keywords.get(name) for name in _MASK_ARGUMENTS]
    found = [_tensor(each) for each in ([given] if _tensor(given) is not None or not _is_list(given) else given)]
    return tuple(found) if any(each is not None for each in found) else ()


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _tensor(data: Any) -> Reference | None:
    if isinstance(data, dict) and data.get("class_name") == "__keras_tensor__":
        config = data.get("config")
        history = config.get("keras_history") if isinstance(config, dict) else None
        reference = _tensor(history)
        if reference is None:
            raise CorruptFile("a tensor without its history")
        return reference
    if (
        isinstance(data, (list, tuple))
        and len(data) >= 3
        and isinstance(data[0], str)
        and all(isinstance(number, int) and number >= 0 for number in data[1:3])
    ):
        return Reference(data[0], data[1], data[2])
    return None
