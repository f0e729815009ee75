"""Round trips through files: from a checkpoint or state dict to a model and back, and over another format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from test_cell_families import sizes_for, stored_tensors, told_by
from test_layout_targets import LAYOUTS, one_layer

from normconvert.cells import family
from normconvert.errors import Unsupported
from normconvert.ir.file import load, save
from normconvert.ir.layers import Recurrent
from normconvert.ir.model import Array, Model
from normconvert.sources import Reading, ReadResult, read
from normconvert.sources.tf1.bundle import open_bundle
from normconvert.targets import target
from normconvert.targets.layouts import Chosen, record, store_cell
from normconvert.targets.layouts.keeping import kept_names
from normconvert.targets.tf1 import PREFIX

OVER_IMAGES = {name for name, layout in LAYOUTS if "conv" in name}
"""Families whose sizes only a recipe tells."""
FILES = [(name, layout) for name, layout in LAYOUTS if name not in OVER_IMAGES]


def random_model(name: str, layout: str, data: st.DataObject) -> Model:
    """One layer of random sizes and weights, with or without its optional parts, as a layout can have it."""
    chosen, declared = family(name), family(name).layout(layout)
    optional = sorted(chosen.optional_in(layout))
    left_out = set(data.draw(st.lists(st.sampled_from(optional), unique=True))) if optional else set()
    if left_out & set(declared.together):
        left_out |= set(declared.together)
    sizes = told_by(chosen, layout, sizes_for(chosen, data.draw), left_out)
    tensors = stored_tensors(chosen, layout, sizes, left_out)
    cell, weights = chosen.build(layout, tensors, settings=answers(name, layout))
    weights = store_and_back(cell, weights, Chosen(chosen, layout))
    return one_layer(Recurrent(cell=cell, return_sequences=True), weights)


def store_and_back(cell: Any, weights: dict[str, Array], chosen: Chosen) -> dict[str, Array]:
    """Values that the layout can hold: `gamma - 1` is rounded."""
    stored = store_cell(cell, weights, chosen)
    return chosen.family.build(chosen.layout, stored.tensors, settings=stored.settings)[1]


def answers(name: str, layout: str) -> dict[str, Any]:
    """What a user says to the open questions of a layout."""
    return {question.setting: question.options[0] for question in family(name).layout(layout).open}


def write(result: ReadResult | Model, to: str, folder: Path, **options: Any) -> Path:
    """Write a model; gives what `read` takes."""
    folder.mkdir(exist_ok=True)
    model = result.model if isinstance(result, ReadResult) else result
    path = folder / ("checkpoint" if to == "tf1" else "model.safetensors")
    target(to).write(model, path, **options)
    return path / PREFIX if to == "tf1" else path


def tensors_in(path: Path) -> dict[str, Array]:
    if path.suffix == ".safetensors":
        return load_file(path)
    bundle = open_bundle(path)
    return {name: bundle.load(name) for name in bundle.variables}


def same_tensors(one: Path, other: Path) -> None:
    first, second = tensors_in(one), tensors_in(other)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert second[name].dtype == array.dtype
        assert second[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(("name", "layout"), FILES, ids=[f"{name}-{layout}" for name, layout in FILES])
@settings(max_examples=2, deadline=None)
@given(data=st.data())
def test_a_file_comes_back_bit_for_bit(
    name: str, layout: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """X to the intermediate format to X, under the names of the first file, read as a user would."""
    folder = tmp_path_factory.mktemp("trip")
    model = random_model(name, layout, data)
    to, scope = place(name, layout)
    first = write(model, to, folder / "first", layout=f"{name}/{layout}", scope=scope)
    result = read_again(first, name, layout)
    save(result.model, folder / "model.safetensors")
    between = load(folder / "model.safetensors")
    same_tensors(first, write(between, to, folder / "again", names=kept_names(result.plan.tensors)))


BOTH_WAYS = [
    (name, one, other)
    for name, one in FILES
    for also, other in FILES
    if name == also and family(name).layout(one).framework != family(name).layout(other).framework
]


@pytest.mark.parametrize(("name", "one", "other"), BOTH_WAYS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_over_the_other_framework_and_back(
    name: str, one: str, other: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """X to the intermediate format to Y, read again, to X: the tensors of the first file, or a reason why not."""
    folder = tmp_path_factory.mktemp("trip")
    (to, scope), (to_other, scope_other) = place(name, one), place(name, other)
    first = write(random_model(name, one, data), to, folder / "first", layout=f"{name}/{one}", scope=scope)
    model = read_again(first, name, one).model
    between, refused = None, ""
    try:
        between = write(model, to_other, folder / "between", layout=f"{name}/{other}", scope=scope_other)
    except Unsupported as error:
        refused = str(error)
    if between is None:
        assert f"{name}/{other}" in refused
        return
    again = write(read_again(between, name, other).model, to, folder / "again", layout=f"{name}/{one}", scope=scope)
    found, expected = tensors_in(again), tensors_in(first)
    assert all(found[key].tobytes() == array.tobytes() for key, array in expected.items())
    assert not any(found[key].any() for key in found.keys() - expected.keys()), "only a bias of zeros may be new"


def place(name: str, layout: str) -> tuple[str, str]:
    """The target that writes a layout, and a scope in its manner of speaking."""
    is_tf1 = family(name).layout(layout).framework == "tf1"
    return ("tf1", "net/cell") if is_tf1 else ("state-dict", "net.cell")


def read_again(path: Path, name: str, layout: str) -> ReadResult:
    """The layer in a file, the open questions answered as the record beside it says."""
    scope, source = place(name, layout)[1], family(name).layout(layout).framework
    options = {"scope": scope, "family": f"{name}/{layout}", "from_format": source}
    (cell,) = record.read(path.with_name(record.NAME) if source == "tf1" else record.beside(path)).cells.values()
    settings = {}
    for question in family(name).layout(layout).open:
        kind, _, field = question.setting.partition(".*.")
        said = (value for key, value in cell.settings.items() if key.startswith(kind) and key.endswith(field))
        settings[question.setting] = next(said, question.options[0])
    return read(path, Reading(**options, settings=settings))
