"""What README.md shows is what the commands print."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.framework

ROOT = Path(__file__).resolve().parent.parent


def examples() -> Iterator[tuple[str, str]]:
    """Each `$ command` of the README with what stands below it, up to the next command or the end of the block."""
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", (ROOT / "README.md").read_text(), re.MULTILINE)
    for block in blocks:
        text = re.sub(r"^    ", "", block, flags=re.MULTILINE).replace("\\\n", " ")
        yield from re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)


def stable(text: str) -> str:
    """Without layout and measured numbers, which differ from machine to machine."""
    return re.sub(r"\d+(\.\d+)*(e[-+]\d+)?", "0", " ".join(text.split()))


def test_the_commands_print_what_the_readme_shows(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tf_keras")
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    shown = [(line, output) for line, output in examples() if line.startswith("normconvert ")]
    assert len(shown) >= 4
    for line, output in shown:
        finished = command(*shlex.split(line)[1:])
        assert stable(finished.stdout + finished.stderr) == stable(output), line
