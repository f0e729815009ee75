"""TorchScript archives and exported programs, run by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normconvert.errors import CorruptFile
from normconvert.ir.model import Array, Input
from normconvert.runtimes.runner import Case, Outputs, Precision, RunError
from normconvert.runtimes.torch_settings import import_torch, last_line, run_cases, versions


@dataclass
class TorchProgram:
    """A compiled model in one file.

    Attributes:
        path: the file.
        inputs: the inputs of the model it is compared with.
        title: what it is, for reports.
        load: reads it as a module in a precision.
        stateful: the model carries state, so that each case needs the program loaded afresh.
        shortest: steps that a sequence must have.
    """

    path: Path
    inputs: Sequence[Input]
    title: str
    load: Callable[[Path, Precision], Any]
    stateful: bool = False
    shortest: int = 1
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know who calls it."""
        if self.shortest == 1:
            return ()
        return (
            f"{self.title} takes sequences of {self.shortest} steps or more, and refuses shorter ones: torch.export "
            "assumes that no axis has a size of 1",
        )

    def run(self, cases: Sequence[Case], precision: Precision) -> list[Outputs]:
        """Run every case from fresh states.

        Raises:
            RunError: PyTorch refuses, which for float64 means that the program fixes its precision.
        """
        groups = [[case] for case in cases] if self.stateful else [cases]
        try:
            runs = [run_cases(self.load(self.path, precision), self.inputs, group, precision) for group in groups]
        except RunError as error:
            raise error.at(self.title) from None
        return [outputs for run in runs for outputs in run]

    def trace(self, case: Case, precision: Precision) -> list[dict[str, Array]]:
        """Nothing: a compiled model shows no layers."""
        return []


def torchscript(path: Path, inputs: Sequence[Input], stateful: bool) -> TorchProgram:
    """A runner for a TorchScript archive."""
    return TorchProgram(path, inputs, "the TorchScript program", _load_script, stateful)


def exported(path: Path, inputs: Sequence[Input], stateful: bool) -> TorchProgram:
    """A runner for a program saved by `torch.export`.

    Raises:
        CorruptFile: it is none.
        MissingRuntime: PyTorch is not installed.
    """
    shortest = _shortest(_exported_program(path), inputs)
    return TorchProgram(path, inputs, "the exported program", _load_exported, stateful, shortest)


def _load_script(path: Path, precision: Precision) -> Any:
    torch = import_torch()
    try:
        module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise CorruptFile(f"is no TorchScript archive: {last_line(error)}", where=str(path)) from None
    return module.double() if precision == "float64" else module


def _exported_program(path: Path) -> Any:
    torch = import_torch()
    try:
        return torch.export.load(str(path))
    except (RuntimeError, ValueError, OSError, AssertionError) as error:
        raise CorruptFile(f"is no exported program: {last_line(error)}", where=str(path)) from None


_NOT_CHECKED = 2
"""The size from which the exporter takes any dynamic axis to be; programs do not check it."""


def _shortest(program: Any, inputs: Sequence[Input]) -> int:
    """The least size that the program takes of the first free axis of an input, which is time where there is one."""
    ranges = {str(symbol): int(each.lower) for symbol, each in program.range_constraints.items()}
    names = program.graph_signature.user_inputs
    shapes = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.name in names}
    axes = [
        str(shapes[name][1 + declared.shape.index(None)])
        for name, declared in zip(names, inputs, strict=False)
        if None in declared.shape
    ]
    least = max((ranges.get(axis, 1) for axis in axes), default=1)
    return least if least > _NOT_CHECKED else 1


def _load_exported(path: Path, precision: Precision) -> Any:
    """The program as a module. In float64 its weights are converted, and the precisions its graph names."""
    torch = import_torch()
    module = _exported_program(path).module()
    if precision == "float64":
        module = module.double()
        for node in module.graph.nodes:
            node.args = torch.fx.node.map_aggregate(node.args, _doubled(torch))
            node.kwargs = torch.fx.node.map_aggregate(node.kwargs, _doubled(torch))
        module.recompile()
    return module


def _doubled(torch: Any) -> Callable[[Any], Any]:
    return lambda value: torch.float64 if value is torch.float32 else value
