"""Arrays of Keras 3 files: numbered, in groups that follow the attributes of Keras's objects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from normconvert.errors import CorruptFile
from normconvert.ir.model import Array
from normconvert.sources.keras.hdf5 import Hdf5File, Stored
from normconvert.sources.keras.store import MISFIT, Member, Scope, Taken

_CONTAINERS = {"layers": ("layers", "_layer_checkpoint_dependencies")}


class TreeScope:
    """A group of a Keras 3 weights file: `vars/0`, `vars/1`, ... and groups for the parts."""

    def __init__(self, file: Hdf5File, path: str, place: str = "", taken: list[Taken] | None = None) -> None:
        self.file, self.path, self.place = file, path, place or file.place
        self._next = 0
        self._taken: list[Taken] = [] if taken is None else taken
        self._children: dict[str, TreeScope] = {}

    def take(self, *roles: str) -> dict[str, Array]:
        """See `store.Scope`."""
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
                remedy=MISFIT,
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

    def at(self, path: str) -> Array:
        """The array that a layer keeps under attributes such as `bn_x.gamma`.

        Those of one object are asked for in the order in which Keras stores them.

        Raises:
            CorruptFile: it is missing.
        """
        *parents, tail = path.split(".")
        scope = self
        for parent in parents:
            scope = scope.child(parent)
        return scope._take(tail)

    def child(self, attribute: str, name: str = "") -> TreeScope:
        """See `store.Scope`."""
        if attribute not in self._children:
            self._children[attribute] = TreeScope(self.file, _join(self.path, attribute), self.place, self._taken)
        return self._children[attribute]

    def members(self, members: Sequence[Member], attribute: str = "layers") -> list[Scope]:
        """See `store.Scope`."""
        names = _CONTAINERS.get(attribute, (attribute,))
        root = next((p for n in names if self.file.group(p := _join(self.path, n)) is not None), None)
        count: Counter[str] = Counter()
        scopes: list[Scope] = []
        for member in members:
            snake = snake_case(member.class_name)
            numbered = f"{snake}_{count[snake]}" if count[snake] else snake
            count[snake] += 1
            candidates = [
                _join(root or _join(self.path, attribute), name) for name in (member.group or numbered, member.name)
            ]
            path = next((c for c in candidates if self.file.group(c) is not None), candidates[0])
            if attribute == "layers":
                scopes.append(
                    TreeScope(
                        self.file, path, f"{self.place}/{member.name}" if self.path else f"{self.place}: {member.name}"
                    )
                )
            else:
                scopes.append(TreeScope(self.file, path, self.place, self._taken))
        return scopes

    def taken(self) -> list[Taken]:
        """See `store.Scope`."""
        taken, self._taken[:] = list(self._taken), []
        return taken

    def left(self) -> list[Stored]:
        """See `store.Scope`."""
        below = f"{self.path}/" if self.path else ""
        return [s for name, s in self.file.arrays.items() if name.startswith(below) and not s.used_as]


def snake_case(name: str) -> str:
    """A class name as Keras writes it in paths: `Conv1D` -> `conv1d`, `LSTMCell` -> `lstm_cell`."""
    name = re.sub(r"\W+", "", name.split(">")[-1])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
