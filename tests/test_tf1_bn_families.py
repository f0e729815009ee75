"""The batch-normalised TF1 families: each cell run by TensorFlow, and the same checkpoint converted by us."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tf1_bn_cells import CELLS, BnCell
from tf1_oracle import STEPS, Saved, check, check_family, record, sequences, stored_tensors

from normconvert.cells import family, names
from normconvert.errors import CorruptFile

pytest.importorskip("tensorflow")

every_cell = pytest.mark.parametrize("name", CELLS)


@pytest.fixture(scope="session")
def saved_cell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """`saved_cell(name)`: a cell's checkpoint and TensorFlow's own run of it; each is made once."""
    done: dict[str, Saved] = {}

    def make(name: str) -> Saved:
        if name not in done:
            done[name] = recorded(CELLS[name], tmp_path_factory.mktemp("cell"), sum(map(ord, name)))
        return done[name]

    return make


def recorded(chosen: BnCell, folder: Path, seed: int, **options: Any) -> Saved:
    """Every sequence from zero states, as a layer starts, and the last one once more from other states."""
    inputs = sequences(*chosen.shapes, chosen.shapes[-1], features=chosen.features, seed=seed)
    generator = np.random.default_rng(seed)
    shapes = [(size,) if isinstance(size, int) else size for size in chosen.states]
    other = [generator.normal(0, 0.6, (chosen.shapes[-1][0], *shape)) for shape in shapes]
    initial = [*([] for _ in chosen.shapes), other]
    return record(
        folder, chosen.scope, chosen.cell, states=chosen.states, inputs=inputs, initial=initial, seed=seed, **options
    )


@every_cell
def test_the_family_computes_what_tensorflow_computes(name: str, saved_cell: Callable[[str], Saved]) -> None:
    """In float64, outputs and final states."""
    chosen = CELLS[name]
    cell = check_family(saved_cell(name), chosen.family, chosen.layout, settings=chosen.settings, dims=chosen.dims)
    assert cell.family == chosen.family


@every_cell
def test_converted_by_command_line(
    name: str,
    saved_cell: Callable[[str], Saved],
    command: Callable[..., Any],
    run_folder: Callable[..., Any],
    tmp_path: Path,
) -> None:
    chosen = CELLS[name]
    saved, options = saved_cell(name), [part for k, v in chosen.settings.items() for part in ("--set", f"{k}={v}")]
    if chosen.ambiguous:
        refused = command("tf1-to-torch", saved.prefix, "--scope", saved.scope, *options)
        assert refused.exit_code == 3
        assert f"{chosen.family}/{chosen.layout}" in refused.stderr
        options += ["--family", f"{chosen.family}/{chosen.layout}"]
    if chosen.dims:
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(recipe_of(chosen))
        options = ["--recipe", str(recipe)]
    check(saved, command, run_folder, tmp_path / "torch", *options)


def recipe_of(chosen: BnCell) -> str:
    """A cell over images needs their size, which no tensor tells."""
    dims = ", ".join(f"{key} = {size}" for key, size in chosen.dims.items())
    return f"""
[[inputs]]
name = "x"
shape = ["?", {", ".join(map(str, chosen.features))}]

[[layers]]
name = "cell"
cell = "{chosen.family}"
layout = "{chosen.layout}"
scope = "{chosen.scope}"
dims = {{ {dims} }}
"""


def test_the_size_of_the_image_on_the_command_line(
    saved_cell: Callable[[str], Saved], command: Callable[..., Any], run_folder: Callable[..., Any], tmp_path: Path
) -> None:
    """In place of a recipe, for a cell whose variables do not tell it."""
    saved = saved_cell("conv gru")
    seen = command("inspect", saved.prefix)
    assert "conv: one direction, ?x?x3 -> ?x?x2 features" in seen.stdout
    refused = command("tf1-to-torch", saved.prefix, "--scope", "conv")
    assert refused.exit_code == 3
    assert "Say --set dims.rows=SIZE --set dims.columns=SIZE" in refused.stderr
    for wrong in ("0", "2.5", "four", "true"):
        refused = command("tf1-to-torch", saved.prefix, "--scope", "conv", "--set", f"dims.rows={wrong}")
        assert refused.exit_code == 2
        assert "is no value for dims.rows" in refused.stderr
    sizes = [part for name, size in CELLS["conv gru"].dims.items() for part in ("--set", f"dims.{name}={size}")]
    check(saved, command, run_folder, tmp_path / "torch", *sizes)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("variable per step", "past_end"),
        ("gru, variable per step", "past_end"),
        ("qiita", "forget_bias"),
        ("sonnet", "source"),
        ("sonnet, cell only", "source"),
    ],
)
def test_what_is_open_must_be_decided(
    name: str, setting: str, saved_cell: Callable[[str], Saved], command: Callable[..., Any]
) -> None:
    saved = saved_cell(name)
    refused = command("tf1-to-torch", saved.prefix, "--scope", saved.scope)
    assert refused.exit_code == 3
    assert setting in refused.stderr
    assert "--set" in refused.stderr


def test_every_family_of_this_kind_is_checked() -> None:
    frameworks = {
        (n, layout): family(n).layout(layout).framework
        for n in names()
        if re.match("bn_", n)
        for layout in family(n).layouts
    }
    in_tensorflow = {place for place, framework in frameworks.items() if framework == "tf1"}
    assert {(chosen.family, chosen.layout) for chosen in CELLS.values()} == in_tensorflow
    # Theano cannot be run; see the catalogue's transcription.
    others = {place for place, framework in frameworks.items() if framework not in ("tf1", "torch")}
    assert others == {("bn_lstm", "theano")}


def test_a_loop_in_the_graph_is_the_same(tmp_path: Path) -> None:
    """`tf.while_loop`, as dynamic_rnn makes, in place of a loop in Python."""
    chosen = CELLS["phan"]
    saved = recorded(chosen, tmp_path, 6, dynamic=True)
    check_family(saved, chosen.family, chosen.layout)


@pytest.mark.parametrize("name", ["olavhn", "phan", "khalife, all", "qiita", "sonnet, ascending"])
def test_the_check_sees_a_wrong_number(name: str, saved_cell: Callable[[str], Saved]) -> None:
    """The comparison above fails with another epsilon, another forget bias, or statistics one step off."""
    chosen = CELLS[name]
    saved = saved_cell(name)
    constants = family(chosen.family).constants
    wrong: list[dict[str, Any]] = [{"norms.*.epsilon": 2e-2}, *({f"constants.{c}": 0.33} for c in constants)]
    if chosen.family in ("bn_lstm_per_step", "bn_lstm_sonnet_indexed"):
        wrong.append({"norms.*.past_end": "modulo"})
    for setting in wrong:
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            check_family(saved, chosen.family, chosen.layout, settings={**chosen.settings, **setting})


def test_sonnets_two_orders_are_two_functions(saved_cell: Callable[[str], Saved]) -> None:
    """Read in the other order, the same variables give other rows, one fewer."""
    settings = CELLS["sonnet, tf_case"].settings
    saved = saved_cell("sonnet, tf_case")
    cell = check_family(saved, "bn_lstm_sonnet_indexed", "tf_case", settings=settings)
    assert cell.norms["bn_h"].steps == STEPS
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_family(saved, "bn_lstm_sonnet_indexed", "ascending", settings=settings)


def test_a_norm_is_stored_as_a_whole_or_not_at_all(saved_cell: Callable[[str], Saved]) -> None:
    """Half of an optional norm would leave the other half without values."""
    chosen = CELLS["tamamori"]
    tensors = stored_tensors(chosen.family, chosen.layout, saved_cell("tamamori").values)
    whole = {key: array for key, array in tensors.items() if not key.startswith("xh/")}
    cell, _ = family(chosen.family).build(chosen.layout, whole)
    assert cell.norms.keys() == {"bn_h", "bn_c"}
    tensors.pop("xh/scale")
    with pytest.raises(CorruptFile, match="tensor xh/scale is missing"):
        family(chosen.family).build(chosen.layout, tensors)


def test_statistics_that_are_stored_and_not_read(saved_cell: Callable[[str], Saved]) -> None:
    """Sonnet normalises with the batch at hand by default, and stores running statistics all the same."""
    saved = saved_cell("sonnet, batch")
    tensors = stored_tensors("bn_lstm_sonnet", "sonnet", saved.values)
    _, weights = family("bn_lstm_sonnet").build("sonnet", tensors, settings={"norms.*.source": "batch"})
    assert any("moving_mean" in key for key in tensors)
    assert not any(key.endswith((".mean", ".variance")) for key in weights)


def test_the_row_that_is_never_read(saved_cell: Callable[[str], Saved]) -> None:
    saved = saved_cell("bypass")
    cell = check_family(saved, "bn_lstm_per_step", "bypass")
    assert {norm.steps for norm in cell.norms.values()} == {STEPS - 1}
