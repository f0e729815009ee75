"""Where artefacts go: whole or not at all, and never over something else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from normconvert.errors import UsageError
from normconvert.output_paths import Destination, companion, destination, is_ours, staged, stem
from normconvert.targets import TARGETS

OURS = json.dumps({"producer": "normconvert"})


def place(path: Path, target: str = "ir", *, overwrite: bool = False) -> Destination:
    return Destination(TARGETS[target], path, overwrite)


def write_file(path: Path, text: str = "new") -> None:
    path.write_text(text)
    companion(path).write_text(OURS)


def write_folder(path: Path, text: str = "new") -> None:
    path.mkdir()
    (path / "model.py").write_text(text)
    companion(path).write_text(OURS)


def fail_after(
    write: Callable[[Path], None],
    destined: Destination,
    error: type[BaseException] | None = ZeroDivisionError,
    *,
    keep_failed: bool = False,
) -> None:
    """Write an artefact, and raise an error before it is done."""
    with staged(destined, keep_failed=keep_failed) as unfinished:
        write(unfinished)
        if error is not None:
            raise error


@pytest.mark.parametrize(
    ("to", "output", "target", "path"),
    [
        ("torch", None, "torch", "net-torch"),
        ("torch", "deep/out", "torch", "deep/out"),
        ("torch", "x.ts.pt", "torchscript", "x.ts.pt"),
        ("torch", "x.pt2", "export", "x.pt2"),
        ("torch", "x.safetensors", "ir", "x.safetensors"),
        ("torchscript", None, "torchscript", "net.ts.pt"),
        ("export", None, "export", "net.pt2"),
        ("ir", None, "ir", "net.safetensors"),
        ("ir", "y.safetensors", "ir", "y.safetensors"),
    ],
)
def test_the_suffix_chooses_the_form(to: str, output: str | None, target: str, path: str) -> None:
    chosen = destination(Path("models/net.h5"), to, None if output is None else Path(output))
    assert chosen.target.name == target
    assert chosen.path == Path(path)


@pytest.mark.parametrize(
    ("to", "output"),
    [("ir", "x.pt2"), ("export", "x.ts.pt"), ("ir", "x"), ("torch", "x.onnx"), ("torch", "x.pt"), ("caffe", None)],
)
def test_a_contradiction_is_refused(to: str, output: str | None) -> None:
    with pytest.raises(UsageError):
        destination(Path("net.h5"), to, None if output is None else Path(output))


@pytest.mark.parametrize(
    ("name", "expected"), [("a.h5", "a"), ("a.b.keras", "a.b"), ("m.weights.h5", "m"), ("noend", "noend")]
)
def test_the_stem_has_no_format(name: str, expected: str) -> None:
    assert stem(Path("some") / name) == expected


@pytest.mark.parametrize(("write", "target"), [(write_file, "ir"), (write_folder, "torch")])
class TestStaged:
    def test_it_appears_whole(self, tmp_path: Path, write: Callable[..., None], target: str) -> None:
        final = tmp_path / "out"
        with staged(place(final, target)) as unfinished:
            write(unfinished)
            assert not final.exists()
        assert is_ours(final)
        assert all(not entry.name.startswith(".") for entry in tmp_path.iterdir())

    def test_an_error_leaves_nothing(self, tmp_path: Path, write: Callable[..., None], target: str) -> None:
        with pytest.raises(KeyboardInterrupt):
            fail_after(write, place(tmp_path / "out", target), KeyboardInterrupt)
        assert list(tmp_path.iterdir()) == []

    def test_what_failed_is_kept_when_asked_for(self, tmp_path: Path, write: Callable[..., None], target: str) -> None:
        for text in ("first", "second"):
            with pytest.raises(ZeroDivisionError):
                fail_after(partial(write, text=text), place(tmp_path / "out", target), keep_failed=True)
        kept = tmp_path / "out.failed"
        assert is_ours(kept)
        assert not (tmp_path / "out").exists()
        assert (kept / "model.py" if kept.is_dir() else kept).read_text() == "second"

    def test_ours_is_replaced_only_when_asked_for(
        self, tmp_path: Path, write: Callable[..., None], target: str
    ) -> None:
        final = tmp_path / "out"
        write(final, "old")
        with pytest.raises(UsageError, match="--force"), staged(place(final, target)):
            pass
        with staged(place(final, target, overwrite=True)) as unfinished:
            write(unfinished, "new")
        assert (final / "model.py" if final.is_dir() else final).read_text() == "new"

    def test_a_failure_keeps_the_good_one(self, tmp_path: Path, write: Callable[..., None], target: str) -> None:
        final = tmp_path / "out"
        write(final, "old")
        before = sorted(path.name for path in tmp_path.iterdir())
        with pytest.raises(ZeroDivisionError):
            fail_after(write, place(final, target, overwrite=True))
        assert (final / "model.py" if final.is_dir() else final).read_text() == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["file", "folder", "link", "companion"])
def test_something_else_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    final = tmp_path / "out"
    if kind == "file":
        final.write_text("precious")
    elif kind == "folder":
        final.mkdir()
        (final / "thesis.txt").write_text("precious")
    elif kind == "link":
        write_file(tmp_path / "elsewhere")
        final.symlink_to(tmp_path / "elsewhere")
        companion(final).write_text(OURS)
    else:
        companion(final).write_text("{}")
    with pytest.raises(UsageError, match="not made by normconvert"), staged(place(final, overwrite=True)):
        pass


def test_what_appears_in_the_meantime_is_not_overwritten(tmp_path: Path) -> None:
    final = tmp_path / "out"

    def write(path: Path) -> None:
        write_file(path)
        final.write_text("precious")

    with pytest.raises(UsageError, match="not made by normconvert"):
        fail_after(write, place(final), None)
    assert final.read_text() == "precious"


def test_what_the_user_put_into_our_folder_is_kept(tmp_path: Path) -> None:
    write_folder(tmp_path / "out")
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="not all of it"), staged(place(tmp_path / "out", "torch", overwrite=True)):
        pass


@pytest.mark.parametrize("name", [".", ".."])
def test_a_place_needs_a_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="name"), staged(place(Path(name), "torch", overwrite=True), keep_failed=True):
        pass


def test_the_source_is_never_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "out")
    inside = tmp_path / "out" / "model.safetensors"
    inside.touch()
    with pytest.raises(UsageError, match="the source is there"):
        destination(inside, "torch", tmp_path / "out", overwrite=True)
    with pytest.raises(UsageError, match="the source is there"):
        destination(inside, "ir", inside, overwrite=True)


def test_a_folder_may_have_a_dot(tmp_path: Path) -> None:
    assert destination(Path("net.h5"), "torch", Path("model-v1.2")).target.name == "torch"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"), staged(place(tmp_path / "no" / "out")):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="not writable"), staged(place(tmp_path / "out")):
        pass
