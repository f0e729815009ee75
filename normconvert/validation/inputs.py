"""The inputs a proof is made on: several seeds, batch sizes, lengths, maskings, and calls in sequence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from normconvert.errors import NormconvertError
from normconvert.ir.layers import Attention, GlobalPooling, MultiHeadAttention, recurrent_parts
from normconvert.ir.lengths import concrete, fits
from normconvert.ir.model import Array, Model
from normconvert.runtimes.runner import ANY_SIZES, Case, FixedSizes
from normconvert.validation.roles import PAST_END, Role, role_of

SPREAD = 4.0
"""Factor on the inputs of one case, which drives saturating functions and clips to their limits."""

NARROW = 2.0**-24
"""Factor on the inputs of one case: values so small that the epsilon of a normalisation outweighs them."""

_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17, 23, 29, 32, 37, 64, 67, 128, 131, 256, 263, 512, 521, 1024)
_NEEDS_A_STEP = (GlobalPooling, Attention, MultiHeadAttention)


@dataclass(frozen=True)
class _Draw:
    """A case to make up; one length per call."""

    label: str
    seed: int
    batch: int
    lengths: tuple[int, ...]
    padding: str = ""
    spread: float = 1.0


def make_cases(model: Model, sizes: FixedSizes = ANY_SIZES, shortest: int = 1) -> tuple[Case, ...]:
    """The inputs on which a model is proven; the same ones every time for the same model.

    Where its source takes some sizes only, there is a case of these. No sequence has less than `shortest` steps.

    Numbers are exact in float32, so that a float32 and a float64 run start from the same point; only a value that
    marks padding is rounded to the precision of the run, as the frameworks do.

    Raises:
        NormconvertError: no length was found that the model accepts.
    """
    roles = {declared.name: role_of(model, declared) for declared in model.inputs}
    return tuple(_cases(model, roles, sizes, shortest))


def unexercised(model: Model) -> tuple[str, ...]:
    """What the inputs cannot reach, one sentence each."""
    roles = [role_of(model, declared) for declared in model.inputs]
    marked = {name for role in roles for name in role.mask_nodes}
    masks = [node.name for node in model.nodes if type(model.layers[node.layer]).__name__ == "StepMask"]
    missed = [name for name in masks if name not in marked]
    return tuple(f"the mask {name} is computed from other layers, so no padding could be planted" for name in missed)


def _cases(model: Model, roles: Mapping[str, Role], sizes: FixedSizes, least: int) -> Iterator[Case]:
    shortest, short, middle, long, *past_end = _lengths(model, least)
    draws = [
        _Draw("plain", 20, 3, (middle,)),
        _Draw("short", 21, 1, (short,)),
        _Draw("long", 22, 5, (long,)),
        _Draw("wide inputs", 23, 3, (middle,), spread=SPREAD),
        _Draw("narrow inputs", 25, 3, (middle,), spread=NARROW),
        *(_Draw("past the last row of statistics", 24, 2, (length,)) for length in past_end),
    ]
    if any(role.mask_nodes for role in roles.values()):
        draws += [_Draw(f"{place} padding", 30, 4, (middle,), padding=place) for place in PADDINGS]
    if sizes != ANY_SIZES and (sizes.length is None or (sizes.length >= least and fits(model, sizes.length))):
        length = middle if sizes.length is None or middle == 0 else sizes.length
        draws.append(_Draw("the source's own sizes", 50, sizes.batch or 3, (length,)))
    draws.append(_Draw("calls in sequence", 40, 3, (middle, short, shortest)))
    for draw in draws:
        yield _case(model, roles, draw)


def _case(model: Model, roles: Mapping[str, Role], draw: _Draw) -> Case:
    random = np.random.default_rng(draw.seed)
    batch = next((declared.batch for declared in model.inputs if declared.batch is not None), draw.batch)
    lengths = "" if draw.lengths[0] == 0 else f", length {' then '.join(map(str, draw.lengths))}"
    chunks = tuple(_chunk(model, roles, draw, random, batch, length) for length in draw.lengths)
    return Case(f"{draw.label}, batch {batch}{lengths}, seed {draw.seed}", chunks)


def _chunk(
    model: Model, roles: Mapping[str, Role], draw: _Draw, random: np.random.Generator, batch: int, length: int
) -> dict[str, Array]:
    can_be_all_padding = not any(isinstance(layer, _NEEDS_A_STEP) for layer in model.layers.values())
    values = {}
    for declared in model.inputs:
        role = roles[declared.name]
        array = role.draw(random, (batch, *concrete(declared.shape, length)), length, draw.spread)
        if draw.padding and role.mask_nodes:
            real = PADDINGS[draw.padding](random, array.shape[:2], can_be_all_padding)
            array[~real] = role.padding_value
        values[declared.name] = array
    return values


def _trailing(random: np.random.Generator, shape: tuple[int, ...], _: bool) -> Array:
    counts = random.integers(1, shape[1] + 1, shape[0])
    counts[0] = max(1, shape[1] // 2)
    return np.asarray(np.arange(shape[1]) < counts[:, None])


def _leading(random: np.random.Generator, shape: tuple[int, ...], all_padding: bool) -> Array:
    return _trailing(random, shape, all_padding)[:, ::-1]


def _scattered(random: np.random.Generator, shape: tuple[int, ...], all_padding: bool) -> Array:
    real = random.random(shape) < 0.6
    real[:, random.integers(shape[1])] = True
    if all_padding and shape[0] > 1:
        real[-1] = False
    return real


PADDINGS = {"trailing": _trailing, "leading": _leading, "scattered": _scattered}
"""Which steps `[batch, time]` are real. The scattered pattern has a sample of nothing but padding where that has a
meaning (an average or attention over no step at all has none)."""


def _lengths(model: Model, least: int) -> list[int]:
    """The shortest, a short, a middle and a long usable length, then lengths past the end of per-step statistics.

    Zeros where no input has an axis of free size.
    """
    if all(None not in declared.shape for declared in model.inputs):
        return [0, 0, 0, 0]
    usable = [length for length in _LENGTHS if length >= least and fits(model, length)]
    if not usable:
        raise NormconvertError(
            f"no length from {least} to {_LENGTHS[-1]} was found that the model accepts",
            where=model.name or "the model",
        )
    limits = _row_counts(model)
    strict = min((rows for rows, may_pass in limits if not may_pass), default=None)
    if strict is not None:
        usable = [length for length in usable if length <= strict] or usable[:1]
    past = {rows + PAST_END for rows, may_pass in limits if may_pass and (strict is None or rows < strict)}
    longer = [length for length in usable if length >= 4 * usable[0]]
    middle = next((length for length in longer if length >= 7), usable[-1])
    long = next((length for length in longer if length >= 3 * middle), usable[-1])
    return [
        usable[0],
        usable[min(1, len(usable) - 1)],
        middle,
        long,
        *sorted(n for n in past if n >= least and fits(model, n)),
    ]


def _row_counts(model: Model) -> set[tuple[int, bool]]:
    """Rows of per-step statistics, and whether a sequence may be longer."""
    cells = [part.cell for layer in model.layers.values() for part in recurrent_parts(layer)]
    norms = [norm for cell in cells for norm in cell.norms.values()]
    return {(norm.steps, norm.past_end != "error") for norm in norms if norm.steps is not None}
