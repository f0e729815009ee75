"""Recurrent layers that are recognised by their names but not converted, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from normconvert.sources.tf1.checkpoint import Variable


@dataclass(frozen=True)
class Refusal:
    """A recognised layer that is not converted.

    Attributes:
        scope: what its variables' names begin with; empty for the top.
        title: what it is.
        reason: why it is not converted, and what would help.
        variables: those of the scope.
    """

    scope: str
    title: str
    reason: str
    variables: tuple[str, ...]


@dataclass(frozen=True)
class _Signature:
    """Names, relative to a scope, all of which must be there; regular expressions."""

    title: str
    names: tuple[str, ...]
    reason: str
    scope: str = ""


_SIGNATURES = (
    _Signature(
        "LSTM with one dense layer for all gates (iLampard/batch_norm_lstm)",
        (r"lstm_input/pop_mean", r"lstm_cell_state/pop_mean"),
        "its four gates are one and the same tensor, its scales and offsets are not stored, and each run starts from "
        "random states, at inference too, so it is no function of its input",
    ),
    _Signature(
        "raw cuDNN parameters",
        (r"opaque_kernel",),
        "one vector of cuDNN holds all weights and biases, and neither its sizes nor its order are stored; describe it "
        'in a recipe: class = "CudnnLSTM" (or CudnnGRU, CudnnRNNTanh, CudnnRNNRelu) with num_layers, num_units and '
        "direction. Where the model can still be run, save it with tf.contrib.cudnn_rnn's Saveables, which store "
        "kernels and biases by name",
    ),
    _Signature(
        "HyperLSTM",
        (r"hyper_[ijfo][xh]/(zw|zb|alpha|beta)/super_linear_w",),
        "its scales are computed from the data by a second LSTM; the catalogue holds cells with fixed scales only",
    ),
    _Signature(
        "RNN with cosine or centred-cosine normalisation",
        (r"(cn|pcc)_(xh|hh)_gamma",),
        "it normalises the input vectors as well as the weights, which no norm of the catalogue does",
    ),
    *(
        _Signature(title, (names,), "the cell is not in the catalogue; describe it by equations in a recipe", scope)
        for title, names, scope in (
            ("IntersectionRNNCell", r".*(kernel|weights)", r"intersection_rnn_cell(_\d+)?"),
            ("PhasedLSTMCell", r".*(kernel|weights)", r"phased_lstm_cell(_\d+)?"),
            ("SRUCell", r"(kernel|weights)", r"sru_cell(_\d+)?"),
            ("a grid LSTM", r".*W_f_?\d*", r"(grid|time_freq|bidirectional_grid)_?lstm_?\w*"),
        )
    ),
)


def refusals(variables: Mapping[str, Variable]) -> list[Refusal]:
    """The layers of a checkpoint that are known not to be convertible, in the order of their scopes.

    Args:
        variables: those that inference reads.
    """
    found: dict[str, Refusal] = {}
    for signature in _SIGNATURES:
        for scope in sorted(_scopes(signature, variables)):
            inside = any(scope == other or scope.startswith(f"{other}/") for other in found)
            if not inside:
                below = tuple(name for name in variables if not scope or name.startswith(f"{scope}/"))
                found[scope] = Refusal(scope, signature.title, signature.reason, below)
    return [found[scope] for scope in sorted(found)]


def _scopes(signature: _Signature, variables: Mapping[str, Variable]) -> set[str]:
    """The scopes in which every name of a signature is."""
    places = [set(_places(pattern, signature.scope, variables)) for pattern in signature.names]
    return set.intersection(*places)


def _places(pattern: str, scope: str, variables: Mapping[str, Variable]) -> Iterator[str]:
    depth = pattern.count("/") + 1
    for name in variables:
        parts = name.split("/")
        place, relative = "/".join(parts[:-depth]), "/".join(parts[-depth:])
        if re.fullmatch(pattern, relative) and (not scope or re.fullmatch(scope, place.rpartition("/")[2])):
            yield place
