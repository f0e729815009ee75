"""The intermediate format: what is saved is loaded, nothing is read before it is used, and damage is named."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from normconvert.errors import CorruptFile, NormconvertError, Unsupported, UsageError
from normconvert.interpreter.model import run
from normconvert.ir import file as format_module
from normconvert.ir.cell import Cell, State
from normconvert.ir.file import FORMAT_VERSION, load, save
from normconvert.ir.layers import (
    Activation,
    AnyLayer,
    Apply,
    BatchNormalization,
    Bidirectional,
    Concatenate,
    Convolution,
    Dense,
    Dropout,
    Embedding,
    Layer,
    LayerNormalization,
    Recurrent,
)
from normconvert.ir.model import Array, Input, Model, Node, Provenance
from normconvert.ir.norm import Norm

FLOATS: list[Any] = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


def rnn(inputs: int, units: int, steps: int) -> Recurrent:
    norm = Norm(kind="batch", features=units, epsilon=1e-3, scope="per_step", steps=steps, past_end="modulo")
    cell = Cell(
        equations="cell f(x; h):\n    h = tanh(n(x @ W) + rate * h + b)",
        dims={"units": units},
        input_shapes={"x": (inputs,)},
        states={"h": State((units,), True)},
        parameters={"W": (inputs, units), "b": (units,)},
        constants={"rate": 0.3},
        norms={"n": norm},
        family="of_my_own",
    )
    return Recurrent(cell=cell, return_sequences=True, kind="MyRNN", dropout=0.1)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Two inputs, a chain of layers of several kinds, weights of several dtypes, layouts and byte orders."""
    features, units = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    layers: dict[str, Any] = {"embed": Embedding(kind="Embedding"), "join": Concatenate(axis=-1)}
    shapes: dict[str, tuple[int, ...]] = {"embed.embeddings": (5, units)}
    nodes = [Node("e", "embed", ("ids",)), Node("j", "join", ("x", "e"))]
    size = features + units
    for number, kind in enumerate(draw(st.lists(st.sampled_from(sorted(CHAIN)), max_size=4))):
        name = f"{kind} {number}/é"
        layer, own, size = CHAIN[kind](size, draw(st.integers(1, 4)))
        layers[name] = layer
        shapes |= {f"{name}.{key}": shape for key, shape in own.items()}
        nodes.append(Node(f"v{number}", name, (nodes[-1].name,)))
    weights: dict[str, Array] = {}
    for key, shape in shapes.items():
        array = rng.uniform(0.1, 1, shape).astype(draw(st.sampled_from(FLOATS)))
        weights[key] = np.asfortranarray(array) if draw(st.booleans()) else array
    return Model(
        draw(st.text(max_size=5)),
        (Input("x", (None, features)), Input("ids", (None,), dtype="int", batch=None)),
        (nodes[-1].name, "e"),
        layers,
        tuple(nodes),
        weights,
        Provenance(
            "m.h5", "ab" * 32, "keras-h5", "Keras 2.2.4", {"define": "a=b"}, ("One.", draw(st.text(max_size=5)))
        ),
    )


Chain = Callable[[int, int], tuple[Any, dict[str, tuple[int, ...]], int]]
CHAIN: dict[str, Chain] = {
    "dense": lambda n, m: (
        Dense(activation=Activation("leaky_relu", (0.1,))),
        {"kernel": (n, m), "bias": (m,)},
        m,
    ),
    "relu": lambda n, m: (Apply(activation=Activation("capped_relu", (0.1, float("inf"), 0.5))), {}, n),
    "bn": lambda n, m: (
        BatchNormalization(axis=-1, epsilon=2e-3, scale=False),
        dict.fromkeys(("beta", "mean", "variance"), (n,)),
        n,
    ),
    "ln": lambda n, m: (LayerNormalization(axes=(-1,), epsilon=1e-5), {"gamma": (n,), "beta": (n,)}, n),
    "dropout": lambda n, m: (Dropout(rate=0.25, shared_axes=(1,)), {}, n),
    "conv": lambda n, m: (
        Convolution(window=(2,), strides=(1,), dilation=(1,), padding="causal", use_bias=False),
        {"kernel": (2, n, m)},
        m,
    ),
    "rnn": lambda n, m: (rnn(n, m, 3), rnn(n, m, 3).cell.weight_shapes(), m),
    "both": lambda n, m: (
        Bidirectional(forward=rnn(n, m, 2), backward=msgspec.structs.replace(rnn(n, m, 4), reverse=True)),
        {
            f"{way}.{key}": shape
            for way, steps in (("forward", 2), ("backward", 4))
            for key, shape in rnn(n, m, steps).cell.weight_shapes().items()
        },
        2 * m,
    ),
}


def same(a: Model, b: Model) -> None:
    for field in ("name", "inputs", "outputs", "nodes", "provenance"):
        assert getattr(a, field) == getattr(b, field)
    assert list(a.layers.items()) == list(b.layers.items())
    assert a.weights.keys() == b.weights.keys()
    for key, array in a.weights.items():
        assert (b.weights[key].dtype, b.weights[key].shape) == (array.dtype, array.shape), key
        np.testing.assert_array_equal(b.weights[key].view(np.uint8), np.ascontiguousarray(array).view(np.uint8), key)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(models())
def test_what_is_saved_is_loaded(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "m.safetensors"
    save(model, path)
    first = path.read_bytes()
    loaded = load(path)
    same(model, loaded)
    save(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == first
    inputs = {"x": np.ones((2, 4, model.inputs[0].shape[-1] or 1)), "ids": np.array([[0, 1, 2, 3], [4, 3, 2, 1]])}
    expected, found = run(model, inputs), run(loaded, inputs)
    for name in model.outputs:
        np.testing.assert_array_equal(found[name], expected[name])


def example() -> Model:
    return Model(
        "example",
        (Input("x", (3,)),),
        ("y",),
        {"dense": Dense()},
        (Node("y", "dense", ("x",)),),
        {
            "dense.kernel": np.arange(6, dtype=np.float32).reshape(3, 2),
            "dense.bias": np.array([0.5, -1], np.float32),
        },
    )


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.array([], np.float32),
        np.zeros((0, 3), np.float16),
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(12)[::3],
        np.array([[True, False]]),
        np.array([1, -2], np.int8),
        np.array([2**63], np.uint64),
        np.array([np.nan, np.inf, -0.0]),
        np.array([1.5, -2], ml_dtypes.bfloat16),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_any_array_keeps_shape_dtype_and_bits(tmp_path: Path, array: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "infer", lambda model: None)
    model = example()
    save(Model(**{**vars(model), "weights": {**model.weights, "dense.kernel": array}}), tmp_path / "m")
    found = load(tmp_path / "m").weights["dense.kernel"]
    assert (found.shape, found.dtype) == (array.shape, array.dtype.newbyteorder("="))
    np.testing.assert_array_equal(found, array)


def test_an_array_the_format_has_no_place_for(tmp_path: Path) -> None:
    model = example()
    for array in (np.array([1j]), np.array(["text"]), np.array([None], object)):
        with pytest.raises(Unsupported, match=r"weight dense\.kernel: dtype"):
            save(Model(**{**vars(model), "weights": {"dense.kernel": array}}), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_is_not_a_number(tmp_path: Path) -> None:
    model = example()
    layers = {"dense": Dense(activation=Activation("leaky_relu", (float("nan"),)))}
    with pytest.raises(UsageError, match="not a number"):
        save(Model(**{**vars(model), "layers": layers}), tmp_path / "m")


def test_loading_does_not_read_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(example(), path)
    for array in load(path).weights.values():
        base: Any = array
        while base.base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)
        assert not array.flags.writeable


def test_any_safetensors_tool_opens_it(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    save(example(), tmp_path / "m.safetensors")
    for name, array in load_file(tmp_path / "m.safetensors").items():
        np.testing.assert_array_equal(array, example().weights[name])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    save(example(), path)
    before = path.read_bytes()

    def half(arrays: Any, partial: Path, metadata: Any) -> None:
        Path(partial).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(format_module, "save_file", half)
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        save(example(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        save(example(), tmp_path / "absent" / "m.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        save(example(), tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    save(example(), tmp_path / "m")
    (tmp_path / "plain").touch()
    assert os.stat(tmp_path / "m").st_mode == os.stat(tmp_path / "plain").st_mode


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def rewritten(path: Path, header: dict[str, Any], body: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def with_document(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        header, body = parts(path)
        document = json.loads(header["__metadata__"]["normconvert"])
        change(document)
        header["__metadata__"]["normconvert"] = json.dumps(document)
        rewritten(path, header, body)

    return damage


def with_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        header, body = parts(path)
        change(header)
        rewritten(path, header, body)

    return damage


def with_text(text: str) -> Callable[[Path], None]:
    return with_header(lambda header: header["__metadata__"].update(normconvert=text))


def cut(length: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:length]) and None  # type: ignore[func-returns-value]


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (cut(0), "readable safetensors"),
    "truncated header": (cut(40), "readable safetensors"),
    "truncated body": (cut(-3), "readable safetensors"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\0\0"), "readable safetensors"),
    "text": (lambda path: path.write_text("hello, this is text"), "readable safetensors"),
    "giant header": (lambda path: path.write_bytes(b"\xff" * 64), "readable safetensors"),
    "offsets past the end": (
        with_header(lambda h: h["dense.kernel"].update(data_offsets=[0, 2**40])),
        "readable safetensors",
    ),
    "overlapping offsets": (
        with_header(lambda h: h["dense.bias"].update(data_offsets=h["dense.kernel"]["data_offsets"])),
        "readable safetensors",
    ),
    "wrong size": (with_header(lambda h: h["dense.kernel"].update(shape=[9, 9])), "readable safetensors"),
    "negative size": (with_header(lambda h: h["dense.kernel"].update(shape=[-3, -2])), "readable safetensors"),
    "no model": (with_header(lambda h: h.pop("__metadata__")), "holds tensors but no model"),
    "corrupt JSON": (with_text('{"format_version": 1,'), "description is damaged"),
    "JSON of something else": (with_text("[1, 2]"), "description is damaged"),
    "NaN in JSON": (with_text('{"format_version": NaN}'), "description is damaged"),
    "deep JSON": (with_text("[" * 100_000), "description is damaged"),
    "huge number": (with_text('{"format_version": ' + "9" * 5000 + "}"), ""),
    "version 0": (with_document(lambda d: d.update(format_version=0)), "claims format version 0"),
    "version as text": (with_document(lambda d: d.update(format_version="1")), "description is damaged"),
    "unknown field": (with_document(lambda d: d.update(extra=1)), "extra"),
    "missing field": (with_document(lambda d: d.pop("nodes")), "nodes"),
    "unknown layer": (with_document(lambda d: d["layers"]["dense"].update(type="Dance")), "Dance"),
    "unknown layer field": (with_document(lambda d: d["layers"]["dense"].update(units=2)), "units"),
    "wrong type": (with_document(lambda d: d["layers"]["dense"].update(use_bias="yes")), "use_bias"),
    "missing weight": (with_document(lambda d: d["layers"].update(more={"type": "Dense"})), "more"),
    "left-over weight": (with_document(lambda d: d["layers"]["dense"].update(use_bias=False)), "dense.bias"),
    "wrong shape": (with_document(lambda d: d["inputs"][0].update(shape=[4])), "dense"),
    "unknown input of a node": (with_document(lambda d: d["nodes"][0].update(inputs=["z"])), "z"),
    "unknown layer of a node": (with_document(lambda d: d["nodes"][0].update(layer="q")), "q"),
    "unknown output": (with_document(lambda d: d.update(outputs=["q"])), "q"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    damage, what = DAMAGE[name]
    path = tmp_path / "m.safetensors"
    save(example(), path)
    damage(path)
    with pytest.raises(CorruptFile) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_damaged_equations_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    layer = rnn(3, 2, 4)
    weights = {f"rnn.{key}": np.ones(shape) for key, shape in layer.cell.weight_shapes().items()}
    model = Model("m", (Input("x", (None, 3)),), ("y",), {"rnn": layer}, (Node("y", "rnn", ("x",)),), weights)
    save(model, path)
    same(model, load(path))
    for old, new, what in (
        ("tanh(", "tahn(", "line 2, column 9"),
        ("x @ W", "x.W", "line 2"),
        ("cell f", "cel f", "line 1, column 1"),
    ):
        save(model, path)
        with_document(
            lambda d, old=old, new=new: d["layers"]["rnn"]["cell"].update(
                equations=d["layers"]["rnn"]["cell"]["equations"].replace(old, new)
            )
        )(path)
        with pytest.raises(CorruptFile) as caught:
            load(path)
        assert what in str(caught.value)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(example(), path)
    with_document(lambda d: d.update(format_version=FORMAT_VERSION + 1, something_new=True))(path)
    with pytest.raises(Unsupported, match=f"in version {FORMAT_VERSION + 1} of the format") as caught:
        load(path)
    assert caught.value.exit_code == 3
    assert caught.value.remedy == "Update normconvert"


def test_a_dtype_from_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(example(), path)
    with_header(lambda h: h["dense.bias"].update(dtype="F8_E4M3", shape=[8]))(path)
    with pytest.raises(NormconvertError, match="F8_E4M3"):
        load(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        load(tmp_path / "absent")
    with pytest.raises(UsageError, match="is not a file"):
        load(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_damage_never_escapes(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "m.safetensors"
    if not path.exists():
        save(example(), path)
    original = path.read_bytes()
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    other = tmp_path / "damaged.safetensors"
    other.write_bytes(damaged)
    try:
        load(other)
    except NormconvertError as error:
        assert str(error).startswith(str(other))  # noqa: PT017


DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("layer", AnyLayer.__args__, ids=lambda layer: layer.__name__)  # type: ignore[attr-defined]
def test_the_document_lists_every_layer_with_its_fields_and_defaults(layer: type[Layer]) -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{layer.__name__}` |")]
    assert len(rows) == 1
    for field in msgspec.structs.fields(layer):
        if field.name in Layer.__struct_fields__:
            continue
        default = "" if field.required else f" = `{msgspec.json.encode(field.default).decode()}`"
        assert f"`{field.name}`{default}" in rows[0], field.name


@pytest.mark.parametrize("part", [Input, Node, Provenance, Cell, State, Activation, Layer, Model])
def test_the_document_lists_the_other_fields(part: Any) -> None:
    names = part.__struct_fields__ if hasattr(part, "__struct_fields__") else part.__dataclass_fields__
    for name in set(names) - {"weights"}:
        assert f"`{name}`" in DOCUMENT, name


def test_the_documents_example_is_a_model(tmp_path: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    shapes = {"lstm.W_x": (3, 20), "lstm.W_h": (5, 20), "lstm.b": (20,), "dense.kernel": (5, 2), "dense.bias": (2,)}
    path = tmp_path / "m.safetensors"
    save_file({name: np.full(shape, 0.1) for name, shape in shapes.items()}, path, {"normconvert": block})
    model = load(path)
    assert run(model, {"x": np.ones((2, 4, 3))})["y"].shape == (2, 2)
    save(model, tmp_path / "again")
    header, _ = parts(tmp_path / "again")
    assert json.loads(header["__metadata__"]["normconvert"]) == json.loads(block)
