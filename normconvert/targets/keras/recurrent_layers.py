"""The Keras layers of a recurrent layer: Keras's own where they mean the same, else one written from the equations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from normconvert.cells import family
from normconvert.cells.matching import Match, match
from normconvert.errors import Unsupported
from normconvert.ir.cell import Cell
from normconvert.ir.layers import Bidirectional, Formula, Recurrent
from normconvert.ir.model import Array
from normconvert.passes.fused import fuse
from normconvert.passes.recognise import PlainCell, recognise
from normconvert.targets.keras.cell_layer import cell_layer, formula_layer
from normconvert.targets.keras.equation_layer import EquationLayer
from normconvert.targets.keras.layer_spec import LayerSpec, Weights
from normconvert.targets.keras.plain_layers import activated

_NATIVE: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {"reset_after": False}),
    "gru_reset_after": ("GRU", {"reset_after": True}),
    "simple_rnn": ("SimpleRNN", {}),
    "conv_lstm_1d": ("ConvLSTM1D", {}),
    "conv_lstm_2d": ("ConvLSTM2D", {}),
}
"""Class and options of the Keras layer of a family."""
_KINDS = {"LSTM": "LSTM", "GRU": "GRU", "tanh": "SimpleRNN", "relu": "SimpleRNN"}


@dataclass(frozen=True)
class Native:
    """A cell as Keras's own layer has it.

    Attributes:
        spec: the layer, without the options of a loop over time.
        order: for each state of the Keras layer, its position among the cell's states.
    """

    spec: LayerSpec
    order: tuple[int, ...]


def native(layer: Recurrent, weights: Weights) -> Native | None:
    """Keras's own layer for a cell, if there is one with these very weights."""
    if layer.fixed or any(state.learned for state in layer.cell.states.values()):
        return None
    return _from_family(layer.cell, weights) or _from_algebra(layer.cell, weights)


def _from_family(cell: Cell, weights: Weights) -> Native | None:
    for name, (kind, options) in _NATIVE.items():
        known = family(name)
        found = match(cell, known)
        if not isinstance(found, Match):
            continue
        arrays = found.arrays(weights)
        if "b_h" in arrays and ("b" not in arrays or name != "gru_reset_after"):
            return None
        if name == "gru_reset_after" and ("b" in arrays) != ("b_h" in arrays):
            return None
        stored = known.store("keras", cell, arrays)
        spec = _spec(kind, {**options, **_loop_options(found, arrays["W_x"])}, stored, found)
        return Native(spec, tuple(list(cell.states).index(found.names[state]) for state in known.states))
    return None


def _loop_options(found: Match, kernel: Array) -> dict[str, Any]:
    options = {key: list(v) if isinstance(v, tuple) else v for key, v in found.options.items()}
    if "dilation" not in options:
        return options
    options["dilation_rate"] = options.pop("dilation")
    return {**options, "kernel_size": list(kernel.shape[:-2])}


def _spec(kind: str, options: dict[str, Any], stored: Mapping[str, Array], found: Match) -> LayerSpec:
    units = stored["recurrent_kernel"].shape[-2]
    config = {**options, "filters" if kind.startswith("Conv") else "units": units, "use_bias": "bias" in stored}
    arrays = {f"cell.{name}": array for name, array in stored.items()}
    spec = activated(kind, found.functions.get("activation"), config, arrays)
    if "recurrent_activation" not in found.functions:
        return spec
    gates = activated(kind, found.functions["recurrent_activation"], spec.config, arrays, "recurrent_activation")
    return LayerSpec(kind, gates.config, arrays, functions={**spec.functions, **gates.functions})


def _from_algebra(cell: Cell, weights: Weights) -> Native | None:
    """A cell that is written differently but is a plain LSTM, GRU or RNN, where no sum of biases has to be rounded."""
    plain = recognise(cell)
    shape = cell.input_shapes[cell.parsed().inputs[0]]
    if plain is None or shape[0] is None:
        return None
    units = next(iter(cell.states.values())).shape[0]
    fused = fuse(plain, shape[0], units, weights)
    if fused is None:
        return None
    arrays = _keras_arrays(plain, fused.arrays, units)
    if arrays is None:
        return None
    kind = _KINDS[plain.kind]
    config: dict[str, Any] = {"units": units, "use_bias": fused.bias}
    config |= {"activation": "relu" if plain.kind == "relu" else "tanh"}
    config |= {} if kind == "SimpleRNN" else {"recurrent_activation": "sigmoid"}
    config |= {"reset_after": True} if kind == "GRU" else {}
    order = tuple(list(cell.states).index(name) for name in plain.states)
    return Native(LayerSpec(kind, config, {f"cell.{name}": array for name, array in arrays.items()}), order)


def _keras_arrays(plain: PlainCell, arrays: Mapping[str, Array], units: int) -> dict[str, Array] | None:
    """PyTorch's arrays as Keras's: transposed, the gates of a GRU z, r, n; None where a sum of biases would round."""
    order = (1, 0, 2) if plain.kind == "GRU" else tuple(range(len(plain.gates)))

    def gates(array: Array) -> Array:
        blocks = np.split(array, len(order))
        return np.concatenate([blocks[n] for n in order])

    found = {"kernel": gates(arrays["weight_ih"]).T, "recurrent_kernel": gates(arrays["weight_hh"]).T}
    if "bias_ih" not in arrays:
        return found
    outer, inner = gates(arrays["bias_ih"]), gates(arrays["bias_hh"])
    if plain.kind == "GRU":
        return {**found, "bias": np.stack([outer, inner])}
    exact = outer.astype(np.float64) + inner.astype(np.float64)
    total = exact.astype(outer.dtype)
    return {**found, "bias": total} if np.array_equal(total.astype(np.float64), exact) else None


def looped(found: Native, layer: Recurrent, *, reverse: bool = False) -> LayerSpec:
    """Keras's own layer with the options of a recurrent layer."""
    options: dict[str, Any] = {
        "return_sequences": layer.return_sequences,
        "return_state": layer.return_state,
        "stateful": layer.stateful,
        "go_backwards": layer.reverse if not reverse else True,
        "dropout": layer.dropout,
        "recurrent_dropout": layer.recurrent_dropout,
    }
    options |= {"zero_output_for_mask": True} if layer.zero_masked else {}
    spec = found.spec
    return LayerSpec(spec.kind, {**spec.config, **options}, spec.arrays, functions=spec.functions)


def both_native(layer: Bidirectional, weights: Weights, *, masked: bool) -> tuple[LayerSpec, Native] | None:
    """Keras's `Bidirectional` around its own layers, if both directions are alike; and the forward layer."""
    parts = {"forward": layer.forward, "backward": layer.backward}
    own = {side: under(weights, side) for side in parts}
    found = {side: native(part, own[side]) for side, part in parts.items()}
    ahead, back = found["forward"], found["backward"]
    if ahead is None or back is None or ahead.order != back.order or ahead.spec.kind != back.spec.kind:
        return None
    plain = layer.forward.reverse is False and layer.backward.reverse is True
    sequences = layer.forward.return_sequences
    same = ("return_sequences", "return_state", "stateful", "zero_masked")
    alike = all(getattr(layer.forward, key) == getattr(layer.backward, key) for key in same)
    if not plain or not alike or (masked and layer.forward.zero_masked != sequences):
        return None
    merges = {"concat": "concat", "add": "sum", "multiply": "mul", "average": "ave", None: None}
    specs = {side: looped(each, parts[side]) for side, each in (("forward", ahead), ("backward", back))}
    if any(spec.kind.startswith("Conv") for spec in specs.values()):
        return None
    config = {
        "layer": {"spec": specs["forward"]},
        "backward_layer": {"spec": specs["backward"]},
        "merge_mode": merges[layer.merge],
    }
    arrays = {f"{side}_layer.{path}": array for side, spec in specs.items() for path, array in spec.arrays.items()}
    functions = {**specs["forward"].functions, **specs["backward"].functions}
    return LayerSpec("Bidirectional", config, arrays, functions=functions), ahead


def written(layer: Recurrent, weights: Weights) -> LayerSpec:
    """A layer class written from the equations of a cell."""
    if layer.recurrent_dropout:
        layer = msgspec.structs.replace(layer, recurrent_dropout=0.0)
    return _generated(cell_layer(layer), weights)


def both_written(layer: Bidirectional, weights: Weights) -> LayerSpec:
    """Both directions as layer classes written from equations, and the layer around them."""
    parts = {"forward": layer.forward, "backward": layer.backward}
    specs = {side: written(part, under(weights, side)) for side, part in parts.items()}
    config: dict[str, Any] = {
        side: {"spec": replace(spec, config={**spec.config, "name": side})} for side, spec in specs.items()
    }
    arrays = {f"{side}.{path}": array for side, spec in specs.items() for path, array in spec.arrays.items()}
    paths = {f"{side}.{n}": f"{side}.{path}" for side, spec in specs.items() for n, path in spec.weights.items()}
    return LayerSpec("BothDirections", {**config, "merge": layer.merge}, arrays, weights=paths)


def formula(layer: Formula, weights: Weights) -> LayerSpec:
    """A layer class written from the equations of a stateless layer."""
    return _generated(formula_layer(layer), weights)


def _generated(made: EquationLayer, weights: Weights) -> LayerSpec:
    arrays = {made.weights[name]: array for name, array in weights.items()}
    return LayerSpec(made.name, made.config, arrays, made.source, weights=made.weights)


def under(weights: Weights, side: str) -> dict[str, Array]:
    """The arrays of one direction."""
    return {name[len(side) + 1 :]: array for name, array in weights.items() if name.startswith(f"{side}.")}


def reordered(values: Sequence[str], order: Sequence[int]) -> list[str]:
    """States in the order of a Keras layer, from the cell's; one direction after the other."""
    size = len(order)
    if len(values) % size:
        raise Unsupported("a layer is given some of its initial states only")
    starts = range(0, len(values), size)
    return [values[start + position] for start in starts for position in order]
