"""Normalisations inside cells: a declaration per name, beside the equations that call it.

    N(u) = gamma * (u - mean) / s + beta        s = sqrt(variance + epsilon), or see `EpsilonPlacement`

Batch normalisation takes mean and variance from stored population statistics or from the batch at hand, layer
normalisation from the features of one sample, RMS normalisation uses mean 0 and the mean square.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

NormKind = Literal["batch", "layer", "rms"]
EpsilonPlacement = Literal["inside", "outside", "both"]
"""`inside`: sqrt(v + eps); `outside`: sqrt(v) + eps; `both`: sqrt(v + eps) + eps."""

StatisticsSource = Literal["population", "batch"]
"""`population`: stored running statistics; `batch`: the moments of the batch at hand, at inference too."""

StatisticsScope = Literal["shared", "per_step", "sequence"]
"""`shared`: one row of statistics for all time steps; `per_step`: one row per time step; `sequence`: one row,
its moments taken over batch and time together (only where the argument depends on the inputs alone)."""

PastEnd = Literal["last", "modulo", "bypass", "error"]
"""What a step at or past the number of rows uses: the last row (Cooijmans et al. 2016), row `step mod rows`,
no normalisation at all, or nothing: an error."""


class Norm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One normalisation.

    Its weights live in the model under `<layer>.<norm>.gamma`, `.beta`, `.mean`, `.variance`: shape `[features]`,
    or `[rows, features]` where they differ per time step. With `positions`, mean and variance are
    `[*positions, features]` or `[rows, *positions, features]`, gamma and beta are as without.

    Attributes:
        kind: what mean and variance are taken over.
        features: size of the last axis of the argument.
        positions: sizes of all the argument's axes before the features, where each position (a pixel of an image) has
            a mean and a variance of its own, with moments over the batch alone; empty where the positions share them,
            with moments over the positions too. Batch normalisation only.
        groups: equal blocks of the last axis with moments of their own (4 for a per-gate layer norm of an LSTM).
        gamma, beta: whether there is a scale and an offset.
        affine_per_step: gamma and beta have one row per time step.
        epsilon: added to the variance, or see `epsilon_placement`.
        epsilon_placement: where epsilon goes.
        unbiased: normalise with the variance divided by n - 1.
        pooled: moments over all axes of a sample (layer, rms) or over batch and features together (batch).
        source, scope, past_end: see the types above; batch normalisation only.
        steps: rows of per-step statistics or affine parameters (T_max).
        momentum: weight of the OLD running value: `new = momentum * old + (1 - momentum) * batch` (as in Keras;
            PyTorch's momentum is 1 minus this).
        unbiased_running: the running variance is updated with the unbiased batch variance (as PyTorch does).
    """

    kind: NormKind
    features: int
    positions: tuple[int, ...] = ()
    groups: int = 1
    gamma: bool = True
    beta: bool = True
    affine_per_step: bool = False
    epsilon: float
    epsilon_placement: EpsilonPlacement = "inside"
    unbiased: bool = False
    pooled: bool = False
    source: StatisticsSource = "population"
    scope: StatisticsScope = "shared"
    past_end: PastEnd = "last"
    steps: int | None = None
    momentum: float = 0.99
    unbiased_running: bool = False

    @property
    def has_population(self) -> bool:
        """Whether running statistics are stored."""
        return self.kind == "batch" and self.source == "population"

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes that a mean is kept for: the positions, if they have their own, and the features."""
        return (*self.positions, self.features)

    def faults(self) -> list[str]:
        """What in the declaration contradicts itself, one sentence each; empty for a sound one."""
        size = self.features // self.groups if self.groups > 0 else 0
        per_step = self.affine_per_step or (self.scope == "per_step" and self.has_population)
        settings = (self.source, self.scope)
        counts = (*self.shape, self.groups, 1 if self.steps is None else self.steps)
        found = {
            "features, positions, groups and steps are at least 1": min(counts) < 1,
            f"{self.features} features do not make {self.groups} equal groups": size * self.groups != self.features,
            "epsilon is a number from 0 up": not 0 <= self.epsilon < math.inf,
            "it differs per time step but does not say for how many (steps)": per_step and self.steps is None,
            "only a batch norm has a source or a scope of its statistics": self.kind != "batch"
            and settings != ("population", "shared"),
            "only a layer or RMS norm has groups": self.kind == "batch" and self.groups > 1,
            "only a batch norm has statistics per position": self.kind != "batch" and bool(self.positions),
            "pooled moments are not per position": self.pooled and bool(self.positions),
            "pooled moments have no groups": self.pooled and self.groups > 1,
            "the unbiased variance of one feature does not exist": self.kind == "layer"
            and self.unbiased
            and not self.pooled
            and size == 1,
        }
        return [fault for fault, holds in found.items() if holds]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each stored array, by its role: gamma, beta, mean, variance."""
        rows = () if self.steps is None else (self.steps,)
        affine = (*(rows if self.affine_per_step else ()), self.features)
        statistics = (*(rows if self.scope == "per_step" else ()), *self.shape)
        shapes: dict[str, tuple[int, ...]] = {}
        if self.gamma:
            shapes["gamma"] = affine
        if self.beta:
            shapes["beta"] = affine
        if self.has_population:
            shapes["mean"] = statistics
            shapes["variance"] = statistics
        return shapes
