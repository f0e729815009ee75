"""Every layer without recurrence against Keras 3 and tf_keras: the builder, the interpreter and the shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from keras_cases import CASES, Case, random_inputs, random_weights, weight_names

from normconvert.errors import CorruptFile, Unsupported
from normconvert.interpreter.layers import evaluate
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.ir.shapes import infer
from normconvert.sources.keras.building import Part
from normconvert.sources.keras.plain import PLAIN
from normconvert.sources.keras.versions import dialect_of

pytestmark = pytest.mark.framework

DIALECTS = {"keras": dialect_of("3.15.1"), "tf_keras": dialect_of("2.21.0-tf")}


class ListedWeights:
    """Arrays handed out in order, each checked against the name Keras gives it."""

    def __init__(self, arrays: Sequence[tuple[str, Array]]) -> None:
        self.arrays = list(arrays)

    def take(self, *roles: str) -> dict[str, Array]:
        taken = {}
        for role in roles:
            name, array = self.arrays.pop(0)
            wanted = role.replace("output.", "attention_output.").split(".")
            found = name.split("/")[-len(wanted) :]
            assert found == wanted or (role, found) == ("depthwise_kernel", ["kernel"])
            taken[role] = array
        return taken


@pytest.fixture(scope="module")
def frameworks() -> dict[str, Any]:
    return {name: pytest.importorskip(name) for name in DIALECTS}


def _run_keras(keras: Any, case: Case, rng: np.random.Generator, inputs: Sequence[Array]) -> tuple[Any, Array]:
    """The layer with random weights, and what it computes."""
    layer = getattr(keras.layers, case.layer)(**case.options)

    def call() -> Any:
        # Anew for each call: the MultiHeadAttention of Keras 3 takes the masks off its inputs.
        tensors = [keras.layers.Masking()(array) for array in inputs] if case.masked else list(inputs)
        if case.layer == "MultiHeadAttention":
            return layer(*tensors, **case.call)
        return layer(tensors if len(tensors) > 1 else tensors[0], **case.call)

    call()
    random_weights(layer, rng)
    return layer, np.asarray(call())


def _build(case: Case, framework: str, layer: Any) -> tuple[Part, ...]:
    shape = [None, *case.shapes[0]]
    config = {**layer.get_config(), **case.call, "build_config": {"input_shape": shape}}
    weights = ListedWeights(list(zip(weight_names(layer), layer.get_weights(), strict=True)))
    parts = PLAIN[case.layer](case.layer, config, weights, DIALECTS[framework])
    assert weights.arrays == []
    return parts


def _evaluate(
    parts: Sequence[Part], inputs: Sequence[Array], masks: Sequence[Array | None], dtype: type[np.floating[Any]]
) -> Array:
    values = [array.astype(dtype) if array.dtype.kind == "f" else array for array in inputs]
    for part in parts:
        assert part.layer.weight_names() == tuple(part.weights)
        weights = {name: array.astype(dtype) for name, array in part.weights.items()}
        values = [evaluate(part.layer, values, weights, masks)]
    return values[0]


def _model(parts: Sequence[Part], shapes: Sequence[tuple[int | None, ...]]) -> Model:
    names = tuple(f"input{n}" for n in range(len(shapes)))
    layers = {f"layer{n}": part.layer for n, part in enumerate(parts)}
    nodes = [Node(name, name, names if n == 0 else (f"layer{n - 1}",)) for n, name in enumerate(layers)]
    return Model(
        name="one",
        inputs=tuple(Input(name, shape) for name, shape in zip(names, shapes, strict=True)),
        outputs=(nodes[-1].name,),
        layers=layers,
        nodes=tuple(nodes),
        weights={f"layer{n}.{name}": array for n, part in enumerate(parts) for name, array in part.weights.items()},
    )


def _cases() -> list[Any]:
    pairs = [(framework, case) for case in CASES for framework in DIALECTS if case.only in ("", framework)]
    absent = {
        "keras": {"ThresholdedReLU"},
        "tf_keras": {"RMSNormalization"},
    }
    return [
        pytest.param(framework, case, id=f"{framework}-{case}")
        for framework, case in pairs
        if case.layer not in absent[framework]
    ]


@pytest.mark.parametrize(("framework", "case"), _cases())
def test_layer_agrees(frameworks: dict[str, Any], framework: str, case: Case) -> None:
    rng = np.random.default_rng(len(str(case)))
    inputs, masks = random_inputs(case, rng)
    layer, expected = _run_keras(frameworks[framework], case, rng, inputs)
    parts = _build(case, framework, layer)
    assert all(part.layer.kind == case.layer for part in parts)

    for dtype in (np.float32, np.float64):
        found = _evaluate(parts, inputs, masks, dtype)
        assert found.dtype == dtype
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 2e-6 * max(1.0, np.abs(expected).max())

    shapes = infer(_model(parts, case.shapes))
    assert shapes[f"layer{len(parts) - 1}"] == expected.shape[1:]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shape_with_unknown_time(frameworks: dict[str, Any], case: Case) -> None:
    """With the first axis of each input left open, the shape is the same where it is known."""
    framework = case.only or ("tf_keras" if case.layer == "ThresholdedReLU" else "keras")
    rng = np.random.default_rng(0)
    inputs, _ = random_inputs(case, rng)
    layer, expected = _run_keras(frameworks[framework], case, rng, inputs)
    parts = _build(case, framework, layer)
    open_shapes = [(None, *shape[1:]) for shape in case.shapes]
    found = infer(_model(parts, open_shapes))[f"layer{len(parts) - 1}"]
    assert len(found) == expected.ndim - 1
    assert all(size in (None, true) for size, true in zip(found, expected.shape[1:], strict=True))


NEEDS_ARGUMENTS = {"threshold"}
# Up to 3.15 Keras computes something else wherever more than one output is not zero (keras-team/keras#23425).
WRONG_IN_KERAS = {"sparsemax"}
# fmt: off
ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "swish", "tanh",
    "tanh_shrink",
)
# fmt: on


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_agrees(frameworks: dict[str, Any], name: str) -> None:
    keras = frameworks["keras"]
    x = np.linspace(-8, 8, 6 * 97).reshape(97, 6).astype(np.float32)
    expected = np.asarray(keras.layers.Activation(name)(x))
    (part,) = PLAIN["Activation"]("Activation", {"activation": name}, ListedWeights([]), DIALECTS["keras"])
    for dtype in (np.float32, np.float64):
        found = evaluate(part.layer, [x.astype(dtype)], {})
        assert found.dtype == dtype
        assert np.abs(found - expected).max() <= 1e-6 * max(1.0, np.abs(expected).max())


def test_every_activation_is_listed(frameworks: dict[str, Any]) -> None:
    from keras.src.activations import ALL_OBJECTS_DICT

    assert set(ACTIVATIONS) | NEEDS_ARGUMENTS | WRONG_IN_KERAS == set(ALL_OBJECTS_DICT)


@pytest.mark.parametrize(("slope", "name"), [(0.2, "tf_keras"), (1 / 6, "keras")])
def test_hard_sigmoid_has_its_versions_slope(frameworks: dict[str, Any], slope: float, name: str) -> None:
    x = np.linspace(-4, 4, 33, dtype=np.float32)[None]
    expected = np.asarray(frameworks[name].layers.Activation("hard_sigmoid")(x))
    (part,) = PLAIN["Activation"]("Activation", {"activation": "hard_sigmoid"}, ListedWeights([]), DIALECTS[name])
    np.testing.assert_allclose(evaluate(part.layer, [x], {}), expected, atol=1e-7)
    np.testing.assert_allclose(expected, np.clip(slope * x + 0.5, 0, 1), atol=1e-7)


def test_normalization_over_a_positive_axis_needs_the_rank() -> None:
    """The axis of the statistics counts from the front; only the build configuration says how many there are."""
    statistics = [("mean", np.ones(7, np.float32)), ("variance", np.ones(7, np.float32)), ("count", np.asarray(3))]
    config = {"axis": [1], "build_config": {"input_shape": [None, 7, 5]}}
    (part,) = PLAIN["Normalization"]("Normalization", config, ListedWeights(statistics), DIALECTS["keras"])
    assert part.weights["mean"].shape == (7, 1)
    with pytest.raises(Unsupported, match="over the axes \\[1\\]"):
        PLAIN["Normalization"]("Normalization", {"axis": [1]}, ListedWeights(statistics), DIALECTS["keras"])


def test_batch_statistics_of_keras_1() -> None:
    """`mode=2` of Keras 1 normalises with the batch at hand, so its running statistics are left where they are."""
    rng = np.random.default_rng(5)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    weights = ListedWeights([(name, rng.uniform(0.5, 1.5, 5).astype(np.float32)) for name in names])
    config = {"normconvert_mode": 2, "axis": -1, "epsilon": 0.01}
    (part,) = PLAIN["BatchNormalization"]("BatchNormalization", config, weights, dialect_of("1.2.2"))
    assert part.layer.weight_names() == ("gamma", "beta")
    assert [name for name, _ in weights.arrays] == ["moving_mean", "moving_variance"]
    x = rng.normal(size=(4, 7, 5))
    gamma, beta = part.weights["gamma"], part.weights["beta"]
    expected = gamma * (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 0.01) + beta
    np.testing.assert_allclose(evaluate(part.layer, [x], part.weights), expected, rtol=1e-12)


def test_untrainable_layers_say_so() -> None:
    (part,) = PLAIN["Dropout"]("Dropout", {"rate": 0.3, "trainable": False}, ListedWeights([]), DIALECTS["keras"])
    assert not part.layer.trainable


@pytest.mark.parametrize(
    ("layer", "config", "message"),
    [
        ("Softmax", {"axis": [1, 2]}, "Softmax over the axes"),
        ("BatchNormalization", {"axis": [1, 2]}, "over the axes"),
        ("BatchNormalization", {"renorm": True}, "renorm"),
        ("Flatten", {"data_format": "channels_first"}, "channels_first"),
        ("UpSampling2D", {"size": 2, "interpolation": "lanczos3"}, "lanczos3"),
        ("MultiHeadAttention", {"attention_axes": [1, 2]}, "attention_axes"),
        ("MultiHeadAttention", {"output_shape": [2, 3]}, "output_shape"),
        ("MultiHeadAttention", {"sliding_window": 4}, "sliding window"),
        ("MultiHeadAttention", {"use_gate": True}, "gate"),
        ("GroupNormalization", {"groups": -1, "scale": False, "center": False}, "groups=-1"),
        ("Dense", {"units": 3, "dtype": {"class_name": "QuantizedDTypePolicy", "config": {}}}, "quantized"),
        ("Activation", {"activation": "no_such_function"}, "no_such_function"),
    ],
)
def test_refuses_what_it_cannot_do(layer: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        PLAIN[layer](layer, config, ListedWeights([]), DIALECTS["keras"])


@pytest.mark.parametrize(
    ("layer", "config", "key"),
    [
        ("Dropout", {}, "rate"),
        ("Dropout", {"rate": "much"}, "rate"),
        ("Dropout", {"rate": float("nan")}, "rate"),
        ("Dropout", {"rate": 0.3, "noise_shape": "all"}, "noise_shape"),
        ("Conv1D", {"kernel_size": [3, 3]}, "kernel_size"),
        ("Conv1D", {"kernel_size": 0}, "kernel_size"),
        ("Conv1D", {"kernel_size": 3, "padding": "full"}, "padding"),
        ("Conv1D", {"kernel_size": 3, "groups": True}, "groups"),
        ("Conv2D", {"kernel_size": 3, "strides": ["a", 1]}, "strides"),
        ("Conv2DTranspose", {"kernel_size": 3, "output_padding": [1, 1, 1]}, "output_padding"),
        ("ZeroPadding1D", {"padding": [1, -2]}, "padding"),
        ("Cropping2D", {"cropping": [[1, 2, 3], [1, 2]]}, "cropping"),
        ("RepeatVector", {"n": 2.5}, "n of"),
        ("RepeatVector", {"n": float("inf")}, "n of"),
        ("Reshape", {"target_shape": [3, "x"]}, "target_shape"),
        ("Dot", {"axes": [1, 2, 3]}, "axes"),
        ("Dense", {"use_bias": "yes"}, "use_bias"),
        ("Flatten", {"data_format": 3}, "data_format"),
        ("Rescaling", {"scale": {"class_name": "__numpy__"}}, "scale"),
    ],
)
def test_bad_configuration_names_the_key(layer: str, config: dict[str, Any], key: str) -> None:
    with pytest.raises(CorruptFile, match=key):
        PLAIN[layer](layer, config, ListedWeights([]), DIALECTS["keras"])


def test_every_layer_of_every_version_has_a_builder() -> None:
    """The class names that readers promise; those of Keras 1 come translated or as they are."""
    names = """
        Dense Embedding Conv1D Conv2D DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D Conv1DTranspose
        Conv2DTranspose MaxPooling1D MaxPooling2D AveragePooling1D AveragePooling2D GlobalMaxPooling1D
        GlobalMaxPooling2D GlobalAveragePooling1D GlobalAveragePooling2D UpSampling1D UpSampling2D ZeroPadding1D
        ZeroPadding2D Cropping1D Cropping2D BatchNormalization LayerNormalization RMSNormalization GroupNormalization
        UnitNormalization Normalization Rescaling Activation ReLU LeakyReLU ELU ThresholdedReLU Softmax PReLU Dropout
        SpatialDropout1D SpatialDropout2D AlphaDropout GaussianDropout GaussianNoise ActivityRegularization Flatten
        Reshape Permute RepeatVector Concatenate Add Subtract Multiply Average Maximum Minimum Dot Attention
        AdditiveAttention MultiHeadAttention Convolution1D Convolution2D AtrousConvolution1D AtrousConvolution2D
        SeparableConvolution2D Deconvolution2D
    """
    assert set(names.split()) <= set(PLAIN)


@pytest.mark.parametrize("framework", DIALECTS)
def test_unit_normalization_of_short_vectors(frameworks: dict[str, Any], framework: str) -> None:
    """Keras 3 still makes a vector of length 1e-8 a unit vector; tf.keras multiplies it by 1e6 at most."""
    x = 1e-8 * np.random.default_rng(2).normal(size=(3, 5)).astype(np.float32)
    x[1] = 0
    expected = np.asarray(frameworks[framework].layers.UnitNormalization()(x))
    (part,) = PLAIN["UnitNormalization"]("UnitNormalization", {"axis": -1}, ListedWeights([]), DIALECTS[framework])
    np.testing.assert_allclose(evaluate(part.layer, [x], {}), expected, rtol=2e-6)
    assert (np.linalg.norm(expected, axis=-1)[0] > 0.99) == (framework == "keras")
