"""The proof: a target against the float64 interpreter, within what rounding explains.

Two claims are judged apart. Same function: in float64 the target agrees with the reference to the last few digits.
Same rounding: in float32 its error is a small multiple of the noise floor. `docs/equivalence.md` explains both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from platform import python_version

from normconvert.errors import MissingRuntime, NotEquivalent
from normconvert.ir.model import Model
from normconvert.runtimes.interpreted import Interpreted
from normconvert.runtimes.runner import ANY_SIZES, Case, Outputs, Precision, RunError, Runner, Source
from normconvert.validation.inputs import make_cases, unexercised
from normconvert.validation.judging import (
    Runs,
    caveats,
    failures,
    is_out_of_range,
    judge_output,
    layer_failures,
    misread_reasons,
)
from normconvert.validation.layers import compare_layers, first_difference
from normconvert.validation.perturbation import DRAWS, perturbed
from normconvert.validation.report import Loss, Report

_INTERPRETED = ("the interpreter", f"the same with every weight one last place off, {DRAWS} times")
"""The runs that are always part of the noise floor."""

Progress = Callable[[str], None]
"""Told what is being done, in a few words."""


def prove(
    model: Model,
    target: Runner,
    *,
    source: Source | None = None,
    source_note: str = "",
    reference_title: str = "",
    loss: Loss | None = None,
    whole: Runner | None = None,
    remarks: Sequence[str] = (),
    shortest: int = 1,
    progress: Progress = lambda _: None,
) -> Report:
    """Judge whether a target computes what a model means.

    Args:
        model: the reference, evaluated by the interpreter in float64.
        target: what is judged.
        source: the framework that wrote the model's source, for the noise floor.
        source_note: why there is none.
        reference_title: what the model was read from.
        loss: what the target rounds more coarsely than float32 on purpose, and how far that may take it.
        whole: the same without that.
        remarks: what the report's notes say besides.
        shortest: steps that a sequence must have for the target to take it.
        progress: told of each stage.

    Raises:
        MissingRuntime: what would run the target is not installed.
        NotEquivalent: it gives another number of outputs.
        RunError: the target does not run in float32.
    """
    cases = make_cases(model, ANY_SIZES if source is None else source.sizes, shortest)
    interpreter = Interpreted(model)
    progress("interpreter, float64")
    reference = interpreter.run(cases, "float64")
    progress("interpreter, float32")
    interpreted = interpreter.run(cases, "float32")
    progress("interpreter, weights rounded once more")
    moved = [Interpreted(each).run(cases, "float32") for each in perturbed(model)]
    from_source, source_note = _source_outputs(source, source_note, cases, progress)
    progress(f"{target.title}, float32")
    rounded = target.run(cases, "float32")
    found = len(rounded[0][0])
    if found != len(model.outputs):
        raise NotEquivalent(f"{target.title} gives {found} outputs, the reference gives {len(model.outputs)}")
    progress(f"{target.title}, float64")
    exact, function_note = _outputs(target, cases, "float64")
    source_exact = None if source is None or from_source is None else _exact_source(source, cases)

    whole_outputs, whole_note = (None, "") if whole is None else _outputs(whole, cases, "float32")
    runs = Runs(reference, interpreted, moved, rounded, exact, from_source, source_exact, whole_outputs)
    results = [judge_output(name, n, cases, runs, loss) for n, name in enumerate(model.outputs)]
    outputs = tuple(summary for summary, _ in results)
    details = tuple(case for _, per_case in results for case in per_case)
    progress("the layers one by one")
    shown = loss is None or exact is not None
    layers = compare_layers(model, target, cases, "float32" if exact is None else "float64") if shown else ()
    source_layers = () if source is None or from_source is None else compare_layers(model, source, cases, "float32")
    reasons = [reason for each in results for reason in failures(*each, loss)]
    reasons += layer_failures(layers, outputs)
    if loss is not None and (function_note or whole_note):
        missing = function_note or whole_note
        reasons.append(f"reduced precision hides what else may be wrong, and it could not be left out: {missing}")
    if source is not None:
        reasons += misread_reasons(details, source_layers, source.title)
    place = first_difference(layers)
    if reasons and place is None and loss is None:
        place = first_difference(compare_layers(model, target, cases, "float32"))
    answered = source.title if source is not None and from_source is not None else ""
    parties: list[Runner | Source] = [interpreter, target, *([source] if source and from_source is not None else [])]
    return Report(
        equivalent=not reasons,
        reasons=tuple(reasons),
        reference=reference_title or f"{model.name or 'model'}, the interpreter in float64",
        target=target.title,
        source=answered,
        floor_from=(*([answered] if answered else []), *_INTERPRETED),
        floor_note=source_note,
        function_note=function_note,
        worst_layer=place,
        outputs=outputs,
        cases=details,
        layers=layers,
        source_layers=source_layers,
        notes=(*remarks, *unexercised(model), *caveats(outputs, details), *_left_out(cases, loss)),
        versions={"python": python_version()}
        | {name: version for party in parties for name, version in party.versions.items()},
        loss=loss,
    )


def _left_out(cases: Sequence[Case], loss: Loss | None) -> list[str]:
    labels = [] if loss is None else [case.label for case in cases if is_out_of_range(case, loss)]
    return [
        f"the inputs are below the range of {loss.name}, whose error is left out ({label})" for label in labels if loss
    ]


def _source_outputs(
    source: Source | None, note: str, cases: Sequence[Case], progress: Progress
) -> tuple[Sequence[Outputs | None] | None, str]:
    if source is None:
        return None, note
    progress(f"{source.title}, float32")
    try:
        outputs = source.run(cases, "float32")
        missing = sum(each is None for each in outputs)
        return outputs, f"{missing} of {len(cases)} cases have other sizes than its graph" if missing else ""
    except (RunError, MissingRuntime) as error:
        return None, str(error)


def _exact_source(source: Source, cases: Sequence[Case]) -> Sequence[Outputs | None] | None:
    try:
        return source.run(cases, "float64")
    except RunError:
        return None


def _outputs(runner: Runner, cases: Sequence[Case], precision: Precision) -> tuple[list[Outputs] | None, str]:
    try:
        return runner.run(cases, precision), ""
    except RunError as error:
        return None, str(error)
