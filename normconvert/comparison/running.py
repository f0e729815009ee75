"""Two models run on the same inputs by the interpreter, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from normconvert.comparison.alignment import Pairs
from normconvert.comparison.evaluation import TOLERANCE, apart
from normconvert.errors import NormconvertError
from normconvert.ir.model import Model
from normconvert.runtimes.interpreted import Interpreted
from normconvert.validation.inputs import make_cases

_SHORT = 2
"""How many of the cases show how large a known difference is."""


@dataclass(frozen=True)
class Run:
    """What came of it.

    Attributes:
        cases: how many inputs were made up.
        difference: the largest of the outputs, relative to the largest value; None if they could not be run.
        begins: the first layer of both whose values differ; empty if none does.
        trouble: why they could not be run; or empty.
    """

    cases: int
    difference: float | None
    begins: str = ""
    trouble: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the outputs are the same but for rounding."""
        return self.difference is not None and self.difference <= TOLERANCE

    def __str__(self) -> str:
        if self.difference is None:
            return f"the two cannot be run on the same inputs: {self.trouble}"
        if self.agrees:
            return f"the outputs agree on {self.cases} random inputs, to {self.difference:.1g}"
        start = f"; it begins in {self.begins}" if self.begins else ""
        return f"the outputs differ by {self.difference:.2g} of their size on {self.cases} random inputs{start}"


def run_both(a: Model, b: Model, pairs: Pairs, *, thorough: bool, progress: Callable[[str], None]) -> Run:
    """Run two models.

    Args:
        a, b: the models.
        pairs: nodes in the same place.
        thorough: on all inputs that a proof takes; otherwise on a few.
        progress: told of each input.
    """
    if len(a.inputs) != len(b.inputs) or len(a.outputs) != len(b.outputs):
        return Run(0, None, trouble="they have other numbers of inputs or outputs")
    try:
        cases = make_cases(a)[: None if thorough else _SHORT]
        worst, begins = 0.0, ""
        for case in cases:
            progress(f"running both: {case.label}")
            left, right = (Interpreted(model).trace(case, "float64") for model in (a, b))
            for one, other in zip(left, right, strict=True):
                outputs = zip(a.outputs, b.outputs, strict=True)
                difference = max(apart(one[x], other[y]) for x, y in outputs)
                if difference > worst:
                    worst = difference
                    found = (x for x, y in pairs if x in one and y in other and apart(one[x], other[y]) > TOLERANCE)
                    begins = next(found, "")
    except (NormconvertError, ValueError) as error:
        return Run(0, None, trouble=str(error))
    return Run(len(cases), worst, begins)
