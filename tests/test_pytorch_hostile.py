"""Damaged and hostile PyTorch files: payloads do not run, bombs do not unpack, errors are ours."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from test_pytorch_files import SUFFIXES, WRITERS, Model

from normconvert import api
from normconvert.cli import cli
from normconvert.errors import CorruptFile, NormconvertError, Unsupported
from normconvert.sources.pytorch.checkpoint import open_torch


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(3)
    return Model().eval()


class Payload:
    """Creates a file where it is unpickled."""

    def __init__(self, target: Path, how: str) -> None:
        self.target, self.how = target, how

    def __reduce__(self) -> Any:
        match self.how:
            case "system":
                return os.system, (f"touch {self.target}",)
            case "exec":
                return exec, (f"open({str(self.target)!r}, 'w')",)
            case "popen":
                return subprocess.Popen, (["touch", str(self.target)],)
            case "getattr":
                return getattr, (self.target, "touch")
        return open, (str(self.target), "w")


@pytest.mark.parametrize("how", ["system", "exec", "popen", "getattr", "open"])
@pytest.mark.parametrize("container", ["zip", "legacy", "pickle", "protocol0", "nested"])
def test_a_payload_does_not_run(how: str, container: str, tmp_path: Path) -> None:
    target, path = tmp_path / "created", tmp_path / "evil.pt"
    payload = Payload(target, how)
    value = {"rnn.weight_ih_l0": torch.ones(4, 2), "payload": payload}
    match container:
        case "pickle" | "protocol0":
            path.write_bytes(pickle.dumps(payload, protocol=0 if container == "protocol0" else 4))
        case "nested":
            torch.save({"state_dict": {"a.weight": torch.ones(2)}, "hparams": [{"x": payload}]}, path)
        case _:
            torch.save(value, path, _use_new_zipfile_serialization=container == "zip")
    for command in (("inspect",), ("plan",), ("torch-to-torch", "-o", str(tmp_path / "out"), "--scope", "rnn")):
        result = CliRunner().invoke(cli, [command[0], str(path), *command[1:]])
        assert isinstance(result.exception, NormconvertError), result.output
        assert result.exception.exit_code in (3, 4)
    assert not target.exists()
    assert not (tmp_path / "out").exists()


def test_a_whole_pickled_model_is_refused_with_the_way_out(model: Model, tmp_path: Path) -> None:
    ways = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}
    for value, way in product((model, {"model": model}, {"a": {"b": model}}), ways):
        torch.save(value, tmp_path / "whole.pt", **ways[way])
        with pytest.raises(Unsupported, match="whole pickled model") as caught:
            api.inspect(tmp_path / "whole.pt")
        assert "state_dict()" in caught.value.remedy


@pytest.mark.parametrize("value", [torch.ones(3), [torch.ones(3)], {"epoch": 3}, {"model": torch.ones(3), "a": {}}])
def test_tensors_without_names_make_no_model(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "nameless.pt")
    with pytest.raises(Unsupported):
        api.convert(tmp_path / "nameless.pt", "ir", tmp_path / "out.safetensors")


def test_damage_is_found(model: Model, tmp_path: Path) -> None:
    for kind in ("zip", "legacy", "safetensors"):
        path = tmp_path / f"damaged{SUFFIXES[kind]}"
        WRITERS[kind](model, path)
        whole = path.read_bytes()
        for cut in (8, len(whole) // 3, len(whole) - 40):
            path.write_bytes(whole[:cut])
            with pytest.raises(NormconvertError) as caught:
                api.plan(path, scope="rnn", from_format="torch")
            assert caught.value.exit_code in (3, 4), (kind, cut, caught.value)


def test_a_changed_byte_of_the_values_is_found(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(model.state_dict(), path)
    data = bytearray(path.read_bytes())
    place = data.index(model.state_dict()["head.weight"].numpy().tobytes())
    data[place + 1] ^= 4
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="checksum"):
        open_torch(path).load("head/weight")


def test_a_storage_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    torch.save({"a.weight": torch.ones(7, 11)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, bytes(1 << 28) if name.endswith("data/0") else data)
    with pytest.raises(CorruptFile, match="unpacks to"):
        api.inspect(path)


@pytest.mark.parametrize("name", ["inner.pt", "model/data.pkl"])
def test_an_archive_in_an_archive(name: str, model: Model, tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    with zipfile.ZipFile(tmp_path / "nested.pt", "w") as archive:
        archive.writestr(name, stream.getvalue())
    with pytest.raises(NormconvertError) as caught:
        api.inspect(tmp_path / "nested.pt")
    assert caught.value.exit_code in (3, 4)


def test_changed_bytes_end_in_an_error_of_ours_or_in_arrays(model: Model, tmp_path: Path) -> None:
    """Bytes of every container, most of all of its description, changed at random."""
    draw = random.Random(5)
    for kind in ("zip", "legacy", "safetensors", "arrays"):
        path = tmp_path / f"whole{SUFFIXES[kind]}"
        WRITERS[kind](model, path)
        whole = path.read_bytes()
        described = whole.index(b"data.pkl") if kind == "zip" else 0
        damaged = tmp_path / f"damaged{SUFFIXES[kind]}"
        for number in range(60):
            data = bytearray(whole)
            for _ in range(1 + number % 3):
                data[described + draw.randrange(min(3000, len(data) - described))] = draw.randrange(256)
            if kind == "zip":
                data = bytearray(with_checksums(bytes(data), whole))
            damaged.write_bytes(data)
            assert outcome(damaged) in (0, 3, 4), (kind, number)


def outcome(path: Path) -> int:
    """The exit code of reading every tensor of a file."""
    try:
        file = open_torch(path)
        for name in file.entries:
            file.load(name)
    except NormconvertError as error:
        return error.exit_code
    return 0


def with_checksums(damaged: bytes, whole: bytes) -> bytes:
    """The archive with the damaged bytes as the contents of its members, their checksums made to fit."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(stream, "w") as archive:
        for info in source.infolist():
            begin = info.header_offset + 30 + int.from_bytes(whole[info.header_offset + 26 :][:2], "little")
            begin += int.from_bytes(whole[info.header_offset + 28 :][:2], "little")
            archive.writestr(info.filename, damaged[begin : begin + info.file_size])
    return stream.getvalue()


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> None:
    """The archive with another pickle."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


def test_tensors_that_reach_beyond_their_storage(tmp_path: Path) -> None:
    path = tmp_path / "far.pt"
    torch.save({"a.weight": torch.ones(7, 11)}, path)
    rewritten(path, lambda data: data.replace(b"K\x07K\x0b\x86", b"K\x07K\xff\x86"))
    with pytest.raises(CorruptFile, match="beyond its storage"):
        open_torch(path).load("a/weight")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02" + b"}" * 100 + b"torch.",
        b"\x80\x02(((((torch.",
        b"\x80\x02]q\x00" + b"h\x00h\x00a" * 50 + b"ctorch\nx\n.",
        b"\x80\x04\x8c\x05torch\x94h\x63.",
        b"\x80\x02ctorch\nFloatStorage\n" + b"0" * 50,
    ],
)
def test_nonsense_ends_in_an_error_of_ours(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "nonsense.pt"
    path.write_bytes(data)
    with pytest.raises(NormconvertError) as caught:
        api.inspect(path)
    assert caught.value.exit_code in (3, 4)


def test_lists_that_hold_each_other_end(tmp_path: Path) -> None:
    stream = io.BytesIO()
    inner: Any = torch.ones(1)
    for _ in range(60):
        inner = [inner, inner]
    torch.save({"state_dict": {"a": inner}}, stream)
    (tmp_path / "laughs.pt").write_bytes(stream.getvalue())
    with pytest.raises(CorruptFile, match="more entries"):
        api.inspect(tmp_path / "laughs.pt")
