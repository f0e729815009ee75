"""The command line: what it prints, where, and how it ends."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from models_by_hand import embedded, masked_stack, write_keras_file

import normconvert.targets.torch as torch_target
from normconvert.cli.lazy import PAIRS, TARGETS
from normconvert.ir import file as ir_file
from normconvert.ir.model import Model
from normconvert.targets import TARGETS as KNOWN_TARGETS

Command = Callable[..., Any]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a Keras file and a model in the intermediate format."""
    monkeypatch.chdir(tmp_path)
    write_keras_file(tmp_path / "net.h5")
    ir_file.save(masked_stack(), tmp_path / "hand.safetensors")
    return tmp_path


def others(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("net.h5", "hand.safetensors"))


class TestHelp:
    def test_every_level_has_help(self, command: Command) -> None:
        for words in ([], ["convert"], ["inspect"], ["plan"], ["validate"], ["cells"], ["cells", "show"], [PAIRS[0]]):
            for option in ("-h", "--help"):
                done = command(*words, option)
                assert done.exit_code == 0
                assert done.stdout.startswith("Usage: normconvert")

    def test_pairs_are_made_of_the_known_targets(self) -> None:
        assert set(TARGETS) == set(KNOWN_TARGETS)

    def test_the_version_is_printed(self, command: Command) -> None:
        assert command("--version").stdout.startswith("normconvert ")

    @pytest.mark.parametrize(
        "words", [["frobnicate"], ["convert"], ["inspect", "a", "b"], ["convert", "a", "--to"], ["convert", "a", "--x"]]
    )
    def test_a_usage_error_is_one_line(self, words: list[str], command: Command) -> None:
        done = command(*words)
        assert done.exit_code == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


class TestInspect:
    def test_the_table_counts_parameters(self, work: Path, command: Command) -> None:
        done = command("inspect", "net.h5")
        assert done.exit_code == 0
        assert "Total params: 212" in done.stdout
        assert "Trainable params: 202" in done.stdout
        assert "Non-trainable params: 10" in done.stdout
        assert "hard_sigmoid(f, 0.2, 0.5) * c" in done.stdout

    def test_the_intermediate_format_shows_its_norms(self, work: Path, command: Command) -> None:
        printed = command("inspect", "hand.safetensors").stdout
        assert "norm bn_c: batch, 5 features, eps 0.001, gamma and beta, population statistics" in printed
        assert "one row per time step, the last row past the end, T_max 7" in printed
        assert "forget_bias = 0.7" in printed

    def test_json_is_one_document(self, work: Path, command: Command) -> None:
        summary = json.loads(command("inspect", "net.h5", "--json").stdout)
        assert [row["kind"] for row in summary["rows"]] == ["LSTM", "BatchNormalization", "Dense"]
        assert [row["parameters"] for row in summary["rows"]] == [180, 20, 12]
        assert summary["cells"][0]["gates"] == [["i", "f", "g", "o"]]
        assert summary["total"] == 212

    def test_names_cannot_drive_the_terminal(self, work: Path, command: Command) -> None:
        ir_file.save(replace(masked_stack(), name="\x1b[31mred"), work / "odd.safetensors")
        printed = command("inspect", "odd.safetensors").stdout
        assert "\x1b" not in printed
        assert "\\x1b[31mred" in printed


class TestPlan:
    def test_standard_output_is_a_recipe(self, work: Path, command: Command) -> None:
        done = command("plan", "net.h5")
        assert done.exit_code == 0
        assert "# Used: 9 of 9 stored arrays" in done.stdout
        msgspec.toml.decode(done.stdout)

    def test_the_recipe_reads_the_file_the_same_way(self, work: Path, command: Command) -> None:
        Path("recipe.toml").write_text(command("plan", "net.h5").stdout)
        plain = json.loads(command("inspect", "net.h5", "--json").stdout)
        again = command("inspect", "net.h5", "--recipe", "recipe.toml", "--json")
        assert again.exit_code == 0, again.stderr
        assert json.loads(again.stdout)["rows"] == plain["rows"]


class TestConvert:
    def test_a_folder_appears_in_the_current_one(self, work: Path, command: Command) -> None:
        done = command("keras-to-torch", "net.h5", "--no-validate")
        assert done.exit_code == 0, done.stderr
        assert others(work) == ["net-torch"]
        files = {path.name for path in (work / "net-torch").iterdir()}
        assert files == {"model.py", "model.safetensors", "README.md", "equivalence.json"}
        record = json.loads((work / "net-torch" / "equivalence.json").read_text())
        assert record["verdict"] == "not validated"
        assert record["source"]["sha256"] == hashlib.sha256((work / "net.h5").read_bytes()).hexdigest()

    def test_a_proven_folder_says_how_equal_it_is(self, work: Path, command: Command) -> None:
        pytest.importorskip("torch")
        done = command("convert", "hand.safetensors", "-o", "out", "--json")
        assert done.exit_code == 0, done.stderr
        printed = json.loads(done.stdout)
        report = json.loads((work / "out" / "equivalence.json").read_text())["report"]
        assert printed["report"] == report
        assert report["equivalent"]
        assert report["outputs"][0]["function_error"] <= report["outputs"][0]["function_bound"]
        assert {layer["name"] for layer in report["layers"]} >= {"lstm", "gru", "head"}
        assert "**Equivalent**" in (work / "out" / "README.md").read_text()
        assert "note: made up" in done.stderr

    def test_quiet_prints_the_place_alone(self, work: Path, command: Command) -> None:
        done = command("convert", "hand.safetensors", "--to", "ir", "-o", "x.safetensors", "-q")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "x.safetensors\n", "")

    def test_an_existing_result_needs_force(self, work: Path, command: Command) -> None:
        arguments = ("keras-to-ir", "net.h5", "--no-validate")
        assert command(*arguments).exit_code == 0
        again = command(*arguments)
        assert again.exit_code == 2
        assert "--force" in again.stderr
        assert command(*arguments, "--force").exit_code == 0

    @pytest.mark.parametrize(
        ("arguments", "exit_code", "said"),
        [
            (("missing.h5",), 2, "missing.h5"),
            (("net.h5", "-o", "no/such/place"), 2, "does not exist"),
            (("net.h5", "--to", "caffe"), 2, "torchscript"),
            (("net.h5", "--to", "ir", "-o", "x.pt2"), 2, "x.pt2"),
            (("net.h5", "--define", "nonsense"), 2, "CLASS=FILE"),
            (("net.h5", "--from", "fortran"), 2, "fortran"),
            (("text.h5",), 4, "text.h5"),
            (("short.h5",), 4, "short.h5"),
            (("net.h5", "-o", "thesis"), 2, "not made by normconvert"),
        ],
    )
    def test_bad_input_is_one_line_and_leaves_nothing(
        self, arguments: tuple[str, ...], exit_code: int, said: str, work: Path, command: Command
    ) -> None:
        (work / "text.h5").write_text("Dear reader,")
        (work / "short.h5").write_bytes((work / "net.h5").read_bytes()[:3000])
        (work / "thesis").write_text("precious")
        before = others(work)
        done = command("convert", *arguments, "--no-validate", "--force")
        assert done.exit_code == exit_code
        assert said in done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert others(work) == before
        assert (work / "thesis").read_text() == "precious"

    def test_a_missing_runtime_names_the_extra(
        self, work: Path, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        done = command("convert", "hand.safetensors")
        assert done.exit_code == 5
        assert 'pip install "normconvert[torch]"' in done.stderr
        assert others(work) == []


class TestFailedProof:
    @pytest.fixture(autouse=True)
    def _wrong_epsilon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A target whose batch normalisations have an epsilon that is off by 0.1 %."""
        right = torch_target.write_folder

        def wrong(model: Model, folder: Path) -> None:
            right(model, folder)
            text = (folder / "model.py").read_text()
            assert "0.001" in text
            (folder / "model.py").write_text(text.replace("0.001", "0.001001"))

        monkeypatch.setattr(torch_target, "write_folder", wrong)
        pytest.importorskip("torch")

    def test_nothing_is_left(self, work: Path, command: Command) -> None:
        done = command("convert", "hand.safetensors", "-q")
        assert done.exit_code == 1
        assert done.stderr.startswith("error: not equivalent: ")
        assert "it begins in lstm (BNLSTM) at time step 0" in done.stderr
        assert others(work) == []

    def test_it_is_kept_when_asked_for(self, work: Path, command: Command) -> None:
        done = command("convert", "hand.safetensors", "--keep-failed", "--json")
        assert done.exit_code == 1
        assert json.loads(done.stdout)["kept"] == "hand-torch.failed"
        assert others(work) == ["hand-torch.failed"]
        assert "**Not equivalent**" in (work / "hand-torch.failed" / "README.md").read_text()

    def test_an_earlier_one_survives(self, work: Path, command: Command) -> None:
        assert command("convert", "hand.safetensors", "--no-validate", "-o", "good").exit_code == 0
        before = {path.name: path.read_bytes() for path in (work / "good").iterdir()}
        assert command("convert", "hand.safetensors", "-o", "good", "--force").exit_code == 1
        assert {path.name: path.read_bytes() for path in (work / "good").iterdir()} == before


class TestValidate:
    def test_the_same_model_twice(self, work: Path, command: Command) -> None:
        done = command("validate", "hand.safetensors", "hand.safetensors")
        assert done.exit_code == 0, done.stderr
        assert done.stdout.startswith("equivalent")

    def test_a_model_and_its_folder_in_either_order(self, work: Path, command: Command) -> None:
        pytest.importorskip("torch")
        assert command("convert", "hand.safetensors", "-o", "out", "--no-validate").exit_code == 0
        assert command("validate", "hand.safetensors", "out").exit_code == 0
        assert command("validate", "out", "hand.safetensors").exit_code == 0

    def test_a_difference_ends_with_1_and_names_the_place(self, work: Path, command: Command) -> None:
        model = masked_stack()
        bias = np.array(model.weights["gru.b_h"])
        bias[5] += 1e-4
        changed = {**model.weights, "gru.b_h": bias}
        ir_file.save(replace(model, weights=changed), work / "changed.safetensors")
        done = command("validate", "hand.safetensors", "changed.safetensors", "--json")
        assert done.exit_code == 1
        assert json.loads(done.stdout)["worst_layer"]["name"] == "gru"
        assert done.stderr.count("error: ") == 1

    def test_two_artefacts_define_nothing(self, work: Path, command: Command) -> None:
        for name in ("a", "b"):
            assert command("convert", "hand.safetensors", "-o", name, "--no-validate").exit_code == 0
        done = command("validate", "a", "b")
        assert done.exit_code == 2
        assert "source file or the intermediate format" in done.stderr

    def test_another_number_of_outputs_is_a_difference(self, work: Path, command: Command) -> None:
        two = replace(masked_stack(), outputs=("head", "gru"))
        ir_file.save(two, work / "two.safetensors")
        done = command("validate", "hand.safetensors", "two.safetensors")
        assert done.exit_code == 1
        assert "gives 2 outputs, the reference gives 1" in done.stderr

    def test_a_folder_of_another_model_is_a_difference(self, work: Path, command: Command) -> None:
        pytest.importorskip("torch")
        ir_file.save(embedded(), work / "other.safetensors")
        assert command("convert", "other.safetensors", "-o", "out", "--no-validate").exit_code == 0
        done = command("validate", "hand.safetensors", "out")
        assert done.exit_code == 1
        assert done.stderr.startswith("error: the PyTorch module: does not run in float32")
        assert done.stderr.count("\n") == 1

    def test_a_folder_that_cannot_be_loaded_is_corrupt(self, work: Path, command: Command) -> None:
        pytest.importorskip("torch")
        (work / "out").mkdir()
        (work / "out" / "model.py").write_text("def load(")
        done = command("validate", "hand.safetensors", "out")
        assert done.exit_code == 4
        assert "its model.py cannot be loaded" in done.stderr


class TestCells:
    def test_list_and_show(self, command: Command) -> None:
        names = [entry["name"] for entry in json.loads(command("cells", "list", "--json").stdout)]
        assert "lstm" in names
        assert "cell lstm(x; h, c):" in command("cells", "show", "lstm").stdout

    def test_what_is_shown_is_a_cell_file(self, tmp_path: Path, command: Command) -> None:
        from normconvert.cells import read_family

        (tmp_path / "mine.toml").write_text(command("cells", "show", "gru").stdout)
        assert read_family(tmp_path / "mine.toml").equations

    def test_an_unknown_cell_names_the_known(self, command: Command) -> None:
        done = command("cells", "show", "nonsense")
        assert done.exit_code == 2
        assert "lstm" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("inspect", "-q", "net.h5"), ("inspect", "-q", "--json", "net.h5"), ("cells", "list")]
)
def test_a_closed_pipe_ends_quietly(arguments: tuple[str, ...], work: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "normconvert", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=30) == 141
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line(work: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "normconvert", "inspect", "net.h5"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_result_too_large_for_the_disk_leaves_nothing(work: Path) -> None:
    resource = pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-m", "normconvert", "keras-to-torch", "net.h5", "--no-validate"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: net-torch: cannot be written")
    assert done.stderr.count("\n") == 1
    assert others(work) == []


def test_being_stopped_leaves_nothing(work: Path) -> None:
    """A long proof, ended by SIGTERM while the artefact lies half-made beside its place."""
    slow = (
        "import sys, time, normconvert.ir.file as f; right = f.save\n"
        "def save(model, path): right(model, path); print('written', flush=True); time.sleep(60)\n"
        "f.save = save; sys.argv = ['normconvert', 'keras-to-ir', 'net.h5', '--no-validate']\n"
        "from normconvert.cli import main; main()"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], cwd=work, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    process.stdout.close()
    assert others(work) == []
