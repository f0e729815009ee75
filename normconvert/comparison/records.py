"""What a comparison of two models says. `docs/diff.md` explains each field to users of the JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

Effect = Literal["function", "rounding", "training", "interface"]
"""What a difference touches: the function at inference; only its rounding, for numbers that are the same in float32;
training alone; or how the model is called (names, shapes that are left free, batch sizes)."""

Verdict = Literal["identical", "same", "agrees", "different"]
"""`identical`: nothing differs but names; `same`: it is shown that both compute the same; `agrees`: not shown, but both
give the same at random points; `different`: neither."""


class Setting(msgspec.Struct, frozen=True):
    """A hyper-parameter that differs, as text for each side; `-` where a side does not have it."""

    name: str
    a: str
    b: str
    effect: Effect = "function"


class EquationPair(msgspec.Struct, frozen=True):
    """The first equations that have no counterpart on the other side; empty where there are none."""

    a: str
    b: str


class TensorPair(msgspec.Struct, frozen=True):
    """Arrays that stand in the same place.

    Attributes:
        a, b: their names; several, joined by `+`, where their sum stands there.
        shape_a, shape_b, dtype_a, dtype_b: as they are stored.
        relation: `equal`, `cast`, `rounded`, `permuted`, `transposed`, `scaled`, `different`, `shape`, `only in a`,
            `only in b`; between the numbers that the equations use at the same place.
        same: whether the two are the same function for it.
        arrangement: how the one is arranged in the other's terms, such as `gates i, f, g, o | i, g, f, o`; or empty.
        detail: which axis, factor or dtype, in words; or empty.
        statistic: whether it is a running statistic.
        steps: of what differs per time step, the steps that differ.
        numbers: how many numbers there are, and `differing` how many differ.
        max_difference, max_relative: the largest difference, and the same relative to the largest number.
    """

    a: str
    b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    dtype_a: str
    dtype_b: str
    relation: str
    same: bool
    arrangement: str = ""
    detail: str = ""
    statistic: bool = False
    steps: tuple[int, ...] = ()
    numbers: int = 0
    differing: int | None = None
    max_difference: float | None = None
    max_relative: float | None = None

    @property
    def stored_alike(self) -> bool:
        """Whether there is nothing to say about them."""
        return self.relation == "equal" and not self.arrangement


class LayerPair(msgspec.Struct, frozen=True):
    """Two layers that stand in the same place.

    Attributes:
        a, b: the names of their nodes.
        kind_a, kind_b: what the sources call them.
        matched_by: `name`, or `place`.
        settings: hyper-parameters that differ.
        equations: of cells, how they were compared: `as written`, `the same function`, `of the same form`, `differ`,
            `not compared`; or empty.
        differing: the equations that differ, where they do.
        evaluation: what came of evaluating both at random points; empty where that was not needed.
        agrees: whether they agree there; None where they were not evaluated.
        tensors: their arrays.
    """

    a: str
    b: str
    kind_a: str
    kind_b: str
    matched_by: str
    settings: tuple[Setting, ...] = ()
    equations: str = ""
    differing: tuple[EquationPair, ...] = ()
    evaluation: str = ""
    agrees: bool | None = None
    tensors: tuple[TensorPair, ...] = ()

    @property
    def shown_same(self) -> bool:
        """Whether both are shown to compute the same."""
        return self.of_same_equations and not self.known_to_differ

    @property
    def of_same_equations(self) -> bool:
        """Whether it is shown that the same is computed with arrays and settings; these may differ."""
        return self.equations not in ("differ", "not compared")

    @property
    def known_to_differ(self) -> bool:
        """Whether a setting or an array that the function depends on differs."""
        if self.agrees:  # the arrays of cells whose equations differ stand in no common place
            return any(setting.effect == "function" for setting in self.settings)
        return any(setting.effect == "function" for setting in self.settings) or any(
            not tensor.same for tensor in self.tensors
        )

    @property
    def alike(self) -> bool:
        """Whether there is nothing to say about them."""
        return self.shown_same and not self.settings and all(tensor.stored_alike for tensor in self.tensors)


class LoneLayer(msgspec.Struct, frozen=True):
    """A layer that the other model does not have.

    Attributes:
        name: of its node.
        kind: what the source calls it.
        parameters: how many numbers it stores.
        identity: it passes its input on at inference, so that the function does not depend on it.
    """

    name: str
    kind: str
    parameters: int
    identity: bool = False


class Side(msgspec.Struct, frozen=True):
    """One of the models."""

    name: str
    source: str
    format: str
    framework: str


class Difference(msgspec.Struct, frozen=True):
    """Two models, compared.

    Attributes:
        a, b: what was compared.
        verdict: see `Verdict`.
        summary: the verdict in a sentence.
        meaning: what that says and what it does not.
        interface: differences of inputs, outputs and connections.
        layers: layers of both.
        only_a, only_b: layers of one.
        evaluation: what came of running both models; empty where that was not needed.
    """

    a: Side
    b: Side
    verdict: Verdict
    summary: str
    meaning: str
    interface: tuple[Setting, ...]
    layers: tuple[LayerPair, ...]
    only_a: tuple[LoneLayer, ...]
    only_b: tuple[LoneLayer, ...]
    evaluation: str = ""

    @property
    def same(self) -> bool:
        """Whether the models compute the same, as far as was established."""
        return self.verdict != "different"

    @property
    def empty(self) -> bool:
        """Whether nothing differs at all, training and names of inputs included."""
        return (
            self.verdict == "identical"
            and not self.interface
            and not (self.only_a or self.only_b)
            and all(layer.alike for layer in self.layers)
        )
