"""The user's own module as the reference of the proof of a state dict."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_cells import randomise
from pytorch_layer_norm_lstms import LstmsPth

from normconvert import api
from normconvert.errors import NormconvertError, UsageError

CODE = Path(__file__).resolve().parent / "pytorch_layer_norm_lstms.py"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    module = randomise(LstmsPth(), 4)
    torch.save(
        {"state_dict": {f"net.{name}": tensor for name, tensor in module.state_dict().items()}}, tmp_path / "a.pt"
    )
    return tmp_path / "a.pt"


def test_the_module_is_the_source_of_the_proof(state: Path, tmp_path: Path) -> None:
    done = api.convert(state, "torch", tmp_path / "out", scope="net", source_module=f"{CODE}:LstmsPth")
    assert done.report is not None
    assert done.report.equivalent
    assert done.report.source is not None
    assert "LstmsPth" in str(done.report.source)


def test_another_function_is_found(state: Path, tmp_path: Path) -> None:
    with pytest.raises(NormconvertError) as caught:
        api.convert(
            state,
            "torch",
            tmp_path / "out",
            scope="net",
            source_module=f"{CODE}:LstmsPth",
            settings={"norms.*.epsilon": 1e-5},
        )
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["nowhere.py:Cell", "no_colon"])
def test_a_module_that_is_not_there(module: str, state: Path, tmp_path: Path) -> None:
    with pytest.raises(NormconvertError) as caught:
        api.convert(state, "torch", tmp_path / "out", scope="net", source_module=module)
    assert caught.value.exit_code == 2


def test_a_module_that_does_not_take_the_tensors(state: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ln_h2h"):
        api.convert(
            state,
            "torch",
            tmp_path / "out",
            scope="net",
            source_module=f"{CODE}:LstmsPth",
            source_args={"preactivation": False},
        )
