"""A TensorFlow SavedModel, run by TensorFlow through its signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from normconvert.errors import MissingRuntime
from normconvert.ir.model import Array, Input
from normconvert.runtimes.framework_process import Answers, ask, named, outputs
from normconvert.runtimes.runner import Case, Outputs, Precision, RunError


@dataclass
class SavedModel:
    """A folder with `saved_model.pb`.

    Attributes:
        folder: where it is.
        inputs: of the model it was made from, or is compared with.
        names: of these in the signature, if no description beside the graph says it.
        outputs: names of the outputs in the signature, likewise.
        versions: known after a run.
    """

    folder: Path
    inputs: Sequence[Input]
    names: Sequence[str]
    outputs: Sequence[str]
    versions: dict[str, str] = field(default_factory=dict)
    title: str = "the SavedModel"
    _answers: dict[tuple[str, ...], Answers] = field(default_factory=dict)

    def run(self, cases: Sequence[Case], precision: Precision) -> list[Outputs]:
        """Run every case from fresh states, in a process of its own that answers for both precisions.

        In float64 its graph is run with every float32 in it made a float64.

        Raises:
            MissingRuntime: TensorFlow is not installed.
            RunError: it cannot load or run the model; the reason is its own.
        """
        answers = self._ask(cases)
        if precision == "float64" and answers.exact is None:
            raise RunError(f"TensorFlow cannot run the SavedModel in float64: {answers.why_not_exact}")
        return outputs(answers.rounded if precision == "float32" or answers.exact is None else answers.exact, cases)

    def trace(self, case: Case, precision: Precision) -> list[dict[str, Array]]:
        """Nothing: a graph shows no layers."""
        return []

    def _ask(self, cases: Sequence[Case]) -> Answers:
        if find_spec("tensorflow") is None:
            raise MissingRuntime("tensorflow is not installed", remedy='Install it with pip install "normconvert[tf]"')
        labels = tuple(case.label for case in cases)
        if labels not in self._answers:
            names = list(cases[0].chunks[0])

            def request(folder: Path) -> dict[str, Any]:
                return {
                    "source": str(self.folder.resolve()),
                    "chunks": [len(case.chunks) for case in cases],
                    "inputs": len(self.inputs),
                    "names": list(self.names),
                    "outputs": list(self.outputs),
                }

            self._answers[labels] = ask(
                "normconvert.runtimes.saved_model_worker",
                request,
                named(cases, names),
                framework="TensorFlow",
                file=self.folder.name,
                environment={},
            )
            self.versions = self._answers[labels].versions
        return self._answers[labels]
