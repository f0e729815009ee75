"""The Keras 3 target: a functional model of real Keras layers, and beside it a file of the layers Keras lacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from normconvert.errors import Unsupported
from normconvert.ir.layers import recurrent_parts
from normconvert.ir.model import Model
from normconvert.runtimes.keras_build import Built, build
from normconvert.targets.keras.layers_text import layers_file
from normconvert.targets.keras.program import Program, program
from normconvert.targets.keras.request import as_request
from normconvert.targets.python_code.names import identifier
from normconvert.targets.python_code.text import one_line

ENDINGS = {".keras": "_cells.py", ".h5": "_h5_cells.py"}
"""What the name of the file of layers ends in, by the suffix of the model's file."""


def write_keras(model: Model, path: Path) -> None:
    """Write a `.keras` or `.h5` file, and `<name>_cells.py` where Keras lacks a layer.

    Args:
        model: what to write.
        path: the file; its suffix decides the form.

    Raises:
        Unsupported: a layer has no Keras form.
        MissingRuntime: Keras or a backend for it is not installed.
        RunError: Keras cannot build the model; the reason is its own.
    """
    _write(model, path, Built("file", path.suffix.lower()))


def write_saved_model(model: Model, folder: Path) -> None:
    """Write a TensorFlow SavedModel that needs no code of ours; batch and time stay dynamic.

    Its signature `serving_default` has the model's inputs and outputs by name.

    Args:
        model: what to write.
        folder: an existing, empty folder.

    Raises:
        Unsupported: a layer has no Keras form, which the SavedModel is made from.
        MissingRuntime: Keras or TensorFlow is not installed.
        RunError: TensorFlow cannot build the model; the reason is its own.
    """
    _write(model, folder, Built("saved_model", ""))


def _write(model: Model, path: Path, form: Built) -> None:
    if _is_stateful_without_batch(model):
        raise Unsupported(
            "a Keras layer that carries states from call to call has a fixed number of samples, and the model has none",
            remedy="Give the layers initial states and take the final ones, with a recipe",
        )
    made = program(model)
    masked = any(step.gives or any(step.reads or ()) for step in made.steps)  # Keras writes masks as operations too
    operations = sorted({step.op for step in made.steps if step.op} | ({"masks"} if masked else set()))
    if form.suffix == ".h5" and operations:
        raise Unsupported(
            f"Keras does not load operations between layers from HDF5, and the model needs {', '.join(operations)}",
            remedy="Write a .keras file",
        )
    cells = cells_path(path)
    file = layers_file(made, cells.stem, _head(model, cells.stem, made.notes))
    if file.text and form.kind == "file":
        cells.write_text(file.text, encoding="utf-8")
    document, arrays = as_request(model, made, file)
    build(document, arrays, file.text, cells.name, path, form)


def _is_stateful_without_batch(model: Model) -> bool:
    """Whether a layer carries states from call to call, and the number of samples is open."""
    stateful = any(part.stateful for layer in model.layers.values() for part in recurrent_parts(layer))
    return stateful and any(declared.batch is None for declared in model.inputs)


def cells_path(path: Path) -> Path:
    """The file of layers beside a model's file."""
    suffix = next((each for each in ENDINGS if path.name.lower().endswith(each)), "")
    name = path.name[: len(path.name) - len(suffix)]
    return path.with_name(identifier(name) + ENDINGS.get(suffix, "_cells.py"))


def observations(model: Model) -> dict[str, str]:
    """The value of the graph that each Keras layer gives, by the layer's name."""
    made: Program = program(model)
    return made.observed([name for node in model.nodes for name in (node.name, *node.further)])


def _head(model: Model, module: str, notes: Sequence[str]) -> list[str]:
    """The docstring of the file of layers."""
    provenance = model.provenance
    source = one_line(provenance.source) or "a model without a file"
    lines = [f"The layers of {one_line(model.name) or 'a model'} that Keras does not have; written by normconvert.", ""]
    lines += ["They must be known before the model is loaded:", "", f"    import {module}"]
    lines += ['    model = keras.models.load_model("...")', "", f"Source:  {source}"]
    lines += [f"SHA-256: {one_line(provenance.sha256)}"] if provenance.sha256 else []
    return [*lines, *(f"Note:    {one_line(note)}." for note in notes)]
