"""A new user's way: save a state dict, `plan` it, correct what is marked as assumed, convert; against the module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from pytorch_cells import randomise
from pytorch_grus import OutputNorm
from torch import Tensor, nn

from normconvert.cli import cli


class CRNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)
        second = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d((1, 2))
        self.cnn = nn.Sequential(*first, *second)
        self.rnn = nn.LSTM(5 * 4, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """From `[batch, 1, time, 16]`."""
        return self.fc(self.rnn(self.cnn(x).transpose(1, 2).flatten(2))[0])


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(7, 10, batch_first=True)
        self.bn, self.drop = nn.BatchNorm1d(10), nn.Dropout(0.3)
        self.fc1, self.fc2 = nn.Linear(10, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.drop(self.bn(self.lstm(x)[0][:, -1]))).relu())


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.rnn = nn.GRU(6, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(self.embedding(x))[0]).tanh()


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gru, self.norm = nn.LayerNorm(5), nn.GRU(5, 9, batch_first=True), nn.LayerNorm(9)
        self.head = nn.Sequential(nn.Linear(9, 7), nn.GELU(), nn.Linear(7, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.gru(self.first(x))[0]))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (4, 12, 12)
        self.layers = nn.ModuleList(nn.LSTM(n, 6, bidirectional=True, batch_first=True) for n in widths)
        self.norms = nn.ModuleList(nn.BatchNorm1d(12) for _ in widths)
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x)[0].transpose(1, 2)).transpose(1, 2)
        return self.out(x).softmax(-1)


class Front(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(6, 10, 5, stride=2, padding=2), nn.BatchNorm1d(10)
        self.conv2, self.bn2 = nn.Conv1d(10, 12, 3, padding=1, bias=False), nn.BatchNorm1d(12)
        self.gru, self.fc = nn.GRU(12, 7, batch_first=True), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return self.fc(self.gru(x.transpose(1, 2))[0])


def after(name: str, *layers: str) -> Callable[[str], str]:
    """The recipe with layers of these classes after one."""

    def edited(recipe: str) -> str:
        head, found, rest = recipe.partition(f'\nname = "{name}"\n')
        assert found
        layer, between, more = rest.partition("\n[[layers]]")
        added = "".join(f'\n[[layers]]\nname = "{name}_{n}"\n{text}\n' for n, text in enumerate(layers))
        return f"{head}{found}{layer}\n{added}{between}{more}"

    return edited


def says(name: str, line: str, other: str) -> Callable[[str], str]:
    """The recipe with another line in a layer."""

    def edited(recipe: str) -> str:
        head, found, rest = recipe.partition(f'\nname = "{name}"\n')
        assert found
        start = rest.index(f"{line} = ")
        return head + found + rest[:start] + other + rest[rest.index("\n", start) :]

    return edited


def relu(name: str) -> Callable[[str], str]:
    return after(name, 'class = "ReLU"')


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[Callable[[str], str]]]] = {
    "crnn": (
        CRNN,
        (2, 1, 10, 16),
        [
            says("x", "shape", 'shape = [1, "?", 16]'),
            says("cnn_2", "class", 'class = "ReLU"'),
            says("cnn_3", "class", 'class = "MaxPool2d"\nkernel_size = 2'),
            after("cnn_5", 'class = "ReLU"', 'class = "MaxPool2d"\nkernel_size = [1, 2]'),
        ],
    ),
    "classifier": (
        Classifier,
        (2, 9, 7),
        [says("lstm", "class", 'class = "LSTM"\nreturn_sequences = false'), relu("fc1")],
    ),
    "encoder": (Encoder, (2, 7), [after("fc", 'class = "Tanh"')]),
    "layer_norm": (Normed, (2, 8, 5), [says("head_1", "class", 'class = "GELU"')]),
    "stack": (Stack, (2, 6, 4), [after("out", 'class = "Softmax"')]),
    "front": (Front, (2, 6, 12), [says("conv1", "stride", "stride = 2"), relu("bn1"), relu("bn2")]),
    "mappo": (OutputNorm, (2, 6, 3), []),
}


@pytest.mark.parametrize("name", CASES)
def test_a_suggested_recipe_needs_few_corrections(name: str, tmp_path: Path) -> None:
    make, shape, edits = CASES[name]
    module = randomise(make(), 40)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    plan = CliRunner().invoke(cli, ["plan", str(tmp_path / "m.pt")])
    assert plan.exit_code == 0, (plan.output, plan.exception)
    recipe = plan.stdout
    for edit in edits:
        recipe = edit(recipe)
    (tmp_path / "m.toml").write_text(recipe)
    arguments = ["torch-to-onnx", str(tmp_path / "m.pt"), "--recipe", str(tmp_path / "m.toml"), "-q"]
    done = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path / "m.onnx")])
    assert done.exit_code == 0, (done.output, done.exception, recipe)
    draw = np.random.default_rng(6)
    x = draw.integers(0, 20, shape) if name == "encoder" else draw.normal(size=shape)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    declared = session.get_inputs()[0]
    given = x.astype({"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}[declared.type])
    (found,) = session.run(None, {declared.name: given})
    with torch.no_grad():
        expected = module(torch.from_numpy(x if name == "encoder" else given)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * max(1.0, float(np.abs(expected).max())))


def test_every_tensor_is_in_the_suggested_recipe_or_named(tmp_path: Path) -> None:
    state = Front().state_dict() | {"temperature": torch.ones(3, 2, 1)}
    torch.save(state, tmp_path / "m.pt")
    plan = CliRunner().invoke(cli, ["plan", str(tmp_path / "m.pt")])
    assert "temperature [3, 2, 1] float32: of no module or cell that is known" in plan.stdout
    assert "gru.weight_ih_l0 [21, 12] float32 -> the suggested recipe" in plan.stdout
