"""Arrays of legacy `.h5` files: every array has a name, and belongs to the layers its name is under."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from normconvert.errors import CorruptFile
from normconvert.ir.model import Array
from normconvert.sources.keras.hdf5 import Hdf5File, Stored
from normconvert.sources.keras.store import MISFIT, Member, Scope, Taken

ROLES = frozenset(
    [
        "kernel",
        "recurrent_kernel",
        "bias",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
        "embeddings",
        "depthwise_kernel",
        "pointwise_kernel",
        "alpha",
        "W",
        "U",
        "b",
        "running_mean",
        "running_std",
    ]
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
    """A stored array with what its name says: its parts, the layers it is under, and its role."""

    stored: Stored
    path: tuple[str, ...]
    layers: tuple[str, ...]
    role: str

    @staticmethod
    def parse(stored: Stored, name: str) -> _Named:
        path = tuple(name.split(":")[0].split("/"))
        *layers, tail = path
        keras1 = _KERAS1_NAME.fullmatch(tail)
        if keras1 and tail not in ROLES:
            return _Named(stored, path, (*layers, keras1["layer"]), keras1["role"])
        return _Named(stored, path, tuple(layers), re.sub(r"_\d+$", "", tail) if tail not in ROLES else tail)

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
        """See `store.Scope`."""
        found: dict[str, Array] = {}
        for role in roles:
            free = self._free()
            named = next((candidate for candidate in free if candidate.plays(role)), None)
            if named is None and not free:
                raise CorruptFile(
                    f"the file holds no {role} for it",
                    where=self.place,
                    remedy=MISFIT,
                )
            if named is None:
                named = free[0]
                if named.role in ROLES:
                    raise CorruptFile(
                        f"its next array is {named.stored.name}, where its configuration needs a {role}",
                        where=self.place,
                        remedy=MISFIT,
                    )
            named.stored.used_as = role
            found[role] = named.stored.read()
            self._taken.append(Taken(named.stored, role, found[role]))
        return found

    def at(self, path: str) -> Array:
        """The array that a layer keeps under attributes such as `bn_x.gamma`.

        Those of one object are asked for in the order in which Keras stores them.

        Raises:
            CorruptFile: it is missing.
        """
        parts = tuple(path.split("."))
        fitting = [named for named in self._free() if named.path[-len(parts) :] == parts]
        if not fitting:
            raise CorruptFile(f"the file holds no {path} for it", where=self.place, remedy=MISFIT)
        named = min(fitting, key=lambda each: len(each.path))  # `gamma` is not `bn_x/gamma`
        named.stored.used_as = path
        array = named.stored.read()
        self._taken.append(Taken(named.stored, path, array))
        return array

    def child(self, attribute: str, name: str = "") -> NamedScope:
        """See `store.Scope`."""
        found = self._under(name) if name else []
        return NamedScope(self.place, found, self._taken) if found else self

    def members(self, members: Sequence[Member], attribute: str = "layers") -> list[Scope]:
        """See `store.Scope`."""
        if attribute != "layers":
            return [self for _ in members]
        return [self._member(member) for member in members]

    def _member(self, member: Member) -> NamedScope:
        """The arrays of a layer of a nested model. Names need not hold those of the models around the layer."""
        found = self._under(member.group or member.name) or [n for n in self.arrays if member.model or not n.layers]
        return NamedScope(f"{self.place}/{member.name}", found)

    def _under(self, name: str) -> list[_Named]:
        """The arrays under a name; TensorFlow 1 appended `_1` to a name that was taken."""
        exact = [named for named in self.arrays if name in named.layers]
        again = re.compile(re.escape(name) + r"_\d+")
        return exact or [named for named in self.arrays if any(again.fullmatch(layer) for layer in named.layers)]

    def taken(self) -> list[Taken]:
        """See `store.Scope`."""
        taken, self._taken[:] = list(self._taken), []
        return taken

    def left(self) -> list[Stored]:
        """See `store.Scope`."""
        return [named.stored for named in self._free()]


class NamedModel(NamedScope):
    """The root of a legacy file: one group of named arrays per layer."""

    def __init__(self, place: str, groups: Mapping[str, Sequence[tuple[str, Stored]]]) -> None:
        self.groups = {
            layer: [_Named.parse(stored, name) for name, stored in arrays] for layer, arrays in groups.items()
        }
        super().__init__(place, [named for arrays in self.groups.values() for named in arrays])

    @staticmethod
    def of_file(file: Hdf5File, root: str) -> NamedModel:
        """The groups that the attribute `layer_names` lists, and their arrays in `weight_names`.

        Raises:
            CorruptFile: something listed is not there.
        """
        group = file.group(root)
        assert group is not None
        groups = {}
        for layer in file.names(group, "layer_names") or []:
            path = f"{root}/{layer}".lstrip("/")
            found = file.group(path)
            if found is None:
                raise CorruptFile(f"the file lists the layer {layer} but holds no group for it", where=file.place)
            names = file.names(found, "weight_names") or []
            groups[layer] = [(name, _listed(file, path, name)) for name in names]
        return NamedModel(file.place, groups)

    def members(self, members: Sequence[Member], attribute: str = "layers") -> list[Scope]:
        """See `store.Scope`."""
        return [
            NamedScope(f"{self.place}: {member.name}", self.groups.get(member.group or member.name, []))
            for member in members
        ]


def _listed(file: Hdf5File, group: str, name: str) -> Stored:
    stored = file.arrays.get(f"{group}/{name}")
    if stored is None:
        raise CorruptFile(f"the file lists the array {name} but does not hold it", where=f"{file.place}: {group}")
    return stored
