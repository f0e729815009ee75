"""Deliberate faults: every one must be found, and in the layer it was put in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from models_by_hand import UNITS, embedded, masked_stack

from normconvert.ir.layers import Recurrent
from normconvert.ir.model import Array, Model
from normconvert.runtimes.interpreted import Interpreted
from normconvert.validation.equivalence import prove

Mutation = Callable[[Model], Model]


def weight(name: str, change: Callable[[Array], Array]) -> Mutation:
    """The model with one array changed."""
    return lambda model: replace(model, weights={**model.weights, name: change(np.array(model.weights[name]))})


def equations(layer: str, old: str, new: str) -> Mutation:
    """The model with a piece of one cell's text replaced."""

    def mutate(model: Model) -> Model:
        part = model.layers[layer]
        assert isinstance(part, Recurrent)
        assert part.cell.equations.count(old) == 1
        cell = msgspec.structs.replace(part.cell, equations=part.cell.equations.replace(old, new))
        return replace(model, layers={**model.layers, layer: msgspec.structs.replace(part, cell=cell)})

    return mutate


def norm(layer: str, name: str, **fields: object) -> Mutation:
    """The model with the declaration of one norm changed."""

    def mutate(model: Model) -> Model:
        part = model.layers[layer]
        assert isinstance(part, Recurrent)
        norms = {**part.cell.norms, name: msgspec.structs.replace(part.cell.norms[name], **fields)}
        cell = msgspec.structs.replace(part.cell, norms=norms)
        return replace(model, layers={**model.layers, layer: msgspec.structs.replace(part, cell=cell)})

    return mutate


def constant(layer: str, name: str, value: float) -> Mutation:
    """The model with one run-time constant changed."""

    def mutate(model: Model) -> Model:
        part = model.layers[layer]
        assert isinstance(part, Recurrent)
        cell = msgspec.structs.replace(part.cell, constants={**part.cell.constants, name: value})
        return replace(model, layers={**model.layers, layer: msgspec.structs.replace(part, cell=cell)})

    return mutate


def field(layer: str, **fields: object) -> Mutation:
    """The model with attributes of one layer changed."""
    return lambda model: replace(
        model, layers={**model.layers, layer: msgspec.structs.replace(model.layers[layer], **fields)}
    )


def unmasked(node: str) -> Mutation:
    """The model with one node's mask left out."""
    return lambda model: replace(
        model, nodes=tuple(msgspec.structs.replace(n, masks=()) if n.name == node else n for n in model.nodes)
    )


def swap_units(array: Array) -> Array:
    array[..., [1, 2]] = array[..., [2, 1]]
    return array


def square_blocks_transposed(array: Array) -> Array:
    return np.concatenate([block.T for block in np.split(array, array.shape[1] // array.shape[0], axis=1)], axis=1)


FAULTS: dict[str, tuple[str, Mutation]] = {
    "two gates swapped": ("lstm", equations("lstm", "i, j, f, o = split", "i, f, j, o = split")),
    "gates rotated in the kernel": (
        "lstm",
        weight("lstm.W_x", lambda w: np.roll(w.reshape(-1, 4, UNITS), 1, axis=1).reshape(w.shape)),
    ),
    "statistics shifted by one step": ("lstm", weight("lstm.bn_h.mean", lambda m: np.roll(m, 1, axis=0))),
    "the last two rows of statistics swapped": ("lstm", weight("lstm.bn_c.mean", lambda m: m[[0, 1, 2, 3, 4, 6, 5]])),
    "starting over instead of the last row": ("lstm", norm("lstm", "bn_x", past_end="modulo")),
    "epsilon off by 0.1 %": ("lstm", norm("lstm", "bn_c", epsilon=1.001e-3)),
    "epsilon outside the root": ("lstm", norm("lstm", "bn_x", epsilon_placement="outside")),
    "no forget bias": ("lstm", constant("lstm", "forget_bias", 0.0)),
    "another forget bias": ("lstm", constant("lstm", "forget_bias", 1.0)),
    "gamma of two units swapped": ("lstm", weight("lstm.bn_x.gamma", swap_units)),
    "the normalised cell state carried": (
        "lstm",
        equations("lstm", "c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)\n    h = sigmoid(o) * tanh(bn_c(c))",
                  "c = bn_c(sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j))\n    h = sigmoid(o) * tanh(c)"),
    ),
    "bias inside the normalisation": ("lstm", equations("lstm", "bn_h(h @ W_h) + b", "bn_h(h @ W_h + b)")),
    "the recurrent kernel transposed": ("lstm", weight("lstm.W_h", square_blocks_transposed)),
    "one weight off in the seventh digit": ("lstm", weight("lstm.W_x", lambda w: w * np.float32(1 + 2e-7))),
    "the sigmoid of another version": ("gru", equations("gru", "r = hard_sigmoid(x_r + h_r, 0.2)",
                                                        "r = hard_sigmoid(x_r + h_r, 0.16666666666666666)")),
    "reset before the matrix product": (
        "gru",
        equations("gru", "g = tanh(x_g + r * h_g)", "g = tanh(x_g + (r * h) @ W_h[:, 8:12] + b_h[8:12])"),
    ),
    "the update gate the other way": ("gru", equations("gru", "h = z * h + (1 - z) * g", "h = z * g + (1 - z) * h")),
    "read backwards": ("lstm", field("lstm", reverse=True)),
    "the first layer without its mask": ("lstm", unmasked("lstm")),
    "the second layer without its mask": ("gru", unmasked("gru")),
    "another padding value": ("mask", field("mask", value=-1.4)),
    "the first step of a mask lost": ("mask", field("mask", value=0.0)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_in_its_layer(fault: str) -> None:
    layer, mutate = FAULTS[fault]
    right = masked_stack()
    report = prove(right, Interpreted(mutate(right)))
    assert not report.equivalent
    assert report.worst_layer is not None
    assert report.worst_layer.name == layer
    assert report.worst_layer.error > report.worst_layer.bound


def test_the_unchanged_model_passes() -> None:
    for model in (masked_stack(), masked_stack(stateful=True), embedded()):
        assert prove(model, Interpreted(model)).equivalent


def test_the_time_step_of_a_fault_is_named() -> None:
    def fourth_row(mean: Array) -> Array:
        mean[3, 2] += 0.01
        return mean

    right = masked_stack()
    report = prove(right, Interpreted(weight("lstm.bn_c.mean", fourth_row)(right)))
    assert report.worst_layer is not None
    assert report.worst_layer.time_step == 3


def test_a_state_that_is_not_carried_is_found() -> None:
    right = masked_stack(stateful=True)
    report = prove(right, Interpreted(field("gru", stateful=False)(right)))
    assert not report.equivalent
    assert {case.case.split(",")[0] for case in report.cases if case.function_excess > 1} == {"calls in sequence"}


def test_the_wrong_padding_index_is_found() -> None:
    right = embedded()
    report = prove(right, Interpreted(field("mask", value=1.0)(right)))
    assert not report.equivalent
    assert report.worst_layer is not None
    assert report.worst_layer.name == "mask"


def test_zeros_instead_of_the_held_output_are_found() -> None:
    right = embedded()
    report = prove(right, Interpreted(field("gru", zero_masked=True)(right)))
    assert report.worst_layer is not None
    assert report.worst_layer.name == "gru"


def test_two_words_swapped_are_found() -> None:
    right = embedded()
    report = prove(
        right, Interpreted(weight("words.embeddings", lambda e: e[[0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 9]])(right))
    )
    assert not report.equivalent
    assert report.worst_layer is not None
    assert report.worst_layer.name == "words"
