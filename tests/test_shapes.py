"""Shape inference: what it finds for graphs and recurrent layers, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from normconvert.errors import CorruptFile, NormconvertError, UsageError
from normconvert.interpreter.model import run
from normconvert.ir import layers
from normconvert.ir.cell import Cell, State
from normconvert.ir.layers import AnyLayer, Bidirectional, Formula, Recurrent
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.ir.norm import Norm
from normconvert.ir.shapes import RULES, infer
from normconvert.ir.windows import padding_amounts, transposed_length, window_length

RNG = np.random.default_rng(11)
GRU = Cell(
    equations="""cell two(x; h, m) -> y:
        z = sigmoid(n(x @ W) + h @ U)
        m = z * m + h
        h = (1 - z) * h + z * tanh(m)
        y = h @ P
    """,
    dims={"units": 4},
    input_shapes={"x": (5,)},
    states={"h": State((4,), learned=True), "m": State((4,))},
    parameters={"W": (5, 4), "U": (4, 4), "P": (4, 3)},
    norms={"n": Norm(kind="batch", features=4, epsilon=0.01, scope="per_step", steps=6)},
)


def _arrays(layer: str, cell: Cell, part: str = "") -> dict[str, Array]:
    return {f"{layer}.{part}{name}": RNG.uniform(0.5, 1.5, shape) for name, shape in cell.weight_shapes().items()}


def _dense_model(**changes: Any) -> Model:
    model = Model(
        name="small",
        inputs=(Input("x", (None, 5)),),
        outputs=("out",),
        layers={"dense": layers.Dense(), "out": layers.Flatten()},
        nodes=(Node("dense", "dense", ("x",)), Node("out", "out", ("dense",))),
        weights={"dense.kernel": np.zeros((5, 3)), "dense.bias": np.zeros(3)},
    )
    return replace(model, **changes)


def test_every_layer_has_a_rule() -> None:
    assert set(RULES) == set(get_args(AnyLayer)) - {Recurrent, Bidirectional, Formula}


def test_unknown_time_stays_unknown() -> None:
    assert infer(_dense_model()) == {"x": (None, 5), "dense": (None, 3), "out": (None,)}
    assert infer(_dense_model(inputs=(Input("x", (7, 5)),)))["out"] == (21,)


def _recurrent_model(layer: AnyLayer, weights: dict[str, Array], outputs: int, time: int | None) -> Model:
    names = tuple(f"rnn:{n}" if n else "rnn" for n in range(outputs))
    mask = layers.StepMask(value=9.0, any_feature=True)
    return Model(
        name="recurrent",
        inputs=(Input("x", (time, 5)),),
        outputs=(*names, "mask"),
        layers={"rnn": layer, "mask": mask},
        nodes=(Node("mask", "mask", ("x",)), Node("rnn", "rnn", ("x",), masks=("mask",))),
        weights=weights,
    )


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_recurrent(sequences: bool, state: bool) -> None:
    layer = Recurrent(cell=GRU, return_sequences=sequences, return_state=state)
    _agrees(layer, _arrays("rnn", GRU), 3 if state else 1)


@pytest.mark.parametrize(("merge", "outputs"), [("concat", 5), ("add", 5), ("multiply", 5), ("average", 5), (None, 6)])
def test_bidirectional(merge: Any, outputs: int) -> None:
    one = Recurrent(cell=GRU, return_sequences=True, return_state=True)
    layer = Bidirectional(forward=one, backward=Recurrent(**{**_fields(one), "reverse": True}), merge=merge)
    weights = {**_arrays("rnn", GRU, "forward."), **_arrays("rnn", GRU, "backward.")}
    _agrees(layer, weights, outputs)


def _fields(layer: Recurrent) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in layer.__struct_fields__}


def _agrees(layer: AnyLayer, weights: dict[str, Array], outputs: int) -> None:
    """The shapes found are those of the values computed, and the same with time open."""
    model = _recurrent_model(layer, weights, outputs, 7)
    computed = run(model, {"x": RNG.normal(size=(2, 7, 5))})
    shapes = infer(model)
    assert {name: shapes[name] for name in computed} == {name: array.shape[1:] for name, array in computed.items()}
    assert shapes["mask"] == (7,)
    unknown = infer(_recurrent_model(layer, weights, outputs, None))
    assert {name: tuple(7 if size is None else size for size in shape) for name, shape in unknown.items()} == shapes


def test_formula() -> None:
    cell = Cell(
        equations="layer pool(x) -> y:\n    w = softmax(x @ v, axis=0)\n    y = sum(w * x, axis=0)\n",
        dims={},
        input_shapes={"x": (None, 5)},
        parameters={"v": (5, 1)},
    )
    model = Model(
        name="formula",
        inputs=(Input("x", (7, 5)),),
        outputs=("y",),
        layers={"y": Formula(cell=cell)},
        nodes=(Node("y", "y", ("x",)),),
        weights={"y.v": np.ones((5, 1))},
    )
    assert infer(model)["y"] == (5,)
    assert run(model, {"x": np.ones((2, 7, 5))})["y"].shape == (2, 5)
    with pytest.raises(UsageError, match=r"the input x has shape \[7, 6\], needed \[\?, 5\]"):
        infer(replace(model, inputs=(Input("x", (7, 6)),)))


def test_layer_applied_to_every_step() -> None:
    model = Model(
        name="distributed",
        inputs=(Input("x", (7, 6, 5)), Input("lengths", (1,), dtype="int")),
        outputs=("unfold", "mask", "both"),
        layers={
            "fold": layers.FoldTime(),
            "inner": layers.GlobalPooling(operation="max"),
            "unfold": layers.UnfoldTime(),
            "mask": layers.LengthMask(),
            "real": layers.StepMask(any_feature=True),
            "both": layers.MergeMasks(),
        },
        nodes=(
            Node("fold", "fold", ("x",)),
            Node("inner", "inner", ("fold",)),
            Node("unfold", "unfold", ("inner", "x")),
            Node("mask", "mask", ("unfold", "lengths")),
            Node("real", "real", ("unfold",)),
            Node("both", "both", ("mask", "real")),
        ),
        weights={},
    )
    shapes = infer(model)
    assert shapes["fold"] == (6, 5)
    computed = run(model, {"x": RNG.normal(size=(2, 7, 6, 5)), "lengths": np.asarray([[3], [7]])})
    assert {name: shapes[name] for name in computed} == {name: array.shape[1:] for name, array in computed.items()}
    assert computed["both"].sum(axis=1).tolist() == [3, 7]


# --- what is refused -------------------------------------------------------------------------------------------


def test_weight_of_the_wrong_shape() -> None:
    weights = {"dense.kernel": np.zeros((6, 3)), "dense.bias": np.zeros(3)}
    with pytest.raises(CorruptFile) as caught:
        infer(_dense_model(weights=weights))
    assert str(caught.value) == "layer dense: the tensor dense.kernel has shape [6, 3], its layer needs [5, any]"


def test_weight_that_is_missing() -> None:
    with pytest.raises(CorruptFile, match=r"layer dense: the tensor dense\.bias is missing"):
        infer(_dense_model(weights={"dense.kernel": np.zeros((5, 3))}))


def test_weight_of_a_cell() -> None:
    weights = _arrays("rnn", GRU) | {"rnn.n.mean": np.zeros((5, 4))}
    with pytest.raises(CorruptFile, match=r"rnn\.n\.mean has shape \[5, 4\], its layer needs \[6, 4\]"):
        infer(_recurrent_model(Recurrent(cell=GRU), weights, 1, 7))
    del weights["rnn.initial.h"]
    weights["rnn.n.mean"] = np.zeros((6, 4))
    with pytest.raises(CorruptFile, match=r"rnn\.initial\.h is missing"):
        infer(_recurrent_model(Recurrent(cell=GRU), weights, 1, 7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": ("nowhere",)}, "the output nowhere"),
        ({"nodes": (Node("dense", "dense", ("y",)),)}, "the input y"),
        ({"nodes": (Node("out", "out", ("dense",)), Node("dense", "dense", ("x",)))}, "the input dense"),
        ({"nodes": (Node("out", "unknown", ("x",)),)}, "not in the model"),
        ({"nodes": (Node("x", "dense", ("x",)),)}, "two nodes or inputs"),
        ({"nodes": (Node("dense", "dense", ("x", "x")),)}, "takes one input"),
        ({"nodes": (Node("dense", "dense", ("x",), masks=("x",)),)}, "a mask has batch and time"),
        ({"inputs": (Input("x", ()),)}, "at least 2"),
    ],
)
def test_graphs_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        infer(_dense_model(**changes))


CONV = layers.Convolution(window=(9,), strides=(1,), dilation=(1,), use_bias=False)


@pytest.mark.parametrize(
    ("layer", "shapes", "weights", "message"),
    [
        (CONV, [(7, 5)], {"kernel": (9, 5, 2)}, "shorter than the window"),
        (layers.Reshape(shape=(4, 9)), [(7, 5)], {}, "cannot be reshaped"),
        (layers.Reshape(shape=(-1, 4)), [(7, 5)], {}, "cannot be reshaped"),
        (layers.Reshape(shape=(-1, -1)), [(7, 5)], {}, "more than one size open"),
        (layers.Permute(order=(1, 1)), [(7, 5)], {}, "no order of the axes"),
        (layers.Cropping(amounts=((4, 3),)), [(7, 5)], {}, "nothing is left"),
        (layers.Merge(operation="add"), [(7, 5), (7, 4)], {}, "do not go together"),
        (layers.Merge(operation="subtract"), [(7, 5)] * 3, {}, "takes 2 inputs"),
        (layers.Concatenate(), [(7, 5), (6, 5)], {}, "do not go together"),
        (layers.Concatenate(axis=3), [(7, 5), (7, 5)], {}, "axis 3 of a value with 3 axes"),
        (layers.Dot(axes=(2, 1)), [(7, 5), (7, 5)], {}, "do not go together"),
        (layers.Attention(), [(4, 5), (7, 6)], {}, "do not go together"),
        (layers.GroupNormalization(groups=2, epsilon=0.1, scale=False, center=False), [(7, 5)], {}, "equal groups"),
        (layers.BatchNormalization(axis=4, epsilon=0.1), [(7, 5)], {}, "axis 4"),
        (layers.Apply(activation=layers.Activation("glu")), [(7, 5)], {}, "odd size 5"),
        (layers.PReLU(), [(7, 5)], {"alpha": (7, 4)}, r"needs \[7, 5\]"),
        (layers.Standardization(), [(7, 5)], {"mean": (4,), "variance": (4,)}, r"needs \[7, 5\]"),
        (layers.Rescaling(scale=(1.0, 2.0), offset=(0.0,)), [(7, 5)], {}, "2 numbers for 5 channels"),
    ],
)
def test_layers_that_do_not_fit(
    layer: AnyLayer, shapes: list[tuple[int, ...]], weights: dict[str, tuple[int, ...]], message: str
) -> None:
    names = tuple(f"x{n}" for n in range(len(shapes)))
    model = Model(
        name="one",
        inputs=tuple(map(Input, names, shapes)),
        outputs=("y",),
        layers={"y": layer},
        nodes=(Node("y", "y", names),),
        weights={f"y.{name}": np.ones(shape) for name, shape in weights.items()},
    )
    with pytest.raises(NormconvertError, match=message):
        infer(model)


def test_initial_states() -> None:
    model = _recurrent_model(Recurrent(cell=GRU), _arrays("rnn", GRU), 1, 7)
    given = (Input("x", (7, 5)), Input("h0", (4,)), Input("m0", (3,)))
    nodes = (Node("rnn", "rnn", ("x",), states=("h0", "m0")),)
    with pytest.raises(UsageError, match=r"initial state m has shape \[3\], needed \[4\]"):
        infer(replace(model, inputs=given, nodes=nodes, outputs=("rnn",)))
    nodes = (Node("rnn", "rnn", ("x",), states=("h0",)),)
    with pytest.raises(UsageError, match="1 initial states are given, the cell has 2"):
        infer(replace(model, inputs=given, nodes=nodes, outputs=("rnn",)))


def test_window_arithmetic() -> None:
    assert padding_amounts(7, 4, 3, 1, "same") == (1, 2)
    assert padding_amounts(7, 3, 1, 2, "causal") == (4, 0)
    assert window_length(None, 3, 1, 1, "valid") is None
    assert window_length(2, 3, 1, 1, "valid") == 0
    assert window_length(7, 4, 3, 1, "same") == 3
    assert transposed_length(7, 2, 3, 1, "valid", None) == 21
    assert transposed_length(7, 5, 2, 1, "same", 1) == 14
    with pytest.raises(UsageError, match="'full' is not known"):
        padding_amounts(7, 3, 1, 1, "full")
