"""Run as a script: what Keras's recurrent layers give for masks, directions, states and chunks.

Steps with masks round to single precision.

Writes one `.npz`: for every case `<case>/<array>`. Keras runs on PyTorch here, which starts faster than TensorFlow.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

BATCH, TIME, INPUTS, UNITS = 4, 6, 3, 5
MASKS = {
    "right": [[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]],
    "left": [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]],
    "holes": [[1, 0, 1, 0, 0, 1], [0, 1, 0, 1, 1, 0], [1, 1, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0]],
}
KINDS = {"LSTM": "lstm", "GRU": "gru_reset_after", "SimpleRNN": "simple_rnn"}
MERGES = ("concat", "sum", "mul", "ave", None)


def single_cases() -> list[tuple[str, str, str | None, dict[str, Any]]]:
    """Name, layer class, mask, options."""
    cases = []
    for kind in KINDS:
        for mask in (None, *MASKS):
            for backwards in (False, True):
                options = {"go_backwards": backwards, "return_sequences": True, "return_state": True}
                cases.append((f"{kind}-{mask}-{backwards}", kind, mask, options))
    for mask in MASKS:
        for zero in (False, True):
            for sequences in (False, True):
                options = {"zero_output_for_mask": zero, "return_sequences": sequences, "return_state": True}
                cases.append((f"zero-{mask}-{zero}-{sequences}", "LSTM", mask, options))
    return cases


def main(path: str) -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.config.set_floatx("float64")
    rng = np.random.default_rng(1)
    arrays: dict[str, Any] = {}

    def array(value: Any) -> Any:
        return keras.ops.convert_to_numpy(value)

    def randomise(layer: Any) -> list[Any]:
        weights = [rng.normal(0, 0.6, weight.shape) for weight in layer.weights]
        layer.set_weights(weights)
        return weights

    def record(case: str, **values: Any) -> None:
        for name, value in values.items():
            many = value if isinstance(value, list | tuple) else [value]
            arrays.update({f"{case}/{name}/{n}": array(v) for n, v in enumerate(many)})

    for case, kind, mask, options in single_cases():
        layer = getattr(keras.layers, kind)(UNITS, **options)
        layer.build((BATCH, TIME, INPUTS))
        weights, x = randomise(layer), rng.normal(size=(BATCH, TIME, INPUTS))
        states = [rng.normal(size=(BATCH, UNITS)) for _ in range(2 if kind == "LSTM" else 1)]
        given = None if mask is None else np.array(MASKS[mask], bool)
        output, *final = layer(x, mask=given, initial_state=states)
        record(case, weights=weights, x=x, states=states, output=output, final=final)

    for merge in MERGES:
        for mask in (None, "right", "holes"):
            for sequences in (False, True):
                inner = keras.layers.LSTM(UNITS, return_sequences=sequences)
                layer = keras.layers.Bidirectional(inner, merge_mode=merge)
                layer.build((BATCH, TIME, INPUTS))
                weights, x = randomise(layer), rng.normal(size=(BATCH, TIME, INPUTS))
                output = layer(x, mask=None if mask is None else np.array(MASKS[mask], bool))
                record(f"both-{merge}-{mask}-{sequences}", weights=weights, x=x, output=output)

    for name, wrap in (("one", lambda inner: inner), ("two", keras.layers.Bidirectional)):
        layer = wrap(keras.layers.LSTM(UNITS, return_sequences=True, stateful=True))
        layer.build((BATCH, TIME, INPUTS))
        weights = randomise(layer)
        chunks = [rng.normal(size=(BATCH, TIME, INPUTS)) for _ in range(3)]
        record(f"stateful-{name}", weights=weights, x=chunks, output=[array(layer(chunk)) for chunk in chunks])

    np.savez(path, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
