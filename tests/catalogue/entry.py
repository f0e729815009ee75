"""What an entry is, and the few formulas that the references share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from normconvert.ir.cell import Cell, State
from normconvert.ir.model import Array
from normconvert.ir.norm import Norm

BATCH, TIME, INPUTS, UNITS, PROJECTED, ROWS = 4, 6, 3, 5, 2, 4
B, T, IN, H, P = BATCH, TIME, INPUTS, UNITS, PROJECTED

LSTM = {"c": (H,), "h": (H,)}
GRU = {"h": (H,)}

Weights = SimpleNamespace
"""Parameters, constants and norms by name; a norm holds its own gamma, beta, mean, variance. `sequence` is the
whole input `[batch, time, inputs]`, for what depends on all of it."""

Step = Callable[..., tuple[Any, ...]]
"""`(weights, time step, *inputs, *states)` to the output and the next states, arrays with the batch first."""


@dataclass(frozen=True)
class Entry:
    """A cell of the catalogue.

    Attributes:
        id: section and number, then where it is from.
        text: its equations.
        step: what its source computes, in plain NumPy or PyTorch.
        states, parameters, norms, constants, inputs: the declarations.
        learned: states with a stored initial value.
        adjust: makes the random weights obey what the source guarantees of them.
        time: steps to run.
        binary: inputs of zeros and ones (masks).
    """

    id: str
    text: str
    step: Step
    states: dict[str, tuple[int, ...]]
    parameters: dict[str, tuple[int, ...]]
    norms: dict[str, Norm] = field(default_factory=dict)
    constants: dict[str, float] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=lambda: {"x": (IN,)})
    learned: tuple[str, ...] = ()
    adjust: Callable[[dict[str, Array]], None] | None = None
    time: int = T
    binary: tuple[str, ...] = ()

    def cell(self) -> Cell:
        return Cell(
            equations=self.text,
            dims={"inputs": IN, "units": H},
            input_shapes=dict(self.inputs.items()),
            states={name: State(shape, name in self.learned) for name, shape in self.states.items()},
            parameters=self.parameters,
            constants=self.constants,
            norms=self.norms,
        )


def batch(features: int, epsilon: float = 1e-5, **fields: Any) -> Norm:
    return Norm(kind="batch", features=features, epsilon=epsilon, **fields)


def per_step(features: int, epsilon: float = 1e-5, **fields: Any) -> Norm:
    return Norm(kind="batch", features=features, epsilon=epsilon, scope="per_step", steps=ROWS, **fields)


def layer(features: int, epsilon: float = 1e-5, **fields: Any) -> Norm:
    return Norm(kind="layer", features=features, epsilon=epsilon, **fields)


def sig(u: Any) -> Any:
    return 0.5 + 0.5 * np.tanh(0.5 * u)


def frozen(u: Array, norm: Weights, epsilon: float = 1e-5) -> Array:
    """Batch normalisation with stored statistics: a scale and a shift."""
    scale = getattr(norm, "gamma", 1.0) / np.sqrt(norm.variance + epsilon)
    return u * scale + (getattr(norm, "beta", 0.0) - norm.mean * scale)


def at(norm: Weights, t: int, rows: int = ROWS) -> Weights:
    """The statistics of a time step, the last ones past the end."""
    row = t if t < rows else rows - 1
    return SimpleNamespace(**{**vars(norm), "mean": norm.mean[row], "variance": norm.variance[row]})


def ln(u: Array, norm: Weights, epsilon: float = 1e-5) -> Array:
    """Layer normalisation of one or more gates at once."""
    centred = u - np.sum(u, 1, keepdims=True) / u.shape[1]
    spread = np.einsum("bf,bf->b", centred, centred)[:, None] / u.shape[1]
    return centred * (spread + epsilon) ** -0.5 * getattr(norm, "gamma", 1.0) + getattr(norm, "beta", 0.0)


def part(norm: Weights, gate: int, size: int = H) -> Weights:
    """The scale and offset of one gate of several."""
    return SimpleNamespace(**{role: array[gate * size : (gate + 1) * size] for role, array in vars(norm).items()})


def gate_wise(u: Array, norm: Weights, epsilon: float, size: int = H) -> list[Array]:
    """Each gate layer-normalised by itself."""
    count = u.shape[1] // size
    return [ln(u[:, k * size : (k + 1) * size], part(norm, k, size), epsilon) for k in range(count)]


def quarters(u: Any) -> list[Any]:
    return [u[:, k * H : (k + 1) * H] for k in range(u.shape[1] // H)]


def in_torch(step: Step) -> Step:
    """A reference written with PyTorch's own functions, called with NumPy arrays."""

    def convert(value: Any) -> Any:
        if isinstance(value, SimpleNamespace):
            return SimpleNamespace(**{name: convert(inner) for name, inner in vars(value).items()})
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    def called(weights: Weights, t: int, *values: Array) -> tuple[Array, ...]:
        results = step(convert(weights), t, *map(convert, values))
        return tuple(result.numpy() for result in results)

    return called
