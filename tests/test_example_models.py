"""The models people ask about, built by real Keras 2 and 3, through the command line, against Keras's own answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.framework

Array = np.ndarray[Any, np.dtype[Any]]

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DEFINITION = ("--define", f"LayerNormGRUCell={FIXTURES / 'layer_norm_gru.toml'}")

PROVEN = {("keras2", "h5"), ("keras3", "keras")}
"""Converted with proof, which starts a Keras each time; the other two of each model only with Keras's answer."""

NAMES = ("conv_lstm_bn", "squeeze_excite", "lstm_512", "lstm_512_bn", "relu_lstm_bn", "ln_gru")
MULTIPLE = 8
"""How many times further from Keras in float64 than Keras in float32 a converted model may be."""

COUNTS = {
    "lstm_512": {"total": 3_156_481, "trainable": 3_156_481, "non_trainable": 0},
    "lstm_512_bn": {"total": 3_160_589, "trainable": 3_158_535, "non_trainable": 2_054},
}


@pytest.fixture(scope="module")
def built(example_builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Every model by its name and Keras, built once."""
    models = example_builder.build(tmp_path_factory.mktemp("examples"))
    return {(model.example, model.framework): model for model in models}


def allowed(y: Array, exact: Array) -> float:
    """The error a converted model may have: a multiple of Keras's own, which counts at least as one rounding."""
    own = np.abs(y - exact).max()
    return MULTIPLE * float(max(own, np.finfo(np.float32).eps * np.abs(exact).max()))


def options_for(name: str) -> tuple[str, ...]:
    return DEFINITION if name == "ln_gru" else ()


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("framework", ["keras2", "keras3"])
@pytest.mark.parametrize("name", NAMES)
def test_converts_and_gives_keras_own_answer(
    name: str,
    framework: str,
    suffix: str,
    built: dict[tuple[str, str], Any],
    tmp_path: Path,
    to_torch: Callable[..., Any],
    run_folder: Callable[..., Any],
) -> None:
    model = built[name, framework]
    (file,) = (file for file in model.files if file.suffix == f".{suffix}")

    proven = (framework, suffix) in PROVEN
    report = to_torch(file, tmp_path / "out", *options_for(name), *([] if proven else ["--no-validate"]))

    assert report.get("equivalent", False) is proven
    converted = run_folder(tmp_path / "out", model.x)
    np.testing.assert_allclose(converted, model.exact, rtol=0, atol=allowed(model.y, model.exact))


def test_the_model_card_tells_the_measured_equivalence(tmp_path: Path, to_torch: Callable[..., Any]) -> None:
    report = to_torch(FIXTURES / "conv_lstm_bn-keras3.keras", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**Equivalent** to conv_lstm_bn-keras3.keras" in card
    assert f"{report['outputs'][0]['rounding_multiple']:.2g}" in card
    assert "agrees with what was read" in card
    assert "{" not in card


@pytest.mark.parametrize("framework", ["keras2", "keras3"])
@pytest.mark.parametrize("name", COUNTS)
def test_inspect_counts_what_keras_counts(
    name: str, framework: str, built: dict[tuple[str, str], Any], command: Callable[..., Any]
) -> None:
    for file in built[name, framework].files:
        printed = command("inspect", file)
        assert printed.exit_code == 0, printed.stderr
        for count in COUNTS[name].values():
            assert f"{count:,}" in printed.stdout
        summary = json.loads(command("inspect", file, "--json").stdout)
        assert {key: summary[key] for key in COUNTS[name]} == COUNTS[name]


def test_a_users_own_cell_without_a_definition_is_refused_by_name(
    built: dict[tuple[str, str], Any], tmp_path: Path, command: Callable[..., Any]
) -> None:
    for framework in ("keras2", "keras3"):
        for file in built["ln_gru", framework].files:
            refused = command("keras-to-torch", file, "-o", tmp_path / "out")
            assert refused.exit_code == 3
            assert "LayerNormGRUCell" in refused.stderr
            assert "--define" in refused.stderr
            assert not (tmp_path / "out").exists()


def test_a_definition_with_the_wrong_epsilon_gives_another_answer(
    built: dict[tuple[str, str], Any],
    tmp_path: Path,
    to_torch: Callable[..., Any],
    run_folder: Callable[..., Any],
) -> None:
    """The comparison with Keras can fail: the second cell's own epsilon, 2e-3, is not read from its configuration."""
    text = (FIXTURES / "layer_norm_gru.toml").read_text()
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text[: text.index("[layouts.keras.config]")])
    model = built["ln_gru", "keras3"]

    to_torch(model.files[0], tmp_path / "out", "--no-validate", "--define", f"LayerNormGRUCell={wrong}")

    error = np.abs(run_folder(tmp_path / "out", model.x) - model.exact).max()
    assert error > 4 * allowed(model.y, model.exact)


@pytest.mark.parametrize("stem", ["conv_lstm_bn-keras2", "conv_lstm_bn-keras3", "ln_gru-keras2", "ln_gru-keras3"])
def test_fixtures_convert_and_give_the_recorded_answer(
    stem: str, tmp_path: Path, to_torch: Callable[..., Any], run_folder: Callable[..., Any]
) -> None:
    recorded = np.load(FIXTURES / f"{stem}.npz")
    atol = allowed(recorded["y"], recorded["exact"])
    for suffix in ("h5", "keras"):
        out = tmp_path / suffix
        to_torch(FIXTURES / f"{stem}.{suffix}", out, "--no-validate", *options_for(stem.split("-")[0]))
        np.testing.assert_allclose(run_folder(out, recorded["x"]), recorded["exact"], rtol=0, atol=atol)
