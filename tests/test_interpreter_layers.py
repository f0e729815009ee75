"""The layers and functions that Keras does not have, and what the interpreter promises about all of them."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from normconvert.errors import UsageError
from normconvert.interpreter.functions import ALONG_AXIS, FUNCTIONS, activate
from normconvert.interpreter.layers import EVALUATORS, evaluate
from normconvert.ir import layers
from normconvert.ir.functions import FUNCTIONS as INFO
from normconvert.ir.layers import Activation, AnyLayer, Bidirectional, Formula, Recurrent

RNG = np.random.default_rng(3)
X = RNG.normal(0, 1.5, (3, 7, 6))


def test_every_layer_has_an_evaluator() -> None:
    assert set(EVALUATORS) == set(get_args(AnyLayer)) - {Recurrent, Bidirectional, Formula}


def test_every_function_has_an_implementation() -> None:
    assert set(FUNCTIONS) == set(INFO)
    assert {name for name, info in INFO.items() if "axis" in info.options} == ALONG_AXIS


PARAMETERS: dict[str, tuple[float, ...]] = {
    "capped_relu": (0.3, 1.1, 0.2),
    "leaky_relu": (0.3,),
    "elu": (0.7,),
    "celu": (0.7,),
    "hard_sigmoid": (0.2, 0.5),
    "threshold": (0.4, -0.3),
    "clip": (-0.4, 0.9),
    "split": (2,),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(set(INFO) - {"conv", "reshape"}))
def test_functions_keep_the_dtype(name: str, dtype: Any) -> None:
    x = (np.abs(X) + 0.1 if name in ("log", "sqrt") else X).astype(dtype)
    tensors = [x] * (INFO[name].tensors or 2)
    results = FUNCTIONS[name](*tensors, *PARAMETERS.get(name, ()))
    for result in results if name == "split" else [results]:
        assert result.dtype == dtype
        assert np.isfinite(result).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "at_minus", "at_plus"),
    [
        ("sigmoid", 0, 1),
        ("softplus", 0, 2000),
        ("log_sigmoid", -2000, 0),
        ("silu", 0, 2000),
        ("mish", 0, 2000),
        ("gelu", 0, 2000),
        ("elu", -1, 2000),
        ("celu", -1, 2000),
        ("selu", -1.7580993408473766, 1.0507009873554805 * 2000),
    ],
)
def test_functions_do_not_overflow(name: str, at_minus: float, at_plus: float, dtype: Any) -> None:
    """With warnings as errors: no intermediate result overflows."""
    with np.errstate(over="raise", invalid="raise"):
        found = FUNCTIONS[name](np.asarray([-2000, 2000], dtype))
    np.testing.assert_allclose(found, [at_minus, at_plus], rtol=1e-6)


def test_softmax_does_not_overflow() -> None:
    x = np.asarray([[1e4, 0, -1e4]], np.float32)
    np.testing.assert_array_equal(FUNCTIONS["softmax"](x), [[1, 0, 0]])
    np.testing.assert_array_equal(FUNCTIONS["log_softmax"](x), [[0, -1e4, -2e4]])


TORCH = {
    "sigmoid": ("sigmoid", ()),
    "elu": ("nn.functional.elu", (0.7,)),
    "celu": ("nn.functional.celu", (0.7,)),
    "selu": ("selu", ()),
    "gelu": ("nn.functional.gelu", ()),
    "mish": ("nn.functional.mish", ()),
    "log_sigmoid": ("nn.functional.logsigmoid", ()),
    "hard_silu": ("nn.functional.hardswish", ()),
    "hard_shrink": ("nn.functional.hardshrink", (0.4,)),
    "soft_shrink": ("nn.functional.softshrink", (0.4,)),
    "threshold": ("nn.functional.threshold", (0.4, -0.3)),
    "leaky_relu": ("nn.functional.leaky_relu", (0.3,)),
    "clip": ("clamp", (-0.4, 0.9)),
    "softmax": ("softmax", (-1,)),
    "log_softmax": ("log_softmax", (-1,)),
    "cumsum": ("cumsum", (-1,)),
    "glu": ("nn.functional.glu", (-1,)),
}


@pytest.mark.parametrize("name", TORCH)
def test_functions_agree_with_torch_in_double_precision(name: str) -> None:
    torch = pytest.importorskip("torch")
    path, arguments = TORCH[name]
    function = torch
    for part in path.split("."):
        function = getattr(function, part)
    expected = function(torch.from_numpy(X), *arguments).numpy()
    ours = {"axis": arguments[0]} if name in ALONG_AXIS else {}
    found = FUNCTIONS[name](X, *(() if ours else arguments), **ours)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("axis", [1, -1])
def test_sparsemax_is_the_projection_onto_the_simplex(axis: int) -> None:
    """The optimality conditions: `x - p` is one number where p is not zero, and no larger elsewhere."""
    p = FUNCTIONS["sparsemax"](X, axis=axis)
    assert (p >= 0).all()
    assert 1 < (p > 0).sum(axis=axis).max() < X.shape[axis]
    np.testing.assert_allclose(p.sum(axis=axis), 1, rtol=1e-12)
    tau = np.where(p > 0, X - p, -np.inf).max(axis=axis, keepdims=True)
    np.testing.assert_allclose(np.where(p > 0, X - p, tau), np.broadcast_to(tau, X.shape), rtol=1e-10, atol=1e-12)
    assert (np.where(p > 0, tau, X) <= tau).all()


def test_conv_of_the_language() -> None:
    torch = pytest.importorskip("torch")
    kernel = RNG.normal(size=(3, 2, 4, 5))
    x = RNG.normal(size=(2, 9, 8, 4))
    found = FUNCTIONS["conv"](x, kernel, strides=(2, 1), padding="valid", dilation=(1, 2))
    channels_first = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    filters = torch.from_numpy(np.transpose(kernel, (3, 2, 0, 1)).copy())
    expected = torch.nn.functional.conv2d(channels_first, filters, stride=(2, 1), dilation=(1, 2)).numpy()
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, -1), rtol=1e-12, atol=1e-13)


def test_structure_functions() -> None:
    assert FUNCTIONS["reshape"](X, shape=(2, 21)).shape == (3, 2, 21)
    assert FUNCTIONS["reshape"](X, shape=-1).shape == (3, 42)
    np.testing.assert_array_equal(FUNCTIONS["transpose"](X), np.transpose(X, (0, 2, 1)))
    a, b, c = FUNCTIONS["split"](X, 3.0, axis=2)
    np.testing.assert_array_equal(FUNCTIONS["concat"](a, b, c, axis=2), X)


def test_activation_along_an_axis() -> None:
    found = activate(Activation("softmax", axis=1), X)
    np.testing.assert_allclose(found.sum(axis=1), np.ones((3, 6)), rtol=1e-12)
    assert activate(None, X) is X


# --- layers without a counterpart in Keras ---------------------------------------------------------------------


def test_reverse() -> None:
    np.testing.assert_array_equal(evaluate(layers.Reverse(axis=1), [X], {}), X[:, ::-1])


def test_fold_and_unfold_time() -> None:
    folded = evaluate(layers.FoldTime(), [X], {})
    assert folded.shape == (21, 6)
    np.testing.assert_array_equal(folded[7], X[1, 0])
    np.testing.assert_array_equal(evaluate(layers.UnfoldTime(), [folded, X], {}), X)


@pytest.mark.parametrize("layer", [layers.Dropout(rate=0.4), layers.Identity()])
def test_identity(layer: AnyLayer) -> None:
    assert evaluate(layer, [X], {}) is X


def test_masking() -> None:
    x = X.copy()
    x[0, 2] = x[1, 4] = 0.7
    x[2, 3, :5] = 0.7  # one feature differs: a real step
    mask = evaluate(layers.StepMask(value=0.7, any_feature=True), [x], {})
    assert mask.dtype == bool
    assert mask.shape == (3, 7)
    assert np.argwhere(~mask).tolist() == [[0, 2], [1, 4]]
    masked = evaluate(layers.Masking(value=0.7), [x], {})
    np.testing.assert_array_equal(masked, np.where(mask[:, :, None], x, 0))


def test_mask_of_indices() -> None:
    indices = np.asarray([[3, 0, 1], [0, 0, 2]])
    assert evaluate(layers.StepMask(), [indices], {}).tolist() == [[True, False, True], [False, False, True]]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_mask_of_lengths(shape: tuple[int, ...]) -> None:
    mask = evaluate(layers.LengthMask(), [X, np.asarray([2, 7, 0]).reshape(shape)], {})
    assert mask.sum(axis=1).tolist() == [2, 7, 0]
    assert mask[0].tolist() == [True] * 2 + [False] * 5


def test_merged_masks() -> None:
    a, b = np.asarray([[True, True, False]]), np.asarray([[True, False, False]])
    assert evaluate(layers.MergeMasks(operation="and"), [a, b], {}).tolist() == [[True, False, False]]
    assert evaluate(layers.MergeMasks(operation="or"), [a, b], {}).tolist() == [[True, True, False]]


@pytest.mark.parametrize("axis", [1, -1])
def test_batch_statistics(axis: int) -> None:
    torch = pytest.importorskip("torch")
    channels = X.shape[axis]
    weights = {"gamma": RNG.uniform(0.5, 1.5, channels), "beta": RNG.normal(size=channels)}
    layer = layers.BatchNormalization(axis=axis, epsilon=0.02, source="batch")
    moved = torch.from_numpy(np.moveaxis(X, axis, 1).copy())
    gamma, beta = (torch.from_numpy(weights[name]) for name in ("gamma", "beta"))
    expected = torch.nn.functional.batch_norm(moved, None, None, gamma, beta, training=True, eps=0.02).numpy()
    np.testing.assert_allclose(evaluate(layer, [X], weights), np.moveaxis(expected, 1, axis), rtol=1e-10, atol=1e-12)


def test_queries_that_see_nothing() -> None:
    """Uniform attention to every value, or with `zero_hidden` to none."""
    shapes = {"query": (6, 2, 3), "key": (6, 2, 3), "value": (6, 2, 4), "output": (2, 4, 5)}
    weights = {f"{role}.kernel": RNG.normal(size=shape) for role, shape in shapes.items()}
    mask = np.ones((3, 7), bool)
    mask[1] = False
    masks = [None, mask]
    uniform = evaluate(layers.MultiHeadAttention(use_bias=False), [X, X], weights, masks)
    zero = evaluate(layers.MultiHeadAttention(use_bias=False, zero_hidden=True), [X, X], weights, masks)
    mean = np.einsum("ti,ihs,hso->o", X[1], weights["value.kernel"], weights["output.kernel"]) / 7
    np.testing.assert_allclose(uniform[1], np.tile(mean, (7, 1)), rtol=1e-10)
    np.testing.assert_array_equal(zero[1], np.zeros((7, 5)))
    np.testing.assert_array_equal(zero[[0, 2]], uniform[[0, 2]])


def test_index_outside_the_table() -> None:
    with pytest.raises(UsageError, match="the table has the rows 0 to 3"):
        evaluate(layers.Embedding(), [np.asarray([[1, 4]])], {"embeddings": np.ones((4, 2))})


def test_sequence_shorter_than_the_window() -> None:
    layer = layers.Convolution(window=(9,), strides=(1,), dilation=(1,), use_bias=False)
    with pytest.raises(UsageError, match="has 7 elements along axis 1, the window needs 9"):
        evaluate(layer, [X], {"kernel": np.ones((9, 6, 2))})
