"""Both directions of a recurrent layer."""

import keras
from keras import ops

from normconvert.targets.keras.blocks.declared import Declared

register = keras.saving.register_keras_serializable(package="cells")


@register
class BothDirections(Declared):
    """Two recurrent layers over one input, the second reading it backwards, their outputs merged.

    Final states are those of the first layer, then those of the second; so are initial states.

    Args:
        forward, backward: the layers.
        merge: `concat`, `add`, `multiply`, `average`, or None for two outputs.
    """

    def __init__(self, forward, backward, merge="concat", **options):
        super().__init__(**options)
        self.forward, self.backward, self.merge = forward, backward, merge
        self.supports_masking = True
        if not self.trainable:
            forward.trainable = backward.trainable = False

    def build(self, inputs_shape, initial_state_shape=None):
        self.forward.build(inputs_shape)
        self.backward.build(inputs_shape)
        self.built = True

    def call(self, inputs, initial_state=None, mask=None, training=None):
        count = len(self.forward.state_shapes())
        given = (None, None) if initial_state is None else (list(initial_state)[:count], list(initial_state)[count:])
        ahead, *finals = self.one(self.forward, inputs, given[0], mask, training)
        back, *others = self.one(self.backward, inputs, given[1], mask, training)
        outputs = [*self.merged(ahead, back), *finals, *others]
        return outputs if len(outputs) > 1 else outputs[0]

    def one(self, layer, inputs, states, mask, training):
        """The output of one direction, and its final states if it gives them."""
        result = layer(inputs, initial_state=states, mask=mask, training=training)
        return result if layer.return_state else [result]

    def merged(self, ahead, back):
        """The outputs of both directions as one, or as they are."""
        if self.merge is None:
            return [ahead, back]
        if self.merge == "concat":
            return [ops.concatenate([ahead, back], axis=-1)]
        if self.merge == "multiply":
            return [ahead * back]
        total = ahead + back
        return [total / 2 if self.merge == "average" else total]

    def compute_output_spec(self, inputs, initial_state=None, mask=None, training=None):
        specs = [layer.compute_output_spec(inputs) for layer in (self.forward, self.backward)]
        (ahead, *finals), (back, *others) = [s if self.forward.return_state else [s] for s in specs]
        joined = [ahead, back] if self.merge is None else [ahead]
        if self.merge == "concat":
            shape = (*ahead.shape[:-1], ahead.shape[-1] + back.shape[-1])
            joined = [keras.KerasTensor(shape, dtype=ahead.dtype)]
        outputs = [*joined, *finals, *others]
        return outputs if len(outputs) > 1 else outputs[0]

    def compute_mask(self, inputs, mask=None):
        first = self.forward.compute_mask(inputs, mask)
        first = first[0] if self.forward.return_state else first
        further = (self.merge is None) + 2 * len(self.forward.state_shapes()) * self.forward.return_state
        return [first, *[None] * further] if further else first

    def get_config(self):
        sides = {side: keras.saving.serialize_keras_object(getattr(self, side)) for side in ("forward", "backward")}
        unbuilt = {side: {**entry, "build_config": None} for side, entry in sides.items()}  # `build` builds them
        return {**super().get_config(), **unbuilt, "merge": self.merge}

    @classmethod
    def from_config(cls, config):
        sides = {side: keras.saving.deserialize_keras_object(config[side]) for side in ("forward", "backward")}
        return cls(**{**config, **sides})
