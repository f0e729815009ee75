"""Real Keras files that nobody here wrote: each is read, converted and proven, and held against Keras's own answer.

`test_old_keras.py` does the same for the files that no Keras loads any more.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.framework

Array = np.ndarray[Any, np.dtype[Any]]
Sample = Callable[[Path, np.random.Generator], Array]
Oracle = Callable[[Path, Array], Array]

ROUNDINGS = 16
"""Two float32 results may differ by this many units in the last place, at the outputs' scale."""


@dataclass(frozen=True)
class Real:
    """A file under `shared/models`.

    Attributes:
        file: its path there.
        sample: an input, given the file that the oracle reads.
        oracle: the answer of something that is not normconvert, given a file and the input.
        config: a separate architecture file.
        oracle_file: what the oracle reads, if not `file`.
        saturated: its last sigmoid answers 1 in float32 whatever it is given, so that a copy without that sigmoid is
            compared with the oracle.
    """

    file: str
    sample: Sample
    oracle: Oracle
    config: str = ""
    oracle_file: str = ""
    saturated: bool = False


def normal(*shape: int) -> Sample:
    return lambda file, rng: rng.normal(size=shape).astype(np.float32)


def masked(mask_value: float, *shape: int) -> Sample:
    """Normal numbers; some whole time steps have the mask's value, before, between and after real ones."""

    def sample(file: Path, rng: np.random.Generator) -> Array:
        x = rng.normal(size=shape).astype(np.float32)
        x[0, :2] = x[1, 3] = x[2, -3:] = mask_value
        return x

    return sample


def recorded(group: str) -> Callable[..., Array]:
    """The only array in a group of the recording that lies beside the file: an input or an answer."""

    def read(file: Path, *_: object) -> Array:
        with h5py.File(file.with_name(file.name.replace("_model", "_inputs_and_outputs"))) as recording:
            (name,) = recording[group]
            return np.asarray(recording[group][name])

    return read


def loaded_by(module: str) -> Oracle:
    def predict(file: Path, x: Array) -> Array:
        model = pytest.importorskip(module).models.load_model(file, compile=False)
        return np.asarray(model(x, training=False))

    return predict


def loaded_from_zip(file: Path, x: Array) -> Array:
    """Keras 3 on the `.keras` member of a zip."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(file) as archive:
        return loaded_by("keras")(Path(archive.extract("classifier.keras", folder)), x)


def without_last_activation(file: Path, copy: Path) -> Path:
    shutil.copyfile(file, copy)
    copy.chmod(0o600)
    with h5py.File(copy, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        config["config"]["layers"][-1]["config"]["activation"] = "linear"
        opened.attrs["model_config"] = json.dumps(config)
    return copy


def simple_lstm(name: str, sample: Sample, oracle: Oracle) -> dict[str, Real]:
    """The net as one file, and as weights beside an architecture."""
    model, weights, config = (
        f"dl4j-keras-simple_lstm/simple_lstm_{name}_{part}" for part in ("model.h5", "weights.h5", "config.json")
    )
    return {
        f"{name}_model": Real(model, sample, oracle),
        f"{name}_weights": Real(weights, sample, oracle, config=config, oracle_file=model),
    }


REAL = {
    "predmaint": Real("predmaint/binary_model.h5", normal(3, 50, 25), loaded_by("tf_keras")),
    "exoplanet": Real("exoplanet-keras3-h5/cnn_lstm_model.h5", normal(2, 3197, 1), loaded_by("keras"), saturated=True),
    "sleepecg": Real("sleepecg-wrn/wrn-gru-mesa.zip", masked(-1, 3, 13, 36), loaded_from_zip),
    "masking_zero": Real("dl4j-keras-masking/masking_zero_lstm.h5", masked(0, 3, 10, 42), loaded_by("tf_keras")),
    "masking_two": Real("dl4j-keras-masking/masking_two_lstm.h5", masked(2, 3, 10, 42), loaded_by("tf_keras")),
    **simple_lstm("tf_keras_1", recorded("inputs"), recorded("predictions")),
    **simple_lstm("th_keras_1", recorded("inputs"), recorded("predictions")),
    **simple_lstm("tf_keras_2", normal(25, 1, 1), loaded_by("tf_keras")),
}


@pytest.mark.parametrize("name", REAL)
def test_converts_with_proof_and_agrees_with_the_oracle(
    name: str, shared_models: Path, tmp_path: Path, to_torch: Callable[..., Any], run_folder: Callable[..., Any]
) -> None:
    real = REAL[name]
    file, oracle_file = shared_models / real.file, shared_models / (real.oracle_file or real.file)
    options = ("--config", str(shared_models / real.config)) if real.config else ()

    report = to_torch(file, tmp_path / "out", *options)

    assert report["equivalent"] is True
    if real.saturated:
        oracle_file = without_last_activation(file, tmp_path / "open.h5")
        to_torch(oracle_file, tmp_path / "open", "--no-validate")
    x = real.sample(oracle_file, np.random.default_rng(11))
    expected = real.oracle(oracle_file, x)
    scale = np.abs(expected).max()
    assert np.unique(expected).size > 1, "an answer that does not vary says little"
    converted = run_folder(tmp_path / ("open" if real.saturated else "out"), x)
    np.testing.assert_allclose(converted, expected, rtol=0, atol=ROUNDINGS * np.finfo(np.float32).eps * scale)


def test_no_keras_file_is_left_out(shared_models: Path) -> None:
    elsewhere = {"sentinews/default_best.h5", "factornet-egr1/best_model.hdf5"}
    held = {path for real in REAL.values() for path in (real.file, real.config)} | elsewhere
    found = {
        str(path.relative_to(shared_models))
        for path in shared_models.rglob("*")
        if path.suffix in (".h5", ".hdf5", ".keras", ".zip", ".json") and "inputs_and_outputs" not in path.name
    }
    assert found <= held
