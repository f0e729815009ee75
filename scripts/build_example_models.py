"""Builds the models that people ask about when they move a normalised recurrent network, with real Keras.

    python scripts/build_example_models.py OUT_DIR [--models conv_lstm_bn ln_gru] [--keras keras2 keras3]

Every model is built by Keras 2 (the package tf_keras) and by Keras 3, and saved as legacy `.h5` and as `.keras`.
Weights and running statistics are random and nowhere neutral, from fixed seeds, scaled so that no activation
saturates or explodes. Beside each pair of files lies `<model>-<keras>.npz`: an input `x`, the answer
`y` of that Keras in float32, and its answer `exact` in float64. How far the two are apart is its own rounding.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

FRAMEWORKS = {"keras2": "tf_keras", "keras3": "keras"}
FORMATS = ("h5", "keras")


@dataclass(frozen=True)
class Example:
    """One of the models.

    Attributes:
        build: makes the model with the given Keras.
        sample: shape of the recorded input, batch axis included.
        seed: chosen so that no output is cut off by a relu.
        recurrent_scale: spectral size of the recurrent kernels; small where an activation has no upper end.
    """

    build: Callable[[Any], Any]
    sample: tuple[int, ...]
    seed: int
    recurrent_scale: float = 0.8


@dataclass(frozen=True)
class Built:
    """What was written for one model and one Keras.

    Attributes:
        example: key into `EXAMPLES`.
        framework: `keras2` or `keras3`.
        files: the model in each format.
        x, y: an input and the answer of that Keras, float32.
        exact: its answer in float64.
    """

    example: str
    framework: str
    files: tuple[Path, ...]
    x: Array
    y: Array
    exact: Array


def conv_lstm_bn(keras: Any) -> Any:
    """(a) A causal convolution before an LSTM, a normalisation after it."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((None, 4)),
            layers.Conv1D(10, 3, padding="causal", activation="relu"),
            layers.LSTM(15),
            layers.BatchNormalization(),
            layers.Dense(1, activation="relu"),
        ]
    )


def squeeze_excite(keras: Any) -> Any:
    """(b) A normalisation without scale, self-normalising units, and channels weighed by their own means."""
    layers = keras.layers
    x = layers.Input((21, 3))
    y = layers.Conv1D(12, 5, use_bias=False)(x)
    y = layers.BatchNormalization(scale=False)(y)
    y = layers.Activation("selu")(y)
    y = layers.AlphaDropout(0.1)(y)
    weight = layers.GlobalAveragePooling1D()(y)
    weight = layers.Reshape((1, 12))(weight)
    weight = layers.Dense(4, activation="relu")(weight)
    weight = layers.Dense(12, activation="sigmoid")(weight)
    y = layers.Multiply()([y, weight])
    y = layers.LSTM(16, recurrent_dropout=0.2)(y)
    return keras.Model(x, layers.Dense(2)(y))


def lstm_512(keras: Any) -> Any:
    """(c) Two wide LSTMs: 3,156,481 parameters."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((1, 3)),
            layers.LSTM(512, return_sequences=True),
            layers.Dropout(0.3),
            layers.LSTM(512),
            layers.Dropout(0.3),
            layers.Dense(1),
        ]
    )


def lstm_512_bn(keras: Any) -> Any:
    """(d) The same, normalised before each LSTM and before the Dense: 3,160,589, of which 2,054 not trainable."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((1, 3)),
            layers.BatchNormalization(),
            layers.LSTM(512, return_sequences=True),
            layers.Dropout(0.3),
            layers.BatchNormalization(),
            layers.LSTM(512),
            layers.Dropout(0.3),
            layers.BatchNormalization(),
            layers.Dense(1),
        ]
    )


def relu_lstm_bn(keras: Any) -> Any:
    """(e) LSTMs with relu, each followed by a normalisation that neither scales nor shifts."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((11, 5)),
            layers.LSTM(14, activation="relu", return_sequences=True),
            layers.BatchNormalization(scale=False, center=False),
            layers.LSTM(9, activation="relu"),
            layers.BatchNormalization(scale=False, center=False),
            layers.Dense(2),
        ]
    )


def ln_gru(keras: Any) -> Any:
    """(f) A cell of the user's own: a GRU with layer normalisation of both projections."""
    layers = keras.layers
    cell = layer_norm_gru_cell(keras)
    return keras.Sequential(
        [
            layers.Input((None, 5)),
            layers.RNN(cell(13), return_sequences=True),
            layers.RNN(cell(7, epsilon=2e-3)),
            layers.Dense(2),
        ]
    )


def layer_norm_gru_cell(keras: Any) -> Any:
    """The class `LayerNormGRUCell(units, epsilon=1e-3)` for the given Keras."""
    # Keras 2 stores a weight under the name it had when built; Keras 3 under the path of layers that own it.
    name_scope = keras.backend.name_scope if keras.__name__ == "tf_keras" else contextlib.nullcontext

    class LayerNormGRUCell(keras.layers.Layer):  # type: ignore[misc]
        """z, r, h in this order; the reset gate is applied to the candidate's recurrent part."""

        def __init__(self, units: int, epsilon: float = 1e-3, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = units
            self.epsilon = epsilon
            self.state_size = units
            self.output_size = units
            self.input_norm = keras.layers.LayerNormalization(epsilon=epsilon, name="input_norm")
            self.recurrent_norm = keras.layers.LayerNormalization(epsilon=epsilon, name="recurrent_norm")

        def build(self, input_shape: tuple[int | None, ...]) -> None:
            size = 3 * self.units
            self.kernel = self.add_weight(shape=(input_shape[-1], size), name="kernel")
            self.recurrent_kernel = self.add_weight(shape=(self.units, size), name="recurrent_kernel")
            self.bias = self.add_weight(shape=(size,), name="bias")
            for norm in (self.input_norm, self.recurrent_norm):
                with name_scope(norm.name):
                    norm.build((None, size))
            self.built = True

        def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
            h = states[0] if isinstance(states, (list, tuple)) else states
            n = self.units
            x = self.input_norm(inputs @ self.kernel) + self.bias
            u = self.recurrent_norm(h @ self.recurrent_kernel)
            sigmoid, tanh = keras.activations.sigmoid, keras.activations.tanh
            z = sigmoid(x[:, :n] + u[:, :n])
            r = sigmoid(x[:, n : 2 * n] + u[:, n : 2 * n])
            candidate = tanh(x[:, 2 * n :] + r * u[:, 2 * n :])
            h = z * h + (1 - z) * candidate
            return h, [h]

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "units": self.units, "epsilon": self.epsilon}

    return LayerNormGRUCell


EXAMPLES = {
    "conv_lstm_bn": Example(conv_lstm_bn, (5, 12, 4), seed=2),
    "squeeze_excite": Example(squeeze_excite, (4, 21, 3), seed=2),
    "lstm_512": Example(lstm_512, (5, 1, 3), seed=3),
    "lstm_512_bn": Example(lstm_512_bn, (5, 1, 3), seed=4),
    "relu_lstm_bn": Example(relu_lstm_bn, (4, 11, 5), seed=5, recurrent_scale=0.4),
    "ln_gru": Example(ln_gru, (3, 8, 5), seed=6),
}


def random_weight(role: str, shape: tuple[int, ...], recurrent_scale: float, rng: np.random.Generator) -> Array:
    """A value for a weight that is far from its neutral one; `role` is Keras's name for it."""
    if role in ("gamma", "moving_variance"):
        value = rng.uniform(0.4, 1.9, shape)
    elif role in ("beta", "moving_mean", "bias"):
        value = rng.normal(0.1, 0.4, shape)
    elif role == "recurrent_kernel":
        value = rng.normal(0, recurrent_scale / np.sqrt(shape[0]), shape)
    else:
        value = rng.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape)
    return np.asarray(value, np.float32)


def random_weights(model: Any, recurrent_scale: float, rng: np.random.Generator) -> list[Array]:
    """Values for every weight of a Keras model, in its order."""
    roles = [variable.name.split("/")[-1].split(":")[0] for variable in model.weights]
    shapes = [tuple(variable.shape) for variable in model.weights]
    return [random_weight(role, shape, recurrent_scale, rng) for role, shape in zip(roles, shapes, strict=True)]


def run_in_float64(keras: Any, example: Example, weights: list[Array], x: Array) -> Array:
    """The model's answer when Keras computes in float64."""
    _compute_in(keras, "float64")
    try:
        model = example.build(keras)
        model.set_weights(weights)
        return np.asarray(model(x.astype(np.float64), training=False))
    finally:
        _compute_in(keras, "float32")


def _compute_in(keras: Any, precision: str) -> None:
    keras.backend.set_floatx(precision)
    keras.mixed_precision.set_global_policy(precision)


def build(out_dir: Path, examples: Iterable[str] = EXAMPLES, frameworks: Iterable[str] = FRAMEWORKS) -> list[Built]:
    """Writes the models and their recorded answers to `out_dir`, as `<model>-<keras>.{h5,keras,npz}`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    out_dir.mkdir(parents=True, exist_ok=True)
    return [_build_one(out_dir, name, framework) for framework in frameworks for name in examples]


def _build_one(out_dir: Path, name: str, framework: str) -> Built:
    example = EXAMPLES[name]
    keras = importlib.import_module(FRAMEWORKS[framework])
    keras.backend.clear_session()
    rng = np.random.default_rng([example.seed, *framework.encode()])
    model = example.build(keras)
    weights = random_weights(model, example.recurrent_scale, rng)
    model.set_weights(weights)
    x = rng.normal(0, 1, example.sample).astype(np.float32)
    y = np.asarray(model(x, training=False))
    if np.unique(y).size < y.size or np.abs(y).max() > 10:
        raise RuntimeError(f"{name}: seed {example.seed} gives outputs {y.min()} to {y.max()}, no use for a comparison")
    exact = run_in_float64(keras, example, weights, x)
    stem = f"{name}-{framework}"
    files = tuple(out_dir / f"{stem}.{suffix}" for suffix in FORMATS)
    for file in files:
        model.save(file)
    np.savez(out_dir / f"{stem}.npz", x=x, y=y, exact=exact)
    return Built(name, framework, files, x, y, exact)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--models", nargs="+", choices=EXAMPLES, default=list(EXAMPLES))
    parser.add_argument("--keras", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    options = parser.parse_args(arguments)
    for built in build(options.out_dir, options.models, options.keras):
        spread = f"outputs {built.y.min():.3f} to {built.y.max():.3f}"
        for file in built.files:
            print(f"{file}  {file.stat().st_size:,} bytes  {spread}")


if __name__ == "__main__":
    main(sys.argv[1:])
