"""What a family file declares beside equations and shapes: constants, layouts, open questions."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class ConstantInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run-time constant the weights do not carry: its default, and where the default comes from."""

    default: float
    source: str = ""


class Open(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that stored tensors leave open and that changes what the cell computes.

    Attributes:
        setting: its dotted name, see `cells.settings`.
        options: the values that public code uses, the most common first.
        why: how they came about.
    """

    setting: str
    options: tuple[Any, ...]
    why: str


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one framework or repository stores the cell.

    Attributes:
        tensors: layout expression by stored name, in creation order. A name with `{step}` stands for one tensor per
            time step, `T0/mean`, `T1/mean`, ..., stacked in the order of the steps.
        config: what entries of the framework's own configuration set: settings as in `cells.settings`, several
            separated by commas.
        source: where this is known from.
        framework: whose files have it: `tf1`, `keras`, `torch`.
        scope: regular expression that the last parts of the name of the variables' scope match in full, where the
            names of the tensors alone say too little.
        aliases: other stored names of a tensor.
        certainty: how sure names and shapes alone make it.
        settings: what this framework or repository fixes differently from the family's defaults, by dotted name.
        open: what nothing stored decides.
        unused: tensors that are stored with the cell but not read, with the reason.
        required: optional parameters and norms of the family that this layout always has.
        together: optional parameters of which this layout has all or none.
        states: the states in this framework's own order, where it is not the family's.
        also: names of the repository or class that a user may know it by.
    """

    tensors: dict[str, str]
    config: dict[str, str] = {}
    source: str = ""
    framework: str = ""
    scope: str = ""
    aliases: dict[str, tuple[str, ...]] = {}
    certainty: Literal["high", "medium", "low"] = "high"
    settings: dict[str, Any] = {}
    open: tuple[Open, ...] = ()
    unused: dict[str, str] = {}
    required: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
