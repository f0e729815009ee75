"""The file of the layers that Keras does not have: classes written from equations, and the building blocks they use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normconvert.ir.model import Array
from normconvert.targets.keras.layer_spec import LayerSpec
from normconvert.targets.keras.library import library
from normconvert.targets.keras.program import Program
from normconvert.targets.python_code.library import names_read, needed_blocks
from normconvert.targets.python_code.names import Namer


@dataclass(frozen=True)
class LayersFile:
    """The file of layers that Keras does not have.

    Attributes:
        text: Python, or empty if none is needed.
        names: of its classes, by the Keras name of the layer, with `.forward` and the like for one inside it.
    """

    text: str
    names: dict[str, str]


def layers_file(made: Program, package: str, head: Sequence[str]) -> LayersFile:
    """Write the classes and functions that a program needs.

    Args:
        made: the program.
        package: what they are registered under.
        head: lines of the docstring.
    """
    classes: dict[str, str] = {}
    names: dict[str, str] = {}
    namer = Namer({"register", "ops", "keras", *library()}, separator="")
    functions: dict[str, str] = {}
    wanted: set[str] = set()
    for place, spec in (part for name, whole in made.layers.items() for part in whole.parts(name)):
        functions |= spec.functions
        if spec.source:
            known = next((n for n, text in classes.items() if text == _class_text(spec, n)), None)
            names[place] = known or namer(spec.kind)
            classes[names[place]] = _class_text(spec, names[place])
        elif spec.kind in library():
            names[place] = spec.kind
            wanted.add(spec.kind)
    body = "\n\n\n".join([*functions.values(), *classes.values()])
    if not body and not wanted:
        return LayersFile("", names)
    wanted |= names_read(body) & set(library())
    blocks = [block.source for block in needed_blocks(library(), wanted)]
    top = [
        '"""' + head[0],
        *head[1:],
        '"""',
        "",
        "import keras",
        "from keras import ops",
        "",
        f'PACKAGE = "{package}"',
        "register = keras.saving.register_keras_serializable(PACKAGE)",
    ]
    return LayersFile("\n\n\n".join(["\n".join(top), *blocks, *([body] if body else [])]) + "\n", names)


def _class_text(spec: LayerSpec, name: str) -> str:
    return spec.source.replace("{class_name}", name)


def stored(array: Array, *, wide: bool) -> Array:
    """An array in the precision of the model."""
    return np.asarray(array, dtype=np.float64 if wide else np.float32, order="C")
