"""Which stored arrays belong to which layer: by name in legacy files, by place in a tree in Keras 3 files.

Both kinds offer the same three things: `take` arrays by role, go to the `members` of a model, go to a `child` of a
layer (the cell of an RNN, a direction of a Bidirectional). An array is taken once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from normconvert.errors import CorruptFile
from normconvert.ir.model import Array
from normconvert.sources.keras.building import Weights
from normconvert.sources.keras.container import Container
from normconvert.sources.keras.hdf5 import Hdf5File, Stored


@dataclass(frozen=True)
class Member:
    """A layer of a model, as far as finding its arrays needs it; `model` where it holds layers itself."""

    class_name: str
    name: str
    model: bool = False


@dataclass(frozen=True)
class Taken:
    """An array that a layer took, and what for."""

    stored: Stored
    role: str
    array: Array


class Scope(Weights, Protocol):
    """The arrays of one layer or model."""

    def child(self, attribute: str, name: str = "") -> Scope:
        """The arrays of a part of a layer: Keras's attribute for it, and the part's own name."""
        ...

    def members(self, members: Sequence[Member], attribute: str = "layers") -> list[Scope]:
        """The arrays of each layer of a model, or of each cell in a list of cells."""
        ...

    def taken(self) -> list[Taken]:
        """The arrays taken from here, and its parts, since the last call."""
        ...

    def left(self) -> list[Stored]:
        """The arrays that nothing took."""
        ...


def open_scope(container: Container) -> Scope:
    """The arrays of a whole model."""
    if container.format == "keras-v3":
        return TreeScope(container.file, container.root)
    return _LegacyModel(container.file, container.root)


# --- legacy .h5: every array has a name -------------------------------------------------------------------------

ROLES = frozenset(
    "kernel recurrent_kernel bias gamma beta moving_mean moving_variance embeddings depthwise_kernel "
    "pointwise_kernel alpha W U b running_mean running_std".split()
)
"""Names that mean the same array wherever they occur; one found where another is due is a contradiction."""

ALIASES = {
    "kernel": ("W", "depthwise_kernel"),
    "depthwise_kernel": ("kernel",),
    "recurrent_kernel": ("U",),
    "bias": ("b",),
    "moving_mean": ("running_mean",),
    "moving_variance": ("running_std", "running_var"),
    "embeddings": ("W",),
    "alpha": ("alphas",),
    "concat_weight": ("concat_score_weight",),
}
"""Other names that versions gave to the same array (`running_std` of Keras 1 is a variance)."""

_KERAS1_NAME = re.compile(
    r"(?P<layer>.+)_(?P<role>(?:[WUb](?:_(?:[icfozrh]|hid|attr))?)|gamma|beta|running_mean|running_std|alphas|"
    r"depthwise_kernel|pointwise_kernel)"
)


@dataclass(frozen=True)
class _Named:
    """A stored array with what its name says: the layers it is under, and its role."""

    stored: Stored
    layers: tuple[str, ...]
    role: str

    @staticmethod
    def parse(stored: Stored, name: str) -> _Named:
        *layers, tail = name.split(":")[0].split("/")
        keras1 = _KERAS1_NAME.fullmatch(tail)
        if keras1 and tail not in ROLES:
            return _Named(stored, (*layers, keras1["layer"]), keras1["role"])
        return _Named(stored, tuple(layers), re.sub(r"_\d+$", "", tail) if tail not in ROLES else tail)

    def plays(self, role: str) -> bool:
        *parents, tail = role.replace(".", "/").split("/")
        same = self.role == tail or self.role in ALIASES.get(tail, ())
        return same and all(any(parent in layer for layer in self.layers) for parent in parents)


class NamedScope:
    """Arrays of a legacy file's group, in creation order."""

    def __init__(self, place: str, arrays: Sequence[_Named], taken: list[Taken] | None = None) -> None:
        self.place, self.arrays = place, list(arrays)
        self._taken: list[Taken] = [] if taken is None else taken

    def _free(self) -> list[_Named]:
        return [named for named in self.arrays if not named.stored.used_as]

    def take(self, *roles: str) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for role in roles:
            free = self._free()
            named = next((candidate for candidate in free if candidate.plays(role)), None)
            if named is None and not free:
                raise CorruptFile(
                    f"the file holds no {role} for it",
                    where=self.place,
                    remedy="Do the weights belong to this architecture?",
                )
            if named is None:
                named = free[0]
                if named.role in ROLES:
                    raise CorruptFile(
                        f"its next array is {named.stored.name}, where its configuration needs a {role}",
                        where=self.place,
                        remedy="Do the weights belong to this architecture?",
                    )
            named.stored.used_as = role
            found[role] = named.stored.read()
            self._taken.append(Taken(named.stored, role, found[role]))
        return found

    def child(self, attribute: str, name: str = "") -> NamedScope:
        found = self._under(name) if name else []
        return NamedScope(self.place, found, self._taken) if found else self

    def members(self, members: Sequence[Member], attribute: str = "layers") -> list[Scope]:
        if attribute != "layers":
            return [self for _ in members]
        return [self._member(member) for member in members]

    def _member(self, member: Member) -> NamedScope:
        """The arrays of a layer of a nested model. Names need not hold those of the models around the layer."""
        found = self._under(member.name) or [n for n in self.arrays if member.model or not n.layers]
        return NamedScope(f"{self.place}/{member.name}", found)

    def _under(self, name: str) -> list[_Named]:
        """The arrays under a name; TensorFlow 1 appended `_1` to a name that was taken."""
        exact = [named for named in self.arrays if name in named.layers]
        again = re.compile(re.escape(name) + r"_\d+")
        return exact or [named for named in self.arrays if any(again.fullmatch(layer) for layer in named.layers)]

    def taken(self) -> list[Taken]:
        taken, self._taken[:] = list(self._taken), []
        return taken

    def left(self) -> list[Stored]:
        return [named.stored for named in self._free()]


class _LegacyModel(NamedScope):
    """The root of a legacy file: one group per layer, listed in the attribute `layer_names`."""

    def __init__(self, file: Hdf5File, root: str) -> None:
        self.file = file
        self.groups: dict[str, list[_Named]] = {}
        group = file.group(root)
        assert group is not None
        for layer in file.names(group, "layer_names") or []:
            path = f"{root}/{layer}".lstrip("/")
            found = file.group(path)
            if found is None:
                raise CorruptFile(f"the file lists the layer {layer} but holds no group for it", where=file.place)
            self.groups[layer] = [self._array(path, name) for name in file.names(found, "weight_names") or []]
        super().__init__(file.place, [named for arrays in self.groups.values() for named in arrays])

    def _array(self, group: str, name: str) -> _Named:
        stored = self.file.arrays.get(f"{group}/{name}")
        if stored is None:
            raise CorruptFile(f"the file lists the array {name} but does not hold it", where=f"{self.file.place}: {group}")
        return _Named.parse(stored, name)

    def members(self, members: Sequence[Member], attribute: str = "layers") -> list[Scope]:
        return [NamedScope(f"{self.place}: {member.name}", self.groups.get(member.name, [])) for member in members]


# --- Keras 3: arrays are numbered, groups follow the objects' attributes ------------------------------------------

_CONTAINERS = {"layers": ("layers", "_layer_checkpoint_dependencies")}


class TreeScope:
    """A group of a Keras 3 weights file: `vars/0`, `vars/1`, ... and groups for the parts."""

    def __init__(self, file: Hdf5File, path: str, place: str = "", taken: list[Taken] | None = None) -> None:
        self.file, self.path, self.place = file, path, place or file.place
        self._next = 0
        self._taken: list[Taken] = [] if taken is None else taken
        self._children: dict[str, TreeScope] = {}

    def take(self, *roles: str) -> dict[str, Array]:
        return {role: self._take(role) for role in roles}

    def _take(self, role: str) -> Array:
        *parents, _ = role.replace(".", "/").split("/")
        if parents:
            return self._part(parents[0])._take(role[len(parents[0]) + 1 :])
        stored = self.file.arrays.get(_join(self.path, f"vars/{self._next}"))
        if stored is None:
            raise CorruptFile(
                f"the file holds no {role} for it (array {self._next} of {self.path or 'the root'})",
                where=self.place,
                remedy="Do the weights belong to this architecture?",
            )
        self._next += 1
        stored.used_as = role
        array = stored.read()
        self._taken.append(Taken(stored, role, array))
        return array

    def _part(self, name: str) -> TreeScope:
        """The part that holds `name/...`; attributes of Keras objects decorate the name."""
        names = (name, f"{name}_dense", f"_{name}_dense", f"_{name}")
        attribute = next((n for n in names if self.file.group(_join(self.path, n)) is not None), name)
        return self.child(attribute)

    def child(self, attribute: str, name: str = "") -> TreeScope:
        if attribute not in self._children:
            self._children[attribute] = TreeScope(self.file, _join(self.path, attribute), self.place, self._taken)
        return self._children[attribute]

    def members(self, members: Sequence[Member], attribute: str = "layers") -> list[Scope]:
        names = _CONTAINERS.get(attribute, (attribute,))
        root = next((p for n in names if self.file.group(p := _join(self.path, n)) is not None), None)
        count: Counter[str] = Counter()
        scopes: list[Scope] = []
        for member in members:
            snake = snake_case(member.class_name)
            numbered = f"{snake}_{count[snake]}" if count[snake] else snake
            count[snake] += 1
            candidates = [_join(root or _join(self.path, attribute), name) for name in (numbered, member.name)]
            path = next((c for c in candidates if self.file.group(c) is not None), candidates[0])
            if attribute == "layers":
                scopes.append(TreeScope(self.file, path, f"{self.place}/{member.name}" if self.path else f"{self.place}: {member.name}"))
            else:
                scopes.append(TreeScope(self.file, path, self.place, self._taken))
        return scopes

    def taken(self) -> list[Taken]:
        taken, self._taken[:] = list(self._taken), []
        return taken

    def left(self) -> list[Stored]:
        below = f"{self.path}/" if self.path else ""
        return [s for name, s in self.file.arrays.items() if name.startswith(below) and not s.used_as]


def snake_case(name: str) -> str:
    """A class name as Keras writes it in paths: `Conv1D` -> `conv1d`, `LSTMCell` -> `lstm_cell`."""
    name = re.sub(r"\W+", "", name.split(">")[-1])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
