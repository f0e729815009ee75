"""What the differences that were found amount to."""

from __future__ import annotations

from collections import Counter

import msgspec

from normconvert.comparison.records import Difference, LayerPair, TensorPair, Verdict
from normconvert.comparison.running import Run

_MEANING: dict[Verdict, str] = {
    "identical": "The same layers, connections, equations, settings and numbers, bit by bit; names may differ.",
    "same": "Shown from equations, settings and arrays: both compute the same function at inference, but for rounding. "
    "What is listed is stored otherwise, or matters in training only.",
    "agrees": "Not shown from the equations: both give the same at random points, in float64. That is evidence, "
    "no proof for all inputs.",
    "different": "At least one thing that the function depends on differs.",
}
_NO_WEIGHTS = (
    "The same layers, connections, equations and settings. Arrays were not compared: nothing is said of the weights."
)


def conclude(found: Difference, run: Run | None, *, weights: bool) -> Difference:
    """The verdict over what was found; `run` is what came of running both."""
    verdict = _verdict(found, run)
    meaning = _MEANING[verdict] if weights or verdict in ("agrees", "different") else _NO_WEIGHTS
    return msgspec.structs.replace(
        found,
        verdict=verdict,
        summary=_summary(found, verdict, weights),
        meaning=meaning,
        evaluation=found.evaluation if run is None else str(run),
    )


def open_structure(found: Difference) -> bool:
    """Whether layers or connections differ, so that only running both can tell whether they agree."""
    lone = [layer for layer in (*found.only_a, *found.only_b) if not layer.identity]
    wired = any(setting.name in WIRES for layer in found.layers for setting in layer.settings)
    return bool(lone) or wired


WIRES = ("reads", "masks", "states")
"""Names of the settings that say what a layer reads."""


def decided(found: Difference) -> bool:
    """Whether something that the function depends on differs for certain, whatever running both shows."""
    unlike = [setting for setting in found.interface if setting.effect == "function"]
    return bool(unlike) or any(_differs(layer) for layer in found.layers)


def settled(found: Difference) -> bool:
    """Whether it is shown that both are the same, so that running them can say nothing more."""
    shown = all(layer.of_same_equations for layer in found.layers)
    return shown and not decided(found) and not open_structure(found)


def differ_in_arrays_alone(found: Difference) -> bool:
    """Whether arrays differ, and nothing else that the function depends on."""
    settings = [each for layer in found.layers for each in layer.settings] + list(found.interface)
    alike = all(layer.equations in ("", "as written") for layer in found.layers)
    alike = alike and not (found.only_a or found.only_b)
    arrays = any(not tensor.same for layer in found.layers for tensor in layer.tensors)
    return alike and arrays and all(setting.effect != "function" for setting in settings)


def _differs(layer: LayerPair) -> bool:
    settings = [s for s in layer.settings if s.effect == "function" and s.name not in WIRES]
    arrays = [] if layer.agrees else [tensor for tensor in layer.tensors if not tensor.same]
    return bool(settings or arrays) or (not layer.of_same_equations and layer.agrees is False)


def _verdict(found: Difference, run: Run | None) -> Verdict:
    if decided(found):
        return "different"
    uncertain = open_structure(found) or any(
        not layer.of_same_equations and layer.agrees is None for layer in found.layers
    )
    if uncertain:
        return "agrees" if run is not None and run.agrees else "different"
    if any(not layer.of_same_equations for layer in found.layers):
        return "agrees"
    alike = all(layer.alike for layer in found.layers) and not (found.only_a or found.only_b)
    return "identical" if alike else "same"


def _summary(found: Difference, verdict: Verdict, weights: bool) -> str:
    tensors = [tensor for layer in found.layers for tensor in layer.tensors]
    if not weights and verdict in ("identical", "same"):
        return f"the same but for arrays, which were not compared: {_count(len(found.layers), 'layer')}"
    if verdict == "identical":
        return f"identical: {_count(len(found.layers), 'layer')}, {_count(len(tensors), 'array')}"
    if verdict == "agrees":
        return "the same at random points; not shown to be the same function"
    if verdict == "same":
        moved = Counter(_stored(tensor) for tensor in tensors if not tensor.stored_alike)
        training = sum(s.effect == "training" for layer in found.layers for s in layer.settings)
        words = [f"{_count(count, 'array')} {relation}" for relation, count in moved.items()]
        words += [_count(training, "setting") + " of training"] if training else []
        lone = len(found.only_a) + len(found.only_b)
        words += [f"{_count(lone, 'layer')} that inference does not need"] if lone else []
        return f"the same function: {', '.join(words) or 'written in other words'}"
    settings = sum(s.effect == "function" for layer in found.layers for s in layer.settings)
    settings += sum(s.effect == "function" for s in found.interface)
    counts = {
        "layer only in A": len(found.only_a),
        "layer only in B": len(found.only_b),
        "cell with other equations": sum(not layer.of_same_equations for layer in found.layers),
        "setting": settings,
        "array": sum(not tensor.same for tensor in tensors),
    }
    return "different: " + ", ".join(_count(count, noun) for noun, count in counts.items() if count)


def _stored(tensor: TensorPair) -> str:
    return "equal as sums" if tensor.relation == "equal" else tensor.relation


def _count(number: int, noun: str) -> str:
    head, space, rest = noun.partition(" ")
    return f"{number:,} {head}{'' if number == 1 else 's'}{space}{rest}"
