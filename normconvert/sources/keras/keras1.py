"""Keras 1 in the words of Keras 2: class names, configuration keys, kernels.

The layer modules of Keras 1.2 (`keras/layers/*.py`) and the conversion that Keras 2 does on loading
(`keras/legacy/interfaces.py`, `preprocess_weights_for_loading` of `keras/engine/saving.py`) are the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from normconvert.errors import Unsupported
from normconvert.ir.model import Array
from normconvert.sources.keras.store import Member, Scope

Config = dict[str, Any]

_CLASSES = {
    "Convolution1D": "Conv1D",
    "AtrousConvolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "AtrousConvolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "TimeDistributedDense": "Dense",
    "Model": "Model",
}

_RENAMED: dict[str, dict[str, str]] = {
    "*": {
        "output_dim": "units",
        "init": "kernel_initializer",
        "bias": "use_bias",
        "input_dtype": "dtype",
        "inner_activation": "recurrent_activation",
        "dropout_W": "dropout",
        "dropout_U": "recurrent_dropout",
        "border_mode": "padding",
        "nb_filter": "filters",
    },
    "Embedding": {"output_dim": "output_dim"},
    "Conv1D": {"filter_length": "kernel_size", "subsample_length": "strides", "atrous_rate": "dilation_rate"},
    "Conv2D": {"subsample": "strides", "atrous_rate": "dilation_rate"},
    "SeparableConv2D": {"subsample": "strides"},
    "ConvLSTM2D": {"subsample": "strides"},
    "Conv2DTranspose": {"subsample": "strides"},
    "MaxPooling1D": {"pool_length": "pool_size", "stride": "strides"},
    "AveragePooling1D": {"pool_length": "pool_size", "stride": "strides"},
    "UpSampling1D": {"length": "size"},
    "Dropout": {"p": "rate"},
    "SpatialDropout1D": {"p": "rate"},
    "SpatialDropout2D": {"p": "rate"},
    "GaussianDropout": {"p": "rate"},
    "GaussianNoise": {"sigma": "stddev"},
}

_MERGES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum"}


def modernise(class_name: str, config: Config) -> tuple[str, Config]:
    """A layer's class and configuration as Keras 2 would write them.

    Raises:
        Unsupported: a layer or mode that Keras 2 gave up and that has no equivalent.
    """
    if class_name == "Merge":
        return _merge(config)
    name = _CLASSES.get(class_name, class_name)
    renamed = {**_RENAMED["*"], **_RENAMED.get(name, {})}
    new = {renamed.get(key, key): value for key, value in config.items()}
    if new.get("dim_ordering") is not None:
        new["data_format"] = {"th": "channels_first", "tf": "channels_last"}.get(str(new["dim_ordering"]))
    if "nb_row" in new:
        new["kernel_size"] = [new["nb_row"], new["nb_col"]]
    if name in ("LSTM", "GRU", "SimpleRNN"):
        new["use_bias"] = True
    if name == "BatchNormalization":
        new["normconvert_mode"] = _normalisation_mode(new)
    return name, new


def _normalisation_mode(config: Config) -> int:
    mode = int(config.get("mode", 0))
    if mode == 1:
        raise Unsupported(
            "BatchNormalization with mode=1 normalises each sample by itself",
            remedy="Train it again with LayerNormalization",
        )
    return mode


def _merge(config: Config) -> tuple[str, Config]:
    mode = config.get("mode")
    name = {"name": config.get("name")}
    if config.get("mode_type", "raw") != "raw" or not isinstance(mode, str):
        raise Unsupported("the Merge layer runs a Python function, which is never run", remedy="Use a named mode")
    if mode in _MERGES:
        return _MERGES[mode], name
    if mode == "concat":
        return "Concatenate", {**name, "axis": config.get("concat_axis", -1)}
    if mode == "dot":
        return "Dot", {**name, "axes": config.get("dot_axes", -1)}
    if mode == "cos":  # keras/engine/topology.py: the lengths are products over dot_axes, and an axis is put in
        raise Unsupported(
            "the Merge layer has the mode 'cos'", remedy="Merge with 'dot' after a division by the length"
        )
    raise Unsupported(f"the Merge layer has the unknown mode {mode!r}")


class KernelScope:
    """Convolution kernels as TensorFlow uses them: reshaped from Keras 1, flipped from Theano.

    Args:
        inner: the arrays as stored.
        class_name, config: the layer's, in the words of Keras 2.
        theano: the file was written with Theano, which convolves where TensorFlow correlates.
    """

    def __init__(self, inner: Scope, class_name: str, config: Mapping[str, Any], theano: bool) -> None:
        self.inner, self.class_name, self.config, self.theano = inner, class_name, config, theano

    def take(self, *roles: str) -> dict[str, Array]:
        """See `store.Scope`."""
        arrays = self.inner.take(*roles)
        kernels = KERNELS.get(self.class_name)
        if kernels is None:
            return arrays
        return {role: kernels(role, array, self.config, self.theano) for role, array in arrays.items()}

    def child(self, attribute: str, name: str = "") -> Scope:
        """See `store.Scope`."""
        return KernelScope(self.inner.child(attribute, name), self.class_name, self.config, self.theano)

    def members(self, members: Sequence[Member], attribute: str = "layers") -> list[Scope]:
        """See `store.Scope`."""
        return self.inner.members(members, attribute)

    def taken(self) -> Any:
        """See `store.Scope`."""
        return self.inner.taken()

    def left(self) -> Any:
        """See `store.Scope`."""
        return self.inner.left()


def _conv1d(role: str, array: Array, config: Mapping[str, Any], theano: bool) -> Array:
    """`[window, 1, in, filters]` since Keras 1.1, `[filters, in, window, 1]` before, to `[window, in, filters]`."""
    if role != "kernel":
        return array
    if array.ndim == 4:
        length, filters = _size(config.get("kernel_size")), _size(config.get("filters"))
        old = (array.shape[0], array.shape[1], array.shape[3]) != (length, 1, filters)
        array = np.transpose(array, (2, 3, 1, 0))[:, 0] if old else array[:, 0]
    return array[::-1] if theano else array


def _conv2d(role: str, array: Array, config: Mapping[str, Any], theano: bool) -> Array:
    """`[filters, in, rows, columns]` of dim_ordering `th` to `[rows, columns, in, filters]`.

    A `ConvLSTM2D` has two kernels, or in Keras 1 two for each gate: `W_i`, `U_i`, ...
    """
    if array.ndim != 4:
        return array
    if _theano_order(config):
        array = np.transpose(array, (2, 3, 1, 0))
    return array[::-1, ::-1] if theano else array


def _transposed(role: str, array: Array, config: Mapping[str, Any], theano: bool) -> Array:
    """To `[rows, columns, filters, in]`, from the order of a `Convolution2D` in which Keras 1 kept these kernels."""
    if role != "kernel":
        return array
    if "dim_ordering" in config:
        array = np.transpose(array, (2, 3, 0, 1) if _theano_order(config) else (0, 1, 3, 2))
    return array[::-1, ::-1] if theano else array


def _theano_order(config: Mapping[str, Any]) -> bool:
    return config.get("data_format") == "channels_first" and config.get("dim_ordering") == "th"


KERNELS: dict[str, Callable[[str, Array, Mapping[str, Any], bool], Array]] = {
    "Conv1D": _conv1d,
    "Conv2D": _conv2d,
    "Conv2DTranspose": _transposed,
    "ConvLSTM2D": _conv2d,
}


def doubts(class_name: str, config: Mapping[str, Any], version: str, theano: bool) -> dict[str, str]:
    """What an old file leaves open about a layer and how it is read, as sentences with their sources.

    Args:
        class_name, config: the layer's, in the words of Keras 2.
        version: of the Keras that wrote the file; empty if the file does not say.
        theano: the file was written with Theano.
    """
    found = {}
    if class_name == "BatchNormalization" and not version:
        found["BatchNormalization's running_std is a variance"] = (
            "Keras 1.0.3 to 1.2, keras/layers/normalization.py; Keras 1.0.0 and before stored the standard deviation, "
            "but files of that time do not say their version"
        )
    windows = [_size(config[key]) for key in ("kernel_size", "pool_size") if config.get(key)]
    strides = _size(config.get("strides") or 1)
    uneven = strides > 1 or any(size % 2 == 0 for size in windows)
    if theano and windows and uneven and config.get("padding") == "same":
        found[f"{class_name} with padding 'same' pads as TensorFlow does"] = (
            "as Keras with TensorFlow reads the file; Theano puts the odd zero before instead of after"
        )
    return found


def _size(value: Any) -> int:
    return int(value[0] if isinstance(value, (list, tuple)) else value)
