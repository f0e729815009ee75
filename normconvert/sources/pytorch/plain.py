"""Plain modules in a state dict, guessed from what their tensors are called and how many axes they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from normconvert.sources.tf1.checkpoint import Variable
from normconvert.sources.tf1.plain import PlainLayer

_CONVOLUTIONS = {3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}
_STATISTICS = ("running_mean", "running_var")
_TENSORS = ("weight", "bias", *_STATISTICS)


@dataclass(frozen=True)
class PlainModule:
    """Tensors that belong together.

    Attributes:
        scope: their module's path.
        kind: the class of `torch.nn` that it looks like.
        other: what else it may be, or empty.
        members: its tensors by their last names.
    """

    scope: str
    kind: str
    other: str
    members: Mapping[str, Variable]


def plain_modules(variables: Mapping[str, Variable], types: Mapping[str, str] | None = None) -> Iterator[PlainModule]:
    """The plain modules that tensors look like, in the order of the file; what looks like none is left out.

    Args:
        variables: those of no cell that inference reads.
        types: classes of modules that are known, by path.
    """
    scopes: dict[str, dict[str, Variable]] = {}
    for name, variable in variables.items():
        scope, _, last = name.rpartition("/")
        if last in _TENSORS:
            scopes.setdefault(scope, {})[last] = variable
    planes = {scope for scope, members in scopes.items() if "weight" in members and len(members["weight"].shape) == 4}
    for scope, members in scopes.items():
        kind, other = _kind(members, any(_siblings(scope, plane) for plane in planes))
        if kind and types and scope in types:
            kind, other = types[scope], ""
        elif kind == "Linear" and other and "emb" in scope.lower():
            kind, other = "Embedding", "or Linear"
        if kind:
            yield PlainModule(scope, kind, other, members)


def surveyed_modules(variables: Mapping[str, Variable]) -> Iterator[PlainLayer]:
    """The same as `inspect` shows them."""
    for module in plain_modules(variables):
        kind = f"{module.kind}, {module.other}" if module.other else module.kind
        shapes = {name: variable.shape for name, variable in module.members.items()}
        statistics = _STATISTICS if shapes.keys() >= set(_STATISTICS) else ()
        yield PlainLayer(module.scope, kind, shapes, statistics)


def _siblings(a: str, b: str) -> bool:
    return a.rpartition("/")[0] == b.rpartition("/")[0]


def _kind(members: Mapping[str, Variable], beside_planes: bool) -> tuple[str, str]:
    """The class of a module with such tensors, and what else it may be; empty for none that is known."""
    if members.keys() >= set(_STATISTICS):
        return ("BatchNorm2d", "") if beside_planes else ("BatchNorm1d", "or BatchNorm2d")
    weight = members.get("weight")
    if weight is None:
        return "", ""
    if len(weight.shape) == 1 and "bias" in members:
        return "LayerNorm", "or GroupNorm"
    if len(weight.shape) == 1:
        return "PReLU", "or LayerNorm without bias, or RMSNorm"
    if len(weight.shape) == 2:
        return "Linear", "" if "bias" in members else "or Embedding"
    return _CONVOLUTIONS.get(len(weight.shape), ""), ""
