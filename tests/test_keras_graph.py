from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_oracle import FORMS, assert_same

from normconvert.errors import Unsupported
from normconvert.sources import Reading, plan, read

pytestmark = pytest.mark.framework


@pytest.fixture(params=["keras", "tf_keras"], scope="module")
def keras(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def test_a_chain_of_layers(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((None, 5)),
            layers.Conv1D(6, 3, padding="causal", activation="relu"),
            layers.BatchNormalization(scale=False),
            layers.Dropout(0.2),
            layers.LSTM(4),
            layers.BatchNormalization(epsilon=0.02),
            layers.Dense(2, activation="tanh", use_bias=False),
        ]
    )
    assert_same(model, tmp_path)


def test_several_inputs_and_outputs(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    left, right = layers.Input((6,), name="left"), layers.Input((4, 3), name="right")
    summary = layers.GRU(6)(right)
    joined = layers.Concatenate()([left, summary])
    total = layers.Add()([left, summary])
    model = keras.Model([left, right], [layers.Dense(2)(joined), layers.Multiply()([total, left])])
    read = assert_same(model, tmp_path)
    assert [declared.name for declared in read.inputs] == ["left", "right"]


def test_a_shared_layer_is_one_layer_and_two_nodes(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    a, b = layers.Input((4, 3)), layers.Input((7, 3))
    encoder = layers.LSTM(5, name="encoder")
    model = keras.Model([a, b], layers.Subtract()([encoder(a), encoder(b)]))
    read = assert_same(model, tmp_path)
    assert [node.layer for node in read.nodes].count("encoder") == 2
    assert len(read.layers) == 2


def test_models_inside_models(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    inside = layers.Input((6,))
    branch = keras.Model(
        inside, layers.BatchNormalization(name="norm")(layers.Dense(3, name="dense")(inside)), name="branch"
    )
    deep = keras.Sequential([layers.Input((2,)), layers.Dense(2, activation="relu"), layers.Dense(2)], name="deep")
    chain = keras.Sequential([layers.Input((6,)), layers.Dense(2), deep], name="chain")
    p, q = layers.Input((6,)), layers.Input((6,))
    model = keras.Model([p, q], layers.Concatenate()([branch(p), branch(q), chain(p)]))
    read = assert_same(model, tmp_path)
    assert "branch/norm" in read.layers


def test_two_nested_models_with_equal_inner_names(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers

    def tower(name: str) -> Any:
        return keras.Sequential(
            [layers.Input((3,)), layers.BatchNormalization(name="norm"), layers.Dense(3, name="dense")], name=name
        )

    model = keras.Sequential([layers.Input((3,)), keras.Sequential([layers.Input((3,)), tower("one"), tower("two")])])
    # tf_keras cannot write such a model into an .h5 file: both arrays would have one name there.
    assert_same(model, tmp_path, forms=FORMS if keras.__name__ == "keras" else (".keras", ".weights.h5"))


def test_every_nested_output_may_be_read(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    inside = layers.Input((5,))
    split = keras.Model(inside, [layers.Dense(3)(inside), layers.Dense(2)(inside)])
    source = layers.Input((5,))
    first, second = split(source)
    model = keras.Model(source, [second, layers.Dense(4)(first)])
    assert_same(model, tmp_path)


def test_attention_by_keywords(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    query, value = layers.Input((4, 5)), layers.Input((6, 5))
    model = keras.Model(
        [query, value],
        [
            layers.MultiHeadAttention(2, 3)(query, value=value),
            layers.Attention(use_scale=True)([query, value], use_causal_mask=True),
            layers.AdditiveAttention()([query, value]),
        ],
    )
    assert_same(model, tmp_path)


def test_frozen_layers_stay_frozen(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, name="frozen"), layers.Dense(2, name="free")])
    model.layers[0].trainable = False
    read = assert_same(model, tmp_path)
    assert not read.layers["frozen"].trainable
    assert read.layers["free"].trainable


def test_frozen_layers_in_nested_models_keep_their_arrays(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    inner = keras.Sequential([layers.Input((3,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(3)])
    inner.layers[0].trainable = False
    inner.layers[1].trainable = False
    assert_same(keras.Sequential([layers.Input((3,)), inner, layers.Dense(2)]), tmp_path)


def test_arithmetic_between_layers(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    source = layers.Input((4, 5))
    x, y = layers.Dense(3)(source), layers.Dense(3)(source)
    model = keras.Model(source, [layers.LSTM(2)(x + y), 2.0 * x - 1.0, 3.0 - y, -x, x * y, y / 4.0])
    assert_same(model, tmp_path)


def test_a_mask_ends_at_arithmetic(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    source = layers.Input((6,))
    x = layers.Embedding(5, 3, mask_zero=True)(source)
    model = keras.Model(source, [layers.LSTM(2)(x + x), layers.LSTM(2)(layers.Add()([x, x]))])
    padded = np.array([[1, 2, 0, 0, 3, 0], [4, 0, 0, 2, 1, 1]])
    assert_same(model, tmp_path, forms=[".keras", ".h5"], arrays=[padded])


def test_recipes_of_graphs(keras: Any, tmp_path: Path) -> None:
    """Calls, states, nested models and arithmetic survive the way through a recipe."""
    layers = keras.layers
    source = layers.Input((4, 3), name="source")
    inner = keras.Sequential([layers.Input((4, 3)), layers.Dense(5), layers.LayerNormalization()], name="inner")
    encoder = layers.LSTM(5, return_state=True, name="encoder")
    _, h, c = encoder(inner(source))
    decoded = layers.LSTM(5, name="decoder")(inner(source * 0.5), initial_state=[h, c])
    model = keras.Model(source, [decoded, encoder(inner(source))[0]])
    first = assert_same(model, tmp_path, forms=[".keras"])
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(plan(tmp_path / "model.keras").recipe)
    again = read(tmp_path / "model.keras", Reading(recipe=recipe)).model
    assert dict(again.layers) == dict(first.layers)
    assert (again.inputs, again.outputs, sorted(map(str, again.nodes))) == (
        first.inputs, first.outputs, sorted(map(str, first.nodes)),
    )  # fmt: skip


def test_operations_on_axes(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    tf = pytest.importorskip("tensorflow") if keras.__name__ == "tf_keras" else None
    given = layers.Input((7, 3))
    x = layers.GRU(4, return_sequences=True)(given)
    if tf is not None:
        made = [
            tf.expand_dims(x, 1), tf.squeeze(tf.expand_dims(x, 2), 2), tf.reshape(x, (-1, 28)), tf.nn.leaky_relu(x),
            tf.concat([x, 2.0 * x], axis=-1), tf.stack([x, -x], axis=1), tf.transpose(x, (0, 2, 1)), tf.nn.gelu(x),
            tf.reduce_mean(x, axis=1), tf.reduce_max(x, axis=-1, keepdims=True), tf.reduce_sum(x, axis=[1, 2]),
            tf.nn.softmax(x, axis=1), tf.math.reduce_std(x, axis=1), tf.matmul(x, x, transpose_b=True), x**2,
            x / (tf.exp(x) + 1.0), tf.maximum(x, 0.1), tf.clip_by_value(x, -0.2, 0.3), 1.0 / (x + 3.0),
        ]  # fmt: skip
    else:
        ops = keras.ops
        made = [
            ops.expand_dims(x, 1), ops.squeeze(ops.expand_dims(x, 2), 2), ops.reshape(x, (-1, 28)), ops.leaky_relu(x),
            ops.concatenate([x, 2.0 * x], axis=-1), ops.stack([x, -x], axis=1), ops.transpose(x, (0, 2, 1)),
            ops.gelu(x), ops.mean(x, axis=1), ops.max(x, axis=-1, keepdims=True), ops.sum(x, axis=[1, 2]),
            ops.softmax(x, axis=1), ops.std(x, axis=1), ops.var(x, axis=[1, 2]), ops.matmul(x, ops.swapaxes(x, 1, 2)),
            x**2, x / (ops.exp(x) + 1.0), ops.maximum(x, 0.1), ops.clip(x, -0.2, 0.3), 1.0 / (x + 3.0),
        ]  # fmt: skip
    assert_same(keras.Model(given, made), tmp_path)


def test_slices(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    given = layers.Input((None, 3))
    x = layers.LSTM(5, return_sequences=True)(given)
    made = [x[:, -1], x[:, 0, :], x[:, 2:, :], x[:, :, 1:4], x[..., :2], x[:, -3:], x[:, ::-1], x[:, -2, 1:]]
    forms = FORMS if keras.__name__ == "keras" else (".h5",)  # tf_keras cannot write `...` as JSON
    read_model = assert_same(keras.Model(given, made), tmp_path, forms=forms)
    text = plan(tmp_path / "model.h5").recipe
    (tmp_path / "model.toml").write_text(text)
    again = read(tmp_path / "model.h5", Reading(recipe=tmp_path / "model.toml")).model
    assert [again.layers[node.layer] for node in again.nodes] == [read_model.layers[n.layer] for n in read_model.nodes]


@pytest.mark.parametrize("cut", ["batch", "step", "new axis"])
def test_slices_that_are_refused(keras: Any, cut: str, tmp_path: Path) -> None:
    given = keras.layers.Input((6, 3))
    x = keras.layers.LSTM(5, return_sequences=True)(given)
    made = {"batch": lambda: x[1:, :], "step": lambda: x[:, ::2], "new axis": lambda: x[:, None]}[cut]()
    path = tmp_path / "model.h5"
    keras.Model(given, made).save(path)
    with pytest.raises(Unsupported, match="getitem"):
        read(path)


def test_values_joined_with_an_unmasked_value(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    words = layers.Input((None,), dtype="int32")
    x = layers.Embedding(5, 4, mask_zero=True)(words)
    free = layers.Conv1D(4, 3, padding="same")(x)
    joined = layers.Concatenate()([free, layers.LSTM(4, return_sequences=True)(x)])
    assert_same(keras.Model(words, layers.GRU(3)(joined)), tmp_path)


def test_renamed_layers_are_matched_by_order(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")

    def model(*names: str) -> Any:
        a, b, c = names
        layers = keras.layers
        chain = [layers.Input((None, 3)), layers.LSTM(4, name=a), layers.Dropout(0.1), layers.Dense(4, name=b)]
        return keras.Sequential([*chain, layers.Dense(2, name=c)])

    written, described = model("lstm_1", "dense_1", "dense_2"), model("lstm_7", "dense_2", "dense_3")
    written.save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(described.to_json())
    found = read(tmp_path / "weights.h5", Reading(config=tmp_path / "model.json")).model
    for name, stored in zip(("dense_2", "dense_3"), written.layers[-2:], strict=True):
        np.testing.assert_array_equal(found.weights[f"{name}.kernel"], stored.kernel.numpy())
    assert any("matched by order" in note for note in found.provenance.notes)


@pytest.mark.parametrize("kind", ["Multiply", "Maximum", "Minimum"])
def test_merges_that_skip_masked_steps_are_refused(kind: str, tmp_path: Path) -> None:
    """Keras itself shows why: a step that the mask of one input hides has the value of the other."""
    keras = pytest.importorskip("keras")
    x, y = keras.Input((None, 2), name="x"), keras.Input((None, 2), name="y")
    merged = getattr(keras.layers, kind)()([keras.layers.Masking(-1.5)(x), y])
    model = keras.Model([x, y], merged)
    hidden, other = np.full((1, 1, 2), -1.5, np.float32), np.array([[[3.0, -4.0]]], np.float32)
    np.testing.assert_array_equal(np.array(model([hidden, other])), other)
    path = tmp_path / "merged.keras"
    model.save(path)
    with pytest.raises(Unsupported, match=f"{kind} of Keras 3.4 and later"):
        read(path)
    plain = keras.Model([x, y], keras.layers.Masking(-1.5)(x) * y)
    plain.save(path)
    assert [layer.kind for layer in read(path).model.layers.values()][-1] == "multiply"
