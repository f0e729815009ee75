"""Real TF1 checkpoints with their graphs, by command line; TensorFlow runs a graph here too, beside the proof's run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.framework
pytest.importorskip("tensorflow")
pytest.importorskip("torch")

CENTRALITY_CELL = "centrality/run/N_cell/layer_norm_basic_lstm_cell"


def proof(folder: Path) -> Any:
    """The report in a folder, whose source must have been checked against TensorFlow's run of the graph."""
    report = json.loads((folder / "equivalence.json").read_text())["report"]
    assert report["equivalent"]
    assert report["source"].startswith("TensorFlow 2.")
    checked = [case for case in report["cases"] if case["source_function_error"] is not None]
    assert checked
    assert all(case["source_function_error"] <= case["function_bound"] for case in checked)
    return report


def test_a_character_model_is_its_graph(
    shared_models: Path, command: Callable[..., Any], run_folder: Callable[..., Any], tmp_path: Path
) -> None:
    import tensorflow

    prefix = shared_models / "char-rnn-shakespeare" / "model-85340"
    finished = command("tf1-to-torch", prefix, "-o", tmp_path / "torch")
    assert finished.exit_code == 0, finished.stderr
    report = proof(tmp_path / "torch")
    tf = tensorflow.compat.v1
    with tf.Graph().as_default() as graph, tf.Session() as session:
        saver = tf.train.import_meta_graph(f"{prefix}.meta")
        saver.restore(session, str(prefix))
        inputs = graph.get_tensor_by_name("validation/inputs:0")
        batch, length = inputs.shape.as_list()
        letters = np.random.default_rng(6).integers(0, 65, (batch, length))
        right = session.run("validation/softmax/Softmax:0", {inputs: letters})
    found = run_folder(tmp_path / "torch", letters)
    floor = max(case["floor"] for case in report["cases"])
    np.testing.assert_allclose(found.reshape(right.shape), right, rtol=0, atol=8 * floor)
    assert floor < 1e-4


def test_the_layers_of_the_character_model(shared_models: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    """A stack by its scope: the forget bias 0 is in the graph alone."""
    prefix = shared_models / "char-rnn-shakespeare" / "model-85340"
    finished = command("tf1-to-torch", prefix, "--scope", "rnn", "-o", tmp_path / "torch")
    assert finished.exit_code == 0, finished.stderr
    proof(tmp_path / "torch")


@pytest.mark.parametrize("single_step", [False, True])
def test_a_cell_that_the_graph_calls_in_a_loop_of_its_own(
    single_step: bool, shared_models: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    """A graph network's cell: the variables fit tanh as well as relu, and the graph says relu and 1e-12."""
    prefix = shared_models / "centrality-d8" / "model.ckpt"
    options = ["--scope", CENTRALITY_CELL, *(["--cell"] if single_step else [])]
    finished = command("tf1-to-torch", prefix, "-o", tmp_path / "torch", *options)
    assert finished.exit_code == 0, finished.stderr
    report = proof(tmp_path / "torch")
    assert report["floor_note"] == ""
    shown = (tmp_path / "torch" / "model.py").read_text()
    assert "torch.relu(self.transform(j))" in shown
    assert "1e-12" in shown
    planned = command("plan", prefix, *options).stdout
    assert "1e-12" in planned
    assert "layer_norm_basic_lstm_cell/Relu" in planned


def test_a_setting_against_the_graph_is_refuted(
    shared_models: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    prefix = shared_models / "centrality-d8" / "model.ckpt"
    options = ("--scope", CENTRALITY_CELL, "--set", "activation=tanh")
    finished = command("tf1-to-torch", prefix, "-o", tmp_path / "torch", *options)
    assert finished.exit_code == 1
    assert "the file was misread" in finished.stderr
    assert not (tmp_path / "torch").exists()


def test_inspect_shows_what_the_graph_says(shared_models: Path, command: Callable[..., Any]) -> None:
    shown = command("inspect", shared_models / "centrality-d8").stdout
    assert "norms.*.epsilon = 1e-12, in the graph" in shown
    assert "functions.activation = relu, in the graph" in shown
    assert "open:" not in shown


def test_the_whole_of_a_graph_that_is_no_sequence_model_is_refused(
    shared_models: Path, command: Callable[..., Any]
) -> None:
    finished = command("tf1-to-torch", shared_models / "centrality-d8")
    assert finished.exit_code == 3
    assert "model.ckpt.meta: node centrality/run/while/" in finished.stderr
    assert "--scope" in finished.stderr


def test_a_plan_of_it_suggests_what_variables_and_cells_say(shared_models: Path, command: Callable[..., Any]) -> None:
    planned = command("plan", shared_models / "centrality-d8")
    assert planned.exit_code == 0, planned.stderr
    assert "The graph does not say how the layers follow each other" in planned.stdout
    assert 'functions.activation = "relu"  # relu at node' in planned.stdout


def test_a_checkpoint_without_its_data(shared_models: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    folder = shared_models / "chiron-bnlstm-index-only"
    seen = command("inspect", folder)
    assert seen.exit_code == 0, seen.stderr
    assert "BNLSTM" in seen.stdout
    scope = json.loads(command("inspect", folder, "--json").stdout)["scopes"]
    for options in ((), ("--scope", next(iter(scope)))):
        finished = command("tf1-to-torch", folder, *options, "-o", tmp_path / "torch")
        assert finished.exit_code == 4
        assert ".data-00000-of-00001" in finished.stderr
