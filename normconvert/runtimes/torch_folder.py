"""A folder with `model.py` and its weights, run by PyTorch."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError

from normconvert.errors import CorruptFile
from normconvert.ir.model import Array, Input
from normconvert.runtimes.runner import Case, Outputs, Precision, RunError
from normconvert.runtimes.torch_settings import (
    CODE_ERRORS,
    exact_arithmetic,
    import_torch,
    in_precision,
    last_line,
    reset_states,
    run_cases,
    tensors,
    versions,
)


class Observed(Protocol):
    """Where a value of the graph shows up in a module."""

    @property
    def attribute(self) -> str:
        """The submodule whose output it is."""
        ...

    @property
    def call(self) -> int:
        """Which of the submodule's calls within one forward pass, counted from 0."""
        ...

    def value(self, output: Any) -> Any:
        """The value in what that call returned."""
        ...


@dataclass
class TorchFolder:
    """The generated module. Loading it executes `model.py`: only for folders the user asked to run, or just made.

    Attributes:
        folder: where it is.
        inputs: of the model it was made from, or is compared with.
        places: where the values of that model's nodes show up in the module.
    """

    folder: Path
    inputs: Sequence[Input]
    places: Mapping[str, Observed]
    title: str = "the PyTorch module"

    @property
    def versions(self) -> dict[str, str]:
        """The version of PyTorch."""
        return versions()

    @cached_property
    def module(self) -> Any:
        """The module in eval mode, as `load()` of the folder's `model.py` gives it."""
        import_torch()
        source = self.folder / "model.py"
        name = f"normconvert_artefact_{abs(hash(source.resolve()))}"
        spec = importlib.util.spec_from_file_location(name, source)
        if spec is None or spec.loader is None or not source.is_file():
            raise CorruptFile("holds no model.py", where=str(self.folder))
        code = importlib.util.module_from_spec(spec)
        sys.modules[name] = code  # where dataclasses and TorchScript look a class's module up
        writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            spec.loader.exec_module(code)
            return code.load(self.folder)
        except (*CODE_ERRORS, ImportError, SyntaxError, OSError, SafetensorError) as error:
            raise CorruptFile(f"its model.py cannot be loaded: {last_line(error)}", where=str(self.folder)) from None
        finally:
            sys.dont_write_bytecode = writes_bytecode
            del sys.modules[name]

    def run(self, cases: Sequence[Case], precision: Precision) -> list[Outputs]:
        """Run every case from fresh states.

        Raises:
            RunError: its code raises an error on these inputs.
        """
        try:
            return run_cases(in_precision(self.module, precision), self.inputs, cases, precision)
        except RunError as error:
            raise error.at(self.title) from None

    def trace(self, case: Case, precision: Precision) -> list[dict[str, Array]]:
        """Per chunk, the value of each node that is the output of a submodule."""
        module = in_precision(self.module, precision)
        calls: dict[str, list[Any]] = {}
        attributes = {place.attribute for place in self.places.values()}
        hooks = [
            part.register_forward_hook(lambda _, __, output, name=name: calls.setdefault(name, []).append(output))
            for name, part in module.named_modules()
            if name in attributes
        ]
        results = []
        with exact_arithmetic():
            reset_states(module)
            for chunk in case.chunks:
                calls.clear()
                module(*tensors(self.inputs, chunk, precision))
                values = {
                    node: place.value(calls[place.attribute][place.call])
                    for node, place in self.places.items()
                    if len(calls.get(place.attribute, ())) > place.call
                }
                results.append({node: value.detach().numpy().copy() for node, value in values.items()})
        for hook in hooks:
            hook.remove()
        return results
