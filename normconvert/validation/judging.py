"""From what each party computed to numbers, and from numbers to reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normconvert.ir.model import Array
from normconvert.runtimes.runner import Case, Outputs
from normconvert.validation.layers import first_difference
from normconvert.validation.measure import (
    LARGEST_32,
    ROUNDING_MULTIPLE,
    difference,
    floors,
    function_bounds,
    largest,
    scales,
)
from normconvert.validation.report import CaseResult, LayerResult, OutputResult


@dataclass(frozen=True)
class Runs:
    """What each party computed, per case; None for a party that could not.

    Attributes:
        reference: the interpreter in float64.
        interpreter: the interpreter in float32.
        perturbed: the interpreter in float32 with its weights rounded once more, several times.
        rounded, exact: the target in float32 and in float64.
        source, source_exact: the framework that wrote the source, in float32 and in float64.
    """

    reference: list[Outputs]
    interpreter: list[Outputs]
    perturbed: list[list[Outputs]]
    rounded: list[Outputs]
    exact: list[Outputs] | None
    source: list[Outputs] | None
    source_exact: list[Outputs] | None


def judge_output(
    name: str, index: int, cases: Sequence[Case], runs: Runs
) -> tuple[OutputResult, tuple[CaseResult, ...]]:
    """One output's summary, and its numbers in every case."""
    references = [[chunk[index] for chunk in outputs] for outputs in runs.reference]
    sizes = scales(references)

    def errors(found: list[Outputs], limit: float) -> list[tuple[float, float]]:
        """Per case, the largest relative and absolute error over the chunks."""
        per_case = []
        for outputs, chunks, size in zip(found, references, sizes, strict=True):
            pairs = [difference(own[index], right, size, limit) for own, right in zip(outputs, chunks, strict=True)]
            per_case.append((max(pair.relative for pair in pairs), max(pair.absolute for pair in pairs)))
        return per_case

    interpreter = [relative for relative, _ in errors(runs.interpreter, LARGEST_32)]
    rounded = errors(runs.rounded, LARGEST_32)
    source = None if runs.source is None else [relative for relative, _ in errors(runs.source, LARGEST_32)]
    exact = None if runs.exact is None else [relative for relative, _ in errors(runs.exact, math.inf)]
    reading = None if runs.source_exact is None else [relative for relative, _ in errors(runs.source_exact, math.inf)]
    moved = [[relative for relative, _ in errors(found, LARGEST_32)] for found in runs.perturbed]
    noise = largest(map(floors, [interpreter, *moved]))
    floor = noise if source is None else largest([noise, floors(source)])
    bounds = function_bounds(noise)
    results = tuple(
        CaseResult(
            case=case.label,
            output=name,
            shape=references[n][-1].shape,
            scale=sizes[n],
            function_error=None if exact is None else exact[n],
            function_bound=bounds[n],
            rounding_error=rounded[n][0],
            interpreter_error=interpreter[n],
            noise=noise[n],
            source_error=None if source is None else source[n],
            source_function_error=None if reading is None else reading[n],
            floor=floor[n],
            absolute_error=rounded[n][1],
        )
        for n, case in enumerate(cases)
    )
    return _summary(name, results, [array for chunks in references for array in chunks]), results


def _summary(name: str, results: Sequence[CaseResult], references: Sequence[Array]) -> OutputResult:
    rounding = max(results, key=lambda case: case.rounding_multiple)
    function = max(results, key=lambda case: case.function_excess)
    return OutputResult(
        name=name,
        function_error=function.function_error,
        function_bound=function.function_bound,
        function_case=function.case,
        rounding_multiple=rounding.rounding_multiple,
        rounding_error=rounding.rounding_error,
        floor=rounding.floor,
        rounding_case=rounding.case,
        source_function_error=max((case.source_function_error or 0.0 for case in results), default=0.0)
        if results[0].source_function_error is not None
        else None,
        constant=_is_constant(references),
        undefined=not any(np.isfinite(array).any() for array in references),
    )


def failures(output: OutputResult, cases: Sequence[CaseResult]) -> list[str]:
    """Why an output is not equivalent, a sentence per claim that fails."""
    reasons = []
    if output.function_error is not None and not output.function_error <= output.function_bound:
        reasons.append(
            f"output {output.name} is another function: float64 error {output.function_error:.2g} where rounding "
            f"allows {output.function_bound:.2g} ({output.function_case})"
        )
    if not output.rounding_multiple <= ROUNDING_MULTIPLE:
        reasons.append(
            f"output {output.name} rounds otherwise: float32 error {output.rounding_error:.2g} is "
            f"{output.rounding_multiple:.3g} times the noise floor, {ROUNDING_MULTIPLE:g} are allowed "
            f"({output.rounding_case})"
        )
    if output.undefined:
        reasons.append(f"output {output.name} is nowhere a finite number, for every input tried")
    elif all(case.overflows for case in cases):
        reasons.append(f"output {output.name} leaves the range of float32 for every input tried")
    return reasons


def layer_failures(layers: Sequence[LayerResult], outputs: Sequence[OutputResult]) -> list[str]:
    """A sentence if an inner layer differs though no output shows it, as when the outputs are saturated."""
    first = first_difference(layers)
    hidden = first is not None and all(
        each.function_error is None or each.function_error <= each.function_bound for each in outputs
    )
    return [f"no output shows it, but the layer {first} ({first.case})"] if first is not None and hidden else []


def misread_reasons(cases: Sequence[CaseResult], layers: Sequence[LayerResult], source: str) -> list[str]:
    """A sentence if the source's own framework computes something else than what was read from the file."""
    first = first_difference(layers)
    if first is not None:
        return [f"the file was misread: {source} differs from what was read in the layer {first} ({first.case})"]
    wrong = [case for case in cases if _is_misread(case)]
    if not wrong:
        return []
    worst = max(wrong, key=lambda case: case.source_error or 0.0)
    return [
        f"the file was misread: {source} differs from what was read by {worst.source_error:.2g} in the output "
        f"{worst.output}, where float32 rounding explains {worst.noise:.2g} ({worst.case})"
    ]


def _is_misread(case: CaseResult) -> bool:
    if case.source_error is None or case.overflows:
        return False
    return not case.source_error <= ROUNDING_MULTIPLE * case.noise


def caveats(outputs: Sequence[OutputResult], cases: Sequence[CaseResult]) -> list[str]:
    """What limits the proof, a sentence each."""
    same = [
        f"the output {each.name} is the same number for every input tried, so only the layers before it tell"
        for each in outputs
        if each.constant
    ]
    inexact = [
        f"the source's framework in float64 differs by {each.source_function_error:.2g} in the output {each.output} "
        f"({each.case}): it computes a part in float32, or an option was read slightly wrong"
        for each in cases
        if each.source_function_error is not None and not each.source_function_error <= each.function_bound
    ]
    return (
        same
        + inexact[:1]
        + [f"{each.output} leaves the range of float32 ({each.case})" for each in cases if each.overflows]
    )


def _is_constant(arrays: Sequence[Array]) -> bool:
    first = arrays[0].flat[0]
    return all(np.array_equal(array, np.full_like(array, first), equal_nan=True) for array in arrays)
