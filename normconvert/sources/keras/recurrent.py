"""Recurrent layers: a cell and its loop in one, `RNN` over cells, and both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from normconvert.errors import Unsupported
from normconvert.ir.layers import AnyLayer, Bidirectional, Concatenate, Formula, Merge, Recurrent, Reverse
from normconvert.ir.model import Array
from normconvert.ir.shapes.basics import Shape
from normconvert.sources.keras.assembly import Assembly, Call, Spec, Value, handles, outputs_of
from normconvert.sources.keras.building import Config
from normconvert.sources.keras.cells import RECURRENT_LAYERS, build_cell
from normconvert.sources.keras.entries import describe, unsupported_class
from normconvert.sources.keras.store import Member, Scope
from normconvert.sources.keras.versions import MASKED_OUTPUT

_MERGES: dict[Any, Literal["concat", "add", "multiply", "average"] | None] = {
    "concat": "concat",
    "sum": "add",
    "mul": "multiply",
    "ave": "average",
    None: None,
    "none": None,
}


@dataclass(frozen=True)
class _Loop:
    """One recurrent layer: a stack of cells gives several, each reading the one before."""

    suffix: str
    layer: Recurrent
    arrays: dict[str, Array]


@handles(*RECURRENT_LAYERS, "RNN", "ConvRecurrent2D")
def recurrent(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """A recurrent layer that reads in one direction."""
    sequence, states = _arguments(spec, call)
    loops = _loops(assembly, spec, spec.class_name, spec.config, spec.scope, _step_shape(assembly, sequence))
    if spec.config.get("go_backwards"):
        sequence = _reversed(assembly, spec, sequence)
    outputs, finals = _run(assembly, spec, loops, sequence, states)
    # Keras hands the mask on in the input's order even where the output is in the reading order.
    mask = call.inputs[0].mask if loops[-1].layer.return_sequences else ""
    return [replace(outputs, mask=mask), *finals]


@handles("Bidirectional")
def bidirectional(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """Two recurrent layers over one sequence."""
    sequence, states = _arguments(spec, call)
    config = spec.config
    forward_class, forward, forward_name = describe(config["layer"])
    backward_class, backward, backward_name = describe(config.get("backward_layer") or config["layer"])
    if assembly.dialect.major == 1:
        modern = [
            assembly.spec({"class_name": c, "config": v}, "", spec.scope)
            for c, v in ((forward_class, forward), (backward_class, backward))
        ]
        forward, backward = modern[0].config, modern[1].config
    forward, backward = (
        assembly.dialect.filled(c, v) for c, v in ((forward_class, forward), (backward_class, backward))
    )
    if bool(forward.get("go_backwards")):  # both directions swapped: the same over the reversed sequence
        sequence = _reversed(assembly, spec, sequence)
    if config.get("merge_mode", "concat") not in _MERGES:
        raise Unsupported(f"the merge mode {config.get('merge_mode')!r} is unknown")
    merge = _MERGES[config.get("merge_mode", "concat")]
    zero = bool(assembly.dialect.default("Bidirectional", MASKED_OUTPUT, noted=bool(sequence.mask)))
    halves = []
    for prefix, class_name, body, name in (
        ("forward", forward_class, forward, forward_name),
        ("backward", backward_class, backward, backward_name),
    ):
        body = {**body, MASKED_OUTPUT: zero and bool(body.get("return_sequences"))}
        own = name if name.startswith(f"{prefix}_") else f"{prefix}_{name}"
        scope = spec.scope.child(f"{prefix}_layer", own)
        key = f"{spec.path}/{prefix}"
        if key not in assembly.built:
            owner = f"{spec.path}.{prefix}"
            assembly.built[key] = _build_loops(
                assembly, owner, class_name, body, scope, _step_shape(assembly, sequence)
            )
        halves.append(assembly.built[key])
    ahead, back = halves
    if len(ahead) == 1 and len(back) == 1:
        outputs = _both(assembly, spec, ahead[0], back[0], merge, sequence, states)
    else:
        outputs = _both_stacked(assembly, spec, ahead, back, merge, sequence, states)
    count = 2 if merge is None else 1
    mask = call.inputs[0].mask if ahead[-1].layer.return_sequences else ""
    return [replace(value, mask=mask) if n < count else value for n, value in enumerate(outputs)]


def _arguments(spec: Spec, call: Call) -> tuple[Value, tuple[Value, ...]]:
    """The sequence and the initial states, however they were passed."""
    constants = spec.config.get("num_constants")
    if constants:
        raise Unsupported("its cell reads constants beside the sequence", remedy="Give them as inputs of each step")
    if spec.config.get("time_major"):
        raise Unsupported("time comes before batch (time_major)", remedy="Save the model with time_major=False")
    return call.inputs[0], (*call.inputs[1:], *call.states)


def _step_shape(assembly: Assembly, sequence: Value) -> Shape:
    """Shape of one time step of one sample."""
    return assembly.shapes[sequence.name][1:]


def _loops(
    assembly: Assembly, spec: Spec, class_name: str, config: Config, scope: Scope, step_shape: Shape
) -> list[_Loop]:
    """The recurrent layers of a Keras layer, added to the model the first time."""
    if spec.path not in assembly.built:
        loops = _build_loops(assembly, spec.path, class_name, config, scope, step_shape)
        for loop in loops:
            assembly.add_layer(spec.path + loop.suffix, loop.layer, loop.arrays, config)
        assembly.built[spec.path] = loops
    built: list[_Loop] = assembly.built[spec.path]
    return built


def _build_loops(
    assembly: Assembly, owner: str, class_name: str, config: Config, scope: Scope, step_shape: Shape
) -> list[_Loop]:
    """The recurrent layers of a Keras layer; `owner` is what their arrays are reported under."""
    cells = _cells(assembly, class_name, config, scope)
    loops = []
    for number, (cell_class, body, cell_scope) in enumerate(cells):
        suffix = f"/cell_{number}" if len(cells) > 1 else ""
        built = build_cell(assembly, cell_class, body, cell_scope, step_shape)
        assembly.record(owner + suffix, built.arrays, scope.taken(), built.layout)
        layer = Recurrent(
            kind=class_name if len(cells) == 1 else cell_class,
            cell=built.cell,
            return_sequences=bool(config.get("return_sequences")) or number + 1 < len(cells),
            return_state=bool(config.get("return_state")),
            stateful=bool(config.get("stateful")),
            zero_masked=bool(config.get(MASKED_OUTPUT)),
            dropout=float(body.get("dropout") or 0.0),
            recurrent_dropout=float(body.get("recurrent_dropout") or 0.0),
        )
        loops.append(_Loop(suffix, layer, built.arrays))
        step_shape = next(iter(built.cell.states.values())).shape
    return loops


def _cells(assembly: Assembly, class_name: str, config: Config, scope: Scope) -> list[tuple[str, Config, Scope]]:
    """Class, configuration and arrays of each cell of a layer."""
    if assembly.defined(class_name) is not None and "cell" not in config:
        return [(class_name, config, scope)]
    if class_name.startswith("CuDNN"):  # the only recurrent layers of Keras that are no loop around a cell
        return [(class_name, config, scope)]
    if class_name != "RNN" and "cell" not in config:
        return [(class_name, config, scope.child("cell"))]
    cell = config["cell"]
    entries = cell if isinstance(cell, list) else [cell]
    inner = scope.child("cell")
    if len(entries) == 1:
        cell_class, body, _ = describe(entries[0])
        if cell_class != "StackedRNNCells":
            return [(cell_class, body, inner)]
        if body.get("reverse_state_order"):
            raise Unsupported("its states are in reverse order", remedy="Save it with reverse_state_order=False")
        entries = body["cells"]
    described = [describe(entry) for entry in entries]
    scopes = inner.members([Member(cell_class, name) for cell_class, _, name in described], "cells")
    return [(cell_class, body, one) for (cell_class, body, _), one in zip(described, scopes, strict=True)]


def _reversed(assembly: Assembly, spec: Spec, sequence: Value) -> Value:
    """The sequence, and its mask, from the last step to the first."""
    name = assembly.add_once(f"{spec.path}/reversed", Reverse(axis=1), [sequence.name])
    mask = sequence.mask
    if mask:
        mask = assembly.add_once(f"{spec.path}/mask_reversed", Reverse(axis=1), [mask])
    return Value(name, mask)


def _run(
    assembly: Assembly, spec: Spec, loops: Sequence[_Loop], sequence: Value, states: Sequence[Value]
) -> tuple[Value, list[Value]]:
    """Apply recurrent layers one after the other; gives the last one's output and all final states."""
    finals: list[Value] = []
    remaining = [state.name for state in states]
    for loop in loops:
        count = len(loop.layer.cell.states)
        initial, remaining = remaining[:count], remaining[count:]
        name = spec.path if loop is loops[-1] else ""
        node = assembly.add_node(
            spec.path + loop.suffix, [sequence.name], name=name, masks=(sequence.mask,), states=initial
        )
        output, *rest = outputs_of(node, 1 + (count if loop.layer.return_state else 0))
        sequence = replace(sequence, name=output.name)
        finals += rest
    return sequence, finals


def _both(
    assembly: Assembly,
    spec: Spec,
    ahead: _Loop,
    back: _Loop,
    merge: Literal["concat", "add", "multiply", "average"] | None,
    sequence: Value,
    states: Sequence[Value],
) -> list[Value]:
    if spec.path not in assembly.layers:
        layer = Bidirectional(
            kind="Bidirectional",
            forward=ahead.layer,
            backward=msgspec.structs.replace(back.layer, reverse=True),
            merge=merge,
        )
        arrays = {f"forward.{name}": array for name, array in ahead.arrays.items()}
        arrays |= {f"backward.{name}": array for name, array in back.arrays.items()}
        assembly.add_layer(spec.path, layer, arrays, spec.config)
    node = assembly.add_node(
        spec.path, [sequence.name], masks=(sequence.mask,), states=[state.name for state in states]
    )
    finals = 2 * len(ahead.layer.cell.states) if ahead.layer.return_state else 0
    return outputs_of(node, (2 if merge is None else 1) + finals)


def _both_stacked(
    assembly: Assembly,
    spec: Spec,
    ahead: Sequence[_Loop],
    back: Sequence[_Loop],
    merge: Literal["concat", "add", "multiply", "average"] | None,
    sequence: Value,
    states: Sequence[Value],
) -> list[Value]:
    """Both directions over stacks of cells: two chains, the second over the reversed sequence, and a merge."""
    split = sum(len(loop.layer.cell.states) for loop in ahead) if states else 0
    results: list[Value] = []
    finals: list[Value] = []
    for prefix, loops, initial in (("forward", ahead, states[:split]), ("backward", back, states[split:])):
        part = replace(spec, path=f"{spec.path}/{prefix}")
        if part.path + loops[0].suffix not in assembly.layers:
            for loop in loops:
                assembly.add_layer(part.path + loop.suffix, loop.layer, loop.arrays, spec.config)
        read = sequence if prefix == "forward" else _reversed(assembly, part, sequence)
        output, rest = _run(assembly, part, loops, read, initial)
        if prefix == "backward" and loops[-1].layer.return_sequences:
            output = replace(output, name=assembly.add_once(f"{part.path}/aligned", Reverse(axis=1), [output.name]))
        results.append(output)
        finals += rest
    if merge is None:
        return [*results, *finals]
    layer: AnyLayer = Concatenate(axis=-1) if merge == "concat" else Merge(operation=merge)
    return [Value(assembly.add_once(spec.path, layer, [value.name for value in results])), *finals]


@handles("defined")
def defined(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """A class that the user described: a recurrent layer where it has states, else a formula."""
    chosen = assembly.defined(spec.class_name)
    if chosen is None:
        raise unsupported_class(spec.class_name)
    if chosen.states:
        return recurrent(assembly, spec, call)
    return formula(assembly, spec, call)


def formula(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """A stateless layer of the user's own."""
    if spec.path not in assembly.layers:
        built = build_cell(assembly, spec.class_name, spec.config, spec.scope, ())
        assembly.add_layer(spec.path, Formula(kind=spec.class_name, cell=built.cell), built.arrays, spec.config)
        assembly.record(spec.path, built.arrays, spec.scope.taken(), built.layout)
    node = assembly.add_node(spec.path, [value.name for value in call.inputs])
    layer = assembly.layers[spec.path]
    assert isinstance(layer, Formula)
    return outputs_of(node, len(layer.cell.parsed().outputs))
