"""A stateless layer's equations over whole samples as a PyTorch module."""

from __future__ import annotations

from normconvert.ir.layers import Formula
from normconvert.passes.prune import prune
from normconvert.targets.python_code.names import class_name
from normconvert.targets.python_code.text import indented, one_line, signature, tuple_type
from normconvert.targets.torch.equation_module import EquationModule, EquationWriter

_STEP = "t [batch], the number of the time step"


def formula_module(layer: Formula, *, exported: bool = False) -> EquationModule:
    """The module of a stateless layer; for `torch.export` without what looks into the values of its inputs."""
    parsed = prune(layer.cell.parsed())
    found = [*parsed.inputs, *(target for equation in parsed.body for target in equation.targets)]
    writer = EquationWriter(
        layer.cell, parsed, found, trainable=layer.trainable and not layer.step_input, fixed=layer.fixed
    )
    shapes = [f"{writer.local[name]} {writer.shape(('batch',), name)}" for name in parsed.inputs]
    shapes += [_STEP] if layer.step_input else []
    docstring = [f'"""The layer `{one_line(parsed.name)}`.', "", *indented(writer.text()), ""]
    docstring += [f"Inputs {', '.join(shapes)}.", '"""']

    lines = writer.code(parsed.body)
    limits = [n.steps for n in layer.cell.norms.values() if n.steps is not None and n.past_end == "error"]
    if layer.step_input and limits and not exported:
        lines.insert(0, f"if (t >= {min(limits)}).any():")
        lines.insert(1, f'    raise IndexError("there are statistics for {min(limits)} time steps only")')
    elif writer.needs_step(parsed.body) and not layer.step_input:
        first = writer.local[parsed.inputs[0]]
        lines.insert(0, f"t = torch.zeros([], dtype=torch.int64, device={first}.device)")

    init = ["super().__init__()"]
    kept = writer.sizes.kept("\n".join(lines))
    if kept:
        init.append(f"{', '.join(f'self.{name}' for name in kept)} = {', '.join(kept)}")
    init += writer.members()
    sizes = writer.sizes.read_by("\n".join(init))
    outputs = [writer.local[name] for name in parsed.outputs]
    arguments = [f"{writer.local[name]}: Tensor" for name in parsed.inputs]
    arguments += ["t: Tensor"] if layer.step_input else []
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
