"""The intermediate format, run by the NumPy interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normconvert.interpreter import States
from normconvert.interpreter import run as interpret
from normconvert.ir.model import Array, Model
from normconvert.runtimes.runner import Case, Outputs, Precision


@dataclass(frozen=True)
class Interpreted:
    """A model in the interpreter: the definition of what it computes.

    Attributes:
        model: what is run.
        title: as for every runner.
        loaded_by: versions of the framework that read its arrays out of a file, if one did.
        remarks: what a report says of how they were read, one sentence each.
    """

    model: Model
    title: str = "the NumPy interpreter"
    loaded_by: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """The version of NumPy, and of what loaded the arrays."""
        return {"numpy": np.__version__, **self.loaded_by}

    def run(self, cases: Sequence[Case], precision: Precision) -> list[Outputs]:
        """Run every case from fresh states."""
        return [self._run(case, precision) for case in cases]

    def trace(self, case: Case, precision: Precision) -> list[dict[str, Array]]:
        """Per chunk, every value of the graph."""
        states, recorded = States(), []
        for inputs in case.chunks:
            values: dict[str, Array] = {}
            with np.errstate(all="ignore"):
                interpret(
                    self.model, self._named(inputs), np.dtype(precision), states=states, record=values.__setitem__
                )
            recorded.append(values)
        return recorded

    def trace_steps(self, case: Case, chunk: int) -> dict[str, Array]:
        """Every value of every equation in one chunk of a case, in float64, as `<node>/<name>@<step>`."""
        states, values = States(), dict[str, Array]()
        for index, inputs in enumerate(case.chunks[: chunk + 1]):
            sink: Any = values.__setitem__ if index == chunk else None
            with np.errstate(all="ignore"):
                interpret(self.model, self._named(inputs), np.float64, states=states, record_steps=sink)
        return values

    def _named(self, chunk: Mapping[str, Array]) -> dict[str, Array]:
        """The arrays of a call under this model's own names: its inputs go by position."""
        return {declared.name: array for declared, array in zip(self.model.inputs, chunk.values(), strict=True)}

    def _run(self, case: Case, precision: Precision) -> Outputs:
        states, results = States(), []
        for inputs in case.chunks:
            with np.errstate(all="ignore"):
                outputs = interpret(self.model, self._named(inputs), np.dtype(precision), states=states)
            results.append(tuple(outputs[name] for name in self.model.outputs))
        return tuple(results)
