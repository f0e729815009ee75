"""Layers that Keras does not have."""

import keras
from keras import ops

from normconvert.targets.keras.blocks.declared import Declared

register = keras.saving.register_keras_serializable(package="cells")


@register
class UnfoldTime(Declared):
    """`[batch * time, ...]` back to `[batch, time, ...]`, as the second input has them."""

    def call(self, inputs):
        x, before = inputs
        return ops.reshape(x, [-1, ops.shape(before)[1], *ops.shape(x)[1:]])

    def compute_output_spec(self, inputs):
        x, before = inputs
        return keras.KerasTensor((*before.shape[:2], *x.shape[1:]), dtype=x.dtype)


@register
class FoldTime(Declared):
    """`[batch, time, ...]` to `[batch * time, ...]`."""

    def call(self, inputs):
        return ops.reshape(inputs, [-1, *ops.shape(inputs)[2:]])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((None, *inputs.shape[2:]), dtype=inputs.dtype)


@register
class LengthMask(Declared):
    """The mask `[batch, time]` of a value whose samples have given lengths."""

    def call(self, inputs):
        x, lengths = inputs
        steps = ops.arange(ops.shape(x)[1], dtype="int32")
        return steps[None, :] < ops.reshape(ops.cast(lengths, "int32"), (-1, 1))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape[:2], dtype="bool")


@register
class StepMask(Declared):
    """The mask `[batch, time]` of a value: a step is real if it, or any of its features, is not `value`."""

    def __init__(self, value, any_feature=False, **options):
        super().__init__(**options)
        self.value, self.any_feature = value, any_feature

    def call(self, x):
        differs = ops.not_equal(x, self.value)
        return ops.any(differs, axis=-1) if self.any_feature else differs

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape[:-1] if self.any_feature else x.shape, dtype="bool")

    def get_config(self):
        return {**super().get_config(), "value": self.value, "any_feature": self.any_feature}


@register
class MergedMasks(Declared):
    """Step by step logical `and` or `or` of masks."""

    def __init__(self, operation, **options):
        super().__init__(**options)
        self.operation = operation

    def call(self, masks):
        result, *others = masks
        for mask in others:
            result = ops.logical_and(result, mask) if self.operation == "and" else ops.logical_or(result, mask)
        return result

    def compute_output_spec(self, masks):
        return keras.KerasTensor(masks[0].shape, dtype="bool")

    def get_config(self):
        return {**super().get_config(), "operation": self.operation}


@register
class MaskedToZero(Declared):
    """Time steps whose features are all `value` become zero; `keras.layers.Masking` without the mask."""

    def __init__(self, value, **options):
        super().__init__(**options)
        self.value = value

    def call(self, x):
        real = ops.any(ops.not_equal(x, self.value), axis=-1, keepdims=True)
        return x * ops.cast(real, x.dtype)

    def get_config(self):
        return {**super().get_config(), "value": self.value}


@register
class Merged(Declared):
    """Values of different rank combined element by element: axes of size 1 are put in after the batch axis."""

    def __init__(self, operation, **options):
        super().__init__(**options)
        self.operation = operation

    def call(self, inputs):
        rank = max(len(x.shape) for x in inputs)
        result, *others = [self.widened(x, rank) for x in inputs]
        for x in others:
            if self.operation in ("maximum", "minimum"):
                result = getattr(ops, self.operation)(result, x)
            elif self.operation == "multiply":
                result = result * x
            else:
                result = result - x if self.operation == "subtract" else result + x
        return result / len(inputs) if self.operation == "average" else result

    def widened(self, x, rank):
        """A value with as many axes as the others."""
        for _ in range(rank - len(x.shape)):
            x = ops.expand_dims(x, 1)
        return x

    def get_config(self):
        return {**super().get_config(), "operation": self.operation}


@register
class LinearUpSampling(Declared):
    """Each space axis made longer by a factor, linear between the centres of elements."""

    def __init__(self, factors, **options):
        super().__init__(**options)
        self.factors = list(factors)

    def call(self, x):
        for axis, factor in enumerate(self.factors, start=1):
            size = ops.shape(x)[axis]
            place = (ops.cast(ops.arange(size * factor), x.dtype) + 0.5) / factor - 0.5
            place = ops.clip(place, 0.0, ops.cast(size - 1, x.dtype))
            left = ops.cast(ops.floor(place), "int32")
            right = ops.minimum(left + 1, size - 1)
            share = ops.reshape(place - ops.floor(place), [-1, *[1] * (len(x.shape) - 1 - axis)])
            x = ops.take(x, left, axis=axis) * (1.0 - share) + ops.take(x, right, axis=axis) * share
        return x

    def compute_output_spec(self, x):
        sizes = zip(x.shape[1:-1], self.factors, strict=True)
        space = [None if size is None else size * factor for size, factor in sizes]
        return keras.KerasTensor((x.shape[0], *space, x.shape[-1]), dtype=x.dtype)

    def get_config(self):
        return {**super().get_config(), "factors": self.factors}


@register
class ScaleAndOffset(Declared):
    """`x * scale + offset`, a number each or one per channel."""

    def __init__(self, scale, offset, **options):
        super().__init__(**options)
        self.scale, self.offset = list(scale), list(offset)

    def call(self, x):
        return x * ops.convert_to_tensor(self.scale, x.dtype) + ops.convert_to_tensor(self.offset, x.dtype)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "offset": self.offset}


@register
class GeneralLayerNorm(Declared):
    """Layer normalisation with every choice of axes, scale, offset and moments.

    Args:
        shape: sizes of the axes.
        moments: `rms` takes the mean square for the variance and does not centre; `uncentred` only does not centre.
    """

    def __init__(self, shape, axes, eps, scale=True, center=True, moments="standard", **options):
        super().__init__(**options)
        self.shape, self.axes, self.eps = list(shape), list(axes), eps
        self.scale, self.center, self.moments = scale, center, moments

    def build(self, input_shape):
        self.gamma = self.add_weight(name="gamma", shape=self.shape, initializer="ones") if self.scale else None
        self.beta = self.add_weight(name="beta", shape=self.shape, initializer="zeros") if self.center else None
        self.built = True

    def call(self, x):
        mean = ops.mean(x, axis=self.axes, keepdims=True)
        squares = ops.square(x if self.moments == "rms" else x - mean)
        spread = ops.mean(squares, axis=self.axes, keepdims=True)
        y = (x - mean if self.moments == "standard" else x) / ops.sqrt(spread + self.eps)
        rank = len(x.shape)
        sizes = dict(zip((axis % rank for axis in self.axes), self.shape, strict=True))
        shape = [sizes.get(axis, 1) for axis in range(rank)]
        y = y * ops.reshape(self.gamma, shape) if self.scale else y
        return y + ops.reshape(self.beta, shape) if self.center else y

    def get_config(self):
        keys = ("shape", "axes", "eps", "scale", "center", "moments")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}}


@register
class BatchStatistics(Declared):
    """Batch normalisation with the moments of the batch at hand, at inference too."""

    def __init__(self, features, axis, eps, scale=True, center=True, **options):
        super().__init__(**options)
        self.features, self.axis, self.eps, self.scale, self.center = features, axis, eps, scale, center

    def build(self, input_shape):
        shape = (self.features,)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones") if self.scale else None
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros") if self.center else None
        self.built = True

    def call(self, x):
        axis = self.axis % len(x.shape)
        others = [other for other in range(len(x.shape)) if other != axis]
        mean = ops.mean(x, axis=others, keepdims=True)
        y = (x - mean) / ops.sqrt(ops.mean(ops.square(x - mean), axis=others, keepdims=True) + self.eps)
        shape = [-1 if other == axis else 1 for other in range(len(x.shape))]
        y = y * ops.reshape(self.gamma, shape) if self.scale else y
        return y + ops.reshape(self.beta, shape) if self.center else y

    def get_config(self):
        keys = ("features", "axis", "eps", "scale", "center")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}}


@register
class UnitNorm(Declared):
    """Length one over some axes; the squared length counts as `eps` where it is less."""

    def __init__(self, axes, eps, **options):
        super().__init__(**options)
        self.axes, self.eps = list(axes), eps

    def call(self, x):
        return x / ops.sqrt(ops.maximum(ops.sum(ops.square(x), axis=self.axes, keepdims=True), self.eps))

    def get_config(self):
        return {**super().get_config(), "axes": self.axes, "eps": self.eps}


@register
class Standardise(Declared):
    """`(x - mean) / max(sqrt(variance), eps)`, or the inverse."""

    def __init__(self, mean_shape, variance_shape, eps, invert=False, **options):
        super().__init__(**options)
        self.mean_shape, self.variance_shape = list(mean_shape), list(variance_shape)
        self.eps, self.invert = eps, invert

    def build(self, input_shape):
        frozen = {"initializer": "zeros", "trainable": False}
        self.mean = self.add_weight(name="mean", shape=self.mean_shape, **frozen)
        self.variance = self.add_weight(name="variance", shape=self.variance_shape, **frozen)
        self.built = True

    def call(self, x):
        deviation = ops.maximum(ops.sqrt(self.variance), self.eps)
        return self.mean + x * deviation if self.invert else (x - self.mean) / deviation

    def get_config(self):
        keys = ("mean_shape", "variance_shape", "eps", "invert")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}}


@register
class SharedPRelu(Declared):
    """`max(x, 0) + alpha * min(x, 0)`, where alpha broadcasts over one sample."""

    def __init__(self, shape, **options):
        super().__init__(**options)
        self.shape = list(shape)

    def build(self, input_shape):
        self.alpha = self.add_weight(name="alpha", shape=self.shape, initializer="zeros")
        self.built = True

    def call(self, x):
        return ops.maximum(x, 0.0) + self.alpha * ops.minimum(x, 0.0)

    def get_config(self):
        return {**super().get_config(), "shape": self.shape}
