"""Suggested modules as a chain: their order, what stands between them, and what the first one reads.

All of it is a guess that the user is told to check; it is made so that a usual network needs few corrections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from normconvert.sources.keras.recipe import FREE
from normconvert.sources.toml import Assumed

Arrangement = Literal["", "time", "line", "planes"]
"""How a module wants its values: `[batch, time, features]`, `[batch, channels, time]`, `[batch, channels, rows,
columns]`; empty for any."""


@dataclass(frozen=True)
class Suggested:
    """A layer of the recipe.

    Attributes:
        position: where its first tensor stands in the file.
        scope: the module's path, with slashes.
        layer: the recipe's table.
        reads: how its values are arranged; an embedding reads numbers and gives `time`.
        width: of the features or channels that it reads; 0 where the tensors do not tell.
    """

    position: float
    scope: str
    layer: dict[str, Any]
    reads: Arrangement = ""
    width: int = 0

    @property
    def kind(self) -> str:
        """The class of the layer, empty for a cell."""
        chosen = self.layer.get("class", "")
        return str(getattr(chosen, "value", chosen))


def in_order(modules: Sequence[Suggested]) -> list[Suggested]:
    """The modules as they stand in the file; norms in a list beside as long a list of others each after its partner."""
    lists: dict[str, dict[str, list[Suggested]]] = {}
    for module in modules:
        parent, _, number = module.scope.rpartition("/")
        if number.isdigit():
            lists.setdefault(parent, {}).setdefault(number, []).append(module)
    moved: dict[str, float] = {}
    for name, norms in lists.items():
        if not all("Norm" in module.kind for each in norms.values() for module in each):
            continue
        beside = [other for other in lists if other != name and other.rpartition("/")[0] == name.rpartition("/")[0]]
        partners = [lists[other] for other in beside if lists[other].keys() == norms.keys() and len(norms) > 1]
        if len(partners) == 1:
            for number, each in norms.items():
                moved |= {module.scope: max(m.position for m in partners[0][number]) + 0.25 for module in each}
    return sorted(
        (replace(module, position=moved.get(module.scope, module.position)) for module in modules),
        key=lambda module: module.position,
    )


def with_gaps(modules: Sequence[Suggested]) -> list[Suggested]:
    """The modules, and a place for each number that a container skips: a module without tensors."""
    last: dict[str, dict[int, float]] = {}
    for module in modules:
        parts = module.scope.split("/")
        for end, part in enumerate(parts):
            if part.isdigit():
                numbers = last.setdefault("/".join(parts[:end]), {})
                numbers[int(part)] = max(module.position, numbers.get(int(part), module.position))
    found = [*modules]
    for parent, numbers in last.items():
        for number in sorted(set(range(max(numbers))) - numbers.keys()):
            before = [position for known, position in numbers.items() if known < number]
            position = max(before) + 0.5 + number / 1000 if before else min(numbers.values()) - 0.5
            path = f"{parent}/{number}".lstrip("/")
            what = Assumed("Identity", "it has no tensors: say which activation, pooling or dropout it is")
            found.append(Suggested(position, path, {"name": path, "class": what}))
    return sorted(found, key=lambda module: module.position)


def arranged(modules: Sequence[Suggested]) -> Iterator[dict[str, Any]]:
    """The layers, with axes moved where what a module gives is arranged otherwise than what the next one reads."""
    now = _first(modules)
    for module in modules:
        if module.reads == "time" and now in ("line", "planes"):
            yield from _to_time(module.layer["name"], now)
        if module.kind == "BatchNorm1d" and now == "time":
            yield {**module.layer, "axis": Assumed(-1, "the features come last here")}
        else:
            yield module.layer
        now = module.reads or now


def _to_time(name: str, now: Arrangement) -> Iterator[dict[str, Any]]:
    place = name.replace("/", "_")
    if now == "line":
        why = "[batch, channels, time] becomes [batch, time, channels]"
        yield {"name": f"{place}_transpose", "class": Assumed("Transpose", why), "dim0": 1, "dim1": 2}
        return
    why = "[batch, channels, time, height] becomes [batch, time, channels * height], unless the code does otherwise"
    yield {"name": f"{place}_transpose", "class": Assumed("Transpose", why), "dim0": 1, "dim1": 2}
    yield {"name": f"{place}_flatten", "class": Assumed("Flatten", "as above"), "start_dim": 2}


def _first(modules: Sequence[Suggested]) -> Arrangement:
    return next((module.reads for module in modules if module.reads), "")


def inputs(modules: Sequence[Suggested]) -> dict[str, Any]:
    """The declaration of what the first module reads."""
    why = "the shape of one sample; ? is free"
    now = _first(modules)
    width = next((module.width for module in modules if module.width), 0) or FREE
    if modules and modules[0].kind == "Embedding":
        return {"name": "x", "shape": Assumed([FREE], why), "dtype": "int"}
    shapes: dict[str, list[Any]] = {"line": [width, FREE], "planes": [width, FREE, FREE]}
    return {"name": "x", "shape": Assumed(shapes.get(now, [FREE, width]), why)}
