"""A recurrent cell as a Keras layer: equations as code, what depends on the inputs alone before the time loop."""

from __future__ import annotations

from normconvert.ir.checking import analyse
from normconvert.ir.expressions import Call, next_value, walk
from normconvert.ir.layers import Formula, Recurrent
from normconvert.passes.hoist import hoist
from normconvert.passes.prune import prune
from normconvert.passes.split_products import split_products
from normconvert.targets.keras.equation_layer import EquationLayer, EquationWriter, tuple_of
from normconvert.targets.python_code.names import class_name
from normconvert.targets.python_code.text import indented, one_line


def cell_layer(layer: Recurrent) -> EquationLayer:
    """The layer class of a recurrent layer's cell, and its configuration."""
    parsed = prune(split_products(layer.cell))
    parts = hoist(parsed, analyse(layer.cell))
    assigned = [target for e in (*parts.fixed, *parts.before, *parts.step) for target in e.targets]
    writer = EquationWriter(layer.cell, parsed, [*parsed.inputs, *parsed.states, *assigned], layer.fixed)
    writer.learn(parts.before)
    has_time = {*parsed.inputs, *(target for e in parts.before for target in e.targets)}
    timed = [name for name in parts.carried if name in has_time]
    fixed = [name for name in parts.carried if name not in has_time]
    local = writer.local

    shapes = [f"{local[n]} {writer.shape(('batch', 'time'), n)}" for n in parsed.inputs]
    states = [f"{local[n]} {writer.shape(('batch',), n)}" for n in parsed.states]
    title = f"The cell `{one_line(parsed.name)}`, run over time."
    head = writer.docstring(title, f"Inputs {', '.join(shapes)}; states {', '.join(states)}.")

    before = [*writer.code([*parts.fixed, *parts.before])]
    before.append(f"return {tuple_of(local[n] for n in timed)}, {tuple_of(local[n] for n in fixed)}")
    following = [local[next_value(name)] for name in parsed.states]
    step = [*writer.code(parts.step), f"return {tuple_of(following)}, {local[parsed.outputs[0]]}"]
    arguments = [*(local[n] for n in (*timed, *fixed, *parsed.states)), "t"]
    output = parsed.outputs[0].rstrip("'")
    sizes = writer.sizes.shape_inside(output, [size or 0 for size in writer.checked[parsed.outputs[0]].shape])
    state_shapes = [tuple_of(writer.sizes.shape_inside(n, layer.cell.states[n].shape)) for n in parsed.states]
    methods = [
        writer.init(),
        [
            "def build(self, inputs_shape, initial_state_shape=None):",
            *indented([*writer.build(), "super().build(inputs_shape, initial_state_shape)"]),
        ],
        ["def state_shapes(self):", f"    return [{', '.join(state_shapes)}]"],
        ["def output_shape_of_step(self):", f"    return {tuple_of(sizes)}"],
        *_initial(layer, writer),
        [
            f"def before_steps(self, {', '.join([*(local[n] for n in parsed.inputs), 't'])}):",
            *indented(['"""What depends on the inputs alone, for all time steps at once."""', *before]),
        ],
        [
            f"def step(self, {', '.join(arguments)}):",
            *indented(['"""One time step: the next states, and the output."""', *step]),
        ],
        writer.get_config(),
    ]
    limits = [n.steps for n in layer.cell.norms.values() if n.steps is not None and n.past_end == "error"]
    called = [node.function for e in parts.step for node in walk(e.value) if isinstance(node, Call)]
    norms = [name for name, norm in layer.cell.norms.items() if norm.has_population for _ in range(called.count(name))]
    running = tuple(writer.attribute[name] for name in norms)
    first = ["\n".join(head), *([f"most_steps = {min(limits)}"] if limits else [])]
    first += [f"running = {tuple_of(map(repr, running))}".replace("'", '"')] if running else []
    return EquationLayer(
        class_name(parsed.name),
        _class("Recurrence", first, methods),
        {**writer.sizes.values, **_flags(layer)},
        writer.weights(),
    )


def _flags(layer: Recurrent) -> dict[str, object]:
    flags = {
        "reverse": layer.reverse,
        "sequences": layer.return_sequences,
        "return_state": layer.return_state,
        "stateful": layer.stateful,
        "zero_masked": layer.zero_masked,
        "dropout": layer.dropout,
    }
    return {name: value for name, value in flags.items() if value}


def _initial(layer: Recurrent, writer: EquationWriter) -> list[list[str]]:
    """The method for learned initial states, if there are any."""
    if not any(state.learned for state in layer.cell.states.values()):
        return []
    lines = ["states = super().initial_states(batch)"]
    for position, (name, state) in enumerate(layer.cell.states.items()):
        if state.learned:
            lines.append(f"states[{position}] = states[{position}] + self.{writer.attribute[f'initial.{name}']}")
    return [["def initial_states(self, batch):", *indented([*lines, "return states"])]]


def formula_layer(layer: Formula) -> EquationLayer:
    """The layer class of a stateless layer's equations over whole samples, and its configuration."""
    parsed = prune(layer.cell.parsed())
    found = [*parsed.inputs, *(target for equation in parsed.body for target in equation.targets)]
    writer = EquationWriter(layer.cell, parsed, found, layer.fixed, frozen=layer.step_input)
    names = [writer.local[name] for name in parsed.inputs] + (["t"] if layer.step_input else [])
    shapes = [f"{writer.local[name]} {writer.shape(('batch',), name)}" for name in parsed.inputs]
    shapes += ["t [batch], the number of the time step"] if layer.step_input else []
    head = writer.docstring(f"The layer `{one_line(parsed.name)}`.", f"Inputs {', '.join(shapes)}.")
    unpacked = f"{', '.join(names)} = inputs" if len(names) > 1 else f"{names[0]} = inputs"
    step = ['t = ops.cast(t, "int32")'] if layer.step_input else ['t = ops.zeros((), dtype="int32")']
    timed = step if layer.cell.norms else []
    outputs = [writer.local[name] for name in parsed.outputs]
    methods = [
        writer.init(),
        ["def build(self, input_shape):", *indented([*writer.build(), "self.built = True"])],
        ["def call(self, inputs):", *indented([unpacked, *timed, *writer.code(parsed.body)]), *_returned(outputs)],
        writer.get_config(),
    ]
    source = _class("Declared", ["\n".join(head)], methods)
    return EquationLayer(class_name(parsed.name), source, dict(writer.sizes.values), writer.weights())


def _returned(outputs: list[str]) -> list[str]:
    return [f"    return {', '.join(outputs)}"]


def _class(base: str, first: list[str], methods: list[list[str]]) -> str:
    body = "\n\n".join([*first, *("\n".join(method) for method in methods if method)])
    return "\n".join(["@register", f"class {{class_name}}({base}):", *indented([body])])
