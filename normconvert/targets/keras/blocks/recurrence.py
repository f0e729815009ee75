"""The loop over time around a cell."""

import keras
from keras import ops

from normconvert.targets.keras.blocks.declared import Declared


class Recurrence(Declared):
    """Runs the cell that a subclass describes over the time axis of `[batch, time, ...]`.

    A subclass gives `state_shapes`, `output_shape_of_step`, `before_steps` and `step`. A masked step keeps the states
    and repeats the output before it (zeros before the first real step). Dropout of recurrent values is not applied. In
    training every step is normalised with its own moments, and moves the running statistics of its row.

    Args:
        reverse: reads from the last step to the first; outputs stay aligned with the inputs.
        sequences: gives every step's output, else that of the step read last.
        return_state: gives the final states too.
        stateful: the final states are the initial states of the next call.
        zero_masked: a masked step's output is zero.
        dropout: share of the inputs dropped in training, the same ones at every step.
    """

    most_steps = None
    """Longest sequence there are statistics for; None where any length will do."""

    running = ()
    """Names of the norms with running statistics, once for every call in a step."""

    def __init__(
        self,
        *,
        reverse=False,
        sequences=False,
        return_state=False,
        stateful=False,
        zero_masked=False,
        dropout=0.0,
        **options,
    ):
        super().__init__(**options)
        self.reverse, self.sequences, self.return_state = reverse, sequences, return_state
        self.stateful, self.zero_masked, self.dropout = stateful, zero_masked, dropout
        self.supports_masking = True
        self.supports_jit = keras.backend.backend() != "tensorflow"  # XLA cannot differentiate its loop over free time
        self.drop = keras.layers.Dropout(dropout) if dropout else None

    def build(self, inputs_shape, initial_state_shape=None):
        if self.stateful:
            first = inputs_shape[0] if isinstance(inputs_shape[0], (list, tuple)) else inputs_shape
            if first[0] is None:
                raise ValueError("a stateful layer needs a fixed batch size")
            frozen = {"initializer": "zeros", "trainable": False}
            shapes = self.state_shapes()
            self.carried = [
                self.add_weight(name=f"carried_{n}", shape=(first[0], *shape), **frozen)
                for n, shape in enumerate(shapes)
            ]
            self.steps_read = self.add_weight(name="steps_read", shape=(), dtype="int32", **frozen)
            self.reset_state()
        self.built = True

    def reset_state(self):
        """Starts a new sequence."""
        for state, value in zip(self.carried, self.initial_states(self.carried[0].shape[0]), strict=True):
            state.assign(value)
        self.steps_read.assign(0)

    def initial_states(self, batch):
        """The states before the first step."""
        return [ops.zeros((batch, *shape), self.compute_dtype) for shape in self.state_shapes()]

    def call(self, inputs, initial_state=None, mask=None, training=None):
        inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        batch, steps = ops.shape(inputs[0])[0], ops.shape(inputs[0])[1]
        if self.most_steps is not None and isinstance(steps, int) and steps > self.most_steps:
            raise IndexError(f"there are statistics for {self.most_steps} time steps only")
        index = ops.arange(steps, dtype="int32")
        first = ops.convert_to_tensor(self.steps_read) if self.stateful else 0
        if self.reverse:
            inputs = [ops.flip(value, axis=1) for value in inputs]
            mask = None if mask is None else ops.flip(mask, axis=1)
        if self.drop is not None:
            kept = self.drop(ops.ones_like(inputs[0][:, :1]), training=training)
            inputs[0] = inputs[0] * kept
        if initial_state is not None:
            states = list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
        elif self.stateful:
            states = [ops.convert_to_tensor(state) for state in self.carried]
        else:
            states = self.initial_states(batch)

        timed, fixed = self.before_steps(*inputs, index + first)
        timed = [ops.moveaxis(value, 1, 0) for value in timed]
        real = None if mask is None else ops.moveaxis(ops.cast(mask, "bool"), 1, 0)

        moving = [getattr(self, name) for name in self.running if getattr(self, name).learns(training)]
        count = len(states)

        def body(carry, at):
            before, y = carry[:count], carry[count]
            values = [ops.take(value, at, axis=0) for value in timed]
            for norm in moving:
                norm.waiting = ()
            following, output = self.step(*values, *fixed, *before, at + first)
            if real is not None:
                now = ops.take(real, at, axis=0)
                output = self.kept(now, output, ops.zeros_like(y) if self.zero_masked else y)
                following = [self.kept(now, new, old) for new, old in zip(following, before, strict=True)]
            moments = [value for norm in dict.fromkeys(moving) for value in norm.waiting]
            carry = (*following, output, *moments)  # moments too: no variable can be set inside of every loop
            return carry, carry

        y = ops.zeros((batch, *self.output_shape_of_step()), self.compute_dtype)
        none = [ops.zeros((1, *norm.moving_mean.shape[norm.per_step :]), y.dtype) for norm in moving for _ in range(2)]
        last, every = ops.scan(body, (*states, y, *none), index)
        states, y, outputs, moments = last[:count], last[count], every[count], every[count + 1 :]
        for position, norm in enumerate(moving):
            norm.waiting = None
            norm.move(index + first, moments[2 * position], moments[2 * position + 1])
        if self.stateful:
            for state, value in zip(self.carried, states, strict=True):
                state.assign(value)
            self.steps_read.assign(self.steps_read + steps)
        if self.sequences:
            outputs = ops.moveaxis(outputs, 0, 1)
            y = ops.flip(outputs, axis=1) if self.reverse else outputs
        return (y, *states) if self.return_state else y

    def kept(self, real, value, held):
        """The value where the step is real, else what was held."""
        return ops.where(ops.reshape(real, [-1, *[1] * (len(value.shape) - 1)]), value, held)

    def compute_output_spec(self, inputs, initial_state=None, mask=None, training=None):
        x = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        lead = x.shape[:2] if self.sequences else x.shape[:1]
        y = keras.KerasTensor((*lead, *self.output_shape_of_step()), dtype=self.compute_dtype)
        if not self.return_state:
            return y
        states = [keras.KerasTensor((x.shape[0], *shape), dtype=self.compute_dtype) for shape in self.state_shapes()]
        return (y, *states)

    def compute_mask(self, inputs, mask=None):
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        first = mask if self.sequences else None
        return [first, *[None] * len(self.state_shapes())] if self.return_state else first

    def get_config(self):
        flags = ("reverse", "sequences", "return_state", "stateful", "zero_masked", "dropout")
        return {**super().get_config(), **{flag: getattr(self, flag) for flag in flags}}
