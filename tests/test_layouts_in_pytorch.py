"""State dicts in the layouts of public PyTorch code, loaded into independent modules of that code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_cells import INPUTS, UNITS, Cell, Holder, randomise
from pytorch_kaldi_cells import Kaldi
from safetensors.torch import load_file
from test_pytorch_families import CASES as FAMILIES
from test_pytorch_families import TIME, measured
from torch import Tensor, nn

from normconvert.cells import family, names
from normconvert.sources import Reading, ReadResult, read
from normconvert.targets import target
from normconvert.targets.layouts.keeping import kept_names


class PlainLSTM(Cell):
    """A cell without norms, of two Linear modules; `order` is that of the gates."""

    def __init__(self, x: str, h: str, order: str, *, bias_h: bool) -> None:
        super().__init__()
        self.order = order
        self.add_module(x, nn.Linear(INPUTS, 4 * UNITS))
        self.add_module(h, nn.Linear(UNITS, 4 * UNITS, bias=bias_h))

    def step(self, x: Tensor, states: list[Tensor], number: int) -> list[Tensor]:
        h, c = states
        of_x, of_h = self.children()
        gates = dict(zip(self.order, (of_x(x) + of_h(h)).chunk(4, 1), strict=True))
        c = gates["f"].sigmoid() * c + gates["i"].sigmoid() * gates["g"].tanh()
        return [gates["o"].sigmoid() * c.tanh(), c]


CASES = {
    **FAMILIES,
    "torchaudio_plain": (partial(PlainLSTM, "x2g", "p2g", "ifgo", bias_h=False), ()),
    "lstms_pth_plain": (partial(PlainLSTM, "i2h", "h2h", "ifog", bias_h=True), ()),
    **{
        f"{kind}, {layout}": (
            partial(Kaldi, kind, batch=layout.startswith("b"), layer=layout in ("both_norms", "layer_norm")),
            ("--family", f"kaldi_{of}/{layout}", "--set", "drop=0.2"),
        )
        for kind, of in {"rnn": "rnn", "lstm": "lstm", "gru": "gru", "ligru": "ligru", "minimal": "minimal_gru"}.items()
        for layout in ("batch_norm", "layer_norm", "both_norms", "plain")
    },
}
X = torch.randn(4, TIME, INPUTS, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
PARAMETRISED = {name for name in FAMILIES if name.startswith(("weight_norm", "spectral_norm"))}
"""Cases whose weights are computed from other tensors; the weights are what is written."""
UNREAD = re.compile(r".*(num_batches_tracked|drop_mask_te|h_init)")
WRITTEN: set[str] = set()
"""Layouts that were loaded."""


def module_of(name: str, seed: int) -> nn.Module:
    """The case's module as `encoder`, with random weights."""
    torch.manual_seed(seed)
    module = CASES[name][0]()
    if name not in PARAMETRISED:
        randomise(module, seed)
    if name == "jihunchoi":  # statistics that no run can have are taken for those of another order of the gates
        measured(module)
    return Holder(encoder=module).eval()


def read_as(name: str, path: Path) -> ReadResult:
    """What the options of the command line make of a file."""
    words = CASES[name][1]
    given = [*zip(words[::2], words[1::2], strict=True)]
    pairs = dict(value.split("=", 1) for option, value in given if option == "--set")
    settings = {key: value if value.isalpha() else json.loads(value) for key, value in pairs.items()}
    families = [value for option, value in given if option == "--family"]
    return read(path, Reading(scope="encoder", settings=settings, family=families[0] if families else None))


def written(result: ReadResult, path: Path, **options: Any) -> set[str]:
    """Write a state dict; gives its layouts."""
    target("state-dict").write(result.model, path, **options)
    cells = json.loads(path.with_name(f"{path.name}.layout.json").read_text())["cells"]
    return {cell["layout"] for cell in cells.values()}


def loaded(name: str, state: Mapping[str, Tensor], layouts: set[str]) -> nn.Module:
    """A module of the case with other weights, into which a state dict is loaded: nothing over, nothing missing."""
    if name in PARAMETRISED:
        module: nn.Module = Holder(encoder=FAMILIES["lstm"][0]())
        module.load_state_dict(dict(state), strict=True)
        return module
    module = module_of(name, 1000 + len(name))
    missing, unexpected = module.load_state_dict(dict(state), strict=False)
    assert unexpected == []
    dead = {unused for title in layouts for unused in family(title.split("/")[0]).layout(title.split("/")[1]).unused}
    plain = {key: re.sub(r"\.\d+(?=\.)", "", key) for key in missing if not UNREAD.fullmatch(key)}
    assert [key for key, short in plain.items() if not any(short.endswith(f".{each}") for each in dead)] == []
    return module


def compare(found: nn.Module, expected: nn.Module, tolerance: float) -> None:
    with torch.no_grad():
        torch.testing.assert_close(found.double()(X), expected.double()(X), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_the_original_class_loads_what_is_written(name: str, tmp_path: Path) -> None:
    """Under the names of the source; and under those that the layout gives for the scopes of the layers."""
    module = module_of(name, len(name))
    tolerance = 1e-6 if name in PARAMETRISED else 1e-12
    torch.save(module.state_dict(), tmp_path / "model.pt")
    result = read_as(name, tmp_path / "model.pt")
    if name not in PARAMETRISED:
        path = tmp_path / "same.pth"
        layouts = written(result, path, names=kept_names(result.plan.tensors))
        state = torch.load(path, weights_only=True)
        original = module.state_dict()
        assert all(torch.equal(tensor, original[key]) for key, tensor in state.items())
        compare(loaded(name, state, layouts), module, tolerance)
        module.float()
    scopes = ",".join(f"{layer}={scope}" for layer, scope in scopes_of(result).items())
    layout = next(iter(layouts)) if name not in PARAMETRISED else "lstm/torch"
    layouts = written(result, tmp_path / "named.safetensors", layout=layout, scope=scopes)
    compare(loaded(name, load_file(tmp_path / "named.safetensors"), layouts), module, tolerance)
    WRITTEN.update(layouts)


def scopes_of(result: ReadResult) -> dict[str, str]:
    """Where each layer's tensors are, as a user would say it: what their names have in common, `.l0` in a stack."""
    places: dict[str, list[str]] = {}
    for text, kept in kept_names(result.plan.tensors).items():
        layer = re.split(r"\.", text, maxsplit=1)[0]
        places.setdefault(layer, []).extend(f"{each.name.rpartition('.')[0]}." for each in kept)
    scopes = {}
    for layer, found in places.items():
        common = ".".join(shared(each.split(".")[:-1] for each in found))
        common = re.sub(r"\.(directions|rnn\.\d+)$", "", common) if layer.startswith("encoder_") else common
        number = re.fullmatch(r"(?:encoder_rnn_|l)(\d+)", layer)
        scopes[layer] = f"{common}.l{number[1]}" if number else common
    return scopes


def shared(names: Iterable[list[str]]) -> list[str]:
    """The first parts that all names have."""
    return [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*names, strict=False))]


def test_every_layout_of_pytorch_is_loaded() -> None:
    layouts = {f"{each}/{name}": layout for each in names() for name, layout in family(each).layouts.items()}
    if not WRITTEN:
        pytest.skip("no layout was written in this run")
    assert {title for title, layout in layouts.items() if layout.framework == "torch"} == WRITTEN
