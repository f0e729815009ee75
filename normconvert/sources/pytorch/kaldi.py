"""pytorch-kaldi's cfg: what its recurrent classes do with the tensors of their files.

Every norm of a class is stored, whether it is used or not; a file does not say which function follows, nor the dropout
whose `1 - p` multiplies the candidate at test time. All of it stands in a section `[architectureN]` of the cfg that the
experiment was run with (mravanelli/pytorch-kaldi neural_networks.py at 9773257d).
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normconvert.errors import Unsupported, UsageError
from normconvert.sources.pytorch.checkpoint import TorchFile
from normconvert.sources.tf1.reader import Described
from normconvert.sources.toml import Because, Dotted

_LARGEST = 4_000_000


@dataclass(frozen=True)
class _Class:
    """A recurrent class.

    Attributes:
        option: what its options begin with, such as `lstm` of `lstm_lay`.
        family: the cell.
        gates: what reads the input, in the names of its Linear modules.
    """

    option: str
    family: str
    gates: tuple[str, ...]


_CLASSES = {
    "LSTM": _Class("lstm", "kaldi_lstm", ("wfx", "wix", "wox", "wcx")),
    "GRU": _Class("gru", "kaldi_gru", ("wh", "wr", "wz")),
    "liGRU": _Class("ligru", "kaldi_ligru", ("wh", "wz")),
    "minimalGRU": _Class("minimalgru", "kaldi_minimal_gru", ("wh", "wz")),
    "RNN": _Class("rnn", "kaldi_rnn", ("wh",)),
}
_GATES = frozenset(gate for each in _CLASSES.values() for gate in each.gates)
_FUNCTIONS: dict[str, Any] = {
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "leaky_relu": ["leaky_relu", 0.2],
    "elu": "elu",
    "linear": "linear",
}
_LAYOUTS = {
    (False, False): "plain",
    (True, False): "batch_norm",
    (False, True): "layer_norm",
    (True, True): "both_norms",
}
"""By whether batch normalisation and layer normalisation are on."""

_TRUTHS = dict.fromkeys(("y", "yes", "t", "true", "on", "1"), True) | dict.fromkeys(
    ("n", "no", "f", "false", "off", "0"), False
)
"""As `distutils.util.strtobool` reads them."""

_INPUT_NORM = """
layer input_norm(x) -> y:
    y = ln(x)
"""


def described_by_cfg(file: TorchFile, path: Path) -> Described:
    """The layers of a file, as the cfg of its experiment has them.

    Args:
        file: the tensors of one architecture, as pytorch-kaldi saves them.
        path: the cfg.

    Raises:
        UsageError: it cannot be read, is no cfg of pytorch-kaldi, or none of its architectures fits the tensors.
        Unsupported: the architecture is not recurrent, or a function is not known.
    """
    stacks = {name: section for name, section in _architectures(path).items() if _fits(section, file)}
    if len(stacks) > 1:  # pytorch-kaldi names its files so: final_architecture1.pkl
        stacks = {name: section for name, section in stacks.items() if name in file.place} or stacks
    if len({tuple(sorted(section.items())) for section in stacks.values()}) != 1:
        raise UsageError(
            f"{len(stacks) or 'none'} of its recurrent architectures ({', '.join(_CLASSES)}) have the sizes of these "
            "tensors",
            where=str(path),
            remedy="Give the cfg that the experiment was run with, and the file of a recurrent architecture under the "
            "name that pytorch-kaldi gives it, such as final_architecture1.pkl",
        )
    name, section = next(iter(stacks.items()))
    layers = list(_layers(name, section, file, str(path)))
    first = _matrix(file, _CLASSES[section["arch_class"]].gates[0], 0)
    document = {
        "model": {"name": section.get("arch_name") or "model"},
        "inputs": [{"name": "x", "shape": ["?", first[1] if first else "?"]}],
        "layers": layers,
    }
    return Described(document, outside=f"not used by [{name}] of {path.name}")


def _architectures(path: Path) -> dict[str, dict[str, str]]:
    """The sections of architectures by their names."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError("is too large for a cfg", where=str(path))
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (configparser.Error, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"is no cfg of pytorch-kaldi ({text})", where=str(path)) from None
    found = {name: dict(parser[name]) for name in parser.sections() if name.startswith("architecture")}
    if not found:
        raise UsageError("is no cfg of pytorch-kaldi: it has no [architecture1]", where=str(path))
    return found


def _fits(section: Mapping[str, str], file: TorchFile) -> bool:
    """Whether an architecture has the layers and sizes of the tensors."""
    chosen = _CLASSES.get(section.get("arch_class", ""))
    if chosen is None:
        return False
    sizes = [size.strip() for size in section.get(f"{chosen.option}_lay", "").split(",")]
    shapes = [[_matrix(file, gate, number) for number in range(len(sizes) + 1)] for gate in chosen.gates]
    others = any(_matrix(file, gate, 0) for gate in _GATES.difference(chosen.gates))
    return not others and all([str(s[0]) if s else "" for s in gate] == [*sizes, ""] for gate in shapes)


def _matrix(file: TorchFile, gate: str, number: int) -> tuple[int, ...]:
    """The shape of what reads the input in a layer, `[units, inputs]`; empty where there is none."""
    variable = file.variables.get(f"{_places(file, number)[0]}/{gate}/weight")
    return variable.shape if variable is not None and len(variable.shape) == 2 else ()


def _places(file: TorchFile, number: int) -> tuple[str, str]:
    """Where the tensors of a layer's directions are: at the same place, unless the shapes showed that there are two."""
    sides = (f"l{number}/forward", f"l{number}/backward")
    return sides if any(name.startswith(f"{sides[0]}/") for name in file.variables) else (f"l{number}",) * 2


def _layers(name: str, section: Mapping[str, str], file: TorchFile, place: str) -> Iterator[dict[str, Any]]:
    chosen = _CLASSES[section["arch_class"]]
    given = _Options(section, chosen.option, f"{place}: [{name}]", len(section[f"{chosen.option}_lay"].split(",")))
    inputs = _matrix(file, chosen.gates[0], 0)[1]
    if given.truth("use_laynorm_inp"):
        norm = {"kind": "layer", "features": inputs, "epsilon": 1e-6, "epsilon_placement": "outside", "unbiased": True}
        tensors = {"ln.gamma": "ln0/gamma", "ln.beta": "ln0/beta"}
        yield {"name": "ln0", "equations": _INPUT_NORM, "tensors": tensors, "norms": {"ln": norm}}
    if given.truth("use_batchnorm_inp"):
        yield {"name": "bn0", "class": "BatchNorm1d", "scope": "bn0", "axis": -1, "momentum": 0.05}
    both = given.truth("bidir")
    for number in range(given.layers):
        norms = (given.truth("use_batchnorm", number), given.truth("use_laynorm", number))
        ahead, back = _places(file, number)
        if (f"{ahead}/{chosen.gates[0]}/bias" in file.variables) == any(norms) or (ahead != back and not both):
            raise UsageError(
                f"says of layer {number} what its tensors cannot be: norms {_LAYOUTS[norms]}, bidirectional {both}",
                where=given.place,
                remedy="Give the cfg that the experiment was run with",
            )
        scopes = {"forward": ahead, "backward": back, "merge": "concat"} if both else {"scope": ahead}
        yield {
            "name": f"{chosen.option}_{number}",
            "cell": chosen.family,
            "layout": Because(_LAYOUTS[norms], given.reason("use_batchnorm", "use_laynorm")),
            **scopes,
            "constants": Dotted({"drop": Because(given.number("drop", number), given.reason("drop"))}),
            "functions": Dotted({"activation": Because(given.function("act", number), given.reason("act"))}),
        }


@dataclass(frozen=True)
class _Options:
    """The options of a class: one value, or one for each layer."""

    section: Mapping[str, str]
    prefix: str
    place: str
    layers: int

    def reason(self, *options: str) -> str:
        """Where a value is from."""
        return " and ".join(f"{self.prefix}_{option}" for option in options) + " of the cfg"

    def text(self, option: str, layer: int | None = None) -> str:
        """An option's value, or that for one layer."""
        key = f"{self.prefix}_{option}"
        values = [value.strip() for value in self.section.get(key, "").split(",")]
        if len(values) != (1 if layer is None else self.layers) or not all(values):
            count = "one value" if layer is None else f"{self.layers} values"
            raise UsageError(f"{key} does not have {count}", where=self.place)
        return values[layer or 0]

    def truth(self, option: str, layer: int | None = None) -> bool:
        """A truth value."""
        text = self.text(option, layer)
        if text.lower() not in _TRUTHS:
            raise UsageError(f"{self.prefix}_{option} is {text}, neither True nor False", where=self.place)
        return _TRUTHS[text.lower()]

    def number(self, option: str, layer: int) -> float:
        """A probability."""
        text = self.text(option, layer)
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1:
            raise UsageError(f"{self.prefix}_{option} is {text}, no probability below 1", where=self.place)
        return value

    def function(self, option: str, layer: int) -> Any:
        """An activation of pytorch-kaldi as a setting of a cell."""
        text = self.text(option, layer)
        if text not in _FUNCTIONS:
            raise Unsupported(
                f"{self.prefix}_{option} is {text}",
                where=self.place,
                remedy=f"There are {', '.join(_FUNCTIONS)}; for another, write a recipe",
            )
        return _FUNCTIONS[text]
