"""One model per layer class and setting, put together by hand, for the tests of the PyTorch target."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from normconvert import interpreter
from normconvert.ir import layers
from normconvert.ir.cell import Cell
from normconvert.ir.layers import Activation, AnyLayer
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.ir.norm import Norm
from normconvert.targets.torch import write_folder

CHANNELS = 6
_numbers = itertools.count()


@dataclass(frozen=True)
class Case:
    """A layer, the shapes of its inputs for one sample (None: any length), its arrays, and which inputs have masks."""

    layer: AnyLayer
    shapes: Sequence[tuple[int | None, ...]] = ((None, CHANNELS),)
    weights: Sequence[tuple[str, tuple[int, ...]]] = ()
    masks: tuple[str, ...] = ()
    integers: bool = False


def conv(kind: type[AnyLayer], window: tuple[int, ...], shape: tuple[int, ...], **options: Any) -> Case:
    rank = len(window)
    settings = {"strides": (1,) * rank, "dilation": (1,) * rank, **options}
    layer = kind(window=window, **settings)
    filters = shape[-1] if kind is layers.Convolution else shape[-2]
    filters = shape[-1] * shape[-2] if kind is layers.DepthwiseConvolution else filters
    bias = [("bias", (filters,))] if settings.get("use_bias", True) else []
    return Case(layer, [(*(None,) * rank, CHANNELS)], [("kernel", (*window, *shape)), *bias])


def affine(*shape: int, mean: bool = False) -> list[tuple[str, tuple[int, ...]]]:
    names = ["gamma", "beta", *(("mean", "variance") if mean else ())]
    return [(name, shape) for name in names]


ATTENTION = [(5, CHANNELS), (4, CHANNELS)]
HEADS = [
    *((f"{role}.kernel", (CHANNELS, 3, size)) for role, size in (("query", 4), ("key", 4), ("value", 5))),
    *((f"{role}.bias", (3, size)) for role, size in (("query", 4), ("key", 4), ("value", 5))),
    ("output.kernel", (3, 5, 7)),
    ("output.bias", (7,)),
]
FORMULA = Cell(
    equations="""layer pooled(x) -> pooled, shares:
        scores = tanh(norm(x @ W + b)) @ u
        shares = softmax(scores[:, 0:1], axis=0)
        pooled = sum(shares * x, axis=0)
    """,
    dims={},
    input_shapes={"x": (None, CHANNELS)},
    parameters={"W": (CHANNELS, 5), "b": (5,), "u": (5, 1)},
    norms={"norm": Norm(kind="batch", features=5, epsilon=0.01)},
)

CASES: dict[str, Case] = {
    "dense": Case(layers.Dense(), weights=[("kernel", (CHANNELS, 5)), ("bias", (5,))]),
    "dense, no bias, softplus": Case(
        layers.Dense(use_bias=False, activation=Activation("softplus")), weights=[("kernel", (CHANNELS, 5))]
    ),
    "embedding": Case(layers.Embedding(), [(None,)], [("embeddings", (11, 5))], integers=True),
    "apply": Case(layers.Apply(activation=Activation("hard_sigmoid", (0.2, 0.5)))),
    "softmax over time": Case(layers.Apply(activation=Activation("softmax", axis=1))),
    "prelu": Case(layers.PReLU(), weights=[("alpha", (1, CHANNELS))]),
    "conv, causal": conv(
        layers.Convolution, (3,), (CHANNELS, 5), padding="causal", dilation=(2,), activation=Activation("selu")
    ),
    "conv, same, strided": conv(layers.Convolution, (4,), (CHANNELS, 5), padding="same", strides=(3,)),
    "conv, stride above window": conv(layers.Convolution, (2,), (CHANNELS, 5), padding="same", strides=(5,)),
    "conv, groups": conv(layers.Convolution, (3,), (CHANNELS // 2, 4), groups=2, use_bias=False),
    "conv 2d": conv(layers.Convolution, (3, 2), (CHANNELS, 5), padding="same", strides=(2, 1)),
    "depthwise": conv(layers.DepthwiseConvolution, (3,), (CHANNELS, 2), padding="same"),
    "depthwise 2d": conv(layers.DepthwiseConvolution, (3, 2), (CHANNELS, 2), dilation=(1, 2)),
    "transposed": conv(layers.TransposedConvolution, (4,), (5, CHANNELS), strides=(3,), padding="same"),
    "transposed, stride above window": conv(layers.TransposedConvolution, (2,), (5, CHANNELS), strides=(3,)),
    "transposed, output padding": conv(
        layers.TransposedConvolution, (3,), (5, CHANNELS), strides=(2,), padding="same", output_padding=(1,)
    ),
    "transposed 2d": conv(
        layers.TransposedConvolution, (3, 4), (5, CHANNELS), strides=(2, 1), padding="same", use_bias=False
    ),
    "max pool": Case(layers.Pooling(operation="max", window=(3,), strides=(2,), padding="same")),
    "average pool": Case(layers.Pooling(operation="average", window=(3,), strides=(2,), padding="same")),
    "max pool 2d": Case(layers.Pooling(operation="max", window=(3, 2), strides=(2, 2)), [(None, None, CHANNELS)]),
    "average pool 2d": Case(
        layers.Pooling(operation="average", window=(3, 2), strides=(2, 1), padding="same"), [(None, None, CHANNELS)]
    ),
    "global average": Case(layers.GlobalPooling(operation="average")),
    "global average, masked": Case(layers.GlobalPooling(operation="average", keepdims=True), masks=("mask",)),
    "global max": Case(layers.GlobalPooling(operation="max"), [(None, None, CHANNELS)]),
    "up-sampling": Case(layers.UpSampling(factors=(2, 3)), [(None, None, CHANNELS)]),
    "up-sampling, bilinear": Case(
        layers.UpSampling(factors=(2, 3), interpolation="bilinear"), [(None, None, CHANNELS)]
    ),
    "padding": Case(layers.ZeroPadding(amounts=((1, 2), (0, 3))), [(None, None, CHANNELS)]),
    "cropping": Case(layers.Cropping(amounts=((1, 2),))),
    "batch norm": Case(layers.BatchNormalization(epsilon=0.02), weights=affine(CHANNELS, mean=True), masks=("mask",)),
    "batch norm, axis 1, bare": Case(
        layers.BatchNormalization(epsilon=0.02, axis=1, scale=False, center=False),
        [(5, CHANNELS)],
        [("mean", (5,)), ("variance", (5,))],
    ),
    "batch norm of the batch": Case(layers.BatchNormalization(epsilon=0.02, source="batch"), weights=affine(CHANNELS)),
    "layer norm": Case(layers.LayerNormalization(epsilon=0.02), weights=affine(CHANNELS)),
    "layer norm, no offset": Case(
        layers.LayerNormalization(epsilon=0.02, center=False), weights=[("gamma", (CHANNELS,))]
    ),
    "layer norm, two axes": Case(
        layers.LayerNormalization(epsilon=0.02, axes=(1, -1)), [(5, CHANNELS)], affine(5, CHANNELS)
    ),
    "layer norm, bare": Case(layers.LayerNormalization(epsilon=0.02, scale=False, center=False)),
    "rms norm": Case(
        layers.LayerNormalization(epsilon=0.02, center=False, moments="rms"), weights=[("gamma", (CHANNELS,))]
    ),
    "uncentred norm": Case(layers.LayerNormalization(epsilon=0.02, moments="uncentred"), weights=affine(CHANNELS)),
    "group norm": Case(layers.GroupNormalization(groups=3, epsilon=0.02), weights=affine(CHANNELS)),
    "group norm, axis 1": Case(layers.GroupNormalization(groups=2, axis=1, epsilon=0.02), [(4, CHANNELS)], affine(4)),
    "unit norm": Case(layers.UnitNormalization(axes=(1, 2))),
    "standardization": Case(
        layers.Standardization(epsilon=0.6), weights=[("mean", (CHANNELS,)), ("variance", (CHANNELS,))]
    ),
    "standardization, inverse": Case(
        layers.Standardization(invert=True), weights=[("mean", (CHANNELS,)), ("variance", (CHANNELS,))]
    ),
    "rescaling": Case(layers.Rescaling(scale=(0.3,), offset=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))),
    "dropout": Case(layers.Dropout(rate=0.3)),
    "dropout, shared": Case(layers.Dropout(rate=0.3, shared_axes=(1,))),
    "alpha dropout": Case(layers.Dropout(rate=0.3, noise="alpha")),
    "gaussian dropout": Case(layers.Dropout(rate=0.3, noise="gaussian")),
    "gaussian noise": Case(layers.Dropout(rate=0.3, noise="gaussian_noise")),
    "identity": Case(layers.Identity()),
    "flatten": Case(layers.Flatten(), [(3, CHANNELS)]),
    "reshape": Case(layers.Reshape(shape=(3, -1)), [(3, CHANNELS)]),
    "permute": Case(layers.Permute(order=(3, 1, 2)), [(None, 4, CHANNELS)]),
    "repeat": Case(layers.RepeatVector(times=4), [(CHANNELS,)]),
    "reverse": Case(layers.Reverse()),
    "fold": Case(layers.FoldTime(), [(None, 4, CHANNELS)]),
    **{
        f"merge, {operation}": Case(
            layers.Merge(operation=operation),
            [(None, CHANNELS), (CHANNELS,), *(() if operation == "subtract" else [(None, 1)])],
        )
        for operation in ("add", "subtract", "multiply", "average", "maximum", "minimum")
    },
    "concatenate": Case(layers.Concatenate(), [(None, CHANNELS), (None, 2)]),
    "concatenate, time": Case(layers.Concatenate(axis=1), [(None, CHANNELS), (3, CHANNELS)]),
    "dot": Case(layers.Dot(axes=(2, 2)), ATTENTION),
    "dot, unit vectors": Case(layers.Dot(axes=(1, 1), normalize=True), [(CHANNELS,), (CHANNELS,)]),
    "attention": Case(layers.Attention(), ATTENTION),
    "attention, scaled, masked": Case(
        layers.Attention(use_scale=True, causal=True), ATTENTION, [("scale", ())], ("mask", "mask")
    ),
    "attention, concat": Case(
        layers.Attention(score="concat", use_scale=True), ATTENTION, [("scale", ()), ("concat_weight", ())]
    ),
    "attention, additive, key": Case(
        layers.Attention(score="additive", use_scale=True), [*ATTENTION, (4, CHANNELS)], [("scale", (CHANNELS,))]
    ),
    "heads": Case(layers.MultiHeadAttention(), ATTENTION, HEADS),
    "heads, masked": Case(layers.MultiHeadAttention(causal=True), ATTENTION, HEADS, ("mask", "mask")),
    "heads, nothing hidden": Case(
        layers.MultiHeadAttention(causal=True, zero_hidden=True),
        [*ATTENTION, (4, CHANNELS)],
        HEADS,
        ("mask", "mask", "mask"),
    ),
    "masking": Case(layers.Masking(value=0.5)),
    "step mask": Case(layers.StepMask(value=3.0), [(None,)], integers=True),
    "feature mask": Case(layers.StepMask(value=0.5, any_feature=True)),
    "formula": Case(layers.Formula(cell=FORMULA), weights=[*FORMULA.weight_shapes().items()]),
}


def model_of(case: Case) -> Model:
    """A model of one layer, each mask made from an input of its own."""
    draw = np.random.default_rng(5)
    arrays: dict[str, Array] = {}
    for name, shape in case.weights:
        spread = 0.4 + draw.random(shape) if name.endswith(("variance", "gamma")) else 0.6 * draw.normal(size=shape)
        arrays[f"layer.{name}"] = np.asarray(spread, np.float32)
    kind = "int" if case.integers else "float"
    inputs = [Input(f"input_{n}", shape, kind) for n, shape in enumerate(case.shapes)]
    made: dict[str, AnyLayer] = {}
    nodes: list[Node] = []
    masks = tuple(f"mask_{n}" if name else "" for n, name in enumerate(case.masks))
    for n, name in enumerate(masks):
        inputs.append(Input(f"steps_{n}", (case.shapes[n][0],), "int"))
        made[name] = layers.StepMask(value=0.0)
        nodes.append(Node(name, name, (f"steps_{n}",)))
    made["layer"] = case.layer
    read = tuple(declared.name for declared in inputs[: len(case.shapes)])
    nodes.append(Node("layer", "layer", read, masks))
    count = len(case.layer.cell.parsed().outputs) if isinstance(case.layer, layers.Formula) else 1
    outputs = tuple("layer" if n == 0 else f"layer:{n}" for n in range(count))
    return Model("one layer", tuple(inputs), outputs, made, tuple(nodes), arrays)


def values_for(model: Model, batch: int, time: int, seed: int = 1) -> dict[str, Array]:
    """Inputs of a model: normal floats, a few of them 0.5 over whole steps, and small integers."""
    draw = np.random.default_rng(seed)
    values: dict[str, Array] = {}
    for declared in model.inputs:
        shape = (batch, *(n or time for n in declared.shape))
        values[declared.name] = draw.normal(size=shape) if declared.dtype == "float" else draw.integers(0, 5, shape)
        if declared.dtype == "float" and len(shape) == 3 and shape[1] > 1:
            values[declared.name][:, 1] = 0.5
        if declared.name.startswith("steps"):
            values[declared.name][:, -1] = 1
    return values


def build(model: Model, folder: Path) -> Any:
    """The generated module in float64."""
    folder.mkdir()
    write_folder(model, folder)
    spec = importlib.util.spec_from_file_location(f"generated_{next(_numbers)}", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load().double()


def worst_error(model: Model, module: Any, values: dict[str, Array], precision: Any = np.float64) -> float:
    """The largest error of the module against the interpreter in float64, relative to the largest value."""
    import torch

    wanted = interpreter.run(model, values, np.float64)
    floats = {name: value if value.dtype.kind in "ib" else value.astype(precision) for name, value in values.items()}
    with torch.no_grad():
        results = module(*(torch.tensor(value) for value in floats.values()))
    results = results if isinstance(results, tuple) else (results,)
    worst = 0.0
    for (name, expected), result in zip(wanted.items(), results, strict=True):
        assert tuple(result.shape) == expected.shape, name
        if expected.dtype == np.bool_:
            np.testing.assert_array_equal(result.numpy(), expected)
            continue
        assert np.isfinite(expected).all(), name
        assert result.numpy().dtype == precision, name
        worst = max(worst, float(np.abs(result.numpy() - expected).max() / max(np.abs(expected).max(), 1e-3)))
    return worst
