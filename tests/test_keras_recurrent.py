from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_oracle import assert_same, inputs_for, randomise, save

from normconvert.interpreter import run
from normconvert.interpreter.model import States
from normconvert.ir.layers import Bidirectional, Recurrent, Reverse
from normconvert.sources import read

pytestmark = pytest.mark.framework

PADDED = np.array([[4, 1, 3, 2, 0, 0, 0], [1, 2, 3, 4, 4, 3, 2], [3, 0, 0, 0, 0, 0, 0]])
SCATTERED = np.array([[0, 1, 3, 0, 0, 2, 0], [1, 0, 3, 0, 4, 0, 2], [0, 0, 0, 0, 0, 3, 1], [0, 0, 0, 0, 0, 0, 0]])
MASKS = {"post": PADDED, "pre": PADDED[:, ::-1].copy(), "scattered": SCATTERED}


@pytest.fixture(params=["keras", "tf_keras"], scope="module")
def keras(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def cases(layers: Any) -> dict[str, Any]:
    """Recurrent layers over a sequence of 3 features."""
    return {
        "simple": layers.SimpleRNN(5, activation="relu"),
        "lstm": layers.LSTM(5, recurrent_activation="hard_sigmoid", return_sequences=True),
        "lstm without bias": layers.LSTM(4, use_bias=False, activation="softsign"),
        "gru": layers.GRU(5, return_sequences=True),
        "gru before": layers.GRU(5, reset_after=False, recurrent_activation="hard_sigmoid"),
        "gru without bias": layers.GRU(5, use_bias=False),
        "backwards": layers.LSTM(4, go_backwards=True, return_sequences=True),
        "rnn of a cell": layers.RNN(layers.GRUCell(5), return_sequences=True),
        "stack": layers.RNN([layers.LSTMCell(5), layers.GRUCell(4), layers.SimpleRNNCell(6)], return_sequences=True),
        "stack backwards": layers.RNN(
            layers.StackedRNNCells([layers.GRUCell(5, reset_after=False), layers.LSTMCell(2)]), go_backwards=True
        ),
        "bidirectional stack": layers.Bidirectional(
            layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(4)], return_sequences=True)
        ),
        "time distributed dense": layers.TimeDistributed(layers.Dense(4, activation="softmax")),
        "time distributed norm": layers.TimeDistributed(layers.BatchNormalization()),
    }


CASES = list(cases(pytest.importorskip("keras").layers))


@pytest.mark.parametrize("case", CASES)
def test_recurrent_layers(keras: Any, case: str, tmp_path: Path) -> None:
    layer = cases(keras.layers)[case]
    model = keras.Sequential([keras.layers.Input((None, 3)), layer])
    assert_same(model, tmp_path)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("sequences", [True, False])
def test_both_directions(keras: Any, merge: str | None, sequences: bool, tmp_path: Path) -> None:
    layers = keras.layers
    source = layers.Input((None, 3))
    layer = layers.Bidirectional(layers.LSTM(4, return_sequences=sequences), merge_mode=merge)
    read_model = assert_same(keras.Model(source, layer(source)), tmp_path)
    assert any(isinstance(found, Bidirectional) for found in read_model.layers.values())


def test_a_backward_layer_of_its_own(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    layer = layers.Bidirectional(
        layers.LSTM(4, return_sequences=True),
        backward_layer=layers.LSTM(4, activation="relu", use_bias=False, return_sequences=True, go_backwards=True),
    )
    assert_same(keras.Sequential([layers.Input((None, 3)), layer]), tmp_path)


def test_directions_swapped(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    layer = layers.Bidirectional(
        layers.GRU(4, return_sequences=True, go_backwards=True),
        backward_layer=layers.GRU(4, return_sequences=True),
    )
    assert_same(keras.Sequential([layers.Input((None, 3)), layer]), tmp_path)


@pytest.mark.parametrize("kind", list(MASKS))
@pytest.mark.parametrize(
    "case",
    [
        "simple", "lstm", "gru", "gru before", "backwards", "stack", "stack backwards", "bidirectional stack",
        "time distributed norm",
    ],
)  # fmt: skip
def test_masked_recurrent_layers(keras: Any, case: str, kind: str, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Input((None,)), layers.Embedding(5, 3, mask_zero=True), cases(layers)[case]])
    assert_same(model, tmp_path, forms=[".keras"], arrays=[MASKS[kind]])


@pytest.mark.parametrize("kind", list(MASKS))
def test_masks_travel(keras: Any, kind: str, tmp_path: Path) -> None:
    """Through dropout, norms, dense layers, both directions and a merge, to an average over the real steps."""
    layers = keras.layers
    source = layers.Input((None,))
    x = layers.Embedding(5, 4, mask_zero=True)(source)
    x = layers.BatchNormalization()(layers.Dropout(0.3)(x))
    ahead = layers.LSTM(3, return_sequences=True)(x)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum")(x)
    x = layers.Concatenate()([layers.Add()([x, ahead]), layers.LayerNormalization()(ahead)])
    model = keras.Model(source, [layers.GlobalAveragePooling1D()(x), layers.GRU(2)(x)])
    assert_same(model, tmp_path, forms=[".h5"], arrays=[MASKS[kind][:3]])


def test_a_merge_of_different_masks(keras: Any, tmp_path: Path) -> None:
    """Keras 2 takes the `and` of the masks, Keras 3 the `or`."""
    layers = keras.layers
    a, b = layers.Input((7,)), layers.Input((7,))
    x, y = layers.Embedding(5, 4, mask_zero=True)(a), layers.Embedding(5, 4, mask_zero=True)(b)
    both = [layers.Add()([x, y]), layers.Concatenate()([x, y])]
    model = keras.Model([a, b], [layers.LSTM(3)(value) for value in both])
    assert_same(model, tmp_path, forms=[".keras"], arrays=[PADDED, SCATTERED[:3]])


def test_masking_by_value(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((None, 3)),
            layers.Masking(-1.0),
            layers.BatchNormalization(),
            layers.GRU(4, return_sequences=True),
        ]
    )
    x = np.random.default_rng(2).normal(size=(3, 7, 3)).astype(np.float32)
    x[PADDED == 0] = -1.0
    x[1, 2, 1] = -1.0  # one feature alone does not mask a step
    assert_same(model, tmp_path, arrays=[x])


def test_states_in_and_out(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    source, target = layers.Input((None, 3)), layers.Input((None, 2))
    _, h, c = layers.LSTM(4, return_state=True)(source)
    outputs, *last = layers.LSTM(4, return_sequences=True, return_state=True)(target, initial_state=[h, c])
    both = layers.Bidirectional(layers.GRU(3, return_state=True))(source)
    model = keras.Model([source, target], [outputs, *last, *both])
    x, y = (np.random.default_rng(4).normal(size=(2, time, 3)).astype(np.float32) for time in (5, 8))
    assert_same(model, tmp_path, arrays=[x, y[..., :2]])


@pytest.mark.parametrize("sequences", [True, False])
def test_recurrent_convolutions(keras: Any, sequences: bool, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((None, 5, 6, 2)),
            layers.ConvLSTM2D(3, (2, 3), padding="same", strides=(1, 2), return_sequences=True),
            layers.BatchNormalization(),
            layers.ConvLSTM2D(2, 2, activation="relu", return_sequences=sequences, go_backwards=True),
        ]
    )
    assert_same(model, tmp_path)


def test_recurrent_convolution_of_rows(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Input((None, 9, 2)), layers.ConvLSTM1D(3, 2, dilation_rate=2, use_bias=False)])
    assert_same(model, tmp_path)


def test_layers_at_every_step(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    inner = keras.Sequential([layers.Input((6, 2)), layers.Conv1D(3, 2), layers.GRU(4)], name="inner")
    model = keras.Sequential(
        [
            layers.Input((None, 6, 2)),
            layers.TimeDistributed(layers.Conv1D(2, 2, padding="same")),
            layers.TimeDistributed(inner),
            layers.TimeDistributed(layers.LayerNormalization()),
            layers.LSTM(3),
        ]
    )
    assert_same(model, tmp_path)


def test_a_stateful_model(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    source = layers.Input(batch_shape=(2, 4, 3))
    model = keras.Model(source, layers.LSTM(5, stateful=True, return_sequences=True)(source))
    randomise(model)
    x = np.random.default_rng(1).normal(size=(2, 8, 3)).astype(np.float32)
    for form in (".keras", ".h5"):
        path, _ = save(model, tmp_path, form)
        ours = read(path).model
        assert ours.inputs[0].batch == 2
        for layer in model.layers:
            if hasattr(layer, "reset_states"):
                layer.reset_states()
            elif hasattr(layer, "reset_state"):
                layer.reset_state()
        wanted = [np.asarray(model(chunk)) for chunk in (x[:, :4], x[:, 4:])]
        carried = States()
        name = ours.inputs[0].name
        found = [next(iter(run(ours, {name: c}, states=carried).values())) for c in (x[:, :4], x[:, 4:])]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_training_settings_are_kept(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Input((None, 3)), layers.LSTM(4, dropout=0.3, recurrent_dropout=0.2, name="rnn")])
    layer = assert_same(model, tmp_path).layers["rnn"]
    assert isinstance(layer, Recurrent)
    assert (layer.dropout, layer.recurrent_dropout, layer.kind) == (0.3, 0.2, "LSTM")


def test_backwards_alone_is_a_reversal_and_a_forward_layer(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Input((None, 3)), layers.GRU(4, go_backwards=True, name="rnn")])
    found = assert_same(model, tmp_path).layers
    assert isinstance(found["rnn/reversed"], Reverse)
    layer = found["rnn"]
    assert isinstance(layer, Recurrent)
    assert not layer.reverse


def test_cudnn_layers(tmp_path: Path) -> None:
    """The arrays of CuDNN layers, from those of plain layers by the formula that Keras 2 loads them with."""
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    model = randomise(
        tf_keras.Sequential([layers.Input((None, 3)), layers.LSTM(4, return_sequences=True), layers.GRU(5)])
    )
    path = as_cudnn(model, tmp_path / "cudnn.h5")
    ours = read(path).model
    fed = inputs_for(ours)
    found = next(iter(run(ours, fed).values()))
    np.testing.assert_allclose(found, np.asarray(model(next(iter(fed.values())))), rtol=0, atol=1e-6)


def as_cudnn(model: Any, path: Path) -> Path:
    """Save the model, then rewrite the file as if its layers were CuDNNLSTM and CuDNNGRU."""
    import json

    import h5py

    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for entry in config["config"]["layers"]:
            gates = {"LSTM": 4, "GRU": 3}.get(entry["class_name"])
            if gates is None:
                continue
            entry["class_name"] = "CuDNN" + entry["class_name"]
            for key in ("activation", "recurrent_activation", "reset_after", "use_bias", "implementation"):
                entry["config"].pop(key, None)
            name = entry["config"]["name"]
            group = file[f"model_weights/{name}/{name}"]
            arrays = next(iter(group.values()))
            kernel, recurrent, bias = (arrays[f"{n}:0"] for n in ("kernel", "recurrent_kernel", "bias"))
            # What Keras 2 does to load plain weights into a CuDNN layer, keras/saving/legacy/hdf5_format.py.
            kernel[...] = np.hstack([k.T.reshape(k.shape) for k in np.hsplit(kernel[...], gates)])
            recurrent[...] = np.hstack([k.T for k in np.hsplit(recurrent[...], gates)])
            biases = bias[...].reshape(-1) if bias.ndim == 2 else np.tile(0.5 * bias[...], 2)
            del arrays["bias:0"]
            arrays["bias:0"] = biases
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_cudnn_layers_in_both_forms(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")
    from tf_keras.src.layers.rnn.cudnn_gru import CuDNNGRU
    from tf_keras.src.layers.rnn.cudnn_lstm import CuDNNLSTM

    chain = [keras.layers.Input((None, 3)), CuDNNLSTM(5, return_sequences=True, name="a"), CuDNNGRU(4, name="b")]
    model = randomise(keras.Sequential(chain))
    model.save(tmp_path / "model.h5")
    model.save(tmp_path / "model.keras")
    legacy, tree = (read(tmp_path / f"model{form}").model for form in (".h5", ".keras"))
    assert legacy.weights.keys() == tree.weights.keys()
    for name, array in legacy.weights.items():
        np.testing.assert_array_equal(tree.weights[name], array)
