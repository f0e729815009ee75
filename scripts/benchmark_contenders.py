"""What `bench_onnx` compares: how each contender is loaded and called."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_cells import INPUTS, NATIVE, build_model
from benchmark_exports import NATIVE_NAME, OURS, Plan, module_of, quiet
from benchmark_grid import Pace
from benchmark_results import Cell

from normconvert import interpreter
from normconvert.benchmarking.timing import in_turns, repeated
from normconvert.ir.model import Array

WORST_ERROR = 1e-4
"""Largest difference to the interpreter in float64 of a contender that is timed."""

Bound = Callable[[Array], Callable[[], Any]]
"""Takes the inputs `[batch, time, inputs]`, gives what runs a loaded contender on them."""


def measure(plan: Plan, threads: int, cell: str, units: int, batch: int, length: int, pace: Pace) -> Cell:
    """Time every contender at one size, once it is known to compute the right thing."""
    _settle(plan, threads)
    result = Cell()
    x = np.random.default_rng(1).standard_normal((batch, length, INPUTS)).astype(np.float32)
    calls: dict[str, Callable[[], Any]] = {}
    for name, load in LOADERS.items():
        if name == "tf.function" and not plan.tensorflow:
            continue
        path = load.file(plan.place(cell, units), length)
        if path is not None and not path.exists():
            continue
        calls[name] = _opened(name, plan, threads, cell, units, path)(x)
        reference = _reference(plan, NATIVE[cell] if load.plain else cell, units, length)
        found = np.asarray(calls[name]())[: len(reference)]
        result.errors[name] = float(np.abs(found - reference).max())
        if not result.errors[name] < WORST_ERROR:
            result.problems[name] = f"wrong outputs: they differ by {result.errors[name]:.1g}"
            del calls[name]
    turns = {name: repeated(call) for name, call in calls.items()}
    result.timings = in_turns(turns, seconds=pace.seconds, least=pace.least, ready=list(turns) if pace.slow else ())
    return result


_open: dict[tuple[Path, str, Path | None], Bound] = {}


def _opened(name: str, plan: Plan, threads: int, cell: str, units: int, path: Path | None) -> Bound:
    """A contender, kept open for other lengths and batches until `release`."""
    key = (plan.place(cell, units), name, path)
    if key not in _open:
        _open[key] = LOADERS[name].open(plan, threads, cell, units, path)
    return _open[key]


def release() -> None:
    """Close all contenders: runtimes hold on to the memory of long sequences."""
    _open.clear()
    gc.collect()


def load_times(plan: Plan, threads: int, cell: str, units: int, lengths: list[int]) -> dict[str, float]:
    """Seconds that it takes to open each file, the quickest of five."""
    _settle(plan, threads)
    place, found = plan.place(cell, units), {}
    files = {NATIVE_NAME: "native.onnx", OURS: "ours.onnx", "tf2onnx": "tf2onnx.onnx", "TorchScript": "model.ts.pt"}
    files |= {f"torch.onnx, T={length}": f"unrolled-{length}.onnx" for length in lengths}
    for name, file in files.items():
        path = place / file
        if path.exists():
            opened = _open_script if file.endswith(".pt") else _open_session
            found[name] = min(repeated(lambda path=path, opened=opened: opened(path, threads))(1) for _ in range(5))
    return found


@cache
def _settle(plan: Plan, threads: int) -> None:
    """Set every runtime's threads, once for a process."""
    quiet(plan)
    import torch

    torch.set_num_threads(threads)
    if plan.tensorflow:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _reference(plan: Plan, cell: str, units: int, length: int) -> Array:
    """What the first sample gives in the interpreter, in float64; computed once for all numbers of threads."""
    path = plan.folder / f"{cell}-{units}-{length}.npy"
    if not path.exists():
        x = np.random.default_rng(1).standard_normal((1, length, INPUTS)).astype(np.float32)
        np.save(path, interpreter.run(build_model(cell, units), {"x": x.astype(np.float64)}, np.float64)["rnn"])
    return np.load(path)


@dataclass(frozen=True)
class Loader:
    """How a contender is opened.

    Attributes:
        file: its file for a length; None where it has none.
        open: takes the plan, threads, cell, units and file.
        plain: it is the plain cell of the same size, with weights of its own.
    """

    file: Callable[[Path, int], Path | None]
    open: Callable[[Plan, int, str, int, Any], Bound]
    plain: bool = False


def _open_session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    # Threads that wait for the next call by spinning would take the cores from whatever has its turn next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _session(plan: Plan, threads: int, cell: str, units: int, path: Path) -> Bound:
    session = _open_session(path, threads)
    name, outputs = session.get_inputs()[0].name, [session.get_outputs()[0].name]
    return lambda x: lambda: session.run(outputs, {name: x})[0]


def _open_script(path: Path, threads: int) -> Any:
    import torch

    return torch.jit.load(str(path))


def _script(plan: Plan, threads: int, cell: str, units: int, path: Path) -> Bound:
    return bound_module(_open_script(path, threads))


def _eager(plan: Plan, threads: int, cell: str, units: int, path: Any) -> Bound:
    return bound_module(module_of(build_model(cell, units), plan.place(cell, units)))


def _fused(plan: Plan, threads: int, cell: str, units: int, path: Any) -> Bound:
    plain = NATIVE[cell]
    place = plan.place(cell, units) / "plain"
    place.mkdir(exist_ok=True)
    return bound_module(module_of(build_model(plain, units), place))


def bound_module(module: Any) -> Bound:
    """A PyTorch module as what takes inputs."""
    import torch

    def bind(x: Array) -> Callable[[], Any]:
        tensor = torch.from_numpy(x)

        def call() -> Any:
            with torch.inference_mode():
                return module(tensor)

        return call

    return bind


def _function(plan: Plan, threads: int, cell: str, units: int, path: Any) -> Bound:
    import tensorflow as tf
    from benchmark_tf_cells import keras_model

    model = keras_model(cell, build_model(cell, units))
    function = tf.function(
        lambda x: model(x, training=False), input_signature=[tf.TensorSpec((None, None, INPUTS), tf.float32)]
    )

    def bind(x: Array) -> Callable[[], Any]:
        tensor = tf.constant(x)
        return lambda: function(tensor)

    return bind


LOADERS = {
    NATIVE_NAME: Loader(lambda place, length: place / "native.onnx", _session, plain=True),
    OURS: Loader(lambda place, length: place / "ours.onnx", _session),
    "tf2onnx": Loader(lambda place, length: place / "tf2onnx.onnx", _session),
    "torch.onnx": Loader(lambda place, length: place / f"unrolled-{length}.onnx", _session),
    "TorchScript": Loader(lambda place, length: place / "model.ts.pt", _script),
    "eager": Loader(lambda place, length: None, _eager),
    "nn.LSTM/GRU": Loader(lambda place, length: None, _fused, plain=True),
    "tf.function": Loader(lambda place, length: None, _function),
}
"""Every contender, in the order of the table's columns."""
