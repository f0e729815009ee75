"""Normalisations inside cells: `scale * plain + shift`.

Where the moments are stored, they are in scale and shift, and the plain part is the value itself; where they are taken
from the value, the plain part is what they normalise.

A value is `[*lead, *space, features]`, its time step a tensor of indices whose axes broadcast against the leading ones:
`[time, 1]` for all steps at once, `[1]` for one, `[batch]` where each sample is at a step of its own. The scale and the
shift of a step do not depend on the value: a loop over time asks for those of all steps before it begins.

Statistics and affine parameters that differ per time step have one row per step; `past_end` says which row a later step
uses: the `last`, or its number `modulo` the rows; with `bypass` it is not normalised, otherwise it is an `error`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def deviation(variance: Tensor, eps: float, placement: str) -> Tensor:
    """What a centred value is divided by; eps goes `inside` the root, `outside` it, or `both`."""
    if placement == "outside":
        return torch.sqrt(variance) + eps
    if placement == "both":
        return torch.sqrt(variance + eps) + eps
    return torch.sqrt(variance + eps)


def step_row(t: Tensor, rows: int, past_end: str) -> Tensor:
    """The row that a time step uses; without rows of its own it needs none."""
    if rows == 0:
        return t
    if past_end == "modulo":
        return t % rows
    return t if past_end == "error" else t.clamp(max=rows - 1)


def at_rows(stored: Tensor, row: Tensor, per_step: bool) -> Tensor:
    """What is stored for each step, `[*row, ...]`: a row each, or the same for all."""
    if per_step:
        return F.embedding(row, stored.flatten(1)).reshape(list(row.shape) + list(stored.shape[1:]))
    return stored.expand(list(row.shape) + list(stored.shape))


def spread(value: Tensor, space: int) -> Tensor:
    """`[..., features]` with axes of size 1 before the features, one per space axis."""
    for _ in range(space):
        value = value.unsqueeze(-2)
    return value


class CellNorm(nn.Module):
    """What the norms of cells share.

    Args:
        features: size of the last axis.
        space: number of axes between the leading ones and the features.
        rows: number of time steps with affine parameters (`affine_per_step`) or statistics of their own.
        scale, center: there is a weight, a bias.
        pooled: moments over the features and the axes that they are taken over otherwise.
        unbiased: divide by n - 1 in the variance.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        features: int,
        *,
        eps: float,
        space: int = 0,
        rows: int = 0,
        affine_per_step: bool = False,
        past_end: str = "last",
        scale: bool = True,
        center: bool = True,
        placement: str = "inside",
        pooled: bool = False,
        unbiased: bool = False,
    ) -> None:
        super().__init__()
        self.eps, self.space, self.placement, self.pooled, self.unbiased = eps, space, placement, pooled, unbiased
        self.rows, self.affine_per_step, self.past_end = rows, affine_per_step, past_end
        affine = [rows, features] if affine_per_step else [features]
        for name, value, learned in (("weight", torch.ones(affine), scale), ("bias", torch.zeros(affine), center)):
            if learned:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value, persistent=False)

    def forward(self, u: Tensor, t: Tensor) -> Tensor:
        scale, shift = self.affine(t)
        return torch.addcmul(shift, self.plain(u, t), scale)

    def affine(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and the shift of time steps, shaped to broadcast against their values."""
        row = step_row(t, self.rows, self.past_end)
        scale = spread(at_rows(self.weight, row, self.affine_per_step), self.space)
        shift = spread(at_rows(self.bias, row, self.affine_per_step), self.space)
        scale, shift = self.with_statistics(scale, shift, row)
        if self.past_end == "bypass":
            past = self.is_past(t)
            return torch.where(past, torch.ones_like(scale), scale), torch.where(past, torch.zeros_like(shift), shift)
        return scale, shift

    def with_statistics(self, scale: Tensor, shift: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift with the stored moments in them."""
        return scale, shift

    def plain(self, u: Tensor, t: Tensor) -> Tensor:
        """The value without scale and shift: normalised with those moments that are taken from it."""
        return u

    def is_past(self, t: Tensor) -> Tensor:
        """Whether a time step is past the last row, shaped to broadcast against its value."""
        return (t >= self.rows).reshape(list(t.shape) + [1] * (self.space + 1))


class CellBatchNorm(CellNorm):
    """Batch normalisation in a cell (Cooijmans et al., 2016): in training every step has moments of its own.

    Otherwise the running statistics normalise: they are in the scale and the shift.

    Args:
        momentum: weight of the old running value; a step past the last row updates the row that it uses.
        positions: sizes of the space axes, where each position has statistics of its own.
        per_step: each time step has a row of running statistics.
        frozen: training leaves the running statistics as they are, and normalises with them.
        from_batch: no running statistics; the moments of the batch at hand in eval mode too.
        sequence: moments over batch and time together.
        unbiased_running: divide by n - 1 in the running variance.
        common: what `CellNorm` takes.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.99,
        positions: tuple[int, ...] = (),
        per_step: bool = False,
        frozen: bool = False,
        from_batch: bool = False,
        sequence: bool = False,
        unbiased_running: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(features, **common)
        self.momentum, self.per_step, self.sequence = momentum, per_step, sequence
        self.frozen, self.from_batch, self.unbiased_running = frozen, from_batch, unbiased_running
        self.shared_space = 0 if positions else self.space  # axes of space that have no statistics of their own
        statistics = [self.rows, *positions, features] if per_step else [*positions, features]
        self.register_buffer("running_mean", torch.zeros(statistics), persistent=not from_batch)
        self.register_buffer("running_var", torch.ones(statistics), persistent=not from_batch)

    def uses_batch(self) -> bool:
        """Whether the moments of the batch at hand normalise, and not the running statistics."""
        return self.from_batch or (self.training and not self.frozen)

    def with_statistics(self, scale: Tensor, shift: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        if self.uses_batch():
            return scale, shift
        mean = spread(at_rows(self.running_mean, row, self.per_step), self.shared_space)
        variance = spread(at_rows(self.running_var, row, self.per_step), self.shared_space)
        scale = scale / deviation(variance, self.eps, self.placement)
        return scale, shift - mean * scale

    def plain(self, u: Tensor, t: Tensor) -> Tensor:
        if not self.uses_batch():
            return u
        mean, variance = self.moments(u, self.unbiased)
        if not self.from_batch:
            self.update(u, t)
        y = (u - mean) / deviation(variance, self.eps, self.placement)
        return torch.where(self.is_past(t), u, y) if self.past_end == "bypass" else y

    def moments(self, u: Tensor, unbiased: bool) -> tuple[Tensor, Tensor]:
        """Mean and variance over the batch and the shared axes of space, shaped to broadcast against the value."""
        axes = [-2 - self.space] + list(range(-1 - self.shared_space, 0 if self.pooled else -1))
        if self.sequence and u.dim() == 3 + self.space:
            axes.append(-3 - self.space)
        return u.mean(dim=axes, keepdim=True), u.var(dim=axes, unbiased=unbiased, keepdim=True)

    def update(self, u: Tensor, t: Tensor) -> None:
        """Moves the running statistics towards the moments of the batch, step after step."""
        with torch.no_grad():
            mean, variance = self.moments(u, self.unbiased_running)
            one = list(self.running_mean.shape[1:]) if self.per_step else list(self.running_mean.shape)
            mean = mean.expand(list(mean.shape[:-1]) + one[-1:]).reshape([-1] + one)
            variance = variance.expand(list(variance.shape[:-1]) + one[-1:]).reshape([-1] + one)
            t = t.flatten()
            row = step_row(t, self.rows, self.past_end)
            for n in range(mean.shape[0]):
                if self.past_end == "bypass" and int(t[n]) >= self.rows:
                    continue
                if self.per_step:
                    self.running_mean[int(row[n])].lerp_(mean[n], 1 - self.momentum)
                    self.running_var[int(row[n])].lerp_(variance[n], 1 - self.momentum)
                else:
                    self.running_mean.lerp_(mean[n], 1 - self.momentum)
                    self.running_var.lerp_(variance[n], 1 - self.momentum)


class CellLayerNorm(CellNorm):
    """Layer or RMS normalisation in a cell: moments of one sample at one time step.

    Args:
        groups: equal blocks of the last axis with moments of their own (one per gate).
        rms: no centring, the mean square in place of the variance.
        common: what `CellNorm` takes.
    """

    def __init__(self, features: int, *, groups: int = 1, rms: bool = False, **common: Any) -> None:
        super().__init__(features, **common)
        self.groups, self.rms = groups, rms

    def plain(self, u: Tensor, t: Tensor) -> Tensor:
        v = u if self.groups == 1 else u.reshape(list(u.shape[:-1]) + [self.groups, -1])
        sizes = list(v.shape[-1 - self.space :]) if self.pooled else [v.shape[-1]]
        if self.placement == "inside" and not self.unbiased:
            y = F.rms_norm(v, sizes, eps=self.eps) if self.rms else F.layer_norm(v, sizes, eps=self.eps)
        else:
            axes = list(range(-len(sizes), 0))
            variance = v.square().mean(dim=axes, keepdim=True)
            if not self.rms:
                variance = v.var(dim=axes, unbiased=self.unbiased, keepdim=True)
                v = v - v.mean(dim=axes, keepdim=True)
            y = v / deviation(variance, self.eps, self.placement)
        y = y.reshape(u.shape)
        return torch.where(self.is_past(t), u, y) if self.past_end == "bypass" else y
