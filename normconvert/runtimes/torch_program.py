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
    """

    path: Path
    inputs: Sequence[Input]
    title: str
    load: Callable[[Path, Precision], Any]
    stateful: bool = False
    versions: dict[str, str] = field(default_factory=versions)

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
    """A runner for a program saved by `torch.export`."""
    return TorchProgram(path, inputs, "the exported program", _load_exported, stateful)


def _load_script(path: Path, precision: Precision) -> Any:
    torch = import_torch()
    try:
        module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise CorruptFile(f"is no TorchScript archive: {last_line(error)}", where=str(path)) from None
    return module.double() if precision == "float64" else module


def _load_exported(path: Path, precision: Precision) -> Any:
    """The program as a module. In float64 its weights are converted, and the precisions its graph names."""
    torch = import_torch()
    try:
        module = torch.export.load(str(path)).module()
    except (RuntimeError, ValueError, OSError, AssertionError) as error:
        raise CorruptFile(f"is no exported program: {last_line(error)}", where=str(path)) from None
    if precision == "float64":
        module = module.double()
        for node in module.graph.nodes:
            node.args = torch.fx.node.map_aggregate(node.args, _doubled(torch))
            node.kwargs = torch.fx.node.map_aggregate(node.kwargs, _doubled(torch))
        module.recompile()
    return module


def _doubled(torch: Any) -> Callable[[Any], Any]:
    return lambda value: torch.float64 if value is torch.float32 else value
