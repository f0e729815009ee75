"""Normalisations inside cells. They take the time step, or all time steps at once, as a tensor of indices.

For one step the value is `[batch, *space, features]` and the index a scalar, or `[batch]` where each sample is at a
step of its own; for all steps the value is `[batch, time, *space, features]` and the indices `[time]`.
"""

import keras
from keras import ops


def deviation(variance, eps, placement):
    """What a centred value is divided by; eps goes `inside` the root, `outside` it, or `both`."""
    if placement == "outside":
        return ops.sqrt(variance) + eps
    if placement == "both":
        return ops.sqrt(variance + eps) + eps
    return ops.sqrt(variance + eps)


class CellNorm(keras.layers.Layer):
    """`gamma * (u - mean) / deviation + beta`; what all normalisations in cells share.

    Args:
        features: size of the last axis.
        space: number of axes between time and features.
        rows: number of time steps with statistics (`per_step`) or affine parameters (`affine_per_step`) of their own.
        past_end: the row that a later step uses: the `last`, or its number `modulo` the rows; with `bypass` it is not
            normalised, otherwise it is an `error`.
        pooled: moments over the features and all axes of space together.
        unbiased: divide by n - 1.
    """

    def __init__(
        self,
        features,
        *,
        eps,
        space=0,
        rows=0,
        per_step=False,
        affine_per_step=False,
        past_end="last",
        scale=True,
        center=True,
        placement="inside",
        pooled=False,
        unbiased=False,
        **options,
    ):
        super().__init__(**options)
        self.features, self.eps, self.space, self.placement = features, eps, space, placement
        self.rows, self.per_step, self.affine_per_step, self.past_end = rows, per_step, affine_per_step, past_end
        self.scale, self.center, self.pooled, self.unbiased = scale, center, pooled, unbiased

    def build(self, input_shape=None):
        affine = (self.rows, self.features) if self.affine_per_step else (self.features,)
        self.gamma = self.add_weight(name="gamma", shape=affine, initializer="ones") if self.scale else None
        self.beta = self.add_weight(name="beta", shape=affine, initializer="zeros") if self.center else None
        self.built = True

    def call(self, u, t):
        row = self.row(t)
        y = self.normalised(u, t, row)
        if self.scale:
            y = y * self.at(self.gamma, row, self.affine_per_step)
        if self.center:
            y = y + self.at(self.beta, row, self.affine_per_step)
        if self.rows > 0 and self.past_end == "bypass":
            y = ops.where(ops.reshape(t < self.rows, [*t.shape, *[1] * (self.space + 1)]), y, u)
        return y

    def row(self, t):
        """The row that a time step uses; without rows of its own it needs none."""
        if self.rows == 0:
            return t
        if self.past_end == "modulo":
            return ops.mod(t, self.rows)
        return ops.minimum(t, self.rows - 1)

    def at(self, weight, row, per_step):
        """A weight for the rows, with axes of size 1 for those of space that it does not have."""
        value = ops.take(weight, row, axis=0) if per_step else ops.convert_to_tensor(weight)
        for _ in range(self.space + 1 + per_step - len(weight.shape)):
            value = ops.expand_dims(value, -2)
        return value

    def variance(self, v, axes, mean, unbiased):
        """The mean of the squared distance from the mean, over n or n - 1."""
        squares = ops.square(v - mean)
        if not unbiased:
            return ops.mean(squares, axis=axes, keepdims=True)
        count = ops.sum(ops.ones_like(squares), axis=axes, keepdims=True)
        return ops.sum(squares, axis=axes, keepdims=True) / (count - 1)


class CellBatchNorm(CellNorm):
    """Batch normalisation in a cell (Cooijmans et al., 2016): in training every step has moments of its own.

    Args:
        from_batch: no running statistics, but the moments of the batch at hand, at inference too.
        sequence: moments over batch and time together.
        positions: sizes of the axes between time and features, where each position has statistics of its own.
        momentum: weight of the old running value; a step past the last row moves the row that it uses.
        unbiased_running: the running variance is that over n - 1.
        frozen: training leaves the running statistics as they are, and normalises with them.
    """

    def __init__(
        self,
        features,
        *,
        from_batch=False,
        sequence=False,
        positions=(),
        momentum=0.99,
        unbiased_running=False,
        frozen=False,
        **options,
    ):
        super().__init__(features, **options)
        self.from_batch, self.sequence, self.momentum = from_batch, sequence, momentum
        self.positions, self.unbiased_running, self.frozen = tuple(positions), unbiased_running, frozen
        self.waiting = None  # in a loop over time: the moments of the calls in this step, for the loop to hand on

    def build(self, input_shape=None):
        super().build(input_shape)
        if not self.from_batch:
            shape = (*([self.rows] if self.per_step else []), *self.positions, self.features)
            frozen = {"shape": shape, "trainable": False}
            self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **frozen)
            self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **frozen)

    def call(self, u, t, training=None):
        self.live = self.learns(training)
        return super().call(u, t)

    def learns(self, training):
        """Whether the running statistics move."""
        return bool(training) and self.trainable and not (self.frozen or self.from_batch)

    def normalised(self, u, t, row):
        if self.from_batch or self.live:
            axes = self.axes(u, t)
            mean = ops.mean(u, axis=axes, keepdims=True)
            variance = self.variance(u, axes, mean, self.unbiased)
            if not self.from_batch:
                self.observe(t, mean, self.variance(u, axes, mean, self.unbiased_running))
        else:
            mean = self.at(self.moving_mean, row, self.per_step)
            variance = self.at(self.moving_variance, row, self.per_step)
        return (u - mean) / deviation(variance, self.eps, self.placement)

    def axes(self, u, t):
        """The axes that moments are taken over."""
        axes = [0, 1] if self.sequence and len(t.shape) == 1 else [0]
        shared = 0 if self.positions else self.space
        return axes + list(range(len(u.shape) - 1 - shared, len(u.shape) - (0 if self.pooled else 1)))

    def observe(self, t, mean, variance):
        """Moves the running statistics now, or after the loop over time that this step is one of."""
        everywhere = ops.ones((self.features,), mean.dtype)  # pooled moments are one number for all features
        shape = (-1, *self.positions, self.features)
        mean, variance = (ops.stop_gradient(ops.reshape(m * everywhere, shape)) for m in (mean, variance))
        if self.waiting is None:
            self.move(t, mean, variance)
        else:
            self.waiting = (*self.waiting, mean, variance)

    def move(self, t, mean, variance):
        """Moves the running statistics towards the moments `[steps, ...]` of time steps, one step after the other.

        With n later steps on the same row, a step's moments have the weight `(1 - momentum) * momentum ** n`.
        """
        rows = self.rows if self.per_step else 1
        t = ops.reshape(t, (-1,))[:1] if self.sequence else ops.reshape(t, (-1,))
        row = self.row(t) if self.per_step else ops.zeros_like(t)
        moved = ops.cast(ops.expand_dims(row, 1) == ops.arange(rows, dtype="int32"), mean.dtype)
        if self.rows > 0 and self.past_end == "bypass":
            moved = moved * ops.cast(ops.expand_dims(t < self.rows, 1), mean.dtype)
        later = ops.flip(ops.cumsum(ops.flip(moved, axis=0), axis=0), axis=0) - moved
        share = ops.transpose((1 - self.momentum) * moved * ops.power(self.momentum, later))
        kept = ops.expand_dims(ops.power(self.momentum, ops.sum(moved, axis=0)), 1)
        for weight, moment in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = ops.reshape(weight, (rows, -1))
            new = ops.reshape(moment, (-1, old.shape[1]))
            weight.assign(ops.reshape(kept * old + ops.matmul(share, new), weight.shape))


class CellLayerNorm(CellNorm):
    """Layer or RMS normalisation in a cell: moments of one sample at one time step.

    Args:
        groups: equal blocks of the last axis with moments of their own (one per gate).
        rms: no centring, the mean square in place of the variance.
    """

    def __init__(self, features, *, groups=1, rms=False, **options):
        super().__init__(features, **options)
        self.groups, self.rms = groups, rms

    def normalised(self, u, t, row):
        if self.groups > 1:
            blocks = ops.split(u, self.groups, axis=-1)
            return ops.concatenate([self.standardised(block) for block in blocks], axis=-1)
        return self.standardised(u)

    def standardised(self, v):
        """The value with mean 0 and deviation 1."""
        rank = len(v.shape)
        axes = list(range(rank - 1 - self.space, rank)) if self.pooled else [rank - 1]
        if self.rms:
            return v / deviation(ops.mean(ops.square(v), axis=axes, keepdims=True), self.eps, self.placement)
        mean = ops.mean(v, axis=axes, keepdims=True)
        return (v - mean) / deviation(self.variance(v, axes, mean, self.unbiased), self.eps, self.placement)
