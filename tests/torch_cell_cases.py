"""Cells for the tests of the PyTorch target, with every feature a cell can have, and how they are checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from torch_cases import build, values_for, worst_error

from normconvert.ir.cell import Cell, State
from normconvert.ir.layers import AnyLayer, Bidirectional, Recurrent, StepMask
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.ir.norm import Norm

INPUTS, UNITS, ROWS = 3, 7, 4

LSTM = """cell norm_lstm(x; c, h):
    z = {x} + {h} + b
    i, j, f, o = split(z, 4)
    c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh({c})
"""


@dataclass(frozen=True)
class Case:
    """A cell and how it is used."""

    cell: Cell
    options: dict[str, Any] = field(default_factory=dict)


def cell_of(
    equations: str, states: str = "h", constants: dict[str, float] | None = None, **parameters: tuple[int, ...]
) -> Cell:
    """A cell of 7 units on 3 inputs."""
    return Cell(
        equations=equations,
        dims={"units": UNITS},
        input_shapes={"x": (INPUTS,)},
        states={name: State((UNITS,)) for name in states},
        parameters=parameters,
        constants=constants or {},
    )


def lstm(norms: dict[str, Norm]) -> Cell:
    """An LSTM in gate order i, j, f, o whose products and cell state go through the norms that are declared."""

    def call(norm: str, text: str) -> str:
        return f"{norm}({text})" if norm in norms else text

    return Cell(
        equations=LSTM.format(x=call("norm_x", "x @ W_x"), h=call("norm_h", "h @ W_h"), c=call("norm_c", "c")),
        dims={"units": UNITS},
        input_shapes={"x": (INPUTS,)},
        states={"c": State((UNITS,)), "h": State((UNITS,))},
        parameters={"W_x": (INPUTS, 4 * UNITS), "W_h": (UNITS, 4 * UNITS), "b": (4 * UNITS,)},
        constants={"forget_bias": 0.7},
        norms=norms,
    )


def norms(**common: Any) -> dict[str, Norm]:
    """The three norms of an LSTM."""
    sizes = {"norm_x": 4 * UNITS, "norm_h": 4 * UNITS, "norm_c": UNITS}
    return {name: Norm(features=size, **{"epsilon": 0.01, **common}) for name, size in sizes.items()}


def arrays(cell: Cell, seed: int = 0) -> dict[str, Array]:
    """Random weights, none of them neutral."""
    draw = np.random.default_rng(seed)
    found = {name: 0.6 * draw.normal(size=shape) for name, shape in cell.weight_shapes().items()}
    for name in found:
        if name.endswith((".gamma", ".variance")):
            found[name] = 0.4 + draw.random(found[name].shape)
    return {name: array.astype(np.float32) for name, array in found.items()}


def both_arrays(cell: Cell) -> dict[str, Array]:
    """Random weights for two directions."""
    sides = enumerate(("forward", "backward"))
    return {f"{side}.{name}": array for n, side in sides for name, array in arrays(cell, n).items()}


def model_of(
    layer: AnyLayer, weights: dict[str, Array], *, masked: bool = False, states: tuple[str, ...] = ()
) -> Model:
    """A model of one recurrent layer, its states after the output if it returns them."""
    part = layer.forward if isinstance(layer, Bidirectional) else layer
    assert isinstance(part, Recurrent)
    finals = len(part.cell.states) if part.return_state else 0
    outputs = 1 + finals
    if isinstance(layer, Bidirectional):
        outputs = (2 if layer.merge is None else 1) + 2 * finals
    sizes = [state.shape for state in part.cell.states.values()]
    inputs = [Input(name, (None, *part.cell.input_shapes[name])) for name in part.cell.parsed().inputs]
    inputs += [Input("steps", (None,), "int")] if masked else []
    inputs += [Input(name, sizes[n % len(sizes)]) for n, name in enumerate(states)]
    layers: dict[str, AnyLayer] = {"rnn": layer}
    nodes = [Node("rnn", "rnn", part.cell.parsed().inputs, ("real",) if masked else (), states)]
    if masked:
        layers["real"] = StepMask(value=0.0)
        nodes.insert(0, Node("real", "real", ("steps",)))
    return Model(
        name="one layer",
        inputs=tuple(inputs),
        outputs=tuple("rnn" if n == 0 else f"rnn:{n}" for n in range(outputs)),
        layers=layers,
        nodes=tuple(nodes),
        weights={f"rnn.{name}": array for name, array in weights.items()},
    )


def check(model: Model, folder: Path) -> str:
    """Eager and scripted, with several batch and time sizes; gives the generated text."""
    import torch

    module = build(model, folder)
    for batch, time in ((2, 6), (5, 3), (3, 11)):
        assert worst_error(model, module, values_for(model, batch, time)) < 1e-12
    assert worst_error(model, torch.jit.script(module), values_for(model, 4, 5)) < 1e-12
    assert worst_error(model, module.float(), values_for(model, 4, 5), np.float32) < 1e-5
    return (folder / "model.py").read_text()


PER_STEP = {"kind": "batch", "scope": "per_step", "steps": ROWS}
CASES = {
    "no norm": Case(lstm({})),
    "batch norm, shared": Case(lstm(norms(kind="batch"))),
    "batch norm, per step": Case(lstm(norms(**PER_STEP))),
    "modulo": Case(lstm(norms(**PER_STEP, past_end="modulo", affine_per_step=True))),
    "bypass": Case(lstm(norms(**PER_STEP, past_end="bypass"))),
    "batch at hand": Case(lstm(norms(kind="batch", source="batch", unbiased=True))),
    "batch at hand, pooled": Case(lstm(norms(kind="batch", source="batch", pooled=True))),
    "batch at hand, affine per step": Case(lstm(norms(kind="batch", source="batch", affine_per_step=True, steps=ROWS))),
    "layer norm": Case(lstm(norms(kind="layer"))),
    "layer norm per gate, unbiased": Case(
        lstm(
            {
                **norms(kind="layer", unbiased=True, epsilon_placement="outside"),
                "norm_x": Norm(
                    kind="layer", features=4 * UNITS, groups=4, epsilon=0.02, epsilon_placement="both", beta=False
                ),
            }
        )
    ),
    "rms norm": Case(lstm(norms(kind="rms", beta=False))),
    "rms norm with offset": Case(lstm(norms(kind="rms"))),
    "offset only": Case(lstm(norms(kind="layer", gamma=False))),
    "reverse": Case(lstm(norms(**PER_STEP)), {"reverse": True}),
    "states out": Case(lstm(norms(**PER_STEP)), {"return_state": True}),
}


CONV_LSTM = Cell(
    equations="""cell conv_lstm(x; h, c):
        z = norm(conv(x, kernel, padding='same', strides=2)) + conv(h, recurrent, padding='same') + b
        i, f, g, o = split(z, 4)
        c = hard_sigmoid(f, 0.2) * c + hard_sigmoid(i, 0.2) * tanh(g)
        h = hard_sigmoid(o, 0.2) * tanh(norm_c(c))
    """,
    dims={"filters": 2},
    input_shapes={"x": (6, 4, 3)},
    states={"h": State((3, 2, 2)), "c": State((3, 2, 2))},
    parameters={"kernel": (3, 2, 3, 8), "recurrent": (2, 2, 2, 8), "b": (8,)},
    norms={
        "norm": Norm(kind="batch", features=8, epsilon=0.01, scope="per_step", steps=ROWS),
        "norm_c": Norm(kind="layer", features=2, epsilon=0.01, pooled=True),
    },
)
VOLUMES = Cell(
    equations="""cell conv_rnn(x; h):
        h = tanh(norm(conv(x, kernel, padding='same', strides=(1, 2, 1)) + conv(h, recurrent, padding='same')) + b)
    """,
    dims={"filters": 2},
    input_shapes={"x": (5, 4, 3, 2)},
    states={"h": State((5, 2, 3, 2))},
    parameters={"kernel": (3, 2, 2, 2, 2), "recurrent": (2, 2, 3, 2, 2), "b": (2,)},
    norms={"norm": Norm(kind="batch", features=2, positions=(5, 2, 3), epsilon=0.01)},
)
MANY = Cell(
    equations="""cell many(x, s; h, m) -> y:
        gain = exp(g) * scale
        xh = concat(x, h)
        y = (norm(xh @ W) + s * exp(rate)) * gain
        h = minimum(tanh(y) * m, 0.4) - maximum(abs(x[0:1]), clip_low)
        m = mean(reshape(y, shape=(1, -1)), axis=0) + max(s, axis=0, keepdims=True)
    """,
    dims={"units": UNITS},
    input_shapes={"x": (INPUTS,), "s": (1,)},
    states={"h": State((UNITS,), learned=True), "m": State((UNITS,))},
    parameters={"W": (INPUTS + UNITS, UNITS), "g": (UNITS,)},
    constants={"rate": 0.3, "clip_low": 0.1, "scale": 1.3},
    norms={"norm": Norm(kind="layer", features=UNITS, epsilon=0.01)},
)
PLACES = {"kind": "batch", "epsilon": 0.01, "positions": (3, 2)}
CASES |= {
    "statistics per position": Case(
        msgspec.structs.replace(
            CONV_LSTM,
            norms={
                "norm": Norm(features=8, **PLACES),
                "norm_c": Norm(
                    features=2, **PLACES, scope="per_step", steps=ROWS, affine_per_step=True, past_end="bypass"
                ),
            },
        )
    ),
    "rows of statistics per position": Case(
        msgspec.structs.replace(
            CONV_LSTM,
            norms={
                "norm": Norm(features=8, **PLACES, scope="per_step", steps=ROWS, beta=False),
                "norm_c": Norm(features=2, **PLACES, steps=ROWS, affine_per_step=True, past_end="modulo"),
            },
        )
    ),
    "moments per position": Case(
        msgspec.structs.replace(
            CONV_LSTM,
            norms={
                "norm": Norm(features=8, **PLACES, source="batch"),
                "norm_c": Norm(features=2, **PLACES, source="batch", unbiased=True, affine_per_step=True, steps=ROWS),
            },
        )
    ),
    "moments of the sequence, per position": Case(
        msgspec.structs.replace(
            CONV_LSTM,
            norms={
                "norm": Norm(features=8, **PLACES, source="batch", scope="sequence"),
                "norm_c": Norm(features=2, **PLACES),
            },
        )
    ),
    "moments of the sequence": Case(
        lstm({"norm_x": Norm(kind="batch", features=4 * UNITS, epsilon=0.01, source="batch", scope="sequence")})
    ),
    "convolutional": Case(CONV_LSTM, {"return_state": True}),
    "convolutional, volumes": Case(VOLUMES),
    "two inputs, learned start, odd functions": Case(MANY, {"return_state": True}),
    "parameters stored in another shape": Case(
        cell_of(
            "cell folded(x; h):\n    W = reshape(flat, shape=(3, -1))\n"
            "    h = tanh(x @ W + h @ reshape(recurrent, shape=(7, 7)) + reshape(row, shape=7))",
            flat=(21,),
            recurrent=(49,),
            row=(1, UNITS),
        )
    ),
}

GRU_AFTER = cell_of(
    """cell gru(x; h):
    x_z, x_r, x_g = split(x @ W + b, 3)
    h_z, h_r, h_g = split(h @ U + b_h, 3)
    z = sigmoid(x_z + h_z)
    r = sigmoid(x_r + h_r)
    g = tanh(x_g + r * h_g)
    h = z * h + (1 - z) * g
""",
    W=(INPUTS, 21),
    U=(UNITS, 21),
    b=(21,),
    b_h=(21,),
)
PLAIN: dict[str, tuple[Cell, str]] = {
    "lstm": (lstm({}), "nn.LSTM(3, 7, batch_first=True"),
    "gru": (GRU_AFTER, "nn.GRU(3, 7, batch_first=True"),
    "rnn": (
        cell_of("cell rnn(x; h):\n    h = tanh(x @ W + h @ U + b)", W=(INPUTS, UNITS), U=(UNITS, UNITS), b=(UNITS,)),
        "nn.RNN(3, 7, batch_first=True",
    ),
    "rnn, relu, no bias": (
        cell_of("cell rnn(x; h):\n    h = relu(x @ W + h @ U)", W=(INPUTS, UNITS), U=(UNITS, UNITS)),
        'nn.RNN(3, 7, nonlinearity="relu", bias=False, batch_first=True',
    ),
}
