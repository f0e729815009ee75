"""The modules of a recurrent layer: PyTorch's own for a plain cell, else one written from the equations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from normconvert.errors import Unsupported
from normconvert.ir.layers import Bidirectional, Recurrent
from normconvert.passes.fused import Fused, fuse
from normconvert.passes.recognise import recognise
from normconvert.targets.python_code.numbers import number
from normconvert.targets.python_code.text import call
from normconvert.targets.torch.cell_module import Use, cell_module
from normconvert.targets.torch.layer_code import Call, LayerCode, Writer
from normconvert.targets.torch.module import Module, Weights

_MERGES = {"concat": "Concatenate()", "add": "Add()", "multiply": "Multiply()", "average": "Average()"}


def recurrent_layer(layer: Recurrent, weights: Weights, use: Use) -> LayerCode:
    """The code of a layer that reads in one direction."""
    fused = _fused(layer, weights, use)
    if fused is None:
        module = _cell(layer, weights, use)
        return LayerCode({"": module}, _write_cell(use), _picks(layer, ""))
    if _is_bare(layer, use):
        arrays = {f"{name}_l0": array for name, array in fused.arrays.items()}
        pick = "sequence" if layer.return_sequences else "last"
        return LayerCode(
            {"": Module(_native(fused), arrays)},
            _write_sequence if layer.return_sequences else _write_last,
            (("", pick),),
        )
    wrapped = _wrapped(layer, fused)
    order = [fused.states.index(name) for name in layer.cell.parsed().states]
    return LayerCode({"": wrapped}, _write_wrapped(layer, order), _wrapped_picks(layer, order, ""))


def bidirectional_layer(layer: Bidirectional, weights: Weights, use: Use) -> LayerCode:
    """The code of a layer that reads in both directions."""
    halves = {"forward": layer.forward, "backward": layer.backward}
    parts = {
        side: part if layer.trainable else msgspec.structs.replace(part, trainable=False)
        for side, part in halves.items()
    }
    own = {side: _under(weights, side) for side in parts}
    fused = {side: _fused(part, own[side], use) for side, part in parts.items()}
    ahead, back = fused["forward"], fused["backward"]
    alike = ahead is not None and back is not None and ahead.kind == back.kind and ahead.bias == back.bias
    turned = msgspec.structs.replace(layer.backward, reverse=not layer.backward.reverse)
    bare = _is_bare(layer.forward, use) and _is_bare(turned, use)
    if alike and bare and layer.merge == "concat" and ahead is not None and back is not None:
        arrays = {f"{name}_l0": array for name, array in ahead.arrays.items()}
        arrays |= {f"{name}_l0_reverse": array for name, array in back.arrays.items()}
        sequences = layer.forward.return_sequences
        return LayerCode(
            {"": Module(_native(ahead, "bidirectional=True"), arrays)},
            _write_sequence if sequences else _write_both_last(ahead.kind == "LSTM"),
            (("", "sequence" if sequences else "both_last"),),
        )
    return _two_layers(layer, parts, own, use)


def _two_layers(
    layer: Bidirectional, parts: Mapping[str, Recurrent], own: Mapping[str, Weights], use: Use
) -> LayerCode:
    """Each direction a layer of its own, and a module that merges them."""
    count = len(layer.forward.cell.states)
    codes = {
        side: recurrent_layer(part, own[side], replace(use, initial=count if use.initial else 0))
        for side, part in parts.items()
    }
    modules = {side: code.modules[""] for side, code in codes.items()}
    if layer.merge is not None:
        modules[""] = Module(_MERGES[layer.merge])

    def write(own: Mapping[str, str], outputs: Sequence[str], given: Call) -> list[str]:
        kept = list(outputs[:2]) if layer.merge is None else list(given.scratch)
        finals = list(outputs[2 if layer.merge is None else 1 :])
        lines = []
        for n, side in enumerate(("forward", "backward")):
            states = given.states[n * count : (n + 1) * count]
            results = [kept[n], *finals[n * count : (n + 1) * count]]
            lines += codes[side].write({"": own[side]}, results, Call(given.inputs, given.masks, states))
        if layer.merge is not None:
            lines.append(f"{outputs[0]} = {own['']}([{', '.join(kept)}])")
        return lines

    sides = [[(side, pick) for _, pick in codes[side].picks] for side in ("forward", "backward")]
    merged = [("", "output")] if layer.merge is not None else [sides[0][0], sides[1][0]]
    scratch = ("forward", "backward") if layer.merge is not None else ()
    return LayerCode(modules, write, (*merged, *sides[0][1:], *sides[1][1:]), scratch)


def _under(weights: Weights, side: str) -> Weights:
    return {name[len(side) + 1 :]: array for name, array in weights.items() if name.startswith(f"{side}.")}


def _fused(layer: Recurrent, weights: Weights, use: Use) -> Fused | None:
    """PyTorch's own layer for it, if there is one that can freeze, drop and start as this one does."""
    learned = any(state.learned for state in layer.cell.states.values())
    # torch.export unrolls PyTorch's own layers over time, and so freezes the number of steps.
    special = use.masked or use.exported or learned or layer.recurrent_dropout or layer.fixed
    plain = None if special else recognise(layer.cell)
    if plain is None or use.initial not in (0, len(layer.cell.states)):
        return None
    inputs = layer.cell.input_shapes[layer.cell.parsed().inputs[0]][0]
    units = next(iter(layer.cell.states.values())).shape[0]
    return None if inputs is None else fuse(plain, inputs, units, weights)


def _is_bare(layer: Recurrent, use: Use) -> bool:
    """It needs nothing that PyTorch's own layer lacks."""
    return not (layer.reverse or layer.return_state or layer.stateful or layer.dropout or use.initial)


def _native(fused: Fused, *more: str) -> str:
    kind = fused.kind if fused.kind in ("LSTM", "GRU") else "RNN"
    relu = 'nonlinearity="relu"' if fused.kind == "relu" else ""
    bias = "" if fused.bias else "bias=False"
    return call(f"nn.{kind}", [str(fused.inputs), str(fused.units), relu, bias, "batch_first=True", *more])


def _wrapped(layer: Recurrent, fused: Fused) -> Module:
    given = [
        str(fused.inputs),
        str(fused.units),
        f'kind="{fused.kind}"' if fused.kind in ("tanh", "relu") else "",
        "" if fused.bias else "bias=False",
        "reverse=True" if layer.reverse else "",
        "sequences=True" if layer.return_sequences else "",
        "stateful=True" if layer.stateful else "",
        f"dropout={number(layer.dropout)}" if layer.dropout else "",
    ]
    arrays = {f"rnn.{name}_l0": array for name, array in fused.arrays.items()}
    return Module(call("LSTM" if fused.kind == "LSTM" else "GRU", given), arrays)


def _cell(layer: Recurrent, weights: Weights, use: Use) -> Module:
    written = cell_module(layer, use)
    arrays = {written.weights[name]: array for name, array in weights.items()}
    return Module(call("{class_name}", written.arguments), arrays, written.source, written.name)


def _picks(layer: Recurrent, suffix: str) -> tuple[tuple[str, str], ...]:
    if not layer.return_state:
        return ((suffix, "output"),)
    return tuple((suffix, f"item:{n}") for n in range(1 + len(layer.cell.states)))


def _wrapped_picks(layer: Recurrent, order: Sequence[int], suffix: str) -> tuple[tuple[str, str], ...]:
    states = order if layer.return_state else ()
    return ((suffix, "item:0"), *((suffix, f"item:{1 + n}") for n in states))


def _write_cell(use: Use) -> Writer:
    def write(own: Mapping[str, str], outputs: Sequence[str], given: Call) -> list[str]:
        x = given.inputs[0]
        if len(given.states) != use.initial:
            raise Unsupported("the layer is called with initial states and without")
        # A layer that is shared by masked and other inputs: all steps of the others are real.
        everything = f"torch.ones({x}.shape[:2], dtype=torch.bool, device={x}.device)"
        mask = [given.masks[0] if given.masks and given.masks[0] else everything] if use.masked else []
        return [f"{', '.join(outputs)} = {own['']}({', '.join([*given.inputs, *mask, *given.states])})"]

    return write


def _write_sequence(own: Mapping[str, str], outputs: Sequence[str], given: Call) -> list[str]:
    return [f"{outputs[0]}, _ = {own['']}({given.inputs[0]})"]


def _write_last(own: Mapping[str, str], outputs: Sequence[str], given: Call) -> list[str]:
    return [f"{outputs[0]} = {own['']}({given.inputs[0]})[0][:, -1]"]


def _write_both_last(has_cell: bool) -> Writer:
    final = "[1][0]" if has_cell else "[1]"

    def write(own: Mapping[str, str], outputs: Sequence[str], given: Call) -> list[str]:
        return [f"{outputs[0]} = {own['']}({given.inputs[0]}){final}.transpose(0, 1).flatten(1)"]

    return write


def _write_wrapped(layer: Recurrent, order: Sequence[int]) -> Writer:
    def write(own: Mapping[str, str], outputs: Sequence[str], given: Call) -> list[str]:
        states = [given.states[order.index(n)] for n in range(len(order))] if given.states else []
        called = f"{own['']}({', '.join([given.inputs[0], *states])})"
        if not layer.return_state:
            return [f"{outputs[0]} = {called}[0]"]
        finals = [outputs[1 + order.index(n)] for n in range(len(order))]
        return [f"{', '.join([outputs[0], *finals])} = {called}"]

    return write
