"""No framework is loaded unless something is run in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from models_by_hand import write_keras_file

FRAMEWORKS = {"torch", "tensorflow", "keras", "tf_keras", "onnx", "onnxruntime", "jax"}
HEAVY = FRAMEWORKS | {"h5py", "numpy", "safetensors", "rich"}

RUN = """
import json, sys
sys.argv = ["normconvert", *sys.argv[1:]]
from normconvert.cli import main
try:
    main()
    code = 0
except SystemExit as end:
    code = end.code
sys.stderr.write("\\n" + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def modules_after(*arguments: str, folder: Path) -> set[str]:
    """Top-level modules loaded by a command that succeeds."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code in (0, None), done.stderr
    return set(modules)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lazy")
    write_keras_file(path / "net.h5")
    return path


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("convert", "--help"), ("keras-to-torch", "-h")])
def test_help_loads_next_to_nothing(arguments: tuple[str, ...], folder: Path) -> None:
    assert not modules_after(*arguments, folder=folder) & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "net.h5"),
        ("inspect", "net.h5", "--json"),
        ("plan", "net.h5"),
        ("cells", "show", "lstm"),
        ("keras-to-torch", "net.h5", "--no-validate"),
        ("keras-to-ir", "net.h5", "--no-validate"),
    ],
)
def test_reading_and_writing_load_no_framework(arguments: tuple[str, ...], folder: Path) -> None:
    assert not modules_after(*arguments, folder=folder) & FRAMEWORKS


def test_importing_the_package_loads_next_to_nothing() -> None:
    code = "import json, sys, normconvert; print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & HEAVY
