"""A recipe to complete, from the names and shapes of a state dict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from normconvert.sources.pytorch.chain import Arrangement, Suggested, arranged, in_order, inputs, with_gaps
from normconvert.sources.pytorch.checkpoint import TorchFile
from normconvert.sources.pytorch.classes import MODULES
from normconvert.sources.pytorch.plain import PlainModule, plain_modules
from normconvert.sources.pytorch.spoken import in_dots, tensor_uses
from normconvert.sources.reading import Assumption, Plan, TensorUse
from normconvert.sources.tf1.checkpoint import Variable
from normconvert.sources.tf1.detection import find_cells
from normconvert.sources.tf1.extraction import recipe_layers
from normconvert.sources.tf1.found import FoundCell
from normconvert.sources.tf1.groups import Group, stacks
from normconvert.sources.tf1.layer_names import with_short_names
from normconvert.sources.tf1.naming import joined
from normconvert.sources.tf1.roles import role
from normconvert.sources.toml import Assumed, Because, said_once, write_toml

_RECURRENT = {"lstm": "LSTM", "projected_lstm": "LSTM", "gru_reset_after": "GRU", "simple_rnn": "RNN"}
_TORCH_LAYOUT = "torch"


def suggested(checkpoint: TorchFile) -> Plan:
    """The recipe that the tensors suggest: cells as recognised, plain modules by names and shapes, in stored order."""
    variables = checkpoint.variables
    cells = find_cells(variables, framework="torch")
    groups = list({group.scope: group for layers in stacks(cells).values() for group in layers}.values())
    of_cells = {name for cell in cells for names in cell.tensors.values() for name in names}
    of_cells |= {joined(cell.scope, name) for cell in cells for name in cell.unused}
    rest = {name: v for name, v in variables.items() if name not in of_cells and not role(name, variables)}
    order = {name: number for number, name in enumerate(variables)}
    plain = list(plain_modules(rest, checkpoint.types))
    modules = in_order([*_recurrent(groups, order), *_plain(plain, checkpoint.types, order)])
    named = sorted([*modules, *_without_tensors(checkpoint, order)], key=lambda module: module.position)
    chain = named if checkpoint.types else with_gaps(modules)
    document = {
        "model": {"name": checkpoint.place.split(".")[0]},
        "inputs": [inputs(modules)],
        "layers": said_once(with_short_names(list(arranged(chain)), taken=("x",))),
    }
    used = of_cells | {v.name for module in plain if module.kind in MODULES for v in module.members.values()}
    uses = tuple(
        TensorUse(name, v.shape, v.dtype, "the suggested recipe" if name in used else "", _why_not(name, variables))
        for name, v in variables.items()
    )
    assumption = Assumption(
        "The modules are inferred from names and shapes, and their order is that in the file",
        "put them in order, and add those without tensors, such as ReLU; lines marked '# assumed' are to be checked",
    )
    plan = Plan(uses, (assumption,), "")
    return Plan(tensor_uses(plan, checkpoint), (assumption,), write_toml(in_dots(document, checkpoint)))


def _why_not(name: str, variables: Mapping[str, Variable]) -> str:
    return role(name, variables) or "of no module or cell that is known"


def _recurrent(groups: list[Group], order: Mapping[str, int]) -> Iterator[Suggested]:
    """A layer for each module of torch.nn, whatever its layers and directions, and for each layer of other cells."""
    seen = set()
    for group in groups:
        first = group.forward[0]
        position, width = _first_of(first, order), (group.inputs or (None,))[-1] or 0
        module = _RECURRENT.get(first.family, "") if first.layout == _TORCH_LAYOUT else ""
        if not module:
            for layer in recipe_layers(group, {cell.scope: _defaults(cell) for cell in group.cells}):
                yield Suggested(position, group.scope, layer, "time", width)
            continue
        scope = _module_of(first.scope)
        if scope not in seen:
            seen.add(scope)
            function = {"nonlinearity": Assumed("tanh", "or relu")} if module == "RNN" else {}
            table = {"name": scope or "rnn", "class": module, "scope": scope, **function}
            yield Suggested(position, scope, table, "time", width)


def _module_of(scope: str) -> str:
    """The module that a layer's or direction's scope belongs to."""
    parts = scope.split("/")
    if parts[-1] in ("forward", "backward"):
        parts.pop()
    if parts and parts[-1][:1] == "l" and parts[-1][1:].isdigit():
        parts.pop()
    return "/".join(parts)


def _defaults(cell: FoundCell) -> dict[str, tuple[Any, str]]:
    """The first option of everything that is open."""
    return {
        question.setting: (
            Assumed(question.options[0]),
            f"or {', '.join(map(str, question.options[1:]))}: {question.why}",
        )
        for question in cell.open
        if question.options
    }


def _first_of(cell: FoundCell, order: Mapping[str, int]) -> int:
    return min(order[name] for names in cell.tensors.values() for name in names)


def _without_tensors(checkpoint: TorchFile, order: Mapping[str, int]) -> Iterator[Suggested]:
    """Modules of a TorchScript archive that have no tensors, each after the tensors of the module before it."""
    after = -1.0
    for path, kind in checkpoint.types.items():
        own = [number for name, number in order.items() if name.startswith(f"{path}/")]
        if own:
            after = max(own) if path in {name.rpartition("/")[0] for name in order} else after
        elif kind in MODULES and path:
            after += 0.001
            told = Because(kind, "its class in the archive; check its arguments")
            yield Suggested(after, path, {"name": path, "class": told})


_READS: dict[str, Arrangement] = {"Conv1d": "line", "Conv2d": "planes", "Embedding": "time"}


def _plain(modules: Sequence[PlainModule], types: Mapping[str, str], order: Mapping[str, int]) -> Iterator[Suggested]:
    """A layer for each plain module of a class that recipes have."""
    for module in modules:
        if module.kind not in MODULES:
            continue
        told = module.scope in types
        kind = Because(module.kind, "its class in the archive") if told else Assumed(module.kind, module.other)
        head = {"name": module.scope or "module", "class": kind, "scope": module.scope}
        shape = next(iter(module.members.values())).shape
        width = shape[1] if len(shape) > 1 else shape[0] if shape else 0
        position = min(order[variable.name] for variable in module.members.values())
        yield Suggested(position, module.scope, {**head, **_unknown(module)}, _READS.get(module.kind, ""), width)


def _unknown(module: PlainModule) -> dict[str, Any]:
    """What no tensor of a module shows."""
    default = "PyTorch's default"
    if module.kind.startswith("BatchNorm"):
        return {"eps": Assumed(1e-5, default), "momentum": Assumed(0.1, default)}
    if module.kind == "LayerNorm":
        return {"eps": Assumed(1e-5, default)}
    if module.kind.startswith("Conv"):
        window = list(module.members["weight"].shape[2:])
        half = [size // 2 for size in window]
        padding = half[0] if len(set(half)) == 1 else half
        return {"stride": Assumed(1), "padding": Assumed(padding, f"the window is {window}")}
    return {}
