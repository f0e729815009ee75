"""A whole model as one Python file, its state dict, and where each value of the graph shows up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from normconvert.errors import NormconvertError
from normconvert.ir.layers import Bidirectional, Formula, Recurrent, recurrent_parts
from normconvert.ir.model import Array, Model, Node
from normconvert.ir.shapes import infer
from normconvert.targets.python_code.library import names_read, needed_blocks
from normconvert.targets.python_code.names import Namer
from normconvert.targets.python_code.text import docstring, indented, one_line, signature, tuple_type
from normconvert.targets.torch.cell_module import Use
from normconvert.targets.torch.layer_code import Call, LayerCode, formula_layer, plain_layer
from normconvert.targets.torch.library import library
from normconvert.targets.torch.module import Module
from normconvert.targets.torch.names import MODULE_ATTRIBUTES, PYTHON_NAMES, Observation
from normconvert.targets.torch.recurrent_code import bidirectional_layer, recurrent_layer

_OF_THE_FILE = {"Model", "load", "load_file", "Path", "IndexError", "Any"}
"""Names that a class made for a cell must not have."""


@dataclass(frozen=True)
class Written:
    """What a model becomes.

    Attributes:
        text: the file.
        arrays: its state dict.
        observations: where each value of the graph shows up, by its name; inputs are left out.
    """

    text: str
    arrays: dict[str, Array]
    observations: dict[str, Observation]


def write_model(model: Model, *, exported: bool = False) -> Written:
    """The PyTorch form of a model.

    Args:
        model: the model.
        exported: write time loops with `scan`, as `torch.export` needs them.

    Raises:
        Unsupported: a layer has no PyTorch form.
    """
    return _ModelWriter(model, exported).written()


class _ModelWriter:
    def __init__(self, model: Model, exported: bool) -> None:
        self.model, self.exported = model, exported
        recurrent = [part for layer in model.layers.values() for part in recurrent_parts(layer)]
        self.reversible = any(part.reverse for part in recurrent)
        self.codes = {name: self._code(name) for name in model.layers}
        namer = Namer(MODULE_ATTRIBUTES)
        self.attributes: dict[tuple[str, str], str] = {(name, ""): namer(name) for name in model.layers}
        for name, code in self.codes.items():
            for suffix in code.modules:
                if suffix:
                    self.attributes[name, suffix] = namer(f"{self.attributes[name, '']}_{suffix}")
        self.classes: dict[str, str] = {}
        self.class_names = Namer(_OF_THE_FILE | PYTHON_NAMES | library().keys(), separator="")
        self.scratch: dict[tuple[str, str], str] = {}
        self.locals = self._locals()

    def _code(self, name: str) -> LayerCode:
        layer, weights = self.model.layers[name], self.model.layer_weights(name)
        nodes = [node for node in self.model.nodes if node.layer == name]
        use = Use(
            masked=any(node.masks[:1] not in ((), ("",)) for node in nodes),
            initial=max((len(node.states) for node in nodes), default=0),
            exported=self.exported,
            reversible=self.reversible,
        )
        try:
            if isinstance(layer, Recurrent):
                return recurrent_layer(layer, weights, use)
            if isinstance(layer, Bidirectional):
                return bidirectional_layer(layer, weights, use)
            if isinstance(layer, Formula):
                return formula_layer(layer, weights, exported=self.exported)
            return plain_layer(layer, weights)
        except NormconvertError as error:
            raise error.at(f"layer {name}") from None

    def _locals(self) -> dict[str, str]:
        """The variable that holds each value; `x` throughout where each value is only read by the next node."""
        namer = Namer(PYTHON_NAMES | library().keys())
        names = [declared.name for declared in self.model.inputs]
        names += [name for node in self.model.nodes for name in self._outputs(node)]
        chain = self._is_chain()
        found = dict.fromkeys(names, "x") if chain else {name: namer(name) for name in names}
        for node in self.model.nodes:
            for ending in self.codes[node.layer].scratch:
                self.scratch[node.name, ending] = namer(f"{found[node.name]}_{ending}")
        return found

    def _outputs(self, node: Node) -> list[str]:
        return node.outputs(len(self.codes[node.layer].picks))

    def _is_chain(self) -> bool:
        reads = [(*node.inputs, *(m for m in node.masks if m), *node.states) for node in self.model.nodes]
        values = [declared.name for declared in self.model.inputs] + [node.name for node in self.model.nodes]
        single = all(len(self.codes[node.layer].picks) == 1 for node in self.model.nodes)
        return single and reads == [(name,) for name in values[:-1]] and self.model.outputs == (values[-1],)

    def written(self) -> Written:
        layers, arrays = self._init()
        forward = self._forward()
        model = "\n".join(["class Model(nn.Module):", *indented([*self._docstring(), "", *layers, "", *forward])])
        body = "\n\n\n".join([*self.classes.values(), model, _load(arrays)])
        blocks = [block.source for block in needed_blocks(library(), names_read(body))]
        text = "\n\n\n".join([self._head("\n\n".join([*blocks, body])), *blocks, body])
        return Written(text + "\n", arrays, self._observations())

    def _init(self) -> tuple[list[str], dict[str, Array]]:
        lines = ["def __init__(self) -> None:", "    super().__init__()"]
        arrays: dict[str, Array] = {}
        for name, layer in self.model.layers.items():
            for suffix, module in self.codes[name].modules.items():
                attribute = self.attributes[name, suffix]
                frozen = "" if layer.trainable or not module.arrays else ".requires_grad_(False)"
                lines += indented([f"self.{attribute} = {self._constructor(module)}{frozen}"])
                if layer.trainable:
                    lines += indented(f"self.{attribute}.{key}.requires_grad_(False)" for key in module.fixed)
                arrays |= {f"{attribute}.{key}": _stored(array) for key, array in module.arrays.items()}
        return lines, _one_precision(arrays)

    def _constructor(self, module: Module) -> str:
        """The code that makes a module; its class is put into the file unless the same one is there already."""
        if not module.source:
            return module.constructor
        known = next((name for name, source in self.classes.items() if source == _named(module.source, name)), None)
        name = known or self.class_names(module.class_name)
        self.classes[name] = _named(module.source, name)
        return _named(module.constructor, name)

    def _forward(self) -> list[str]:
        arguments = [f"{self.locals[declared.name]}: Tensor" for declared in self.model.inputs]
        outputs = [self.locals[name] for name in self.model.outputs]
        lines = []
        for node in self.model.nodes:
            code = self.codes[node.layer]
            own = {suffix: f"self.{self.attributes[node.layer, suffix]}" for suffix in code.modules}
            results = [self.locals[name] for name in self._outputs(node)]
            try:
                lines += code.write(own, results, self._call(node))
            except NormconvertError as error:
                raise error.at(f"layer {node.layer}") from None
        body = [*self._forward_docstring(), *lines, f"return {', '.join(outputs)}"]
        return [signature("forward", ["self", *arguments], tuple_type(len(outputs))), *indented(body)]

    def _forward_docstring(self) -> list[str]:
        """What goes in and comes out, with shapes."""
        shapes = infer(self.model)
        given = [f"{self.locals[each.name]} {_shape((None, *each.shape))}" for each in self.model.inputs]
        results = [f"{one_line(name)} {_shape((None, *shapes[name]))}" for name in self.model.outputs]
        return docstring(f"From {', '.join(given)} to {', '.join(results)}.")

    def _call(self, node: Node) -> Call:
        names = self.locals
        return Call(
            tuple(names[name] for name in node.inputs),
            tuple(names[name] if name else "" for name in node.masks),
            tuple(names[name] for name in node.states),
            tuple(self.scratch[node.name, ending] for ending in self.codes[node.layer].scratch),
        )

    def _docstring(self) -> list[str]:
        lines = [f'"""The model `{one_line(self.model.name)}`; batch first, channels last.']
        renamed = [
            f"`{one_line(name)}` is `{self.attributes[name, '']}`"
            for name in self.model.layers
            if self.attributes[name, ""] != name
        ]
        if renamed:
            lines += ["", "Layers have the source's names, made identifiers:", *renamed]
        return [*lines, '"""'] if renamed else [lines[0] + '"""']

    def _head(self, body: str) -> str:
        used = names_read(body)
        provenance = self.model.provenance
        source = one_line(provenance.source) or "a model without a file"
        lines = [f'"""{one_line(self.model.name) or "A model"}, converted to PyTorch by normconvert.', ""]
        lines += [f"Source:  {source}" + (f" ({one_line(provenance.framework)})" if provenance.framework else "")]
        lines += [f"SHA-256: {one_line(provenance.sha256)}"] if provenance.sha256 else []
        for declared in self.model.inputs:
            kind = ", integers" if declared.dtype == "int" else ""
            lines.append(f"Input:   {one_line(declared.name)} {_shape((None, *declared.shape))}{kind}")
        lines += [f"Output:  {one_line(name)}" for name in self.model.outputs]
        lines += ['"""', "", "from pathlib import Path"]
        lines += ["from typing import Any", ""] if "Any" in used else [""]
        lines += ["import torch"] if "torch" in used else []
        lines += ["import torch.nn.functional as F"] if "F" in used else []
        lines += ["from safetensors.torch import load_file"]
        lines += ["from torch import Tensor, nn"]
        lines += ["from torch._higher_order_ops.scan import scan"] if "scan" in used else []
        return "\n".join(lines)

    def _observations(self) -> dict[str, Observation]:
        calls: Counter[str] = Counter()
        found: dict[str, Observation] = {}
        for node in self.model.nodes:
            code = self.codes[node.layer]
            for name, (suffix, pick) in zip(self._outputs(node), code.picks, strict=True):
                attribute = self.attributes[node.layer, suffix]
                found[name] = Observation(attribute, calls[node.layer], pick)
            calls[node.layer] += 1
        return found


def _shape(shape: Sequence[int | None]) -> str:
    """A shape with its batch axis for a docstring; `?` for a free size."""
    return f"[{', '.join(['batch', *('?' if size is None else str(size) for size in shape[1:])])}]"


def _named(source: str, name: str) -> str:
    return source.replace("{class_name}", name)


def _stored(array: Array) -> Array:
    """Floats of at least single precision, contiguous."""
    wide = array.dtype == np.float64
    return np.ascontiguousarray(array, dtype=np.float64 if wide else np.float32)


def _one_precision(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """A module has one precision: double if any of its arrays has."""
    if any(array.dtype == np.float64 for array in arrays.values()):
        return {name: array.astype(np.float64) for name, array in arrays.items()}
    return dict(arrays)


def _load(arrays: Mapping[str, Array]) -> str:
    wide = any(array.dtype == np.float64 for array in arrays.values())
    return "\n".join(
        [
            "def load(folder: str | Path | None = None) -> Model:",
            '    """The model in eval mode, with the weights of a folder (default: the one this file is in)."""',
            "    model = Model().double()" if wide else "    model = Model()",
            "    folder = Path(__file__).parent if folder is None else Path(folder)",
            '    model.load_state_dict(load_file(folder / "model.safetensors"))',
            "    return model.eval()",
        ]
    )
