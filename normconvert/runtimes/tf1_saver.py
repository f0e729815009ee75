"""What `tf.train.Saver` restores from a checkpoint, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from normconvert.errors import MissingRuntime
from normconvert.ir.model import Array
from normconvert.runtimes.framework_process import ask


@dataclass(frozen=True)
class Restored:
    """What the variables of a graph held after `Saver.restore`.

    Attributes:
        tensors: by the variable's name, in the dtypes and shapes of the request.
        versions: of TensorFlow.
    """

    tensors: dict[str, Array]
    versions: dict[str, str]


def is_installed() -> bool:
    """Whether TensorFlow is there to be asked."""
    return find_spec("tensorflow") is not None


def restore(prefix: Path, expected: Mapping[str, Array]) -> Restored:
    """Make a variable for each name in a TF1 graph, restore them all by one `Saver`, and fetch them.

    Args:
        prefix: as `Saver.restore` takes it.
        expected: an array of each variable's dtype and shape by its name.

    Raises:
        MissingRuntime: TensorFlow is not installed.
        RunError: TensorFlow does not make such variables, or does not restore them; the reason is its own.
    """
    if not is_installed():
        raise MissingRuntime("TensorFlow is not installed", remedy='Install it with pip install "normconvert[tf]"')
    answers = ask(
        "normconvert.runtimes.tf1_saver_worker",
        lambda _: {
            "prefix": str(prefix.resolve()),
            "variables": [[name, str(array.dtype), list(array.shape)] for name, array in expected.items()],
        },
        {},
        framework="tf.train.Saver",
        file=prefix.name,
        environment={},
    )
    tensors = {
        name: np.frombuffer(answers.rounded[str(number)].tobytes(), array.dtype).reshape(array.shape)
        for number, (name, array) in enumerate(expected.items())
    }
    return Restored(tensors, answers.versions)
