"""What a version of Keras decides: defaults a configuration may leave out, and the meaning of its words.

Everything that differs between versions and changes what a model computes is in the two tables of this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from normconvert.errors import Unsupported
from normconvert.ir.activation_text import from_text
from normconvert.ir.layers import Activation

Version = tuple[int, int]

_RECURRENT = ("SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D")
_GATED = ("LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D")
_CONVOLUTIONAL = ("ConvLSTM1D", "ConvLSTM2D")
MASKED_OUTPUT = "zero_output_for_mask"
"""Not in a Bidirectional's configuration: the version decides."""

_ALL: Version = (0, 0)
_END: Version = (999, 0)


@dataclass(frozen=True)
class Default:
    """A key's value where the configuration is silent, in versions `since <= version < until`.

    `tf` limits the entry to tf.keras (True) or to Keras of its own (False).
    """

    classes: tuple[str, ...]
    key: str
    value: Any
    source: str
    since: Version = _ALL
    until: Version = _END
    tf: bool | None = None


DEFAULTS: tuple[Default, ...] = (
    Default(_RECURRENT, "activation", "tanh", "keras/layers/rnn, every version"),
    Default(
        _GATED, "recurrent_activation", "hard_sigmoid", "Keras 2.0 to 2.2, keras/layers/recurrent.py", until=(2, 3)
    ),
    Default(_GATED, "recurrent_activation", "sigmoid", "Keras 2.3 release notes; tf.keras 2; Keras 3", since=(2, 3)),
    Default(("GRU",), "reset_after", False, "Keras 2.0 to 2.3, keras/layers/recurrent.py", until=(2, 4)),
    Default(("GRU",), "reset_after", True, "tf.keras 2 and Keras 3, keras/layers/rnn/gru.py", since=(2, 4)),
    Default(_RECURRENT, "use_bias", True, "keras/layers/rnn, every version"),
    Default(_RECURRENT, "return_sequences", False, "keras/layers/rnn, every version"),
    Default(_RECURRENT, "go_backwards", False, "keras/layers/rnn, every version"),
    Default(("Bidirectional",), "merge_mode", "concat", "keras/layers/rnn/bidirectional.py, every version"),
    Default(
        ("Bidirectional",),
        MASKED_OUTPUT,
        False,
        "Keras 2.0 to 2.3 of its own, keras/layers/wrappers.py: a masked step repeats the output",
        until=(2, 4),
        tf=False,
    ),
    Default(
        ("Bidirectional",),
        MASKED_OUTPUT,
        True,
        "tf.keras and Keras 3, force_zero_output_for_mask: a masked step of a returned sequence is zero",
        since=(2, 0),
    ),
    Default(("BatchNormalization",), "epsilon", 1e-3, "keras/layers/normalization, every version since 1.2"),
    Default(("BatchNormalization",), "momentum", 0.99, "keras/layers/normalization, every version"),
    Default(("LayerNormalization",), "epsilon", 1e-3, "keras/layers/normalization/layer_normalization.py"),
    Default(("Masking",), "mask_value", 0.0, "keras/layers/core/masking.py, every version"),
    Default(("Embedding",), "mask_zero", False, "keras/layers/core/embedding.py, every version"),
    Default(_CONVOLUTIONAL, "padding", "valid", "keras/layers/rnn/conv_lstm.py, every version"),
    Default(_CONVOLUTIONAL, "strides", 1, "keras/layers/rnn/conv_lstm.py, every version"),
    Default(_CONVOLUTIONAL, "dilation_rate", 1, "keras/layers/rnn/conv_lstm.py, every version"),
)
"""Looked up in order; the first that fits holds."""

HARD_SIGMOID: dict[int, tuple[float, str]] = {
    1: (0.2, "Keras 1, keras/backend: clip(0.2 x + 0.5, 0, 1)"),
    2: (0.2, "Keras 2 and tf.keras, keras/backend.py: clip(0.2 x + 0.5, 0, 1)"),
    3: (1 / 6, "Keras 3, keras/src/activations/activations.py: relu6(x + 3) / 6"),
}
"""Slope of hard_sigmoid by major version. The same word means two functions."""

_PLAIN: dict[str, Activation | None] = {
    "linear": None,
    "sigmoid": Activation("sigmoid"),
    "tanh": Activation("tanh"),
    "relu": Activation("relu"),
    "relu6": Activation("capped_relu", (0.0, 6.0, 0.0)),
    "elu": Activation("elu"),
    "selu": Activation("selu"),
    "celu": Activation("celu"),
    "gelu": Activation("gelu"),
    "silu": Activation("silu"),
    "swish": Activation("silu"),
    "mish": Activation("mish"),
    "softplus": Activation("softplus"),
    "softsign": Activation("softsign"),
    "softmax": Activation("softmax"),
    "log_softmax": Activation("log_softmax"),
    "log_sigmoid": Activation("log_sigmoid"),
    "exponential": Activation("exp"),
    "leaky_relu": Activation("leaky_relu", (0.2,)),
    "hard_silu": Activation("hard_silu"),
    "hard_swish": Activation("hard_silu"),
    "hard_tanh": Activation("hard_tanh"),
    "hard_shrink": Activation("hard_shrink"),
    "soft_shrink": Activation("soft_shrink"),
    "tanh_shrink": Activation("tanh_shrink"),
    "threshold": Activation("threshold", (1.0, 0.0)),
    "squareplus": Activation("squareplus"),
    "sparse_plus": Activation("sparse_plus"),
    "sparse_sigmoid": Activation("sparse_sigmoid"),
    "glu": Activation("glu"),
}
"""Activations whose name means the same in every version that has it, at their default parameters."""

_LAYER_PARAMETERS: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "ReLU": ("capped_relu", (("negative_slope", 0.0), ("max_value", 3.4028234663852886e38), ("threshold", 0.0))),
    "LeakyReLU": ("leaky_relu", (("negative_slope|alpha", 0.3),)),
    "ELU": ("elu", (("alpha", 1.0),)),
}
"""Layer objects given as an activation: function, and the configuration keys of its parameters with defaults."""


@dataclass(frozen=True)
class KerasDialect:
    """What the version of Keras that wrote the file decides.

    Attributes:
        text: the version as the file gives it.
        major, minor: its first numbers.
        tf: it is tf.keras rather than Keras of its own.
        theano: written with the Theano backend, whose convolutions flip their kernels.
        used: defaults applied so far, as `(sentence, source)`; filled while a model is read.
    """

    text: str
    major: int
    minor: int = 0
    tf: bool = False
    theano: bool = False
    used: dict[str, str] = field(default_factory=dict)

    def activation(self, spec: Any) -> Activation | None:
        """The meaning of an `activation` entry of a configuration; None for linear."""
        if spec is None:
            return None
        if isinstance(spec, dict):
            return self._described(spec)
        name = str(spec).split(">")[-1]
        if name.endswith(")"):  # as the Keras target registers functions that Keras does not have
            return from_text(name)
        name = name.split(".")[-1]
        if name == "hard_sigmoid":
            slope, source = HARD_SIGMOID[self.major]
            self.used[f"hard_sigmoid has slope {slope:.6g}"] = source
            return Activation("hard_sigmoid", (slope, 0.5))
        if name == "sparsemax":
            raise Unsupported(
                "Keras computes something else than sparsemax (keras/src/backend/*/nn.py, at least up to 3.15: the "
                "threshold is a sum of running sums)",
                remedy="Use softmax",
            )
        if name not in _PLAIN:
            raise Unsupported(f"the activation {spec!r} is unknown", remedy=f"Known: {', '.join(sorted(_PLAIN))}")
        return _PLAIN[name]

    def _described(self, spec: dict[str, Any]) -> Activation | None:
        name, config = str(spec.get("class_name", "")), spec.get("config")
        if name in ("function", "builtin_function_or_method") and isinstance(config, str):
            return self.activation(config)
        if "lambda" in name.lower() or not name:
            raise Unsupported("the activation is Python code, which is never run", remedy="Name a known activation")
        if name in _LAYER_PARAMETERS and isinstance(config, dict):
            function, keys = _LAYER_PARAMETERS[name]
            return Activation(function, tuple(_number(config, key, default) for key, default in keys))
        if name == "Softmax" and isinstance(config, dict):
            return Activation("softmax", axis=int(config.get("axis", -1)))
        if name == "Activation" and isinstance(config, dict):
            return self.activation(config.get("activation"))
        return self.activation(config if isinstance(config, str) else name)

    def default(self, class_name: str, key: str, *, noted: bool = True) -> Any:
        """The value of a key that the configuration of a layer lacks; None where the table knows nothing.

        A choice that depends on the version is `noted` among those the user is told of.
        """
        for entry in DEFAULTS:
            fits = entry.since <= (self.major, self.minor) < entry.until and entry.tf in (None, self.tf)
            if class_name in entry.classes and key == entry.key and fits:
                if noted and (entry.since, entry.until, entry.tf) != (_ALL, _END, None):
                    self.used[f"{class_name}.{key} is {entry.value!r}"] = entry.source
                return entry.value
        return None

    def filled(self, class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with the keys that the table knows for its class filled in."""
        base = class_name.removesuffix("Cell")
        known = {entry.key for entry in DEFAULTS if base in entry.classes and entry.key != MASKED_OUTPUT} - set(config)
        return {**config, **{key: self.default(base, key) for key in known}}


def dialect_of(version: str, *, backend: str = "", config: Mapping[str, Any] | None = None) -> KerasDialect:
    """The dialect of a version text such as `2.2.4-tf`; without one, of the configuration's own style."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers:
        major, minor = int(numbers[1]), int(numbers[2])
    else:
        major, minor = _style(config or {}), 0
    major = min(max(major, 1), 3)
    tf = "-tf" in version or (major, minor) >= (2, 4)
    return KerasDialect(version, major, minor, tf, theano=backend == "theano")


def _style(config: Mapping[str, Any]) -> int:
    """The major version whose habits a configuration shows."""
    text = repr(config)
    if "'output_dim'" in text and "'init'" in text and "'kernel_initializer'" not in text:
        return 1
    if "'registered_name'" in text and "'batch_input_shape'" not in text:
        return 3
    return 2 if config else 3


def _number(config: Mapping[str, Any], keys: str, default: float) -> float:
    for key in keys.split("|"):
        if config.get(key) is not None:
            return float(config[key])
    return default
