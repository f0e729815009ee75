"""The tensors of a PyTorch file under the names a model has for them: wrappers taken off, the rest set aside.

A state dict may be the file itself, or stand in a dict of a training program beside optimizers, schedulers and
settings (`{"model_state": ..., "optimizer": ...}`, Lightning's `state_dict`). Programs also put prefixes before all
names: `module.` of DataParallel, `_orig_mod.` of `torch.compile`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from normconvert.errors import CorruptFile, Unsupported
from normconvert.ir.model import Array
from normconvert.sources.pytorch.pickle_globals import SAFE_WAY, Built, NumpyArray
from normconvert.sources.pytorch.pickled_values import refuse_modules, walk
from normconvert.sources.pytorch.storages import StoredTensor
from normconvert.sources.tf1.roles import MOVING_AVERAGE

_KEYS = (
    "state_dict model_state_dict model_state model net network module model_par params parameters weights "
    "net_state_dict network_state_dict model_dict state generator_state_dict checkpoint best_model policy "
    "model_weights modules nnet"
)
WRAPPERS = frozenset(_KEYS.split(" "))
"""Keys under which programs keep the model itself."""

_EMA = re.compile(
    r"(state_dict|model|net|params|weights|module)?_?(ema|averaged|avg|swa|shadow)(_(model|state_dict|params|weights|state))?"
    r"|ema_?(model|net|state|params)|averaged_model|shadow_params"
)
_SET_ASIDE = {
    re.compile(r".*optim(izer)?s?(_.*)?|opt|adam|sgd|.*optimizer.*"): "what an optimizer remembers",
    re.compile(r".*sched(uler)?s?(_.*)?|.*lr_sched.*"): "the state of a learning-rate scheduler",
    re.compile(r"(grad_)?scaler|amp(_.*)?|native_amp.*|loss_scale.*"): "the state of mixed-precision training",
    re.compile(r"callbacks|loops|hyper_parameters|hparams.*|args|config|cfg|opts?ions|.*rng.*|.*random.*"): (
        "a setting or state of the training program"
    ),
}
_PREFIXES = ("module.", "_orig_mod.", "_forward_module.")
_COMPILED = "_orig_mod."
_OF_MODULES = frozenset({"_parameters", "_buffers"})
"""Attributes of modules that were pickled whole."""

_FLAT = re.compile(r"(^|.*\.)_flat_weights\.\d+")


@dataclass(frozen=True)
class Entry:
    """A named array: a stored tensor, a part of one, or what a parametrisation makes of several.

    Attributes:
        name: the path of modules and the parameter's name.
        shape, dtype: of the array.
        parts: the stored tensors that it is read from, by their names in the file.
        load: gives the values.
        makes: how the values come from the parts, where they are not these; half a sentence.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[str, ...]
    load: Callable[[], Array]
    makes: str = ""


@dataclass(frozen=True)
class Aside:
    """A stored tensor that is no part of the model.

    Attributes:
        name, shape, dtype: as stored.
        reason: why it is left out, half a sentence.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    reason: str


@dataclass(frozen=True)
class StateDict:
    """What a file holds of a model.

    Attributes:
        entries: by name, with dots; a moving average has the name of its tensor and `MOVING_AVERAGE` as the last part.
        aside: stored tensors that are not the model's.
    """

    entries: dict[str, Entry]
    aside: tuple[Aside, ...]


def state_dict(value: Any, place: str) -> StateDict:
    """The model's tensors in the value of a file.

    Raises:
        Unsupported: it is a whole pickled model, or holds no tensors.
        CorruptFile: two tensors have one name, or there are more than any model has.
    """
    refuse_modules(value, place)
    try:
        found = list(_tensors(value, place))
    except CorruptFile as error:
        raise error if error.where.startswith(place) else error.at(place) from None
    if not found:
        raise Unsupported("holds no tensors under names", where=place, remedy=SAFE_WAY)
    top, averages, aside = _unwrapped(found)
    if any(_OF_MODULES & set(path) for path, _ in top):
        raise Unsupported(
            "holds a whole pickled model, which only its own code could load", where=place, remedy=SAFE_WAY
        )
    entries = _named(top, place)
    _add_averages(entries, averages)
    return StateDict(entries, tuple(aside))


_Path = tuple[str, ...]
_Found = tuple[_Path, Entry]


def _tensors(value: Any, place: str) -> Iterator[_Found]:
    for path, leaf in walk(value):
        name = ".".join(path)
        if isinstance(leaf, Built) and leaf.state is None and leaf.items:
            yield from (((*path, *inner), entry) for inner, entry in _tensors(leaf.items, place))
        elif isinstance(leaf, StoredTensor) and path:
            yield path, Entry(name, leaf.shape, leaf.dtype, (name,), _loading(leaf, f"{place}: {name}"))
        elif isinstance(leaf, NumpyArray) and leaf.array is not None and path:
            yield path, Entry(name, leaf.array.shape, leaf.array.dtype.name, (name,), _giving(leaf.array))


def _giving(array: Array) -> Callable[[], Array]:
    return lambda: array


def _loading(tensor: StoredTensor, where: str) -> Callable[[], Array]:
    def load() -> Array:
        try:
            return tensor.load()
        except (CorruptFile, Unsupported) as error:
            raise error.at(where) from None

    return load


def _unwrapped(found: list[_Found]) -> tuple[list[_Found], list[_Found], list[Aside]]:
    """The model's tensors, those of its moving average, and the others, with paths below their wrappers."""
    aside: list[Aside] = []
    averages: list[_Found] = []
    while True:
        nested = {path[0] for path, _ in found if len(path) > 1}
        reasons = {key: reason for key in nested if (reason := _reason(key))}
        for path, entry in found:
            if len(path) > 1 and path[0] in reasons:
                aside.append(_aside(entry, reasons[path[0]]))
        if any(key.lower() in WRAPPERS for key in nested):  # a dict of a training program, with tensors of its own
            reasons |= {path[0]: reason for path, _ in found if len(path) == 1 and (reason := _reason(path[0]))}
            aside += [_aside(entry, reasons[path[0]]) for path, entry in found if len(path) == 1 and path[0] in reasons]
        found = [(path, entry) for path, entry in found if path[0] not in reasons]
        shadows = {key for key in nested - reasons.keys() if _EMA.fullmatch(key.lower())}
        rest = {path[0] for path, _ in found} - shadows
        if shadows and (rest or len(shadows) > 1):
            averages += [(path[1:], entry) for path, entry in found if path[0] in shadows]
            found = [(path, entry) for path, entry in found if path[0] not in shadows]
            continue
        wrapping = [key for key in nested - reasons.keys() if key.lower() in WRAPPERS | shadows]
        wrapping = wrapping if len(rest or shadows) == 1 else _main(wrapping, found)
        if len(wrapping) != 1:
            return found, averages, aside
        for path, entry in found:
            if path[0] != wrapping[0]:
                aside.append(_aside(entry, f"beside the model in {wrapping[0]}"))
        found = [(path[1:], entry) for path, entry in found if path[0] == wrapping[0] and len(path) > 1]


def _aside(entry: Entry, reason: str) -> Aside:
    return Aside(entry.parts[0], entry.shape, entry.dtype, reason)


def _main(wrapping: list[str], found: list[_Found]) -> list[str]:
    """The wrapper of the model where there are single tensors or numbers beside it, but no other dict of tensors."""
    others = {path[0] for path, _ in found if len(path) > 1} - set(wrapping)
    single = [entry for path, entry in found if len(path) == 1]
    return wrapping if len(wrapping) == 1 and not others and all(math.prod(each.shape) <= 1 for each in single) else []


def _reason(key: str) -> str:
    return next((reason for pattern, reason in _SET_ASIDE.items() if pattern.fullmatch(key.lower())), "")


def _named(found: list[_Found], place: str) -> dict[str, Entry]:
    """Entries by name, without prefixes that all names have."""
    named = [(".".join(path).replace(_COMPILED, ""), entry) for path, entry in found]
    named = [(name, entry) for name, entry in named if not _FLAT.fullmatch(name)]
    while True:
        prefix = next((p for p in _PREFIXES if named and all(_below(name, entry, p) for name, entry in named)), "")
        if not prefix:
            break
        named = [(name.removeprefix(prefix), entry) for name, entry in named]
    entries: dict[str, Entry] = {}
    for name, entry in named:
        if name in entries:
            raise CorruptFile(f"holds {name} twice", where=place, remedy="Save the state dict again")
        entries[name] = replace(entry, name=name)
    return entries


def _below(name: str, entry: Entry, prefix: str) -> bool:
    """Whether a name has a prefix, or is a counter beside those that have it (`n_averaged`)."""
    return name.startswith(prefix) or (not entry.shape and "." not in name)


def _add_averages(entries: dict[str, Entry], averages: list[_Found]) -> None:
    """Adds moving averages under the names of their tensors: from a dict of their own, or by a prefix."""
    for name in list(entries):
        first, _, rest = name.partition(".")
        if rest and _EMA.fullmatch(first.lower()):
            owner = _owner(rest, entries)
            if owner:
                averages.append((tuple(owner.split(".")), entries.pop(name)))
    for path, entry in averages:
        name = ".".join(path).replace(_COMPILED, "")
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        name = f"{_owner(name, entries) or name}.{MOVING_AVERAGE}"
        entries[name] = replace(entry, name=name)


def _owner(name: str, entries: Mapping[str, Entry]) -> str:
    """The tensor that an average belongs to; some programs leave out the dots (`model_ema.rnnweight_ih`)."""
    for candidate in (name, f"model.{name}", name.removeprefix("module.")):
        if candidate in entries:
            return candidate
    if "." in name:
        return ""
    plain = {key.replace(".", ""): key for key in entries if MOVING_AVERAGE not in key}
    return plain.get(name) or plain.get(f"model{name}", "")
