"""The names that public PyTorch classes give the tensors of a cell, by layer and direction.

A scope that ends in `l1` is the second layer of a stack, where the class keeps all its layers in one module. A name
that ends in `[1,0]` is a part of a tensor that holds several arrays, see `targets.layouts.joining`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from normconvert.targets.layouts.choosing import Chosen

Rule = Callable[[str, str, str], str]
"""From a layer's scope, a tensor of a layout and a direction (`forward`, `backward` or none) to a name."""

NN_CLASSES = {"lstm": "LSTM", "projected_lstm": "LSTM", "gru_reset_after": "GRU", "simple_rnn": "RNN"}
"""Classes of `torch.nn` by the families whose layout `torch` is theirs."""

_LAYER = re.compile(r"(?:(?P<owner>.*)\.)?l(?P<number>\d+)")


def tensor_name(scope: str, tensor: str, chosen: Chosen, side: str) -> str:
    """The name of a tensor in a state dict."""
    known = (chosen.title, chosen.layout, chosen.family.name.partition("_")[0])
    return next((_RULES[name] for name in known if name in _RULES), _plain)(scope, tensor, side)


def _joined(*parts: str) -> str:
    return ".".join(filter(None, parts))


def _numbered(scope: str) -> tuple[str, int]:
    """A stack's own scope, and which of its layers is meant."""
    found = _LAYER.fullmatch(scope)
    return (scope, 0) if found is None else (found["owner"] or "", int(found["number"]))


def _plain(scope: str, tensor: str, side: str) -> str:
    return _joined(scope, side, tensor)


def _sides(sides: Mapping[str, str]) -> Rule:
    """A submodule for each direction; none where there is one direction."""
    return lambda scope, tensor, side: _joined(scope, sides[side], tensor)


def _nn(scope: str, tensor: str, side: str) -> str:
    owner, number = _numbered(scope)
    return _joined(owner, f"{tensor}_l{number}{'_reverse' if side == 'backward' else ''}")


def _with_states(sides: Mapping[str, str]) -> Rule:
    """The first states of both directions in one tensor `[directions, 1, units]` beside the cells."""

    def rule(scope: str, tensor: str, side: str) -> str:
        if tensor in ("h0", "c0"):
            return _joined(scope, f"{tensor}[{int(side == 'backward')},0]")
        return _joined(scope, sides[side], tensor)

    return rule


def _module_lists(scope: str, tensor: str, side: str) -> str:
    """A ModuleList of layers for each gate; both directions have the same weights."""
    owner, number = _numbered(scope)
    gate, _, leaf = tensor.partition(".")
    return _joined(owner, gate, str(number), leaf)


def _layers_of_both(scope: str, tensor: str, side: str) -> str:
    """A ModuleList `rnn` of layers; both directions have the same weights."""
    owner, number = _numbered(scope)
    return _joined(owner, f"rnn.{number}", tensor)


def _hidden(scope: str, tensor: str, side: str) -> str:
    """A ModuleList of layers for each direction."""
    if not side:
        return _joined(scope, tensor)
    owner, number = _numbered(scope)
    return _joined(owner, f"hidden{int(side == 'backward')}.{number}", tensor)


def _parameter_lists(scope: str, tensor: str, side: str) -> str:
    """A ParameterList for each matrix, two norms for each layer, and one bias `[layers, 4*units]`."""
    owner, number = _numbered(scope)
    norm, _, leaf = tensor.partition(".")
    if norm in ("norm_x", "norm_h"):
        return _joined(owner, f"norm.{2 * number + (norm == 'norm_h')}", leaf)
    return _joined(owner, f"bias[{number}]" if tensor == "bias" else f"{tensor}.{number}")


_RULES: dict[str, Rule] = {
    **{f"{family}/torch": _nn for family in NN_CLASSES},
    "hellozgy": _with_states({"": "lstm_f", "forward": "lstm_f", "backward": "lstm_b"}),
    "physioex": _sides({"": "", "forward": "fwd", "backward": "bwd"}),
    "fastrnns": _sides({"": "", "forward": "directions.0.cell", "backward": "directions.1.cell"}),
    "speechbrain": _layers_of_both,
    "stable_batch_norm_ligru/affine": _layers_of_both,
    "stable_layer_norm_ligru/affine": _layers_of_both,
    "di_engine": _parameter_lists,
    "chenhuaizhen": _hidden,
    "inner_bias_layer_norm_lstm/ifog": _hidden,
    "inner_bias_layer_norm_lstm/ifgo": _hidden,
    "kaldi": _module_lists,
}
"""By layout, by its name alone, or by the first word of its family's."""
