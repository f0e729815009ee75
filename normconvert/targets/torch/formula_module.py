"""A stateless layer's equations over whole samples as a PyTorch module."""

from __future__ import annotations

from normconvert.ir.layers import Formula
from normconvert.passes.prune import prune
from normconvert.targets.torch.equation_module import EquationModule, EquationWriter
from normconvert.targets.torch.names import class_name
from normconvert.targets.torch.text import indented, one_line, signature, tuple_type


def formula_module(layer: Formula) -> EquationModule:
    """The module of a stateless layer."""
    parsed = prune(layer.cell.parsed())
    found = [*parsed.inputs, *(target for equation in parsed.body for target in equation.targets)]
    writer = EquationWriter(layer.cell, parsed, found, trainable=layer.trainable)
    shapes = [f"{writer.local[name]} {writer.shape(('batch',), name)}" for name in layer.cell.input_shapes]
    docstring = [f'"""The layer `{one_line(parsed.name)}`.', "", *indented(writer.text()), ""]
    docstring += [f"Inputs {', '.join(shapes)}.", '"""']

    first = writer.local[parsed.inputs[0]]
    lines = writer.code(parsed.body)
    if writer.needs_step(parsed.body):
        lines.insert(0, f"t = torch.zeros([], dtype=torch.int64, device={first}.device)")

    init = ["super().__init__()"]
    kept = writer.sizes.kept("\n".join(lines))
    if kept:
        init.append(f"{', '.join(f'self.{name}' for name in kept)} = {', '.join(kept)}")
    init += writer.members()
    sizes = writer.sizes.read_by("\n".join(init))
    outputs = [writer.local[name] for name in parsed.outputs]
    arguments = [f"{writer.local[name]}: Tensor" for name in parsed.inputs]
    methods = [
        [signature("__init__", ["self", *(f"{name}: int" for name in sizes)], "None"), *indented(init)],
        [
            signature("forward", ["self", *arguments], tuple_type(len(outputs))),
            *indented([*lines, f"return {', '.join(outputs)}"]),
        ],
    ]
    body = ["\n".join(docstring), *("\n".join(method) for method in methods)]
    source = "\n".join(["class {class_name}(nn.Module):", *indented(["\n\n".join(body)])])
    return EquationModule(class_name(parsed.name), source, tuple(map(str, sizes.values())), writer.weights())
