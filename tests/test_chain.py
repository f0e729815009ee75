"""TF1 to a PyTorch state dict, to Keras, to a SavedModel, and back: each stop is read from the file before it.

Every file but the first is one of ours, read without the code and the framework that it was written for. The tensors
that arrive are those that set out, bit by bit, and each stop is proven against the first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from normconvert.sources.tf1.bundle import open_bundle

pytest.importorskip("torch")
pytest.importorskip("keras")
pytest.importorskip("tensorflow")

pytestmark = [pytest.mark.framework, pytest.mark.usefixtures("workers_in_this_process")]
ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "frame_rnn.forward": "frame_rnn_layer/fw/BNLSTMCell",
    "frame_rnn.backward": "frame_rnn_layer/bw/BNLSTMCell",
    "epoch_rnn.forward": "epoch_rnn_layer/fw/BNLSTMCell",
    "epoch_rnn.backward": "epoch_rnn_layer/bw/BNLSTMCell",
    "filterbank.W": "filterbank-layer-eeg/Variable",
    "frame_attention.W": "frame_attention_layer/Variable",
    "frame_attention.b": "frame_attention_layer/Variable_1",
    "frame_attention.u": "frame_attention_layer/Variable_2",
    "logits.kernel": "output_layer/output/weights",
    "logits.bias": "output_layer/output/biases",
}
"""What the checkpoint of SeqSleepNet calls the tensors of its recipe."""


@pytest.fixture
def chain(command: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """The whole way; gives the last checkpoint. `given` is for the first file, `told` for the state dict."""

    def travel(
        first: Path, given: list[Any], told: list[Any], scopes: str, *, proven: tuple[int, ...] = (1, 2)
    ) -> Path:
        stops = [tmp_path / name for name in ("stop.pth", "stop.keras", "served", "back")]
        steps: list[tuple[Any, ...]] = [
            ("torch", "--layout", "jihunchoi", *given),
            ("keras", "--no-validate", *told),
            ("tf", "--no-validate"),
            ("tf1", "--layout", "phan", "--to-scope", scopes),
        ]
        source = first
        for stop, (target, *options) in zip(stops, steps, strict=True):
            finished = command("convert", source, "--to", target, "-o", stop, *options)
            assert finished.exit_code == 0, finished.stderr
            source = stop
        for number in proven:  # the state dict is proven from the first as it is written
            finished = command("validate", first, stops[number], *given)
            assert finished.exit_code == 0, finished.stderr + finished.stdout
        return stops[-1] / "model.ckpt"

    return travel


def assert_same_tensors(first: Path, last: Path, scope: str = "") -> None:
    """Every variable of the network arrives under its name and bit by bit."""
    before, after = open_bundle(first), open_bundle(last)
    names = [name for name in before.variables if name.startswith(scope) and is_weight(name)]
    assert len(names) >= 10
    for name in names:
        array, again = before.load(name), after.load(name)
        assert (array.dtype, array.shape, array.tobytes()) == (again.dtype, again.shape, again.tobytes()), name


def is_weight(name: str) -> bool:
    """Whether a variable is of the network, not of its training."""
    return "Adam" not in name and not name.startswith(("beta1_power", "beta2_power", "global_step"))


def directions(layer: str, cell: str) -> str:
    return ",".join(f"{layer}.{side}={layer}/{short}/{cell}" for side, short in (("forward", "fw"), ("backward", "bw")))


def test_a_small_checkpoint(chain: Callable[..., Path]) -> None:
    """With a graph beside it, which takes part in the proof of every stop."""
    first = ROOT / "fixtures" / "bn_lstm_per_step.ckpt"
    (layer, cell), *_ = {tuple(name.split("/")[:3:2]) for name in open_bundle(first).variables if "/W_xh" in name}
    assert_same_tensors(first, chain(first, ["--scope", layer], [], directions(layer, cell)), layer)


def test_a_layer_of_seqsleepnet(chain: Callable[..., Path], shared_models: Path) -> None:
    layer = "frame_rnn_layer"
    first = shared_models / "seqsleepnet-1chan_eeg" / "pretrained_model.ckpt"
    names = directions(layer, "BNLSTMCell")
    assert_same_tensors(first, chain(first, ["--scope", layer], [], names, proven=(2,)), layer)


def test_the_whole_of_seqsleepnet(chain: Callable[..., Path], shared_models: Path, tmp_path: Path) -> None:
    """The same recipe serves the state dict, with the names and the layout that its tensors have there."""
    first = shared_models / "seqsleepnet-1chan_eeg" / "pretrained_model.ckpt"
    recipe = ROOT / "fixtures" / "seqsleepnet.toml"
    last = chain(
        first,
        ["--recipe", recipe],
        ["--recipe", for_state_dict(recipe, tmp_path)],
        ",".join(map("=".join, NAMES.items())),
    )
    assert_same_tensors(first, last)


def for_state_dict(recipe: Path, folder: Path) -> Path:
    text = recipe.read_text()
    for old, new in {
        'layout = "phan"': 'layout = "jihunchoi"',
        'W = "filterbank-layer-eeg/Variable"': 'W = "filterbank.W"',
        'scope = "frame_attention_layer"': 'scope = "frame_attention"',
        'W = "Variable", b = "Variable_1", u = "Variable_2"': 'W = "W", b = "b", u = "u"',
        'name = "stages"\nclass = "Dense"': 'name = "logits"\nclass = "Linear"',
        'scope = "output_layer/output"\nactivation = "softmax"': 'scope = "stages"\n\n[[layers]]\nname = "stages"\n'
        'class = "Softmax"\ndim = -1',
        **{f'"{stored}"': f'"{name}"' for name, stored in NAMES.items() if "BNLSTMCell" in stored},
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "state_dict.toml"
    path.write_text(text)
    return path
