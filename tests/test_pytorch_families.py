"""Every family of PyTorch, by command line, against an independent module: states dicts with random weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_cells as cells
import torch
from click.testing import CliRunner
from conftest import load_module
from pytorch_cells import INPUTS, UNITS, randomise
from pytorch_grus import (
    DreamerV2,
    DreamerV3,
    HasteGRU,
    IcefallGRU,
    InnerBiasGRU,
    PlainHasteGRU,
    Pydreamer,
    PydreamerLate,
    Sheeprl,
)
from pytorch_kaldi_cells import Kaldi, LiGRU
from pytorch_layer_norm_lstms import (
    DIEngine,
    FastBoth,
    FastCell,
    HasteLSTM,
    IcefallLSTM,
    InnerBias,
    LstmsPth,
    PlainHasteLSTM,
    Torchaudio,
)
from pytorch_norm_cells import Hellozgy, JihunchoiStack, ModuleListStack, PhysioEx
from pytorch_toolkit_cells import ReturnnLSTM, ReturnnNormed, Sockeye, SockeyePerGate
from torch import nn

from normconvert.cli import cli

TIME = 6


def run(*arguments: str) -> str:
    """What a command prints; it must succeed."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def converted(source: Path, output: Path, *options: str) -> nn.Module:
    run("torch-to-torch", str(source), "-o", str(output), "-q", *options)
    module: nn.Module = load_module(output / "model.py").load()
    return module.double().eval()


def normed(how: Callable[..., object], *names: str) -> nn.Module:
    rnn = nn.LSTM(INPUTS, UNITS, batch_first=True)
    randomise(rnn, 77)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            how(rnn, name)
    return cells.Plain(rnn)


def rnn(kind: type[nn.Module], **options: object) -> nn.Module:
    return cells.Plain(kind(INPUTS, UNITS, batch_first=True, **options))


def kaldi(kind: str, **options: object) -> nn.Module:
    return Kaldi(kind, **options)  # type: ignore[arg-type]


def measured(module: nn.Module) -> None:
    """Running statistics as training measures them."""
    module.train()
    with torch.no_grad():
        for _ in range(60):
            module(torch.randn(256, TIME, INPUTS))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "lstm": (lambda: rnn(nn.LSTM), ()),
    "lstm_stack": (lambda: rnn(nn.LSTM, num_layers=3, bidirectional=True, bias=False), ()),
    "lstm_projected": (lambda: rnn(nn.LSTM, num_layers=2, proj_size=2, bidirectional=True), ()),
    "gru": (lambda: rnn(nn.GRU, num_layers=2), ()),
    "rnn_relu": (lambda: rnn(nn.RNN, bidirectional=True, nonlinearity="relu"), ("--set", "activation=relu")),
    "jihunchoi": (JihunchoiStack, ()),
    "jihunchoi_shared": (lambda: JihunchoiStack(None), ()),
    "hellozgy": (Hellozgy, ()),
    "hellozgy_one_way": (lambda: Hellozgy(1), ()),
    "module_list": (lambda: ModuleListStack(TIME), ()),
    "physioex": (PhysioEx, ()),
    "haste_lstm": (HasteLSTM, ("--set", "zoneout=0.15")),
    "haste_gru": (HasteGRU, ("--set", "zoneout=0.15")),
    "haste_plain_lstm": (PlainHasteLSTM, ("--set", "zoneout_h=0.15")),
    "haste_plain_gru": (PlainHasteGRU, ("--set", "zoneout=0.15")),
    "returnn": (ReturnnLSTM, ("--family", "zoneout_lstm/returnn")),
    "returnn_zoneout": (
        lambda: ReturnnLSTM("icfo", cell=0.15, output=0.05, forget_bias=0.7),
        (
            "--family",
            "zoneout_lstm/returnn_icfo",
            "--set",
            "zoneout_c=0.15",
            "--set",
            "zoneout_h=0.05",
            "--set",
            "forget_bias=0.7",
        ),
    ),
    "returnn_native": (lambda: ReturnnLSTM("cifo"), ("--family", "zoneout_lstm/returnn_cifo")),
    "returnn_layer": (ReturnnNormed, ("--family", "returnn_layer_norm_lstm/torch")),
    "returnn_rnmt": (lambda: ReturnnNormed(raw_output=True), ("--family", "returnn_rnmt_lstm/torch")),
    "sockeye_lstm": (lambda: Sockeye(4), ("--family", "sockeye_layer_norm_lstm")),
    "sockeye_lstm_late": (lambda: Sockeye(4, late=True), ("--family", "inner_bias_layer_norm_lstm/sockeye")),
    "sockeye_lstm_per_gate": (lambda: SockeyePerGate(4), ()),
    "sockeye_gru": (lambda: Sockeye(3), ("--family", "layer_norm_gru/sockeye")),
    "sockeye_gru_late": (lambda: Sockeye(3, late=True), ("--family", "inner_bias_layer_norm_gru/sockeye")),
    "sockeye_gru_per_gate": (lambda: SockeyePerGate(3), ()),
    "chenhuaizhen": (lambda: InnerBias("tanh"), ("--family", "tanh_layer_norm_lstm")),
    "chenhuaizhen_one_way": (
        lambda: InnerBias("tanh", directions=1),
        ("--family", "tanh_layer_norm_lstm/chenhuaizhen"),
    ),
    "inner_bias_ifog": (lambda: InnerBias("ifog"), ("--family", "inner_bias_layer_norm_lstm/ifog")),
    "inner_bias_ifgo": (lambda: InnerBias("ifgo"), ("--family", "inner_bias_layer_norm_lstm/ifgo")),
    "inner_bias_gru": (InnerBiasGRU, ()),
    "fastrnns": (lambda: nn.Sequential(FastBoth(INPUTS), FastBoth(2 * UNITS)), ()),
    "fastrnns_one_way": (lambda: nn.Sequential(*(cells.Holder(cell=FastCell(n)) for n in (INPUTS, UNITS))), ()),
    "torchaudio": (Torchaudio, ("--set", "norms.*.epsilon=0.001")),
    "icefall_lstm": (IcefallLSTM, ()),
    "icefall_gru": (IcefallGRU, ()),
    "lstms_pth": (LstmsPth, ()),
    "lstms_pth_cell_only": (lambda: LstmsPth(preactivation=False), ()),
    "di_engine": (DIEngine, ()),
    "dreamerv3": (DreamerV3, ()),
    "sheeprl": (lambda: Sheeprl(bias=False), ()),
    "sheeprl_bias": (lambda: Sheeprl(bias=True), ()),
    "dreamerv2": (DreamerV2, ("--set", "norms.*.epsilon=1e-5")),
    "pydreamer": (Pydreamer, ()),
    "pydreamer_late": (PydreamerLate, ()),
    "ligru_batch": (lambda: LiGRU("batch"), ()),
    "ligru_layer": (lambda: LiGRU("layer"), ()),
    "stable_ligru_batch": (
        lambda: LiGRU("batch", affine=False),
        ("--family", "stable_batch_norm_ligru/speechbrain"),
    ),
    "stable_ligru_layer": (
        lambda: LiGRU("layer", affine=False),
        ("--family", "stable_layer_norm_ligru/speechbrain"),
    ),
    "stable_ligru_affine": (lambda: LiGRU("batch", affine=True), ()),
    "stable_ligru_layer_affine": (lambda: LiGRU("layer", affine=True), ()),
    "kaldi_rnn": (
        lambda: kaldi("rnn", batch=True, layer=False, layers=2),
        ("--family", "kaldi_rnn/batch_norm", "--set", "drop=0.2"),
    ),
    "kaldi_lstm": (
        lambda: kaldi("lstm", batch=True, layer=False, layers=2, bidirectional=True),
        ("--family", "kaldi_lstm/batch_norm", "--set", "drop=0.2"),
    ),
    "kaldi_gru": (
        lambda: kaldi("gru", batch=True, layer=True, layers=2),
        ("--family", "kaldi_gru/both_norms", "--set", "drop=0.2"),
    ),
    "kaldi_ligru": (
        lambda: kaldi("ligru", batch=False, layer=True),
        ("--family", "kaldi_ligru/layer_norm", "--set", "drop=0.2"),
    ),
    "kaldi_minimal": (
        lambda: kaldi("minimal", batch=False, layer=False),
        ("--family", "kaldi_minimal_gru/plain", "--set", "drop=0.2"),
    ),
    "weight_norm_old": (lambda: normed(nn.utils.weight_norm, "weight_hh_l0", "weight_ih_l0"), ()),
    "weight_norm_new": (lambda: normed(nn.utils.parametrizations.weight_norm, "weight_hh_l0"), ()),
    "spectral_norm_old": (lambda: normed(nn.utils.spectral_norm, "weight_hh_l0"), ()),
    "spectral_norm_new": (lambda: normed(nn.utils.parametrizations.spectral_norm, "weight_ih_l0"), ()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_family_converts(name: str, tmp_path: Path) -> None:
    make, options = CASES[name]
    torch.manual_seed(5)
    module = make()
    if "norm" not in name:
        randomise(module, len(name))
    if name == "jihunchoi":  # statistics that no run can have are taken for those of another order of the gates
        measured(module)
    model = cells.Holder(encoder=module).eval()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    found = converted(tmp_path / "model.pt", tmp_path / "out", "--scope", "encoder", *options)
    x = torch.randn(4, TIME, INPUTS, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), model.double()(x), rtol=0, atol=1e-9 if "norm" not in name else 1e-6)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_converts_as_one_step(kind: type[nn.Module], tmp_path: Path) -> None:
    cell = randomise(kind(INPUTS, UNITS), 21).double()
    torch.save({"decoder.cell." + name: tensor for name, tensor in cell.state_dict().items()}, tmp_path / "cell.pt")
    found = converted(tmp_path / "cell.pt", tmp_path / "out", "--scope", "decoder.cell", "--cell")
    x, h, c = (torch.randn(4, size, dtype=torch.float64) for size in (INPUTS, UNITS, UNITS))
    with torch.no_grad():
        expected, given = (cell(x, (h, c)), found(x, h, c)) if kind is nn.LSTMCell else ((cell(x, h),), (found(x, h),))
        for mine, theirs in zip(given, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)


def test_the_undropped_weights_of_dropconnect_are_read(tmp_path: Path) -> None:
    rnn = randomise(nn.LSTM(INPUTS, UNITS, batch_first=True), 22)
    state = {("rnn.weight_hh_l0_raw" if n == "weight_hh_l0" else f"rnn.{n}"): t for n, t in rnn.state_dict().items()}
    torch.save(state, tmp_path / "awd.pt")
    found = converted(tmp_path / "awd.pt", tmp_path / "out", "--scope", "rnn")
    x = torch.randn(2, TIME, INPUTS, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), rnn.double()(x)[0], rtol=0, atol=1e-9)


def test_what_a_norm_cannot_tell_is_asked_for(tmp_path: Path) -> None:
    torch.save(randomise(cells.Holder(encoder=Torchaudio()), 3).state_dict(), tmp_path / "model.pt")
    result = CliRunner().invoke(cli, ["convert", str(tmp_path / "model.pt"), "--scope", "encoder", "-o", "nowhere"])
    assert getattr(result.exception, "exit_code", 0) == 3
    assert "--set norms.*.epsilon=1e-05" in str(result.exception)


@pytest.mark.parametrize(
    ("make", "families"),
    [
        (ReturnnLSTM, ("zoneout_lstm/returnn", "zoneout_lstm/returnn_icfo", "zoneout_lstm/returnn_cifo")),
        (lambda: Sockeye(4), ("sockeye_layer_norm_lstm/sockeye", "inner_bias_layer_norm_lstm/sockeye")),
        (
            lambda: InnerBias("tanh"),
            ("tanh_layer_norm_lstm/chenhuaizhen", "inner_bias_layer_norm_lstm/ifog", "inner_bias_layer_norm_lstm/ifgo"),
        ),
        (
            lambda: LiGRU("batch", affine=False),
            ("batch_norm_ligru/speechbrain", "stable_batch_norm_ligru/speechbrain"),
        ),
    ],
)
def test_cells_with_the_same_tensors_are_not_guessed(
    make: Callable[[], nn.Module], families: tuple[str, ...], tmp_path: Path
) -> None:
    torch.save(randomise(cells.Holder(encoder=make()), 4).state_dict(), tmp_path / "model.pt")
    result = CliRunner().invoke(cli, ["convert", str(tmp_path / "model.pt"), "--scope", "encoder", "-o", "nowhere"])
    assert getattr(result.exception, "exit_code", 0) == 3
    assert "--family" in str(result.exception)
    for family in families:
        assert family in str(result.exception)


def test_a_prefix_of_mxnet_is_a_scope(tmp_path: Path) -> None:
    module = randomise(SockeyePerGate(4), 6)
    state = {f"encoder_rnn_l0_{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save(state, tmp_path / "sockeye.pt")
    found = converted(tmp_path / "sockeye.pt", tmp_path / "out", "--scope", "encoder_rnn_l0")
    x = torch.randn(2, TIME, INPUTS, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(found(x), module.double()(x), rtol=0, atol=1e-9)
