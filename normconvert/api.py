"""The verbs of the toolkit as functions; the command line calls these and prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from normconvert.artefacts import defines_function, kind_of, read_model
from normconvert.conversion import AnyPath, Conversion, ConversionError, Progress, convert
from normconvert.errors import UsageError
from normconvert.inspection import Summary, summarise
from normconvert.sources import FORMATS, Plan, detect
from normconvert.sources import plan as plan_source
from normconvert.sources.reading import Reading, ReadingOptions, reading_from
from normconvert.validation.report import Report

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from normconvert.benchmarking.measure import Benchmark
    from normconvert.sources.tf1.surveyed import Survey

__all__ = ["Conversion", "ConversionError", "bench", "convert", "inspect", "plan", "validate"]


def inspect(source: AnyPath, **options: Unpack[ReadingOptions]) -> Summary | Survey:
    """The layers, parameters and cells of a model; arguments and errors as in `convert`.

    Of a checkpoint without a recipe or scope, whose variables do not make a model by themselves: what they are.
    """
    path, reading = Path(source), reading_from(**options)
    nothing_given = replace(reading, from_format=None, ema=False) == Reading()
    if nothing_given and defines_function(path):
        survey = FORMATS[reading.from_format or detect(path)].survey
        if survey is not None:
            return survey(path)
    return summarise(read_model(path, reading).model)


def plan(source: AnyPath, **options: Unpack[ReadingOptions]) -> Plan:
    """What a conversion would use, ignore and assume, with a recipe to edit; arguments and errors as in `convert`."""
    return plan_source(Path(source), reading_from(**options))


def validate(
    a: AnyPath,
    b: AnyPath,
    *,
    max_error: float | None = None,
    progress: Progress = lambda _: None,
    **options: Unpack[ReadingOptions],
) -> Report:
    """Whether two models compute the same.

    Args:
        a, b: source files, the intermediate format, or artefacts; at least one must be readable as a model, and the
            first that is becomes the reference. A torch folder's `model.py` is executed.
        max_error: as in `convert`, for an ONNX file of reduced precision.
        progress: told of each stage.
        options: as in `convert`, for the source files among the two.

    Raises:
        UsageError: neither can be read as a model, or they differ in their inputs or outputs.
        Unsupported, CorruptFile, MissingRuntime: as their names say.
    """
    from normconvert.proof import prove_artefact, prove_model

    first, second = Path(a), Path(b)
    if not defines_function(first):
        first, second = second, first
    if not defines_function(first):
        raise UsageError(
            "neither can be read as a model, so nothing defines what is right",
            where=f"{a} and {b}",
            remedy="Give a source file or the intermediate format (.safetensors) as one of them",
        )
    reading = reading_from(**options)
    progress(f"reading {first.name}")
    read = read_model(first, reading)
    kind = kind_of(second)
    if kind is not None:
        return prove_artefact(read, kind, second, source=first, reading=reading, progress=progress, max_error=max_error)
    progress(f"reading {second.name}")
    other = read_model(second, reading).model
    return prove_model(read, other, second.name, source=first, reading=reading, progress=progress)


def bench(
    model: AnyPath,
    *,
    batch: int = 1,
    length: int = 100,
    threads: int = 1,
    seconds: float = 3.0,
    progress: Progress = lambda _: None,
    **options: Unpack[ReadingOptions],
) -> Benchmark:
    """Time a model in every runtime that is there, on the CPU.

    Args:
        model: a source file, which is written in every form that can be run; or an artefact, run as it is. A torch
            folder's `model.py` is executed.
        batch, length: of the inputs.
        threads: of each runtime.
        seconds: how long to measure, all runtimes together.
        progress: told of each stage.
        options: as in `convert`, for a source file.

    Raises:
        UsageError: the model does not take this batch or length, or nothing says what inputs an artefact takes.
        MissingRuntime: nothing that could run it is installed.
        Unsupported: nothing that is installed can run it, or its kind.
        CorruptFile: as its name says.
    """
    from normconvert.benchmarking.measure import Conditions, of_artefact, of_model

    path, reading = Path(model), reading_from(**options)
    conditions = Conditions(batch, length, threads, seconds)
    kind = kind_of(path)
    if kind is not None and not defines_function(path):
        return of_artefact(path, kind, conditions, progress)
    progress(f"reading {path.name}")
    return of_model(read_model(path, reading), path, reading, conditions, progress)
