"""pytorch-kaldi's files with the cfg of their experiment: norms, functions, dropout and directions as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from pytorch_cells import INPUTS, UNITS, randomise
from pytorch_kaldi_cells import Kaldi
from test_pytorch_families import converted
from torch import nn

from normconvert.cli import cli

HEAD = """
[exp]
cmd =
out_folder = exp/%(with a sign that interpolation would stumble over)

[dataset1]
fea = fea_name=mfcc
\tfea_opts=apply-cmvn --utt2spk=ark:train/utt2spk  ark:- | add-deltas --delta-order=2 ark:- ark:- |
\tcw_left=0
\t
\tfea_name=fbank

[architecture2]
arch_name = MLP_layers
arch_class = MLP
dnn_lay = N_out_lab_cd
dnn_act = softmax
"""


def cfg(folder: Path, kind: str, arch_class: str, number: int = 1, **options: str) -> Path:
    lines = [f"[architecture{number}]", f"arch_name = {arch_class}_layers", f"arch_class = {arch_class}"]
    options = {"use_laynorm_inp": "False", "use_batchnorm_inp": "False", "orthinit": "True", **options}
    lines += [f"{kind}_{name} = {value}" for name, value in options.items()]
    path = folder / "experiment.cfg"
    before = path.read_text() if path.exists() else HEAD
    path.write_text("\n".join([before, *lines, ""]))
    return path


def saved(module: nn.Module, path: Path) -> Path:
    """As run_nn.py saves it."""
    torch.save({"model_par": module.state_dict(), "optimizer_par": {"state": {0: {"square_avg": torch.ones(3)}}}}, path)
    return path


CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, str]]] = {
    "lstm": (
        "LSTM",
        "lstm",
        {"batch": True, "layer": False, "layers": 2, "bidirectional": True, "drop": 0.3},
        {"drop": "0.3,0.3", "use_laynorm": "False,False", "use_batchnorm": "True,true", "act": "tanh,tanh"},
    ),
    "gru": (
        "GRU",
        "gru",
        {"batch": True, "layer": True, "layers": 2, "drop": 0.0, "input_norms": True},
        {"drop": "0.0,0.0", "use_laynorm": "True,True", "use_batchnorm": "True, True", "act": "tanh,tanh"}
        | {"use_laynorm_inp": "True", "use_batchnorm_inp": "True"},
    ),
    "ligru": (
        "liGRU",
        "ligru",
        {"batch": False, "layer": True, "bidirectional": True, "act": nn.functional.elu},
        {"drop": "0.2", "use_laynorm": "True", "use_batchnorm": "False", "act": "elu"},
    ),
    "minimal": (
        "minimalGRU",
        "minimalgru",
        {"batch": False, "layer": False, "act": nn.LeakyReLU(0.2), "drop": 0.1},
        {"drop": "0.1", "use_laynorm": "False", "use_batchnorm": "False", "act": "leaky_relu"},
    ),
    "rnn": (
        "RNN",
        "rnn",
        {"batch": True, "layer": False, "layers": 3, "bidirectional": True, "act": nn.LeakyReLU(1.0)},
        {"drop": "0.2,0.2,0.2", "use_laynorm": "0,0,0", "use_batchnorm": "1,1,1", "act": "linear,linear,linear"},
    ),
}


def made(name: str, folder: Path, **changes: str) -> tuple[nn.Module, Path, Path]:
    arch_class, kind, arguments, options = CASES[name]
    module = randomise(Kaldi(name, **arguments), 30)
    sizes = ",".join([str(UNITS)] * arguments.get("layers", 1))
    options = {"lay": sizes, "bidir": str(arguments.get("bidirectional", False)), **options, **changes}
    return module, saved(module, folder / "final_architecture1.pkl"), cfg(folder, kind, arch_class, **options)


@pytest.mark.parametrize("name", CASES)
def test_the_cfg_says_what_the_tensors_do_not(name: str, tmp_path: Path) -> None:
    module, file, config = made(name, tmp_path)
    found = converted(file, tmp_path / "out", "--config", str(config))
    x = torch.randn(3, 6, INPUTS, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), module.double()(x), rtol=0, atol=1e-6)


def test_the_plan_names_the_options(tmp_path: Path) -> None:
    _, file, config = made("lstm", tmp_path)
    plan = CliRunner().invoke(cli, ["plan", str(file), "--config", str(config)])
    assert plan.exit_code == 0, plan.output
    assert "constants.drop = 0.3  # lstm_drop of the cfg" in plan.stdout
    (tmp_path / "model.toml").write_text(plan.stdout)
    again = CliRunner().invoke(cli, ["plan", str(file), "--recipe", str(tmp_path / "model.toml")])
    assert again.exit_code == 0, again.output


def test_the_name_of_the_file_chooses_between_architectures(tmp_path: Path) -> None:
    module, file, config = made("minimal", tmp_path)
    _, kind, _, options = CASES["minimal"]
    cfg(tmp_path, kind, "minimalGRU", 3, lay=str(UNITS), bidir="False", **{**options, "drop": "0.4"})
    found = converted(file, tmp_path / "out", "--config", str(config))
    x = torch.randn(3, 6, INPUTS, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), module.double()(x), rtol=0, atol=1e-6)
    other = saved(module, tmp_path / "nameless.pkl")
    result = CliRunner().invoke(cli, ["plan", str(other), "--config", str(config)])
    assert getattr(result.exception, "exit_code", 0) == 2
    assert "2 of its recurrent architectures" in str(result.exception)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("lstm", {"lay": "5,6"}, "none of its recurrent architectures"),
        ("lstm", {"bidir": "False"}, "what its tensors cannot be"),
        ("minimal", {"use_batchnorm": "True"}, "what its tensors cannot be"),
        ("lstm", {"drop": "0.2"}, "lstm_drop does not have 2 values"),
        ("lstm", {"drop": "0.2,1.5"}, "no probability"),
        ("lstm", {"bidir": "maybe"}, "neither True nor False"),
        ("ligru", {"act": "softmax"}, "ligru_act is softmax"),
    ],
)
def test_a_cfg_that_does_not_fit(name: str, changes: dict[str, str], message: str, tmp_path: Path) -> None:
    _, file, config = made(name, tmp_path, **changes)
    result = CliRunner().invoke(cli, ["convert", str(file), "--config", str(config), "-o", str(tmp_path / "out")])
    assert getattr(result.exception, "exit_code", 0) in (2, 3), result.output
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["no sections", "[exp]\nseed = 1\n", b"\xff\xfe\x00"])
def test_what_is_no_cfg(text: str | bytes, tmp_path: Path) -> None:
    _, file, _ = made("minimal", tmp_path)
    other = tmp_path / "other.cfg"
    other.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = CliRunner().invoke(cli, ["plan", str(file), "--config", str(other)])
    assert getattr(result.exception, "exit_code", 0) == 2
    assert "no cfg of pytorch-kaldi" in str(result.exception)
