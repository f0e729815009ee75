"""Imports PyTorch when it is needed, and fixes what touches the numbers while a model runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from normconvert.errors import MissingRuntime
from normconvert.ir.model import Array, Input
from normconvert.runtimes.runner import Case, Outputs, Precision, RunError

if TYPE_CHECKING:
    import torch

THREADS = 1


def import_torch() -> Any:
    """The module `torch`.

    Raises:
        MissingRuntime: it is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingRuntime(
            "PyTorch is not installed",
            remedy='Install it with pip install "normconvert[torch]", or leave out the proof with --no-validate',
        ) from None
    return torch


def versions() -> dict[str, str]:
    """The version of PyTorch."""
    return {"torch": str(import_torch().__version__)}


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """No gradients, one thread, no TF32; the settings are put back at the end."""
    torch = import_torch()
    matmul, cudnn, threads = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.get_num_threads(),
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(THREADS)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
        torch.set_num_threads(threads)


def tensors(inputs: Sequence[Input], chunk: Mapping[str, Array], precision: Precision) -> list[torch.Tensor]:
    """The arrays of one call as tensors, in the order of the model's inputs."""
    torch = import_torch()
    kinds = {"int": np.dtype(np.int64), "float": np.dtype(precision)}
    return [torch.from_numpy(np.array(chunk[each.name], kinds[each.dtype])) for each in inputs]


def arrays(outputs: Any) -> tuple[Array, ...]:
    """What a module returned, a tensor or several, as arrays."""
    several = outputs if isinstance(outputs, list | tuple) else (outputs,)
    return tuple(output.detach().numpy() for output in several)


def in_precision(module: Any, precision: Precision) -> Any:
    """A copy of a module in a precision, so that no run sees another's states."""
    duplicate = copy.deepcopy(module)
    return duplicate.double() if precision == "float64" else duplicate.float()


def reset_states(module: Any) -> None:
    """Start a new sequence in every stateful part."""
    for part in module.modules():
        reset = getattr(part, "reset_states", None)
        if reset is not None:
            reset()


def run_cases(module: Any, inputs: Sequence[Input], cases: Sequence[Case], precision: Precision) -> list[Outputs]:
    """Run every case on a module that is already in this precision.

    Raises:
        RunError: the module raises an error on these inputs.
    """
    results = []
    with exact_arithmetic():
        for case in cases:
            reset_states(module)
            try:
                results.append(tuple(arrays(module(*tensors(inputs, chunk, precision))) for chunk in case.chunks))
            except CODE_ERRORS as error:
                raise RunError(f"does not run in {precision} ({case.label}): {last_line(error)}") from None
    return results


CODE_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, ArithmeticError)
"""What the code of an artefact raises on inputs it is not made for."""


def last_line(error: Exception) -> str:
    """The end of an error's message, where PyTorch says what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
