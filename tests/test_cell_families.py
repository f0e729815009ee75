"""The catalogue's files: they check with any sizes, and their layouts are inverses bit for bit; a user's errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normconvert.cells import Family, family, names, read_family
from normconvert.cells.layout import (
    Joined,
    Parameter,
    Part,
    Rearranged,
    Reinterpreted,
    Transposed,
    assemble,
    parse_layout,
    shape_of,
    take_apart,
)
from normconvert.cells.solving import solve_sizes
from normconvert.errors import CorruptFile, NormconvertError, UsageError
from normconvert.interpreter.recurrent import run_recurrent
from normconvert.ir.checking import check
from normconvert.ir.expressions import Bound
from normconvert.ir.layers import Activation, Recurrent
from normconvert.ir.model import Array
from normconvert.targets.torch.cell_module import Use, cell_module

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
LAYOUTS = [(name, layout) for name in names() for layout in family(name).layouts]


def sizes_for(chosen: Family, draw: Any) -> dict[str, int]:
    """Every size a family names; a convolution's state has the size of its input here."""
    shapes = chosen.shapes(chosen.norms)
    known = {name for shape in shapes.values() for bound in shape for name, _ in bound.terms}
    known |= {str(size) for shape in (*chosen.inputs.values(), *chosen.states.values()) for size in shape}
    sizes = {name: draw(st.integers(1, 6)) for name in sorted(known) if name.isidentifier()}
    sizes |= {name: draw(st.integers(3, 6)) for name in ("rows", "columns", "steps") if name in sizes}
    if any(fields.get("unbiased") for fields in chosen.norms.values()):
        sizes["units"] = draw(st.integers(2, 6))  # of one value there is no unbiased variance
    return sizes | {f"state_{name}": sizes[name] for name in ("rows", "columns") if name in sizes}


def told_by(chosen: Family, layout: str, sizes: dict[str, int], left_out: set[str]) -> dict[str, int]:
    """The sizes, those of a projection that is not stored set to what they then are the same as."""
    stored = stored_tensors(chosen, layout, sizes, left_out)
    held = {name for key in stored for name in parameters(parse_layout(chosen.layouts[layout].tensors[key]))}
    shapes = [chosen.parameters.get(name, ()) for name in held & set(chosen.optional)]
    return sizes | {a: sizes[b] for a, b in chosen.same_sizes.items() if not any({a, b} <= set(s) for s in shapes)}


def stored_tensors(chosen: Family, layout: str, sizes: dict[str, int], left_out: set[str]) -> dict[str, Array]:
    """Random tensors in a layout, without those of the parameters left out."""
    rng = np.random.default_rng(sum(sizes.values()))
    shapes = chosen.shapes(chosen.norms)
    tensors = {}
    for name, text in chosen.layouts[layout].tensors.items():
        part = parse_layout(text)
        shape = tuple(bound.resolve(sizes) for bound in shape_of(part, shapes, chosen.gates))
        if not any(parameter.split(".")[0] in left_out for parameter in parameters(part)):
            tensors[name] = (rng.integers(300, 1700, shape) / 1024).astype(np.float32)  # 1 can be added exactly
    return tensors


def parameters(part: Part) -> set[str]:
    match part:
        case Parameter(name=name):
            return {name}
        case Joined(parts=parts):
            return {name for inner in parts for name in parameters(inner)}
        case _:
            return parameters(part.part)


CONFIG = {"strides": 1, "padding": "same", "dilation_rate": 1, "norm_epsilon": 2e-3, "epsilon": 2e-3}


@pytest.mark.parametrize(("name", "layout"), LAYOUTS, ids=[f"{name}-{layout}" for name, layout in LAYOUTS])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_storing_inverts_building_bit_for_bit(name: str, layout: str, data: st.DataObject) -> None:
    chosen = family(name)
    sizes = sizes_for(chosen, data.draw)
    optional = sorted(chosen.optional_in(layout))
    left_out = set(data.draw(st.lists(st.sampled_from(optional), unique=True))) if optional else set()
    sizes = told_by(chosen, layout, sizes, left_out)
    tensors = stored_tensors(chosen, layout, sizes, left_out)
    cell, weights = chosen.build(layout, tensors, config=CONFIG, dims=spatial(sizes))
    again = chosen.store(layout, cell, weights)
    assert again.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert again[key].dtype == tensor.dtype
        read = again[key] != 0 if isinstance(parse_layout(chosen.layouts[layout].tensors[key]), Rearranged) else True
        np.testing.assert_array_equal(again[key], np.where(read, tensor, 0), err_msg=key)  # a row may be unread
    assert {k: v.shape for k, v in weights.items()} == cell.weight_shapes()
    assert {key: cell.dims[key] for key in cell.dims} == {key: sizes[key] for key in cell.dims}
    check(cell)
    run_once(cell, weights, sizes)


def spatial(sizes: dict[str, int]) -> dict[str, int]:
    """Sizes that no tensor tells."""
    return {key: size for key, size in sizes.items() if key in ("rows", "columns", "state_rows", "state_columns")}


def run_once(cell: Any, weights: dict[str, Array], sizes: dict[str, int]) -> None:
    inputs = [np.random.default_rng(0).normal(size=(2, 3, *shape)) for shape in cell.input_shapes.values()]
    output, _ = run_recurrent(Recurrent(cell=cell, return_sequences=True), inputs, weights)
    assert output.shape[:2] == (2, 3)
    assert np.isfinite(output).all()


def test_every_layout_of_a_family_builds_the_same_cell() -> None:
    """The tensors of one layout, stored in another and read back, give the same cell and the same arrays."""
    for name in names():
        chosen = family(name)
        first, *others = chosen.layouts
        shapes = {"inputs": 3, "units": 5, "steps": 4, "channels": 2, "filters": 3, "projected": 2, "joint": 6}
        shapes |= {name: shapes[other] for name, other in chosen.same_sizes.items()}
        shapes |= {"rows": 5, "columns": 4, "state_rows": 5, "state_columns": 4, "window_rows": 3, "window_columns": 2}
        shapes |= {"slices": 6, "window_slices": 3}
        cell, weights = chosen.build(
            first, stored_tensors(chosen, first, shapes, set()), config=CONFIG, dims=spatial(shapes)
        )
        held = {parameter.partition(".")[0] for parameter in weights}
        for other in (layout for layout in others if set(chosen.layouts[layout].required) <= held):
            stored = chosen.store(other, cell, weights)
            again, arrays = chosen.build(other, stored, config=CONFIG, dims=spatial(shapes))
            assert again.equations.count("\n") == cell.equations.count("\n")
            for key in arrays:
                np.testing.assert_array_equal(arrays[key], weights[key], err_msg=f"{name} {other} {key}")


def test_gates_go_where_pytorch_expects_them() -> None:
    """An oracle for the permutations: PyTorch's own cells with tensors stored from ours."""
    import torch

    rng = np.random.default_rng(1)
    for name, module in (
        ("lstm", torch.nn.LSTMCell),
        ("gru_reset_after", torch.nn.GRUCell),
        ("simple_rnn", torch.nn.RNNCell),
    ):
        chosen, native = family(name), module(3, 5, dtype=torch.float64)
        tensors = {key: tensor.detach().numpy() for key, tensor in native.named_parameters()}
        cell, weights = chosen.build("torch", tensors)
        x, states = rng.normal(size=(2, 1, 3)), [rng.normal(size=(2, 5)) for _ in cell.states]
        given_states = tuple(map(torch.from_numpy, states))
        with torch.no_grad():
            expected = native(torch.from_numpy(x[:, 0]), given_states if len(states) > 1 else given_states[0])
        output, _ = run_recurrent(Recurrent(cell=cell), [x], weights, states=states)
        np.testing.assert_allclose(output, expected[0] if len(states) > 1 else expected, rtol=1e-12, atol=1e-14)


def test_the_fixture_file_is_the_catalogues_cell() -> None:
    mine, theirs = read_family(FIXTURES / "layer_norm_gru.toml"), family("layer_norm_gru")
    sizes = {"inputs": 3, "units": 5}
    tensors = stored_tensors(mine, "keras", sizes, set())
    x = np.random.default_rng(2).normal(size=(2, 4, 3))
    outputs = []
    for chosen in (mine, theirs):
        cell, weights = chosen.build("keras", tensors, config={"epsilon": 2e-3})
        outputs.append(run_recurrent(Recurrent(cell=cell), [x], weights)[0])
        assert {norm.epsilon for norm in cell.norms.values()} == {2e-3}
    np.testing.assert_array_equal(*outputs)


def test_settings_of_a_cell() -> None:
    chosen = family("dreamer_gru")
    tensors = stored_tensors(chosen, "keras", {"inputs": 3, "units": 5}, set())
    default, _ = chosen.build("keras", tensors)
    assert default.constants == {"update_bias": -1.0}
    assert default.family == "dreamer_gru"
    changed, _ = chosen.build(
        "keras",
        tensors,
        settings={"constants.update_bias": 0.5},
        functions={"activation": Activation("leaky_relu", (-0.25,))},
    )
    assert changed.constants == {"update_bias": 0.5}
    assert "leaky_relu(sigmoid(r) * n, -0.25)" in changed.equations
    identity, _ = chosen.build("keras", tensors, functions={"activation": None})
    assert "n_2 = sigmoid(r) * n" in identity.equations


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.pop("kernel"), "tensor kernel is missing"),
        (lambda t: t.update(extra=t["kernel"]), "tensor extra is not one of"),
        (lambda t: t.update(kernel=t["kernel"][:, :-1]), "tensor kernel: "),
        (lambda t: t.update(kernel=t["kernel"][None]), "tensor kernel: has 3 axes, expected 2"),
        (lambda t: t.update(recurrent_kernel=t["recurrent_kernel"][:-1]), "tensor recurrent_kernel: "),
        (lambda t: t.update(bias=t["bias"][:-4]), "tensor "),
    ],
)
def test_tensors_that_do_not_fit(change: Any, what: str) -> None:
    tensors = stored_tensors(family("lstm"), "keras", {"inputs": 3, "units": 5}, {"b_h"})
    change(tensors)
    with pytest.raises(CorruptFile) as caught:
        family("lstm").build("keras", tensors)
    assert what in str(caught.value)


def test_what_a_cell_does_not_have() -> None:
    chosen = family("lstm")
    tensors = stored_tensors(chosen, "keras", {"inputs": 3, "units": 5}, set())
    with pytest.raises(UsageError, match=r"no layout tf9\. Known layouts: keras"):
        chosen.build("tf9", tensors)
    with pytest.raises(UsageError, match="no constant forget_bias"):
        chosen.build("keras", tensors, settings={"constants.forget_bias": 1.0})
    with pytest.raises(UsageError, match="no function act"):
        chosen.build("keras", tensors, functions={"act": None})
    with pytest.raises(UsageError, match="there is no cell family lstn"):
        family("lstn")


GOOD = (FIXTURES / "layer_norm_gru.toml").read_text(encoding="utf-8")
WRONG: list[tuple[str, str, str, str]] = [
    ("title =", "titel =", "is not a cell description", "titel"),
    ('title = "', 'title = 3 # "', "is not a cell description", "title"),
    ("gates = [", "gates = {", "is not a cell description", ""),
    ("split(input_norm", "split(input norm", "equations: line 2", "cannot be read"),
    ("cell layer_norm_gru(x; h)", "cell layer_norm_gru(x, y; h)", "equations", "[inputs]"),
    ('W_x = ["inputs", "3*units"]', 'W_x = ["inputs", "3 units"]', "parameters.W_x", "is not a size"),
    ('W_x = ["inputs", "3*units"]', 'W_x = ["inputs", 1.5]', "is not a cell description", "parameters"),
    ("epsilon = 1e-3", "epsilon = 'small'", "norms.input_norm", "float"),
    ("epsilon = 1e-3", "epsilom = 1e-3", "norms.input_norm", "epsilom"),
    ("epsilon = 1e-3", "epsilon = -1.0", "norms.input_norm", "epsilon is a number"),
    ('features = "3*units"', "", "norms.input_norm", "features"),
    ('kind = "layer"', 'kind = "lair"', "norms.input_norm", "lair"),
    ('kernel = "W_x"', 'kernel = "W_y"', "layouts.keras.tensors.kernel", "Did you mean W_x"),
    ('kernel = "W_x"', 'kernel = "W_x["', "layouts.keras.tensors.kernel", "cannot be read"),
    ('kernel = "W_x"', 'kernel = "rows(W_x, b)"', "layouts.keras.tensors.kernel", "does not fit"),
    ('kernel = "W_x"', 'kernel = "W_x[q]"', "layouts.keras.tensors.kernel", "does not fit"),
    ('kernel = "W_x"', "kernel = \"__import__('os')\"", "layouts.keras.tensors.kernel", "cannot be read"),
    ('bias = "b"', 'bias = "b.T"', "layouts.keras.tensors.bias", "does not fit"),
    ("norms.input_norm.epsilon, ", "norms.input.epsilon, ", "layouts.keras.config.epsilon", "no setting"),
    ("norms.input_norm.epsilon, ", "norms.input_norm.size, ", "layouts.keras.config.epsilon", "no setting"),
    ('gates = ["z"', 'optional = ["c"]\ngates = ["z"', "optional", "c is not known"),
    ('gates = ["z"', 'learned_states = ["c"]\ngates = ["z"', "learned_states", "c is not known"),
    ("[parameters]", '[functions]\nact = "tahn"\n\n[parameters]', "functions.act", "Did you mean tanh"),
]


@pytest.mark.parametrize(("old", "new", "where", "what"), WRONG, ids=[new[:40] for _, new, _, _ in WRONG])
def test_a_mistake_in_a_users_file(tmp_path: Path, old: str, new: str, where: str, what: str) -> None:
    assert old in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_family(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {where}")
    assert what in message
    assert "\n" not in message


def test_mistakes_that_show_when_a_cell_is_built(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    tensors = stored_tensors(read_family(FIXTURES / "layer_norm_gru.toml"), "keras", {"inputs": 3, "units": 5}, set())
    for old, new, what in (
        ("n = tanh(", "n = tahn(", "line 6, column 9: tahn is not a function"),
        ("input_norm(x @ W_x)", "input_nrom(x @ W_x)", "Did you mean input_norm"),
        ("p_n + r * u_n", "p_n + r * W_h", "line 6, column"),
    ):
        path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(NormconvertError) as caught:
            read_family(path).build("keras", tensors)
        assert what in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_family(tmp_path / "absent.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_family(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not a cell description"):
        read_family(tmp_path / "binary.toml")


SHAPES = {"W": (Bound(0, (("inputs", 1),)), Bound(0, (("units", 4),))), "V": (Bound(0, (("units", 1),)),) * 2}
SHAPES["U"] = (Bound(0, (("units", 1),)), Bound(0, (("units", 4),)))
SHAPES["b"] = (Bound(0, (("units", 4),)),)
GATES = ("i", "f", "g", "o")
layouts = st.one_of(
    st.sampled_from(["W", "U", "b", "V"]).map(Parameter),
    st.permutations(GATES).map(lambda order: Parameter("W", tuple(order))),
    st.permutations(GATES).map(lambda order: Transposed(Parameter("U", tuple(order)))),
    st.permutations(("W", "U")).map(lambda order: Joined(tuple(map(Parameter, order)), "rows")),
    st.permutations(("W", "U")).map(lambda order: Transposed(Joined(tuple(map(Parameter, order)), "rows"))),
    st.permutations(GATES).map(
        lambda order: Joined(tuple(Reinterpreted(Parameter("W", (gate,))) for gate in order), "columns")
    ),
    st.permutations(GATES).map(
        lambda order: Joined(tuple(Transposed(Parameter("U", (gate,))) for gate in order), "columns")
    ),
    st.permutations(GATES).map(lambda order: Joined(tuple(Parameter("b", (gate,)) for gate in order), "stack")),
)


@settings(max_examples=150, deadline=None)
@given(layouts, st.integers(1, 4), st.integers(1, 4))
def test_take_apart_inverts_assemble(part: Part, inputs: int, units: int) -> None:
    sizes = {"inputs": inputs, "units": units}
    arrays = {
        name: np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape) + 1000 * number
        for number, (name, bounds) in enumerate(SHAPES.items())
        for shape in [tuple(bound.resolve(sizes) for bound in bounds)]
    }
    stored = assemble(part, arrays, GATES)
    assert stored.shape == tuple(bound.resolve(sizes) for bound in shape_of(part, SHAPES, GATES))
    empty = {name: np.full_like(array, np.nan) for name, array in arrays.items()}
    take_apart(part, stored, empty, GATES)
    for name in parameters(part):
        np.testing.assert_array_equal(empty[name], arrays[name])
    np.testing.assert_array_equal(assemble(part, empty, GATES), stored)
    found = solve_sizes({"t": stored.shape}, {"t": shape_of(part, SHAPES, GATES)}, {})
    assert {key: sizes[key] for key in found} == found


def test_a_shifted_tensor() -> None:
    """lingvo stores gamma - 1."""
    part = parse_layout("b - 1")
    arrays = {"b": np.array([0.5, 2.0])}
    np.testing.assert_array_equal(assemble(part, arrays, ()), [-0.5, 1.0])
    found = {"b": np.empty(2)}
    take_apart(part, np.array([-0.5, 1.0]), found, ())
    np.testing.assert_array_equal(found["b"], arrays["b"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "W[",
        "W[0]",
        "W[i:f]",
        "rows()",
        "sideways(W)",
        "W * 2",
        "lambda: 1",
        "W" * 2000,
        "-" * 900 + "W",
    ],
)
def test_layouts_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError):
        parse_layout(text)


def test_generated_code_names_the_sizes_that_the_family_names() -> None:
    """Where sizes are equal by chance: 3 filters and a window of 3, 4 filters and 4 columns."""
    chosen = family("conv_lstm_2d")
    layout = next(iter(chosen.layouts))
    sources = set()
    for filters, window in ((3, 3), (4, 2)):
        shapes = {"channels": 2, "filters": filters, "rows": 5, "columns": 4, "state_rows": 5, "state_columns": 4}
        shapes |= {"window_rows": window, "window_columns": window}
        cell, _ = chosen.build(
            layout, stored_tensors(chosen, layout, shapes, set()), config=CONFIG, dims=spatial(shapes)
        )
        sources.add(cell_module(Recurrent(cell=cell), Use()).source)
    (source,) = sources
    assert "torch.empty(window_rows, window_columns, channels, 4 * filters)" in source
    assert "h = x.new_zeros(x.shape[0], self.state_rows, self.state_columns, self.filters)" in source
