"""The source run by Keras itself: what it shows of the layers, in graphs whose layers are not applied just once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_oracle import randomise

from normconvert.runtimes.keras_source import KerasSource
from normconvert.sources import read
from normconvert.validation.inputs import make_cases
from normconvert.validation.layers import compare_layers, first_difference


def _shared_layers(keras: Any) -> Any:
    """Integer inputs, an embedding applied twice, and a model used as a layer."""
    layers = keras.layers
    first, second = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    embedding = layers.Embedding(11, 4)
    inner = keras.Input((None, 4))
    encoder = keras.Model(inner, layers.LSTM(5)(layers.LayerNormalization()(inner)), name="encoder")
    difference = layers.Subtract()([encoder(embedding(first)), encoder(embedding(second))])
    return keras.Model([first, second], layers.Dense(3, activation="tanh")(difference))


def _stateful(keras: Any) -> Any:
    """A sequence of layers, some of which carry their states from call to call."""
    layers = keras.layers
    first = layers.LSTM(5, stateful=True, return_sequences=True)
    inputs = keras.Input(batch_shape=(3, None, 2))
    return keras.Sequential([inputs, first, layers.LayerNormalization(), layers.GRU(4, stateful=True), layers.Dense(2)])


@pytest.mark.framework
@pytest.mark.parametrize(
    ("package", "build", "shown"),
    [
        ("keras", _shared_layers, {"subtract", "dense"}),
        ("tf_keras", _shared_layers, {"subtract", "dense"}),
        ("keras", _stateful, {"lstm", "layer_normalization", "gru", "dense"}),
    ],
)
def test_layers_of_the_source_are_those_of_its_graph(package: str, build: Any, shown: set[str], tmp_path: Path) -> None:
    keras = pytest.importorskip(package)
    keras.backend.clear_session()
    path = tmp_path / "model.keras"
    randomise(build(keras)).save(path)
    model = read(path).model
    cases = make_cases(model)
    source = KerasSource(path, package, tuple(declared.name for declared in model.inputs))
    outputs = source.run(cases, "float32")
    assert all(np.isfinite(array).all() for case in outputs for chunk in case for array in chunk)
    results = compare_layers(model, source, cases, "float32")
    assert {result.name for result in results} >= shown
    assert first_difference(results) is None
