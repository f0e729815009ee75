"""Public PyTorch files: a Dreamer-v3 recurrent model against recorded outputs, a voice detector against torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import load_module
from torch import nn

from normconvert.runtimes import Stream

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT.parent / "shared" / "models"

RSSM = """
outputs = ["rnn"]

[model]
name = "rssm"

[[inputs]]
name = "x"
shape = [10]

[[inputs]]
name = "h"
shape = [5]

[[layers]]
name = "mlp"
class = "Linear"
scope = "recurrent_model.mlp._model.0"
inputs = ["x"]

[[layers]]
name = "norm"
class = "LayerNorm"
scope = "recurrent_model.mlp._model.1"
eps = 1e-3

[[layers]]
name = "silu"
class = "SiLU"

[[layers]]
name = "rnn"
cell = "dreamer_gru"
layout = "sheeprl"
scope = "recurrent_model.rnn"
single_step = true
inputs = ["silu", "h"]
"""


def convert(source: Path, output: Path, *options: str) -> nn.Module:
    """The module that a conversion by command line writes."""
    command = [sys.executable, "-m", "normconvert", "torch-to-torch", str(source), "-o", str(output), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    module: nn.Module = load_module(output / "model.py").load()
    return module.eval()


@pytest.fixture
def rssm() -> Path:
    folder = MODELS / "sheeprl-rssm-lngru"
    if not folder.is_dir():
        pytest.skip("the public model sheeprl-rssm-lngru is not here")
    return folder


def test_a_dreamer_model_gives_the_recorded_states(rssm: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "rssm.toml"
    recipe.write_text(RSSM)
    module = convert(rssm / "rssm_state_dict.pt", tmp_path / "rssm", "--recipe", str(recipe))
    with np.load(rssm / "rssm_dynamic_step.npz") as step, np.load(rssm / "rssm_initial_state.npz") as initial:
        first = step["is_first"][0]
        state = (1 - first) * step["recurrent_state"][0] + first * initial["initial_recurrent_state"][0]
        posterior = (1 - first) * step["posterior"][0].reshape(2, 6) + first * initial["initial_posterior"][0].reshape(
            2, 6
        )
        x = np.concatenate([posterior, (1 - first) * step["action"][0]], axis=-1)
        following = module(torch.from_numpy(x), torch.from_numpy(state)).detach().numpy()
        np.testing.assert_allclose(following, step["next_recurrent_state"][0], rtol=0, atol=5e-7)
    with np.load(rssm / "rssm_scan.npz") as scan, np.load(rssm / "rssm_initial_state.npz") as initial:
        state, posterior = initial["initial_recurrent_state"][0], initial["initial_posterior"][0].reshape(2, 6)
        learned, before = state, posterior
        for number, first in enumerate(scan["is_first"]):
            state = (1 - first) * state + first * learned
            posterior = (1 - first) * posterior + first * before
            x = np.concatenate([posterior, (1 - first) * scan["actions"][number]], axis=-1)
            state = module(torch.from_numpy(x), torch.from_numpy(state)).detach().numpy()
            np.testing.assert_allclose(state, scan["recurrent_states"][number], rtol=0, atol=5e-7)
            posterior = scan["posteriors"][number].reshape(2, 6)


class Detector(nn.Module):
    """RicherMans/Datadriven-GPVAD models.py, CRNN, from its description: torch's own modules."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Module:
            parts = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.LeakyReLU(0.1)
            return nn.ModuleDict({"block": nn.Sequential(*parts)})

        channels = {0: (1, 32), 2: (32, 128), 3: (128, 128), 5: (128, 128), 6: (128, 128)}
        windows = {1: (2, 4), 4: (2, 4), 7: (1, 4)}
        parts = [block(*channels[n]) if n in channels else nn.LPPool2d(4, windows[n]) for n in range(8)]
        self.features = nn.ModuleList(parts)
        self.gru = nn.GRU(128, 128, bidirectional=True, batch_first=True)
        self.outputlayer = nn.Linear(256, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        time = x.shape[1]
        x = x.unsqueeze(1)
        for part in self.features:
            x = part["block"](x) if isinstance(part, nn.ModuleDict) else part(x)
        x, _ = self.gru(x.transpose(1, 2).flatten(-2))
        y = torch.sigmoid(self.outputlayer(x)).clamp(1e-7, 1.0).transpose(1, 2)
        y = nn.functional.interpolate(y, time, mode="linear", align_corners=False).transpose(1, 2)
        return ((y**2).sum(1) / y.sum(1)).clamp(1e-7, 1.0), y


def test_a_voice_activity_detector_converts_whole(tmp_path: Path) -> None:
    source = MODELS / "gpvad-c1" / "model.pth"
    if not source.is_file():
        pytest.skip("the public model gpvad-c1 is not here")
    recipe = ["--recipe", str(ROOT / "fixtures" / "gpvad.toml")]
    module = convert(source, tmp_path / "gpvad", *recipe)
    command = [sys.executable, "-m", "normconvert", "torch-to-export", str(source), *recipe, "--no-validate", "-o"]
    done = subprocess.run([*command, str(tmp_path / "gpvad.pt2")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    program = torch.export.load(tmp_path / "gpvad.pt2").module()
    detector = Detector().eval()
    detector.load_state_dict(torch.load(source, weights_only=True, map_location="cpu"))
    generator = torch.Generator().manual_seed(3)
    for batch, time in ((2, 20), (1, 36)):
        x = torch.randn(batch, time, 64, generator=generator)
        with torch.no_grad():
            for found in (module(x), program(x)):
                torch.testing.assert_close(found, detector(x), rtol=0, atol=2e-6)


def test_a_dreamer_model_streams_step_by_step_to_the_recorded_states(rssm: Path, tmp_path: Path) -> None:
    """As one file that onnxruntime calls for each step; the first of an episode starts from the learned state."""
    recipe = tmp_path / "rssm.toml"
    sequences = RSSM.replace('\n[[inputs]]\nname = "h"\nshape = [5]\n', "").replace("shape = [10]", 'shape = ["?", 10]')
    recipe.write_text(sequences.replace("single_step = true\n", "").replace('["silu", "h"]', '["silu"]'))
    command = [sys.executable, "-m", "normconvert", "torch-to-onnx", str(rssm / "rssm_state_dict.pt")]
    command += ["--recipe", str(recipe), "--streaming", "-o", str(tmp_path / "rssm.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stream = Stream(tmp_path / "rssm.stream.onnx")
    with np.load(rssm / "rssm_scan.npz") as scan, np.load(rssm / "rssm_initial_state.npz") as initial:
        learned, start = initial["initial_recurrent_state"][0], initial["initial_posterior"][0].reshape(2, 6)
        posterior = start
        stream(np.zeros((2, 1, 10)))  # names the state
        for number, first in enumerate(scan["is_first"]):
            ((name, state),) = stream.states.items()
            stream.states = {name: ((1 - first) * state + first * learned).astype(np.float32)}
            x = np.concatenate(
                [(1 - first) * posterior + first * start, (1 - first) * scan["actions"][number]], axis=-1
            )
            found = stream(x[:, None])
            np.testing.assert_allclose(found[:, 0], scan["recurrent_states"][number], rtol=0, atol=5e-7)
            posterior = scan["posteriors"][number].reshape(2, 6)
