"""The standard's own `LSTM`, `GRU` and `RNN` for cells that are one of these, by algebra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normconvert.ir.model import Array
from normconvert.passes.activations import SIGMOID, TANH, Activation, with_usual_activations
from normconvert.passes.fold_statistics import fold_statistics
from normconvert.passes.fused import Fused, fuse
from normconvert.passes.recognise import recognise
from normconvert.passes.reset_before import recognise_reset_before
from normconvert.targets.onnx.scan import Result, Run, initial_states

_ORDERS = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""The standard's gates (i, o, f, c of an LSTM; z, r, h of a GRU) by their places in PyTorch's order."""

_GATES = {"sigmoid": "Sigmoid", "hard_sigmoid": "HardSigmoid"}
_CANDIDATES = {"tanh": "Tanh", "relu": "Relu", "softsign": "Softsign"}
"""The standard's names of the functions that its operators may have."""


@dataclass(frozen=True)
class Native:
    """A layer as one direction of a native operator.

    Attributes:
        run: the layer over its sequence.
        kind: `LSTM`, `GRU` or `RNN`.
        units: size of its states.
        matrices: W, R and B of the operator, for one direction.
        states: the cell's names of (h, c) or (h,).
        functions: the activations, in the operator's order.
        reset_after: the reset gate of a GRU comes after the product.
    """

    run: Run
    kind: str
    units: int
    matrices: tuple[Array, Array, Array]
    states: tuple[str, ...]
    functions: tuple[Activation, ...]
    reset_after: bool


def as_native(run: Run) -> Native | None:
    """The layer as a native operator; None if there is none that computes it."""
    if run.mask is not None and (run.lengths is None or not _keeps_to_lengths(run)):
        return None
    cell, gate, candidate = with_usual_activations(run.layer.cell, _GATES.__contains__, _CANDIDATES.__contains__)
    cell, arrays = fold_statistics(cell, run.weights)
    double = run.graph.settings.precision == "float64"
    if double and any(float(np.float32(number)) != number for number in gate.parameters):
        # An attribute is a float32: in double precision such a layer is written out.
        return None
    plain = recognise(cell)
    reset_after = plain is not None
    plain = plain or recognise_reset_before(cell)
    inputs = run.shapes[0][0] if run.shapes[0] else None
    if plain is None or inputs is None:
        return None
    fused = fuse(plain, inputs, next(iter(cell.states.values())).shape[0], arrays)
    if fused is None:
        return None
    kind = fused.kind if fused.kind in ("LSTM", "GRU") else "RNN"
    functions = {"LSTM": (gate, candidate, candidate), "GRU": (gate, candidate), "RNN": (candidate,)}[kind]
    return Native(run, kind, fused.units, _matrices(fused, kind), fused.states, functions, reset_after)


def _keeps_to_lengths(run: Run) -> bool:
    """Whether what the operator gives past a sample's length is what the layer gives there."""
    return run.layer.return_sequences or run.layer.reverse or not run.layer.zero_masked


def _matrices(fused: Fused, kind: str) -> tuple[Array, Array, Array]:
    nothing = np.zeros(fused.arrays["weight_ih"].shape[0])
    biases = [_ordered(fused.arrays.get(name, nothing), kind) for name in ("bias_ih", "bias_hh")]
    w, r = (_ordered(fused.arrays[name], kind) for name in ("weight_ih", "weight_hh"))
    return w, r, np.concatenate(biases)


def _ordered(array: Array, kind: str) -> Array:
    order = _ORDERS[kind]
    gates = np.split(array, len(order))
    return np.concatenate([gates[place] for place in order])


def run_native(parts: Sequence[Native]) -> list[Result]:
    """One layer, or two directions over the same sequence, as one node; the outputs of each direction."""
    both, finals = _node(parts)
    results = []
    for n, part in enumerate(parts):
        graph, layer = part.run.graph, part.run.layer
        own = [graph.slice(final, 0, n, n + 1) if len(parts) > 1 else final for final in finals]
        states = [graph.op("Squeeze", final, np.asarray([0])) for final in own]
        output = states[0]
        if layer.return_sequences:
            sequence = graph.slice(both, 1, n, n + 1) if len(parts) > 1 else both
            output = _held(part, graph.op("Squeeze", sequence, np.asarray([1])), states[0])
        order = [part.states.index(name) for name in layer.cell.states]
        results.append(Result(output, tuple(states[place] for place in order)))
    return results


def run_side_by_side(parts: Sequence[Native]) -> tuple[str, tuple[str, ...]] | None:
    """Two directions with their outputs joined, and the final states of both; None where they must be mended first."""
    if any(part.run.mask is not None and not part.run.layer.zero_masked for part in parts):
        return None
    both, finals = _node(parts)
    graph, layer, width = parts[0].run.graph, parts[0].run.layer, 2 * parts[0].units
    if layer.return_sequences:
        output = graph.op("Reshape", graph.transpose(both, [0, 2, 1, 3]), np.asarray([0, 0, width]))
    else:
        output = graph.op("Reshape", graph.transpose(finals[0], [1, 0, 2]), np.asarray([0, width]))
    states = []
    for n, part in enumerate(parts):
        for name in part.run.layer.cell.states:
            final = graph.slice(finals[part.states.index(name)], 0, n, n + 1)
            states.append(graph.op("Squeeze", final, np.asarray([0])))
    return output, tuple(states)


def _held(part: Native, sequence: str, final: str) -> str:
    """The output with the last one repeated past the end; the operator gives zeros there."""
    run = part.run
    if run.mask is None or run.layer.zero_masked or run.layer.reverse:
        return sequence
    graph = run.graph
    real = graph.op("Unsqueeze", run.mask, np.asarray([2]))
    return graph.op("Where", real, sequence, graph.op("Unsqueeze", final, np.asarray([0])))


def _node(parts: Sequence[Native]) -> tuple[str, list[str]]:
    """The node: its output `[time, directions, batch, units]`, and its final states (h, c) or (h,)."""
    first = parts[0]
    graph, kind = first.run.graph, first.kind
    w, r, b = (np.stack(arrays) for arrays in zip(*(part.matrices for part in parts), strict=True))
    directions = ["reverse" if part.run.layer.reverse else "forward" for part in parts]
    options: dict[str, Any] = {"direction": directions[0] if len(parts) == 1 else "bidirectional"}
    if kind == "GRU":
        options["linear_before_reset"] = int(first.reset_after)
    functions = [function for part in parts for function in part.functions]
    if any(function not in (SIGMOID, TANH) for function in functions):
        options["activations"] = [_GATES.get(each.function) or _CANDIDATES[each.function] for each in functions]
        hard = [(*each.parameters, 0.5)[:2] for each in functions if each.function == "hard_sigmoid"]
        if hard:
            options["activation_alpha"], options["activation_beta"] = map(list, zip(*hard, strict=True))
    outputs = graph.several(
        kind,
        first.run.inputs[0],
        w,
        r,
        b,
        _lengths(first.run),
        *_initial(parts),
        outputs=1 + len(first.states),
        hidden_size=first.units,
        **options,
    )
    return outputs[0], outputs[1:]


def _lengths(run: Run) -> str:
    """Lengths within the sequence, or none."""
    if run.mask is None or run.lengths is None:
        return ""
    graph = run.graph
    most = graph.op("Cast", graph.length(run.inputs[0], 0), to=6)
    return graph.op("Max", graph.op("Min", run.lengths, most), np.asarray(0, np.int32))


def _initial(parts: Sequence[Native]) -> list[str]:
    """Initial h (and c) `[directions, batch, units]`; none where all are zeros."""
    if not any(part.run.initial or any(s.learned for s in part.run.layer.cell.states.values()) for part in parts):
        return []
    graph = parts[0].run.graph
    given = []
    for n in range(len(parts[0].states)):
        own = []
        for part in parts:
            starts = dict(zip(part.run.layer.cell.states, initial_states(part.run), strict=True))
            own.append(graph.op("Unsqueeze", starts[part.states[n]], np.asarray([0])))
        given.append(own[0] if len(own) == 1 else graph.op("Concat", *own, axis=0))
    return given
