"""Paths of a state dict as scopes: one for each layer and direction, as the rest of the reader knows them.

The reader of checkpoints takes cells out of scopes whose parts are separated by slashes, and knows the directions by
`forward` and `backward`. So `rnn.weight_ih_l1_reverse` becomes `rnn/l1/backward/weight_ih`, and `directions.1` of a
ModuleList `backward`. Each rule below is a step from entries to entries by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from normconvert.ir.model import Array
from normconvert.sources.pytorch.entries import Entry
from normconvert.sources.tf1.roles import MOVING_AVERAGE

Entries = Mapping[str, Entry]

_RNN = re.compile(
    r"(?P<owner>(?:.*/)?)(?P<leaf>(?:weight|bias)_(?:ih|hh|hr))_l(?P<layer>\d+)(?P<back>_reverse)?"
    rf"(?P<average>/{MOVING_AVERAGE})?"
)
_SIDES = (
    (re.compile(r"(?P<owner>.*/)?directions/(?P<side>[01])/(?P<leaf>.+)"), {"0": "forward", "1": "backward"}),
    (re.compile(r"(?P<owner>.*/)?lstm_(?P<side>[fb])/(?P<leaf>.+)"), {"f": "forward", "b": "backward"}),
)
_HIDDEN = re.compile(r"(?P<owner>(?:.*/)?)hidden(?P<side>[01])/(?P<layer>\d+)/(?P<leaf>.+)")
_INITIAL = re.compile(r"(?P<owner>(?:.*/)?)(?P<leaf>[hc]0)")


def as_scopes(entries: Entries) -> dict[str, Entry]:
    """The entries by their paths, separated by slashes."""
    result: Entries = _put((name.replace(".", "/"), entry) for name, entry in entries.items())
    for rule in _RULES:
        result = _put(rule(result))
    return dict(result)


def _put(pairs: Iterable[tuple[str, Entry]]) -> dict[str, Entry]:
    return {name: replace(entry, name=name) for name, entry in pairs}


def _rnn_layers(entries: Entries) -> Iterator[tuple[str, Entry]]:
    """Tensors of nn.RNN, nn.LSTM and nn.GRU: `weight_ih_l0_reverse`."""
    matches = {name: match for name in entries if (match := _RNN.fullmatch(name))}
    layers: dict[str, set[str]] = {}
    both = {match["owner"] for match in matches.values() if match["back"]}
    for match in matches.values():
        layers.setdefault(match["owner"], set()).add(match["layer"])
    for name, entry in entries.items():
        match = matches.get(name)
        if match is None:
            yield name, entry
            continue
        owner = match["owner"]
        layer = f"l{match['layer']}/" if len(layers[owner]) > 1 else ""
        side = ("backward/" if match["back"] else "forward/") if owner in both else ""
        yield f"{owner}{layer}{side}{match['leaf']}{match['average'] or ''}", entry


def _directions(entries: Entries) -> Iterator[tuple[str, Entry]]:
    """Directions in a ModuleList (`directions.0`) or by a letter (`lstm_f`)."""
    for name, entry in entries.items():
        for pattern, sides in _SIDES:
            match = pattern.fullmatch(name)
            if match is not None:
                name = f"{match['owner'] or ''}{sides[match['side']]}/{match['leaf']}"
        yield name, entry


def _hidden_layers(entries: Entries) -> Iterator[tuple[str, Entry]]:
    """chenhuaizhen's stacks: a ModuleList for each direction, `hidden0.N` and, where there are two, `hidden1.N`."""
    matches = {name: match for name in entries if (match := _HIDDEN.fullmatch(name))}
    both = {match["owner"] for match in matches.values() if match["side"] == "1"}
    for name, entry in entries.items():
        match = matches.get(name)
        if match is not None and match["owner"] in both:
            side = ("forward", "backward")[int(match["side"])]
            name = f"{match['owner']}l{match['layer']}/{side}/{match['leaf']}"
        yield name, entry


def _initial_states(entries: Entries) -> Iterator[tuple[str, Entry]]:
    """Learned initial states of both directions in one tensor `[directions, 1, units]`, beside the directions."""
    for name, entry in entries.items():
        match = _INITIAL.fullmatch(name)
        sides = ("forward", "backward")[: entry.shape[0]] if entry.shape else ()
        beside = (
            [side for side in sides if any(other.startswith(f"{match['owner']}{side}/") for other in entries)]
            if match
            else []
        )
        if match is None or len(entry.shape) != 3 or entry.shape[1] != 1 or len(beside) != entry.shape[0]:
            yield name, entry
            continue
        for number, side in enumerate(beside):
            yield f"{match['owner']}{side}/{match['leaf']}", _part(entry, number, entry.shape[2:])


def _part(entry: Entry, number: int, shape: tuple[int, ...]) -> Entry:
    """One row of a tensor, under another shape."""

    def load() -> Array:
        return entry.load()[number].reshape(shape)

    return replace(entry, shape=shape, load=load)


_STACKED = re.compile(r"(?P<owner>(?:.*/)?)bias")


def _shared_bias(entries: Entries) -> Iterator[tuple[str, Entry]]:
    """DI-engine's LSTM: ParameterLists `wx.k` and `wh.k`, norms `norm.2k` and `norm.2k+1`, one bias `[layers, 4H]`."""
    owners = {
        match["owner"]: entry.shape[0]
        for name, entry in entries.items()
        if (match := _STACKED.fullmatch(name))
        and len(entry.shape) == 2
        and all(f"{match['owner']}{key}/{entry.shape[0] - 1}" in entries for key in ("wx", "wh"))
    }
    for name, entry in entries.items():
        owner = next((o for o in sorted(owners, key=len, reverse=True) if name.startswith(o)), None)
        if owner is None:
            yield name, entry
            continue
        match_list = re.fullmatch(r"(wx|wh)/(\d+)", name[len(owner) :])
        norm = re.fullmatch(r"norm/(\d+)/(weight|bias)", name[len(owner) :])
        if match_list:
            yield f"{owner}l{match_list[2]}/{match_list[1]}", entry
        elif norm:
            yield f"{owner}l{int(norm[1]) // 2}/norm_{'xh'[int(norm[1]) % 2]}/{norm[2]}", entry
        elif name == f"{owner}bias":
            for number in range(entry.shape[0]):
                yield f"{owner}l{number}/bias", _part(entry, number, entry.shape[1:])
        else:
            yield name, entry


_MXNET = re.compile(r"(?P<scope>(?:.*/)?[^/]*[^/_])_(?P<leaf>(?:[ih]2h|[ifcosrz])_(?:weight|bias|scale|shift))")


def _mxnet_prefixes(entries: Entries) -> Iterator[tuple[str, Entry]]:
    """Sockeye's cells, whose prefix ends in an underscore: `encoder_rnn_l0_i2h_weight`."""
    matches = {name: match for name in entries if (match := _MXNET.fullmatch(name))}
    cells = {match["scope"] for match in matches.values() if match["leaf"] == "h2h_weight"}
    for name, entry in entries.items():
        match = matches.get(name)
        yield (f"{match['scope']}/{match['leaf']}" if match and match["scope"] in cells else name), entry


_KALDI = re.compile(
    r"(?P<owner>(?:.*/)?)(?P<gate>(?:bn_)?[wu][fiocrhz][xh]?|ln)/(?P<layer>\d+)/"
    r"(?P<leaf>weight|bias|gamma|beta|running_mean|running_var|num_batches_tracked)"
)


def _kaldi_layers(entries: Entries) -> Iterator[tuple[str, Entry]]:
    """pytorch-kaldi: a ModuleList for each gate, `wfx.0.weight`; the layer's number goes before the gate's name."""
    owners = {m["owner"] for name in entries if (m := _KALDI.fullmatch(name)) and m["gate"] in ("wfx", "wz", "wh")}
    for name, entry in entries.items():
        match = _KALDI.fullmatch(name)
        if match is not None and match["owner"] in owners:
            name = f"{match['owner']}l{match['layer']}/{match['gate']}/{match['leaf']}"
        yield name, entry


def _shared_directions(entries: Entries) -> Iterator[tuple[str, Entry]]:
    """Stacks whose layers read twice what the one before has units: both directions have the same weights.

    pytorch-kaldi and SpeechBrain's LiGRU stack a reversed copy of the sequence on the batch axis.
    """
    twice = set(_read_both(entries))
    for name, entry in entries.items():
        owner = next((owner for owner in twice if name.startswith(owner)), None)
        if owner is None:
            yield name, entry
            continue
        layer, _, rest = name[len(owner) :].partition("/")
        for side in ("forward", "backward"):
            yield f"{owner}{layer}/{side}/{rest}", entry


_FIRST = re.compile(r"(?P<owner>(?:.*/)?)(?P<letter>l?)0/(?P<leaf>u|uh|ufh)/weight")
_BESIDE = {"u": "w", "uh": "wh", "ufh": "wfx"}
"""What reads the input, beside what reads the state."""


def _read_both(entries: Entries) -> Iterator[str]:
    for name, entry in entries.items():
        match = _FIRST.fullmatch(name)
        if match is None or len(entry.shape) != 2:
            continue
        after = f"{match['owner']}{match['letter']}1/{_BESIDE[match['leaf']]}/weight"
        if after in entries and entries[after].shape[-1] == 2 * entry.shape[1]:
            yield match["owner"]


Rule = Callable[[Entries], Iterator[tuple[str, Entry]]]

_RULES: tuple[Rule, ...] = (
    _rnn_layers,
    _directions,
    _hidden_layers,
    _initial_states,
    _shared_bias,
    _mxnet_prefixes,
    _kaldi_layers,
    _shared_directions,
)
