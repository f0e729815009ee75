"""From every family of cells to every other: the same function bit for bit, or a refusal that shows what differs."""

from __future__ import annotations

import re

import numpy as np
from test_cell_families import sizes_for, spatial, stored_tensors, told_by
from test_layout_targets import CONFIG, one_layer

from normconvert.cells import family
from normconvert.cells import names as families
from normconvert.errors import Unsupported
from normconvert.interpreter import run
from normconvert.ir.cell import Cell
from normconvert.ir.layers import Recurrent
from normconvert.ir.model import Array
from normconvert.targets.layouts import Chosen, StoredCell, rebuilt, store_cell

DIFFERS = re.compile(
    r"'.+' is not '.+'|(is|has) .+, and there it (is|has) .+, in '.+ = .+'|and that of the cell is not neutral, in '.+'"
)
"""An equation of each; or a number that an equation uses; or a term of one that has no place."""


def one_of(name: str, layout: str) -> tuple[Cell, dict[str, Array]]:
    """A cell with random weights in whole sixty-fourths, so that biases add up exactly."""
    chosen = family(name)
    sizes = told_by(chosen, layout, {**sizes_for(chosen, lambda _: 2), "inputs": 3, "units": 5, "steps": 4}, set())
    cell, weights = chosen.build(
        layout, stored_tensors(chosen, layout, sizes, set()), config=CONFIG, dims=spatial(sizes)
    )
    random = np.random.default_rng(len(name))
    return cell, {
        key: array
        if key.endswith(("variance", "gamma"))
        else (random.integers(-90, 90, array.shape) / 64).astype(np.float32)
        for key, array in weights.items()
    }


def stored_or_not(cell: Cell, weights: dict[str, Array], chosen: Chosen) -> tuple[StoredCell | None, str]:
    """The cell in a layout, or why not."""
    try:
        return store_cell(cell, weights, chosen), ""
    except Unsupported as error:
        return None, str(error)


def test_from_family_to_family() -> None:
    layouts = {}
    for name in families():
        written = [key for key, declared in family(name).layouts.items() if declared.framework in ("tf1", "torch")]
        if written:
            layouts[name] = written[0]
    cells = {name: one_of(name, layout) for name, layout in layouts.items()}
    same, refused = set(), 0
    for name, (cell, weights) in cells.items():
        for other, layout in layouts.items():
            stored, why = stored_or_not(cell, weights, Chosen(family(other), layout))
            if stored is None:
                assert name != other
                assert DIFFERS.search(why), (name, other, why)
                refused += 1
                continue
            check_round_trip(name, layouts[name], cell, weights, *rebuilt(stored, stored.tensors))
            same.add((name, other))
    assert refused > 1000
    assert {("cudnn_compatible_gru", "gru_reset_after"), ("lstm", "tf1_lstm"), ("lstm", "sonnet_lstm")} <= same


def check_round_trip(
    name: str, layout: str, cell: Cell, weights: dict[str, Array], again: Cell, arrays: dict[str, Array]
) -> None:
    """What the other layout holds computes the same, and gives the same tensors where the first one takes it back."""
    shape = cell.input_shapes[cell.parsed().inputs[0]]
    x = np.random.default_rng(1).normal(size=(2, 3, *shape))
    first, second = (
        run(one_layer(Recurrent(cell=each), held), {"x": x})["rnn"] for each, held in ((cell, weights), (again, arrays))
    )
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-14, err_msg=f"{name} as {again.family}")
    own = Chosen(family(name), layout)
    tensors = store_cell(cell, weights, own).tensors
    stored, why = stored_or_not(again, arrays, own)
    if stored is None:  # some cells have more than one spelling, and the way back knows the other one
        assert DIFFERS.search(why), (name, why)
        return
    back = stored.tensors
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        if again.family == cell.family or tensor.ndim > 1:  # elsewhere two biases may have become their sum
            np.testing.assert_array_equal(back[key], tensor, err_msg=f"{name} as {again.family}: {key}")
