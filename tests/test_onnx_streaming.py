"""Streaming ONNX models: chunks of any length, one after the other, give what the whole sequence gives."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from models_by_hand import masked_stack, write_keras_file
from test_streaming import LAYERS, STEP_BY_STEP, with_memory
from torch_cases import model_of, values_for
from torch_cell_cases import CASES as CELLS
from torch_cell_cases import ROWS, arrays

from normconvert import api, interpreter
from normconvert.errors import CorruptFile, MissingRuntime, Unsupported, UsageError
from normconvert.ir.file import save
from normconvert.ir.layers import Recurrent, StepMask
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.proof import prove_streaming
from normconvert.runtimes import Stream
from normconvert.sources import read
from normconvert.sources.reading import reading_from

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from normconvert.targets.onnx import files, scan, stream_file, write_onnx  # noqa: E402

LENGTHS = (1, 3, 1, 5, 2)
FLOAT32 = 5e-6
"""Largest error relative to the largest value."""

SCOPE = "frame_rnn_layer/fw"


def parts(lengths: Sequence[int]) -> Iterator[slice]:
    start = 0
    for length in lengths:
        yield slice(start, start + length)
        start += length


def written(model: Model, folder: Path) -> Path:
    """The streaming model of a model."""
    write_onnx(model, folder / "net.onnx", streaming=True)
    return stream_file(folder / "net.onnx")


def check(model: Model, path: Path, latest: Sequence[str] = (), values: dict[str, Array] | None = None) -> None:
    """Calls in sequence against the interpreter on the whole sequence, twice; and on what was read so far."""
    values = values_for(model, 5, sum(LENGTHS)) if values is None else values
    timed = {each.name for each in model.inputs if None in each.shape[:1]}
    stream = Stream(path)
    for _ in range(2):
        stream.reset()
        found: dict[str, list[Array]] = {name: [] for name in model.outputs}
        for part in parts(LENGTHS):
            given = [array[:, part] if name in timed else array for name, array in values.items()]
            results = stream(*given)
            for name, array in zip(model.outputs, results if isinstance(results, tuple) else (results,), strict=True):
                found[name].append(array)
            upto = {name: array[:, : part.stop] if name in timed else array for name, array in values.items()}
            wanted = interpreter.run(model, upto)
            for name in latest:
                close(found[name][-1], wanted[name])
        for name in set(model.outputs) - set(latest):
            close(np.concatenate(found[name], axis=1), wanted[name])


def close(found: Array, wanted: Array) -> None:
    assert found.shape == wanted.shape
    if wanted.dtype == np.bool_:
        np.testing.assert_array_equal(found, wanted)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=FLOAT32 * max(np.abs(wanted).max(), 0.1))


@pytest.mark.parametrize("name", sorted(STEP_BY_STEP))
def test_layers(name: str, tmp_path: Path) -> None:
    """Every layer that goes step by step; causal convolutions read the end of the chunk before."""
    model = with_memory(model_of(LAYERS[name]))
    check(model, written(model, tmp_path))


def of_cell(name: str, **options: Any) -> Model:
    """A cell over `[batch, time, ...]`."""
    case = CELLS[name]
    layer = Recurrent(cell=case.cell, **{"return_sequences": True, **options})
    names = case.cell.parsed().inputs
    inputs = tuple(Input(each, (None, *case.cell.input_shapes[each])) for each in names)
    weights = {f"rnn.{key}": array for key, array in arrays(case.cell).items()}
    return Model("cell", inputs, ("rnn",), {"rnn": layer}, (Node("rnn", "rnn", names),), weights)


STREAMED = [
    name
    for name, case in CELLS.items()
    if name != "reverse" and all(norm.scope != "sequence" for norm in case.cell.norms.values())
]
"""Cells that neither read backwards nor need the moments of the whole sequence."""


@pytest.mark.parametrize("name", STREAMED)
def test_cells(name: str, tmp_path: Path) -> None:
    """Every kind of norm and state, past the last row of statistics."""
    assert sum(LENGTHS) > ROWS + 3
    model = of_cell(name)
    check(model, written(model, tmp_path))
    last = of_cell(name, return_sequences=False)
    check(last, written(last, tmp_path), latest=["rnn"])


def masked(**options: Any) -> tuple[Model, dict[str, Array]]:
    """A cell with statistics per step, and values with padding at the beginning, inside, and at the end."""
    model = of_cell("batch norm, per step", **options)
    layers = {**model.layers, "mask": StepMask(value=0.0)}
    nodes = (Node("mask", "mask", ("steps",)), Node("rnn", "rnn", ("x",), masks=("mask",)))
    model = replace(model, inputs=(*model.inputs, Input("steps", (None,), "int")), layers=layers, nodes=nodes)
    values = values_for(model, 3, sum(LENGTHS))
    values["steps"] = np.asarray([[0, 1, 1, 1, 0, 0, 1, 0, 0, 1, 0, 1], [1] * 12, [0] * 5 + [1] * 4 + [0] * 3])
    return model, values


@pytest.mark.parametrize("options", [{}, {"zero_masked": True}, {"return_sequences": False}, {"stateful": True}])
def test_padding_anywhere(options: dict[str, Any], tmp_path: Path) -> None:
    """A masked step repeats the output before it, also where that was in the chunk before."""
    model, values = masked(**options)
    latest = ["rnn"] if options.get("return_sequences") is False else []
    check(model, written(model, tmp_path), latest, values)


def test_an_output_that_nothing_holds(tmp_path: Path) -> None:
    model, _ = masked()
    rnn = model.layers["rnn"]
    assert isinstance(rnn, Recurrent)
    text = rnn.cell.equations.replace("(x; c, h):", "(x; c, h) -> y:") + "    y = h * 2\n"
    cell = replace_cell(rnn, text)
    with pytest.raises(Unsupported, match="layer rnn: cannot be streamed: it repeats its last output at masked steps"):
        written(replace(model, layers={**model.layers, "rnn": cell}), tmp_path)


def replace_cell(layer: Recurrent, equations: str) -> Recurrent:
    from msgspec.structs import replace as changed

    return changed(layer, cell=changed(layer.cell, equations=equations))


def test_what_the_file_says(tmp_path: Path) -> None:
    """Names, sizes and the first values of the states, for whoever runs it without us."""
    model = of_cell("batch norm, per step", return_sequences=False)
    proto = onnx.load(written(model, tmp_path))
    assert [each.name for each in proto.graph.input] == ["x", "rnn.c", "rnn.h", "rnn.step"]
    assert [each.name for each in proto.graph.output] == ["rnn", "rnn.c_next", "rnn.h_next", "rnn.step_next"]
    told = {each.key: json.loads(each.value) for each in proto.metadata_props}
    assert told["normconvert.states"][0] == {
        "input": "rnn.c",
        "output": "rnn.c_next",
        "shape": ["batch", 7],
        "initial": 0,
    }
    assert told["normconvert.states"][2] == {"input": "rnn.step", "output": "rnn.step_next", "shape": [], "initial": 0}
    assert told["normconvert.streaming"] == {"inputs": {"x": "steps"}, "outputs": {"rnn": "latest"}}
    learned = of_cell("two inputs, learned start, odd functions")
    proto = onnx.load(written(learned, tmp_path))
    told = {each.key: json.loads(each.value) for each in proto.metadata_props}
    starts = {each["input"]: each["initial"] for each in told["normconvert.states"]}
    begins = {name: array for name, array in learned.weights.items() if ".initial." in name}
    assert begins
    for name, array in begins.items():
        np.testing.assert_array_equal(np.float32(starts[name.replace(".initial.", ".")]), array)


def convert(command: Callable[..., Any], *arguments: object) -> Any:
    """The report of the streaming model, once the command has succeeded."""
    finished = command(*arguments, "--streaming", "--json")
    assert finished.exit_code == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert document["report"]["equivalent"]
    assert document["stream"]["report"]["equivalent"]
    assert document["stream"]["report"]["function_note"] == ""
    assert document["stream"]["output"] == str(stream_file(Path(document["output"])))
    return document["stream"]["report"]


@pytest.mark.framework
def test_statistics_per_step(command: Callable[..., Any], workers_in_this_process: None, tmp_path: Path) -> None:
    """A BN-LSTM of TensorFlow with 5 rows of statistics, called step by step and in chunks, far past the last row."""
    prefix = ROOT / "fixtures" / "bn_lstm_per_step.ckpt"
    report = convert(command, "tf1-to-onnx", prefix, "--scope", SCOPE, "-o", tmp_path / "net.onnx")
    assert any("past the last row" in each["case"] for each in report["cases"])
    model = read(prefix, reading_from(scope=SCOPE)).model
    check(model, tmp_path / "net.stream.onnx")
    assert command("validate", prefix, tmp_path / "net.stream.onnx", "--scope", SCOPE).exit_code == 0
    both = command("tf1-to-onnx", prefix, "-o", tmp_path / "both.onnx", "--streaming")
    assert both.exit_code == 3
    assert re.search(r"layer BNLSTMCell\w*: cannot be streamed: it reads the sequence backwards", both.stderr)
    assert not list(tmp_path.glob("both*"))


@pytest.mark.framework
def test_a_step_of_a_cell(command: Callable[..., Any], workers_in_this_process: None, tmp_path: Path) -> None:
    """The streaming model of a single step equals the step called over and over by hand."""
    prefix = ROOT / "fixtures" / "bn_lstm_per_step.ckpt"
    scope = f"{SCOPE}/BNLSTMCell"
    convert(command, "tf1-to-onnx", prefix, "--scope", scope, "--cell", "-o", tmp_path / "net.onnx")
    step = read(prefix, reading_from(scope=scope, single_step=True)).model
    x = np.random.default_rng(0).normal(size=(2, sum(LENGTHS), step.inputs[0].shape[0] or 0))
    names = [each.name for each in step.inputs]
    assert names == ["x", "c", "h", "step"]
    states = {each.name: np.zeros((2, *map(int, filter(None, each.shape)))) for each in step.inputs[1:3]}
    wanted = []
    for t in range(x.shape[1]):
        after = interpreter.run(step, {"x": x[:, t], **states, "step": np.full(2, t)})
        states = {name: after[f"{name}_next"] for name in states}
        wanted.append(states["h"])
    stream = Stream(tmp_path / "net.stream.onnx")
    found = [stream(x[:, part]) for part in parts(LENGTHS)]
    close(np.concatenate(found, axis=1), np.stack(wanted, axis=1))
    close(stream.states["BNLSTMCell.c"], states["c"])
    assert stream.states["BNLSTMCell.step"] == sum(LENGTHS)


@pytest.mark.framework
def test_files_of_keras(command: Callable[..., Any], workers_in_this_process: None, tmp_path: Path) -> None:
    """Two layer-normalised GRUs, the second of which gives the last step; a causal convolution before an LSTM."""
    pytest.importorskip("keras")
    pytest.importorskip("tf_keras")
    fixtures = ROOT / "fixtures"
    define = {"LayerNormGRUCell": fixtures / "layer_norm_gru.toml"}
    given = "LayerNormGRUCell=" + str(define["LayerNormGRUCell"])
    convert(command, "keras-to-onnx", fixtures / "ln_gru-keras3.keras", "--define", given, "-o", tmp_path / "gru.onnx")
    check(
        read(fixtures / "ln_gru-keras3.keras", reading_from(define=define)).model,
        tmp_path / "gru.stream.onnx",
        latest=["dense"],
    )
    convert(command, "keras-to-onnx", fixtures / "conv_lstm_bn-keras2.h5", "-o", tmp_path / "conv.onnx")
    model = read(fixtures / "conv_lstm_bn-keras2.h5", reading_from()).model
    check(model, tmp_path / "conv.stream.onnx", latest=["dense"])
    states = onnx.load(tmp_path / "conv.stream.onnx").graph.input
    assert [each.name for each in states] == ["input_1", "conv1d.context", "lstm.h", "lstm.c"]


REAL: dict[str, tuple[str, list[str]]] = {
    "seqsleepnet": ("seqsleepnet-1chan_eeg/pretrained_model.ckpt", ["--scope", SCOPE]),
    "seqsleepnet's step": ("seqsleepnet-1chan_eeg/pretrained_model.ckpt", ["--scope", f"{SCOPE}/BNLSTMCell", "--cell"]),
    "graph network's step": (
        "centrality-d8/model.ckpt",
        ["--scope", "centrality/run/N_cell/layer_norm_basic_lstm_cell", "--cell"],
    ),
    "character layers": ("char-rnn-shakespeare/model-85340", ["--scope", "rnn"]),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.framework
def test_real_files(
    name: str, command: Callable[..., Any], workers_in_this_process: None, shared_models: Path, tmp_path: Path
) -> None:
    file, options = REAL[name]
    convert(command, "tf1-to-onnx", shared_models / file, *options, "-o", tmp_path / "net.onnx")


def test_a_real_network_of_its_own_graph(shared_models: Path, tmp_path: Path) -> None:
    """A character model: an embedding, two LSTMs, a softmax for each character."""
    model = read(shared_models / "char-rnn-shakespeare" / "model-85340", reading_from()).model
    path = written(model, tmp_path)
    assert prove_streaming(model, path, source=Path("model-85340"), progress=lambda _: None).equivalent
    check(model, path)


def test_epochs_of_frames(command: Callable[..., Any], shared_models: Path, tmp_path: Path) -> None:
    """A real network whose epochs go on from call to call, while the frames of each are read both ways.

    Its own epochs are read both ways too, and so refused; here the forward half of them is the output.
    """
    prefix = shared_models / "seqsleepnet-1chan_eeg" / "pretrained_model.ckpt"
    text = (ROOT / "fixtures" / "seqsleepnet.toml").read_text()
    arguments = ("tf1-to-onnx", prefix, "--streaming", "-o", tmp_path / "net.onnx", "--recipe")
    whole = command(*arguments, ROOT / "fixtures" / "seqsleepnet.toml")
    assert whole.exit_code == 3
    assert "layer epoch_rnn: cannot be streamed: it reads the sequence backwards too" in whole.stderr
    upto = text[: text.index('backward = "epoch_rnn_layer/bw/BNLSTMCell"')]
    (tmp_path / "forward.toml").write_text(upto.replace('forward = "epoch_rnn', 'scope = "epoch_rnn'))
    convert(command, *arguments, tmp_path / "forward.toml")
    model = read(prefix, reading_from(recipe=tmp_path / "forward.toml")).model
    x = np.random.default_rng(0).normal(0.2, 1.0, (2, 27, 29, 129)).astype(np.float32)
    stream = Stream(tmp_path / "net.stream.onnx")
    found = np.concatenate([stream(x[:, part]) for part in parts((1, 5, 1, 14, 6))], axis=1)
    close(found, interpreter.run(model, {"spectrogram": x})[model.outputs[0]])


def test_masks_by_the_command_line(tmp_path: Path, command: Callable[..., Any]) -> None:
    """Masking, a BN-LSTM with statistics per step, a GRU, a dense layer; stateful in the source already."""
    save(masked_stack(stateful=True), tmp_path / "net.safetensors")
    report = convert(command, "ir-to-onnx", tmp_path / "net.safetensors", "-o", tmp_path / "net.onnx")
    assert any("scattered padding" in each["case"] for each in report["cases"])


def test_a_wrong_stream_leaves_nothing(
    tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emitter that begins to count the steps anew in every chunk: right on sequences, wrong on chunks."""
    save(of_cell("batch norm, per step"), tmp_path / "net.safetensors")
    right = scan.rows
    monkeypatch.setattr(scan, "rows", lambda run, *rest: right(replace(run, first_step=None), *rest))
    finished = command("ir-to-onnx", tmp_path / "net.safetensors", "-o", tmp_path / "net.onnx", "--streaming")
    assert finished.exit_code == 1
    assert "the streaming model: not equivalent" in finished.stderr
    assert "rnn" in finished.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["net.safetensors"]
    kept = command(
        "ir-to-onnx", tmp_path / "net.safetensors", "-o", tmp_path / "net.onnx", "--streaming", "--keep-failed"
    )
    assert kept.exit_code == 1
    assert (tmp_path / "net.stream.onnx.failed").is_file()


def test_a_changed_file_is_found_out(tmp_path: Path, command: Callable[..., Any]) -> None:
    save(of_cell("batch norm, per step"), tmp_path / "net.safetensors")
    api.convert(tmp_path / "net.safetensors", "onnx", tmp_path / "net.onnx", streaming=True, validate=False)
    path = tmp_path / "net.stream.onnx"
    assert command("validate", tmp_path / "net.safetensors", path).exit_code == 0
    proto = onnx.load(path)
    tensor = max(proto.graph.initializer, key=lambda each: len(each.raw_data))
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.001), tensor.name))
    onnx.save(proto, path)
    assert command("validate", tmp_path / "net.safetensors", path).exit_code == 1


def test_both_files_come_and_go_together(tmp_path: Path, command: Callable[..., Any]) -> None:
    save(of_cell("no norm"), tmp_path / "net.safetensors")
    arguments = ("ir-to-onnx", tmp_path / "net.safetensors", "-o", tmp_path / "net.onnx", "--no-validate")
    beside = {"net.onnx", "net.onnx.json", "net.safetensors"}
    all_files = beside | {"net.stream.onnx", "net.stream.onnx.json"}
    assert command(*arguments, "--streaming").exit_code == 0
    assert {each.name for each in tmp_path.iterdir()} == all_files
    assert command(*arguments).exit_code == 2
    assert command(*arguments, "--streaming", "--force").exit_code == 0
    assert {each.name for each in tmp_path.iterdir()} == all_files
    assert command(*arguments, "--force").exit_code == 0
    assert {each.name for each in tmp_path.iterdir()} == beside
    (tmp_path / "net.stream.onnx").write_text("not ours")
    assert command(*arguments, "--streaming", "--force").exit_code == 2
    assert (tmp_path / "net.stream.onnx").read_text() == "not ours"
    wrong = command("ir-to-torch", tmp_path / "net.safetensors", "-o", tmp_path / "t", "--streaming")
    assert wrong.exit_code == 2


@pytest.mark.parametrize("options", [{"quantize": "int8"}, {"quantize": "float16"}, {"dtype": "bfloat16"}])
def test_with_smaller_weights(options: dict[str, Any], tmp_path: Path) -> None:
    """The streaming model is as small, and its loss is measured on chunks."""
    save(of_cell("layer norm"), tmp_path / "net.safetensors")
    done = api.convert(tmp_path / "net.safetensors", "onnx", tmp_path / "net.onnx", streaming=True, **options)
    assert done.report is not None
    assert done.stream_report is not None
    assert done.stream_report.equivalent
    assert done.stream_report.loss is not None
    assert done.report.loss is not None
    assert done.stream_report.loss.name == done.report.loss.name
    if options.get("dtype") == "bfloat16":
        with pytest.raises(Unsupported, match="onnxruntime cannot run it here"):
            Stream(tmp_path / "net.stream.onnx")
        return
    stream = Stream(tmp_path / "net.stream.onnx")
    x = np.random.default_rng(0).normal(size=(2, sum(LENGTHS), 3)).astype(np.float32)
    found = np.concatenate([stream(x[:, part]) for part in parts(LENGTHS)], axis=1)
    error = np.abs(found - interpreter.run(of_cell("layer norm"), {"x": x})["rnn"]).max()
    assert 1e-5 < error < 0.1


def test_large_arrays_stand_beside_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 100)
    monkeypatch.setattr(files, "LEAST_BYTES", 200)
    model = of_cell("batch norm, per step")
    save(model, tmp_path / "net.safetensors")
    done = api.convert(tmp_path / "net.safetensors", "onnx", tmp_path / "net.onnx", streaming=True)
    assert done.stream == tmp_path / "net.stream.onnx"
    assert done.stream_report is not None
    assert done.stream_report.equivalent
    assert {each.name for each in tmp_path.glob("*.data")} == {"net.onnx.data", "net.stream.onnx.data"}
    check(model, done.stream)


def test_the_runner(tmp_path: Path) -> None:
    path = written(of_cell("batch norm, per step"), tmp_path)
    x = np.random.default_rng(0).normal(size=(2, 9, 3))
    stream = Stream(path)
    assert (stream.inputs, stream.outputs) == (("x",), ("rnn",))
    first = stream(x[:, :4])
    place = dict(stream.states)
    second = stream(x[:, 4:])
    stream.states = place
    np.testing.assert_array_equal(stream(x[:, 4:]), second)
    stream.reset()
    np.testing.assert_array_equal(stream(x[:, :4]), first)
    with pytest.raises(UsageError, match="takes 1 arrays"):
        stream(x, x)
    with pytest.raises(UsageError, match="not those of a batch of 1"):
        stream(x[:1])
    for wrong in (x[0], x[:, :0], 3.0):
        with pytest.raises(UsageError, match="x has 3 axes, none of them empty"):
            stream(wrong)
    with pytest.raises(UsageError, match="onnxruntime cannot run it"):
        stream(x[:, :, :2])
    np.testing.assert_allclose(stream(x[:, 4:]), second, rtol=1e-6)


def test_the_runner_refuses_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(of_cell("no norm"), tmp_path)
    with pytest.raises(UsageError, match="carries no states"):
        Stream(tmp_path / "net.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    for name in ("bad.onnx", "none.onnx"):
        with pytest.raises(CorruptFile, match="onnxruntime cannot load it"):
            Stream(tmp_path / name)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingRuntime):
        Stream(path)


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program in docs/onnx.md, run as it stands, needs nothing of ours."""
    text = (ROOT / "docs" / "onnx.md").read_text()
    (program,) = re.findall(r"```python\n(# stream\.py.*?)```", text, re.DOTALL)
    assert "normconvert" not in re.sub(r'"normconvert\.states"', "", program)
    write_keras_file(tmp_path / "net.h5")
    api.convert(tmp_path / "net.h5", "onnx", tmp_path / "model.onnx", streaming=True, validate=False)
    model = read(tmp_path / "net.h5", reading_from()).model
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(program, "stream.py", "exec"), names)
    x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
    for part in (x[:, :1], x[:, 1:5], x[:, 5:]):
        (result,) = names["call"](part)
    close(result, interpreter.run(model, {model.inputs[0].name: x})[model.outputs[0]])
    shutil.rmtree(tmp_path)
