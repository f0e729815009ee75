"""Recipes with PyTorch's modules against torch itself: each module by name, and public ways to build around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import load_module
from pytorch_cells import randomise
from torch import Tensor, nn

from normconvert.cli import cli

Layer = dict[str, Any]


def recipe(shape: Sequence[Any], layers: Sequence[Layer], dtype: str = "") -> str:
    """A chain of layers as TOML."""
    lines = [
        "[model]",
        'name = "model"',
        "[[inputs]]",
        'name = "x"',
        f"shape = {list(shape)!r}".replace("'", '"'),
        dtype,
    ]
    for layer in layers:
        lines += ["[[layers]]", *(f"{key} = {literal(value)}" for key, value in layer.items())]
    return "\n".join(lines)


def literal(value: Any) -> str:
    return (
        repr(value)
        .replace("'", '"')
        .replace("True", "true")
        .replace("False", "false")
        .replace("(", "[")
        .replace(")", "]")
    )


def convert(module: nn.Module, text: str, folder: Path) -> nn.Module:
    torch.save(module.state_dict(), folder / "model.pt")
    (folder / "model.toml").write_text(text)
    arguments = ["torch-to-torch", str(folder / "model.pt"), "--recipe", str(folder / "model.toml"), "-o"]
    result = CliRunner().invoke(cli, [*arguments, str(folder / "out"), "-q"])
    assert result.exit_code == 0, (result.output, result.exception)
    converted: nn.Module = load_module(folder / "out" / "model.py").load()
    return converted.double().eval()


def modules(*parts: tuple[nn.Module, Layer]) -> tuple[nn.Module, list[Layer]]:
    """A Sequential, and its recipe: every module under its number."""
    names = [{"name": str(number), "class": type(part).__name__, **more} for number, (part, more) in enumerate(parts)]
    return nn.Sequential(*(part for part, _ in parts)), names


PLANES = lambda: modules(  # noqa: E731
    (nn.Conv2d(3, 8, (3, 5), padding=(1, 2), bias=False), {"padding": (1, 2)}),
    (nn.BatchNorm2d(8, eps=2e-3), {"eps": 2e-3}),
    (nn.LeakyReLU(0.2), {"negative_slope": 0.2}),
    (nn.MaxPool2d(2, stride=(1, 2)), {"kernel_size": 2, "stride": (1, 2)}),
    (nn.Conv2d(8, 6, 3, stride=2, padding=1, groups=2), {"stride": 2, "padding": 1, "groups": 2}),
    (nn.GroupNorm(3, 6), {"num_groups": 3}),
    (nn.PReLU(6), {}),
    (nn.Dropout2d(0.3), {"p": 0.3}),
    (nn.Upsample(scale_factor=2, mode="bilinear"), {"scale_factor": 2, "mode": "bilinear"}),
    (nn.LPPool2d(2, 2), {"norm_type": 2, "kernel_size": 2}),
    (nn.AvgPool2d((1, 2)), {"kernel_size": (1, 2)}),
    (nn.Flatten(2), {"start_dim": 2}),
    (nn.Linear(3, 4), {}),
    (nn.GELU(), {}),
    (nn.LayerNorm((6, 4), eps=1e-4), {"eps": 1e-4}),
    (nn.Flatten(), {}),
    (nn.Softmax(dim=1), {"dim": 1}),
)
LINES = lambda: modules(  # noqa: E731
    (nn.BatchNorm1d(5), {}),
    (nn.Conv1d(5, 8, 3, padding=2, dilation=2), {"padding": 2, "dilation": 2}),
    (nn.SiLU(), {}),
    (nn.Conv1d(8, 8, 4, padding="same"), {"padding": "same"}),
    (nn.ELU(0.7), {"alpha": 0.7}),
    (nn.AvgPool1d(2), {"kernel_size": 2}),
    (nn.Hardtanh(-0.5, 0.6), {"min_val": -0.5, "max_val": 0.6}),
    (nn.AdaptiveAvgPool1d(1), {"output_size": 1}),
    (nn.Flatten(), {}),
    (nn.Softplus(), {}),
    (nn.BatchNorm1d(8, affine=False), {}),
    (nn.Linear(8, 3, bias=False), {}),
    (nn.Mish(), {}),
)


@pytest.mark.parametrize(("make", "shape"), [(PLANES, (3, 7, 12)), (LINES, (5, 14))], ids=["planes", "lines"])
def test_modules_mean_what_torch_means(
    make: Callable[[], tuple[nn.Module, list[Layer]]], shape: tuple[int, ...], tmp_path: Path
) -> None:
    module, layers = make()
    randomise(module, 11)
    found = convert(module, recipe(shape, layers), tmp_path)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), module.double()(x), rtol=0, atol=1e-9)


class SpeechLayer(nn.Module):
    """SeanNaren's BatchRNN: the layer's input normalised over time and batch, both directions summed."""

    class Wrapped(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.module = nn.BatchNorm1d(features)

    def __init__(self, inputs: int, units: int, *, norm: bool) -> None:
        super().__init__()
        if norm:
            self.batch_norm = self.Wrapped(inputs)
        self.rnn = nn.GRU(inputs, units, bidirectional=True, bias=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "batch_norm"):
            x = self.batch_norm.module(x.transpose(1, 2)).transpose(1, 2)
        ahead, back = self.rnn(x)[0].chunk(2, -1)
        return ahead + back


class Speech(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.rnns = nn.ModuleList([SpeechLayer(6, 5, norm=False), SpeechLayer(5, 5, norm=True)])
        self.norm = nn.LayerNorm(5)
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        for layer in self.rnns:
            x = layer(x)
        return self.fc(self.norm(x))


SPEECH = [
    {"name": "embedding", "class": "Embedding"},
    {"name": "rnn_0", "class": "GRU", "scope": "rnns.0.rnn", "merge": "add"},
    {"name": "norm_1", "class": "BatchNorm1d", "scope": "rnns.1.batch_norm.module", "axis": -1},
    {"name": "rnn_1", "class": "GRU", "scope": "rnns.1.rnn", "merge": "add"},
    {"name": "norm", "class": "LayerNorm"},
    {"name": "fc", "class": "Linear"},
]


def test_a_speech_model_with_norms_between_its_layers(tmp_path: Path) -> None:
    module = randomise(Speech(), 12)
    found = convert(module, recipe(["?"], SPEECH, 'dtype = "int"'), tmp_path)
    x = torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(found(x), module.double()(x), rtol=0, atol=1e-9)


def test_a_recipe_that_is_wrong_says_where(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2))
    torch.save(module.state_dict(), tmp_path / "model.pt")
    for layer, expected in (
        ({"name": "a", "class": "Linear", "scope": "7"}, "no weight"),
        ({"name": "a", "class": "LSTM", "scope": "0"}, "no weight_ih_l0"),
        ({"name": "a", "class": "Linear", "scope": "0", "units": 4}, "units is no argument"),
        ({"name": "a", "class": "Conv1d", "scope": "0"}, "Conv1d"),
    ):
        (tmp_path / "model.toml").write_text(recipe(["?", 3], [layer]))
        arguments = ["plan", str(tmp_path / "model.pt"), "--recipe", str(tmp_path / "model.toml")]
        result = CliRunner().invoke(cli, arguments)
        assert getattr(result.exception, "exit_code", 0) in (2, 3, 4), result.output
        assert expected in str(result.exception)


def test_a_single_module_needs_no_scope(tmp_path: Path) -> None:
    module = randomise(nn.LSTM(3, 5, num_layers=2, batch_first=True), 5)
    torch.save(module.state_dict(), tmp_path / "lstm.pt")
    result = CliRunner().invoke(cli, ["convert", str(tmp_path / "lstm.pt"), "-o", str(tmp_path / "out"), "-q"])
    assert result.exit_code == 0, (result.output, result.exception)
    found = load_module(tmp_path / "out" / "model.py").load().double()
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), module.double()(x)[0], rtol=0, atol=1e-9)


def test_the_suggested_recipe_of_a_chain_converts(tmp_path: Path) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 4)
            self.rnn = nn.GRU(4, 5, batch_first=True, bidirectional=True)
            self.norm = nn.LayerNorm(10)
            self.last = nn.Linear(10, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.rnn(self.first(x))[0]))

    module = randomise(Tagger(), 6)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    plan = CliRunner().invoke(cli, ["plan", str(tmp_path / "model.pt")])
    assert plan.exit_code == 0, plan.output
    found = convert(module, plan.stdout, tmp_path)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), module.double()(x), rtol=0, atol=1e-9)


def test_what_a_file_holds_is_called_tensors(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.LSTM(3, 5), nn.Linear(5, 2)).state_dict(), tmp_path / "model.pt")
    shown = " ".join(CliRunner().invoke(cli, ["inspect", str(tmp_path / "model.pt")]).output.split())
    assert "pytorch 6 tensors" in shown
    assert "The tensors weight_ih [20, 3]" in shown
    assert "variables" not in shown


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.activation = nn.Linear(3, 4), nn.ReLU()
        self.rnn = nn.GRU(4, 5, batch_first=True, bidirectional=True)
        self.last = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rnn(self.activation(self.first(x)))[0])


def test_a_script_archive_names_its_modules(tmp_path: Path) -> None:
    module = randomise(Scripted(), 8)
    torch.jit.script(module).save(tmp_path / "script.pt")
    plan = CliRunner().invoke(cli, ["plan", str(tmp_path / "script.pt")])
    assert plan.exit_code == 0, plan.output
    assert 'class = "ReLU"' in plan.stdout
    found = convert(module, plan.stdout, tmp_path)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), module.double()(x), rtol=0, atol=1e-9)


POOLED = [
    {"name": "0", "class": "Transpose", "dim0": 1, "dim1": 2},
    {"name": "1", "class": "Conv1d"},
    {"name": "2", "class": "MaxPool1d", "kernel_size": 4},
    {"name": "3", "class": "Transpose", "dim0": 1, "dim1": 2},
    {"name": "4", "class": "Linear"},
]


@pytest.mark.parametrize(("window", "model_needs", "program_needs"), [(1, 4, 8), (31, 34, 38)])
def test_an_exported_program_says_how_short_a_sequence_may_be(
    window: int, model_needs: int, program_needs: int, tmp_path: Path
) -> None:
    """`torch.export` takes no axis to be of size 1, also behind a pooling; the proof keeps to what it takes."""
    module = randomise(nn.ModuleDict({"1": nn.Conv1d(3, 5, window), "4": nn.Linear(5, 2)}), 13)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    (tmp_path / "model.toml").write_text(recipe(["?", 3], POOLED))
    arguments = [str(tmp_path / "model.pt"), "--recipe", str(tmp_path / "model.toml"), "-o"]
    result = CliRunner().invoke(cli, ["torch-to-export", *arguments, str(tmp_path / "model.pt2")])
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"takes sequences of {program_needs} steps or more" in " ".join(result.output.split())
    program = torch.export.load(tmp_path / "model.pt2").module()
    x = torch.randn(2, program_needs, 3)
    expected = module["4"](nn.functional.max_pool1d(module["1"](x.transpose(1, 2)), 4).transpose(1, 2))
    torch.testing.assert_close(program(x), expected, rtol=0, atol=1e-5)
    with pytest.raises(AssertionError):
        program(x[:, : program_needs - 1])
    plain = convert(module, recipe(["?", 3], POOLED), tmp_path)
    assert plain(torch.zeros(1, model_needs, 3, dtype=torch.float64)).shape == (1, 1, 2)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_recurrent_layer_behind_poolings_is_exported(kind: str, tmp_path: Path) -> None:
    module = randomise(nn.ModuleDict({"1": nn.Conv1d(3, 5, 3), "5": getattr(nn, kind)(5, 7, batch_first=True)}), 14)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    layers = [*POOLED[:3], {**POOLED[2], "name": "3", "kernel_size": 2}, {**POOLED[3], "name": "4"}]
    (tmp_path / "model.toml").write_text(recipe(["?", 3], [*layers, {"name": "5", "class": kind}]))
    arguments = [str(tmp_path / "model.pt"), "--recipe", str(tmp_path / "model.toml"), "-o"]
    result = CliRunner().invoke(cli, ["torch-to-export", *arguments, str(tmp_path / "model.pt2")])
    assert result.exit_code == 0, (result.output, result.exception)
    program = torch.export.load(tmp_path / "model.pt2").module()
    for batch, time in ((1, 18), (1, 31), (2, 40), (5, 23)):
        x = torch.randn(batch, time, 3)
        pooled = nn.functional.max_pool1d(nn.functional.max_pool1d(module["1"](x.transpose(1, 2)), 4), 2)
        torch.testing.assert_close(program(x), module["5"](pooled.transpose(1, 2))[0], rtol=0, atol=1e-5)
