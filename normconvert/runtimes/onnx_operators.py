"""Operators of the ONNX standard in NumPy where its reference evaluator leaves parts of them out, or rounds.

`LSTM`, `GRU` and `RNN` are written from their documentation (https://onnx.ai/onnx/operators/onnx__LSTM.html and its
neighbours), with lengths per sample and both directions; tensors are `[time, batch, features]` (layout 0). `Scan` goes
in both directions too; its body holds all it needs. `Erf` is here because the evaluator's own rounds to float32, and
`MatMul` because its own adds up in the type of the factors, where hardware adds up products of 16 bits in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from normconvert.interpreter.functions import erf, hard_sigmoid, relu, sigmoid, softsign
from normconvert.ir.model import Array

Function = Callable[[Array], Array]
_ACTIVATIONS: dict[str, Function] = {"Sigmoid": sigmoid, "Tanh": np.tanh, "Relu": relu, "Softsign": softsign}

Step = Callable[[Array, "tuple[Array, ...]"], "tuple[Array, ...]"]
"""From the input of a step and the states to the states after it; the first state is the output."""


def functions(names: Sequence[str], alpha: Sequence[float] | None, beta: Sequence[float] | None) -> list[Function]:
    """The activations; those that have parameters take them one after another."""
    slopes, offsets = iter(alpha or ()), iter(beta or ())

    def hard() -> Function:
        slope, offset = next(slopes, 0.2), next(offsets, 0.5)
        return lambda x: hard_sigmoid(x, slope, offset)

    return [hard() if name == "HardSigmoid" else _ACTIVATIONS[name] for name in names]


def lstm_step(w: Array, r: Array, b: Array, activations: Sequence[Function]) -> Step:
    """Gates in the order i, o, f, c."""
    f, g, h = activations
    bias = np.add(*np.split(b, 2))

    def step(x: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        output, cell = states
        i, o, forget, c = np.split(x @ w.T + output @ r.T + bias, 4, axis=-1)
        cell = f(forget) * cell + f(i) * g(c)
        return f(o) * h(cell), cell

    return step


def gru_step(w: Array, r: Array, b: Array, activations: Sequence[Function], linear_before_reset: int) -> Step:
    """Gates in the order z, r, h."""
    f, g = activations
    units = r.shape[1]
    (w_gates, w_new), (r_gates, r_new) = (np.split(each, [2 * units]) for each in (w, r))
    b_gates, b_new, rb_gates, rb_new = np.split(b, [2 * units, 3 * units, 5 * units])

    def step(x: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        (output,) = states
        z, reset = np.split(f(x @ w_gates.T + output @ r_gates.T + b_gates + rb_gates), 2, axis=-1)
        inner = reset * (output @ r_new.T + rb_new) if linear_before_reset else (reset * output) @ r_new.T + rb_new
        new = g(x @ w_new.T + inner + b_new)
        return ((1 - z) * new + z * output,)

    return step


def rnn_step(w: Array, r: Array, b: Array, activations: Sequence[Function]) -> Step:
    """One gate."""
    (f,) = activations
    bias = np.add(*np.split(b, 2))
    return lambda x, states: (f(x @ w.T + states[0] @ r.T + bias),)


def over_time(step: Step, x: Array, states: tuple[Array, ...], lengths: Array, *, reverse: bool) -> tuple[Array, ...]:
    """The outputs `[time, batch, units]`, zero past a sample's length, then the states after its last step."""
    outputs = np.zeros((len(x), *states[0].shape), x.dtype)
    for t in range(len(x) - 1, -1, -1) if reverse else range(len(x)):
        real = (t < lengths)[:, None]
        states = tuple(np.where(real, new, old) for new, old in zip(step(x[t], states), states, strict=True))
        outputs[t] = np.where(real, states[0], 0)
    return (outputs, *states)


def run(
    make: Callable[[int], Step],
    x: Array,
    directions: Sequence[bool],
    starts: Sequence[Array | None],
    units: int,
    lengths: Array | None,
) -> tuple[Array, ...]:
    """All directions: outputs `[time, directions, batch, units]`, states `[directions, batch, units]`."""
    counts = np.full(x.shape[1], len(x)) if lengths is None else lengths
    results = []
    for n, reverse in enumerate(directions):
        begin = tuple(np.zeros((x.shape[1], units), x.dtype) if start is None else start[n] for start in starts)
        results.append(over_time(make(n), x, begin, counts, reverse=reverse))
    outputs, *finals = zip(*results, strict=True)
    return (np.stack(outputs, axis=1).astype(x.dtype), *(np.stack(final).astype(x.dtype) for final in finals))


_DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}


def operators() -> list[Any]:
    """Classes for `onnx.reference.ReferenceEvaluator`."""
    from onnx.reference.op_run import OpRun

    class Recurrent(OpRun):
        """What the three have in common: lengths, directions, initial states and activations."""

        op_domain = ""
        step: Callable[..., Step]
        usual: tuple[str, ...]
        states = 1
        reads: tuple[str, ...] = ()

        def _run(
            self,
            x: Array,
            w: Array,
            r: Array,
            b: Array | None = None,
            lengths: Array | None = None,
            *starts: Array | None,
            activations: Any = None,
            activation_alpha: Any = None,
            activation_beta: Any = None,
            direction: Any = None,
            **options: Any,
        ) -> tuple[Array, ...]:
            ways, count = _DIRECTIONS[direction or "forward"], len(self.usual)
            named = functions(activations or self.usual * len(ways), activation_alpha, activation_beta)
            own = {name: options.get(name) or 0 for name in self.reads}

            def make(n: int) -> Step:
                bias = np.zeros(2 * w.shape[1], w.dtype) if b is None else b[n]
                return self.step(w[n], r[n], bias, named[count * n : count * (n + 1)], **own)

            begin = (*starts, None, None)[: self.states]
            return run(make, x, ways, begin, r.shape[-1], lengths)[: len(self.onnx_node.output)]

    class LSTM(Recurrent):
        step = staticmethod(lstm_step)
        usual, states = ("Sigmoid", "Tanh", "Tanh"), 2

    class GRU(Recurrent):
        step = staticmethod(gru_step)
        usual, reads = ("Sigmoid", "Tanh"), ("linear_before_reset",)

    class RNN(Recurrent):
        step = staticmethod(rnn_step)
        usual = ("Tanh",)

    class Erf(OpRun):
        op_domain = ""

        def _run(self, x: Array, **options: Any) -> tuple[Array, ...]:
            return (erf(x),)

    class Scan(OpRun):
        op_domain = ""
        body: Any

        def _run(
            self,
            *args: Array,
            num_scan_inputs: Any = None,
            scan_input_directions: Any = None,
            scan_output_directions: Any = None,
            **options: Any,
        ) -> tuple[Array, ...]:
            states, scanned = list(args[:-num_scan_inputs]), list(args[-num_scan_inputs:])
            turned = scan_input_directions or [0] * num_scan_inputs
            scanned = [np.flip(x, 0) if flag else x for x, flag in zip(scanned, turned, strict=True)]
            steps: list[list[Array]] = []
            for values in zip(*scanned, strict=True):
                results = self.body.run(None, dict(zip(self.body.input_names, [*states, *values], strict=True)))
                states = results[: len(states)]
                steps.append(results[len(states) :])
            outputs = [np.stack(each) for each in zip(*steps, strict=True)]
            turned = scan_output_directions or [0] * len(outputs)
            return (*states, *(np.flip(y, 0) if flag else y for y, flag in zip(outputs, turned, strict=True)))

    class MatMul(OpRun):
        op_domain = ""

        def _run(self, a: Array, b: Array, **options: Any) -> tuple[Array, ...]:
            small = a.dtype.itemsize < 4
            return ((a.astype(np.float32) @ b.astype(np.float32)).astype(a.dtype) if small else a @ b,)

    return [LSTM, GRU, RNN, Erf, Scan, MatMul]
