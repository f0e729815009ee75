"""The tensors of a state dict in the classes of `torch.nn` that they are named for: `nn.LSTM`, `nn.GRU`, `nn.RNN`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from normconvert.errors import NotEquivalent
from normconvert.ir.layers import AnyLayer, Bidirectional, Recurrent
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.runtimes.runner import Precision
from normconvert.runtimes.torch_program import TorchProgram
from normconvert.runtimes.torch_settings import import_torch
from normconvert.targets.layouts import record
from normconvert.targets.layouts.model import parts_of
from normconvert.targets.torch.class_names import NN_CLASSES
from normconvert.targets.torch.loading import loaded
from normconvert.targets.torch.state_dict import tensor_of

_NAME = re.compile(r"(?:(?P<owner>.+)\.)?(?P<own>(?:weight|bias)_(?:ih|hh|hr)_l(?P<layer>\d+)(?P<reverse>_reverse)?)")
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class NNModule:
    """A module of `torch.nn` with tensors of a state dict.

    Attributes:
        title: its class, and where its tensors are.
        reference: the layers of the model that it stands for, over `[batch, time, features]`.
        program: runs it.
    """

    title: str
    reference: Model
    program: TorchProgram


def nn_modules(model: Model, path: Path) -> Iterator[NNModule]:
    """The modules of `torch.nn` among the cells of a state dict, each filled by `load_state_dict(strict=True)`.

    Args:
        model: what the state dict was written from.
        path: of the state dict.

    Raises:
        NotEquivalent: a module does not take its tensors.
    """
    cells = record.read(record.beside(path)).cells
    owners: dict[str, dict[tuple[int, str], str]] = {}
    for part, cell in cells.items():
        found = _NAME.fullmatch(cell.tensors.get("weight_ih", [""])[0])
        if found is not None and cell.layout in {f"{family}/torch" for family in NN_CLASSES}:
            side = "backward" if found["reverse"] else "forward"
            owners.setdefault(found["owner"] or "", {})[int(found["layer"]), side] = part
    if not owners:
        return
    tensors = loaded(path)
    for owner, parts in owners.items():
        first = cells[next(iter(parts.values()))]
        kind = NN_CLASSES[first.layout.partition("/")[0]]
        own = {
            found["own"]: array
            for name, array in tensors.items()
            if (found := _NAME.fullmatch(name)) and (found["owner"] or "") == owner
        }
        module = _filled(kind, own, first.settings)
        title = f"torch.nn.{kind} with the tensors of {owner}" if owner else f"torch.nn.{kind}"
        reference = _reference(model, parts)
        yield NNModule(title, reference, TorchProgram(path, reference.inputs, title, _loader(module)))


def _filled(kind: str, tensors: Mapping[str, Array], settings: Mapping[str, Any]) -> Any:
    """The module of the sizes that the tensors have, with these tensors."""
    torch = import_torch()
    weight = tensors["weight_ih_l0"] if "weight_ih_l0" in tensors else next(iter(tensors.values()))
    options: dict[str, Any] = {"nonlinearity": settings["functions.activation"]} if kind == "RNN" else {}
    if "weight_hr_l0" in tensors:
        options["proj_size"] = len(tensors["weight_hr_l0"])
    module = getattr(torch.nn, kind)(
        weight.shape[1],
        len(weight) // _GATES[kind],
        num_layers=1 + max(int(m["layer"]) for name in tensors if (m := _NAME.fullmatch(name))),
        bias="bias_ih_l0" in tensors,
        bidirectional=any(name.endswith("_reverse") for name in tensors),
        batch_first=True,
        **options,
    )
    try:
        module.load_state_dict({name: tensor_of(torch, array) for name, array in tensors.items()}, strict=True)
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise NotEquivalent(f"torch.nn.{kind} does not take its tensors: {why}") from None
    module.register_forward_hook(lambda _, __, outputs: outputs[0])  # without the final states
    return module.eval()


def _loader(module: Any) -> Callable[[Path, Precision], Any]:
    """Gives the module in a precision."""
    return lambda _, precision: module.double() if precision == "float64" else module.float()


def _reference(model: Model, parts: Mapping[tuple[int, str], str]) -> Model:
    """The model's own layers one after the other, each in both directions where the module is."""
    known = {
        part: (recurrent, arrays)
        for name, layer in model.layers.items()
        for part, _, recurrent, arrays in parts_of(name, layer, model.layer_weights(name))
    }
    layers: dict[str, AnyLayer] = {}
    weights: dict[str, Array] = {}
    for number in sorted({number for number, _ in parts}):
        directions = {side: known[parts[number, side]] for side in ("forward", "backward") if (number, side) in parts}
        runs = {
            side: Recurrent(cell=recurrent.cell, return_sequences=True, reverse=side == "backward")
            for side, (recurrent, _) in directions.items()
        }
        both = len(runs) == 2
        layers[f"l{number}"] = (
            Bidirectional(forward=runs["forward"], backward=runs["backward"]) if both else next(iter(runs.values()))
        )
        for side, (_, arrays) in directions.items():
            top = f"l{number}.{side}" if both else f"l{number}"
            weights |= {f"{top}.{name}": array for name, array in arrays.items()}
    cell = known[next(iter(parts.values()))][0].cell
    features = cell.input_shapes[cell.parsed().inputs[0]]
    names = ["x", *layers]
    nodes = tuple(Node(name, name, (before,)) for before, name in zip(names, layers, strict=False))
    whole = Model("", (Input("x", (None, *features)),), (names[-1],), layers, nodes, weights)
    return replace(whole, provenance=model.provenance)
