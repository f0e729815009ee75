"""PyTorch families against the published code itself, where the package is installed (`pip install --no-deps`).

Only the file that has the class is loaded: the packages need compiled extensions and much else that these do not use.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import load_module
from pytorch_cells import INPUTS, UNITS, randomise
from test_pytorch_families import converted
from torch import Tensor, nn

TIME = 7
Run = Callable[[nn.Module, Tensor], Tensor]


class Empty(ModuleType):
    """A module of functions that give nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_: None


def published(package: str, file: str, monkeypatch: pytest.MonkeyPatch, *stubs: str) -> Any:
    """The module in a file of an installed package; what it imports beside torch is empty."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed (pip install --no-deps {package})")
    for name in stubs:
        monkeypatch.setitem(sys.modules, name, Empty(name))
    return load_module(Path(spec.submodule_search_locations[0]) / file)


def same(module: nn.Module, run: Run, folder: Path, *options: str) -> None:
    torch.save(module.state_dict(), folder / "model.pt")
    found = converted(folder / "model.pt", folder / "out", "--scope", "", *options)
    x = torch.randn(3, TIME, INPUTS, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), run(module.double(), x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("normed", [True, False])
def test_torchaudio(normed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = published("torchaudio", "models/rnnt.py", monkeypatch, "torchaudio", "torchaudio.models")
    module = randomise(code._CustomLSTM(INPUTS, UNITS, layer_norm=normed, layer_norm_epsilon=1e-3), 1)
    options = ("--set", "norms.*.epsilon=0.001") if normed else ()
    same(module, lambda m, x: m(x.transpose(0, 1), None)[0].transpose(0, 1), tmp_path, *options)


@pytest.mark.parametrize("norm", ["batchnorm", "layernorm"])
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("affine", [None, False, True])
def test_speechbrain(
    norm: str, both: bool, affine: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubs = ("speechbrain", "speechbrain.nnet", "speechbrain.nnet.attention", "speechbrain.utils")
    code = published("speechbrain", "nnet/RNN.py", monkeypatch, *stubs, "speechbrain.utils.logger")
    shape, size = (3, TIME, INPUTS), UNITS
    if affine is None:
        module = code.LiGRU(size, shape, num_layers=2, normalization=norm, bidirectional=both)
    else:
        more = {"ff_normalization": norm, "recurrent_elementwise_affine": affine, "bidirectional": both}
        module = code.SLiGRU(size, shape, num_layers=2, **more)
    kind = "batch" if norm == "batchnorm" else "layer"
    options = ("--family", f"stable_{kind}_norm_ligru/speechbrain") if affine is False else ()
    randomise(module, 2)
    for layer in module.rnn:
        layer.h_init.zero_()
        layer.drop_mask_te.fill_(1)
    same(module, lambda m, x: m(x)[0], tmp_path, *options)


@pytest.mark.parametrize(
    ("name", "file", "option"),
    [
        ("LSTM", "lstm.py", "zoneout_h"),
        ("GRU", "gru.py", "zoneout"),
        ("LayerNormLSTM", "layer_norm_lstm.py", "zoneout"),
        ("LayerNormGRU", "layer_norm_gru.py", "zoneout"),
    ],
)
def test_haste(name: str, file: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "haste_pytorch.base_rnn", published("haste_pytorch", "base_rnn.py", monkeypatch))
    path = Path(importlib.util.find_spec("haste_pytorch").submodule_search_locations[0]) / file  # type: ignore
    source = path.read_text().replace("from .base_rnn", "from haste_pytorch.base_rnn")
    (tmp_path / "code.py").write_text(source)
    monkeypatch.setitem(sys.modules, "haste_pytorch", ModuleType("haste_pytorch"))
    monkeypatch.setitem(sys.modules, "haste_pytorch_lib", ModuleType("haste_pytorch_lib"))
    module = randomise(getattr(load_module(tmp_path / "code.py"), name)(INPUTS, UNITS, zoneout=0.15), 3)
    same(module, lambda m, x: m(x.transpose(0, 1))[0].transpose(0, 1), tmp_path, "--set", f"{option}=0.15")
