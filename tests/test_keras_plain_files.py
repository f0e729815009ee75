"""Every layer without recurrence through a file: one model that holds them all, saved by each framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_cases import CASES, Case, random_inputs, random_weights

from normconvert.interpreter import run
from normconvert.ir.model import Array
from normconvert.ir.shapes import infer
from normconvert.sources.keras import read

pytestmark = pytest.mark.framework

SUFFIXES = [("keras", ".keras"), ("keras", ".h5"), ("tf_keras", ".h5"), ("tf_keras", ".keras")]


def _cases(framework: str) -> list[Case]:
    absent = {"keras": {"ThresholdedReLU"}, "tf_keras": {"RMSNormalization"}}[framework]
    return [case for case in CASES if case.only in ("", framework) and case.layer not in absent]


def _model(keras: Any, cases: list[Case], rng: np.random.Generator) -> Any:
    inputs, outputs = [], []
    for n, case in enumerate(cases):
        dtype = "int32" if case.integers else "float32"
        own = [keras.Input(shape, dtype=dtype, name=f"in_{n}_{m}") for m, shape in enumerate(case.shapes)]
        tensors = [keras.layers.Masking(name=f"mask_{n}_{m}")(x) for m, x in enumerate(own)] if case.masked else own
        layer = getattr(keras.layers, case.layer)(**case.options, name=f"layer_{n}")
        spread = case.layer == "MultiHeadAttention"
        arguments = tensors if spread or len(tensors) == 1 else [tensors]
        outputs.append(layer(*arguments, **case.call))
        inputs += own
        random_weights(layer, rng)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(("framework", "suffix"), SUFFIXES)
def test_every_layer_through_a_file(framework: str, suffix: str, tmp_path: Path) -> None:
    keras = pytest.importorskip(framework)
    rng = np.random.default_rng(17)
    cases = _cases(framework)
    model = _model(keras, cases, rng)
    arrays: dict[str, Array] = {}
    for n, case in enumerate(cases):
        arrays.update({f"in_{n}_{m}": array for m, array in enumerate(random_inputs(case, rng)[0])})
    expected = model([arrays[tensor.name.split(":")[0]] for tensor in model.inputs])
    path = tmp_path / f"all{suffix}"
    model.save(path)

    read_back = read(path).model
    found = list(run(read_back, arrays, np.float32).values())
    assert len(found) == len(cases)
    wrong = [
        str(case)
        for case, ours, theirs in zip(cases, found, map(np.asarray, expected), strict=True)
        if ours.shape != theirs.shape or not np.abs(ours - theirs).max() <= 2e-6 * max(1.0, np.abs(theirs).max())
    ]
    assert wrong == []
    shapes = infer(read_back)
    assert [shapes[name] for name in read_back.outputs] == [array.shape[1:] for array in found]
