"""A recurrent layer as a `Scan`, what does not depend on its states before it. Tensors are `[time, batch, ...]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from normconvert.errors import Unsupported
from normconvert.ir.expressions import next_value
from normconvert.ir.layers import Recurrent
from normconvert.ir.model import Array
from normconvert.ir.values import Shape
from normconvert.passes.prune import prune
from normconvert.passes.split_products import split_products
from normconvert.targets.onnx.builder import Graph
from normconvert.targets.onnx.equations import Equations
from normconvert.targets.onnx.gates import merge_gates
from normconvert.targets.onnx.nodes import Given, Level, Node
from normconvert.targets.onnx.offsets import fold_offsets
from normconvert.targets.onnx.staging import Stage


@dataclass(frozen=True)
class Run:
    """A recurrent layer over a sequence.

    Attributes:
        graph: where its nodes go.
        layer: the layer.
        weights: its arrays, float64.
        inputs: tensors `[time, batch, *shape]`.
        shapes: of the inputs, for one sample and one step.
        mask: truth values `[time, batch]`, or None.
        lengths: where the mask is known to be true for the first steps of each sample only: how many, `[batch]`, int32.
        initial: initial states `[batch, *shape]`, in the cell's order; none for the layer's own.
        first_step: number of steps read before (int64, no axes), or None for 0.
        continues: the initial states are those of the sequence at the step before, not its beginning.
    """

    graph: Graph
    layer: Recurrent
    weights: Mapping[str, Array]
    inputs: Sequence[str]
    shapes: Sequence[Shape]
    mask: str | None = None
    lengths: str | None = None
    initial: Sequence[str] = ()
    first_step: str | None = None
    continues: bool = False


@dataclass(frozen=True)
class Result:
    """What a recurrent layer gives.

    Attributes:
        output: `[time, batch, *shape]` if the layer returns sequences, else `[batch, *shape]` of the step read last.
        finals: final states in the cell's order.
    """

    output: str
    finals: tuple[str, ...]


@dataclass
class _Carried:
    """A value that the body hands on to its next step."""

    inner: str
    shape: Shape
    start: str
    following: str = ""


def scan(run: Run) -> Result:
    """Write a layer as a `Scan`."""
    return _Writer(run).result()


class _Writer:
    def __init__(self, run: Run) -> None:
        self.run, self.graph, self.cell = run, run.graph, run.layer.cell
        self.parsed = prune(split_products(self.cell))
        self.body = Graph(self.graph.settings, self.graph.names, f"{self.graph.scope}step/")
        self.stage = Stage(self.graph, 2, self.rows, self.body)
        starts = initial_states(run)
        self.states = {
            name: _Carried(self.body.name(name), state.shape, start)
            for (name, state), start in zip(self.cell.states.items(), starts, strict=True)
        }
        self.carried = list(self.states.values())
        self.masks: dict[int, str] = {}
        self.scanned: list[tuple[str, onnx.ValueInfoProto]] = []

    def result(self) -> Result:
        following, output = self._values()
        self.stage.prepare([*following.values(), output])
        for name, node in following.items():
            carried = self.states[name]
            carried.following = self._kept(self.stage.tensor(node, Level.STEP), carried)
        read = self._output(following, output)
        return self._scan(read, output.shape)

    def _values(self) -> tuple[dict[str, Node], Node]:
        given: dict[str, Node] = {
            name: Given(shape, Level.SEQUENCE, tensor)
            for name, shape, tensor in zip(self.parsed.inputs, self.run.shapes, self.run.inputs, strict=True)
        }
        given |= {name: Given(each.shape, Level.STEP, each.inner) for name, each in self.states.items()}
        values = Equations(self.cell, self.run.weights, given).run(self.parsed.body)
        roots = [*(values[next_value(name)] for name in self.states), values[self.parsed.outputs[0]]]
        *following, output = merge_gates(fold_offsets(roots))
        return dict(zip(self.states, following, strict=True)), output

    def _kept(self, name: str, carried: _Carried) -> str:
        """The state after a step: the one before it where the step is masked."""
        if self.run.mask is None:
            return name
        return self.body.op("Where", self._mask(len(carried.shape)), name, carried.inner)

    def _mask(self, rank: int) -> str:
        """The step's mask with as many axes as a value of one sample."""
        if rank not in self.masks:
            assert self.run.mask is not None
            wide = self.graph.op("Unsqueeze", self.run.mask, np.arange(2, 2 + rank)) if rank else self.run.mask
            name = self.body.name("real")
            info = helper.make_tensor_value_info(name, onnx.TensorProto.BOOL, [None, *[1] * rank])
            self.scanned.append((wide, info))
            self.masks[rank] = name
        return self.masks[rank]

    def _output(self, following: Mapping[str, Node], output: Node) -> str:
        """The output of a step: the tensor in the body, or of what is carried the name there."""
        state = next((self.states[name] for name, node in following.items() if node is output), None)
        given = self.run.initial and not self.run.continues
        starts_at_zero = not given and not any(each.learned for each in self.cell.states.values())
        if state is not None and (self.run.mask is None or (starts_at_zero and not self.run.layer.zero_masked)):
            # A state that begins at zero and stays while masked is what a masked output must be.
            return state.following
        name = self.stage.tensor(output, Level.STEP)
        if self.run.mask is None and self.run.layer.return_sequences:
            return name
        if self.run.layer.zero_masked and self.run.mask is not None:
            name = self.body.op("Where", self._mask(len(output.shape)), name, self.body.number(0))
            if self.run.layer.return_sequences:
                return name
        if self.run.continues and self.run.mask is not None and not self.run.layer.zero_masked:
            raise Unsupported("cannot be streamed: it repeats its last output at masked steps, and no state holds that")
        held = _Carried(self.body.name("held"), output.shape, zeros(self.run, output.shape))
        if self.run.mask is not None and not self.run.layer.zero_masked:
            name = self.body.op("Where", self._mask(len(output.shape)), name, held.inner)
        held.following = name
        self.carried.append(held)
        return name

    def _scan(self, read: str, shape: Shape) -> Result:
        element = self.graph.settings.element
        inner = {each.inner for each in self.carried}
        inner |= {info.name for _, info in self._inputs()}
        taken: set[str] = set()
        outputs = [self._distinct(each.following, taken, inner) for each in self.carried]
        infos = [
            helper.make_tensor_value_info(name, element, [None, *each.shape])
            for name, each in zip(outputs, self.carried, strict=True)
        ]
        sequences = self.run.layer.return_sequences
        if sequences:
            infos.append(helper.make_tensor_value_info(self._distinct(read, taken, inner), element, [None, *shape]))
        given = [helper.make_tensor_value_info(each.inner, element, [None, *each.shape]) for each in self.carried]
        scanned = self._inputs()
        turned = {"scan_input_directions": [1] * len(scanned)} if self.run.layer.reverse else {}
        if sequences and self.run.layer.reverse:
            turned["scan_output_directions"] = [1]
        results = self.graph.several(
            "Scan",
            *(each.start for each in self.carried),
            *(outer for outer, _ in scanned),
            outputs=len(infos),
            body=self.body.proto("step", [*given, *(info for _, info in scanned)], infos),
            num_scan_inputs=len(scanned),
            **turned,
        )
        finals = tuple(results[: len(self.states)])
        if sequences:
            return Result(results[-1], finals)
        place = next(n for n, each in enumerate(self.carried) if each.following == read)
        return Result(results[place], finals)

    def _inputs(self) -> list[tuple[str, onnx.ValueInfoProto]]:
        """What the body reads step by step; at least the first input, which says how many steps there are."""
        found = [*((each.outer, each.inner) for each in self.stage.imports), *self.scanned]
        if not found:
            name, shape = self.body.name("x"), self.run.shapes[0]
            info = helper.make_tensor_value_info(name, self.graph.settings.element, [None, *shape])
            self.scanned.append((self.run.inputs[0], info))
            return self.scanned
        return found

    def _distinct(self, name: str, taken: set[str], inputs: set[str]) -> str:
        """A body that gives out one tensor twice, or an input, makes onnxruntime give wrong numbers."""
        if name in taken or name in inputs:
            name = self.body.op("Identity", name)
        taken.add(name)
        return name

    def rows(self, steps: int, past_end: str) -> str:
        """The row of per-step arrays that each step reads, along the time axis."""
        return rows(self.run, steps, past_end)


def rows(run: Run, steps: int, past_end: str) -> str:
    """The row that each step reads; a layer that reads backwards counts from the last step."""
    graph = run.graph
    length = graph.length(run.inputs[0], 0)
    number = graph.count(length)
    if run.layer.reverse:
        number = graph.op("Sub", graph.op("Sub", length, np.asarray(1)), number)
    if run.first_step is not None:
        number = graph.op("Add", number, run.first_step)
    return row_of(graph, number, steps, past_end)


def row_of(graph: Graph, number: str, steps: int, past_end: str) -> str:
    """The row for each of some step numbers; a row that is not there is an error in the runtime."""
    match past_end:
        case "last":
            return graph.op("Min", number, np.asarray(steps - 1))
        case "modulo":
            return graph.op("Mod", number, np.asarray(steps))
        case "bypass":
            return graph.op("Min", number, np.asarray(steps))
    return number


def initial_states(run: Run) -> list[str]:
    """The states before the first step: those given, zeros, or what was learned."""
    if run.initial:
        return list(run.initial)
    starts = []
    for name, state in run.layer.cell.states.items():
        if state.learned:
            ones = np.ones(len(state.shape), np.int64)
            sizes = run.graph.op("Concat", run.graph.size(run.inputs[0], 1), ones, axis=0)
            starts.append(run.graph.op("Expand", run.weights[f"initial.{name}"][None], sizes))
        else:
            starts.append(zeros(run, state.shape))
    return starts


def zeros(run: Run, shape: Shape) -> str:
    """Zeros `[batch, *shape]`."""
    if None in shape:
        raise Unsupported("a state or output of unknown size in a recurrent layer with a mask, or without sequences")
    graph = run.graph
    sizes = graph.op("Concat", graph.size(run.inputs[0], 1), np.asarray(shape, np.int64), axis=0)
    zero = helper.make_tensor("zero", graph.settings.element, [1], [0.0])
    return graph.op("ConstantOfShape", sizes, value=zero)
