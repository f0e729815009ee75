"""A recurrent cell as a PyTorch module: equations as code, what depends on the inputs alone before the time loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from normconvert.ir.cell import Cell
from normconvert.ir.checking import analyse
from normconvert.ir.expressions import (
    Binary,
    Equation,
    Equations,
    Expression,
    Name,
    names_in,
    next_value,
    rewrite,
    walk,
)
from normconvert.ir.layers import Recurrent
from normconvert.passes.gather_terms import gather_terms
from normconvert.passes.hoist import Hoisted, hoist
from normconvert.passes.prune import prune
from normconvert.passes.split_products import split_products
from normconvert.targets.python_code.names import class_name
from normconvert.targets.python_code.numbers import number
from normconvert.targets.python_code.text import (
    docstring,
    indented,
    kept_arguments,
    one_line,
    signature,
    tuple_type,
    wrapped,
)
from normconvert.targets.python_code.values import Value
from normconvert.targets.torch.affine_norms import affine_call, affine_norms
from normconvert.targets.torch.cell_loop import Loop, StateCode, forward_method
from normconvert.targets.torch.cell_norms import is_native
from normconvert.targets.torch.equation_module import EquationModule, EquationWriter


@dataclass(frozen=True)
class Use:
    """How a graph uses a recurrent layer, as far as it changes the code.

    Attributes:
        masked: it is called with a mask.
        initial: how many initial states it is given.
        exported: the loop is written with `scan`, for `torch.export`.
        reversible: some layer of the graph reads backwards, so that the class shared with it can.
    """

    masked: bool = False
    initial: int = 0
    exported: bool = False
    reversible: bool = False


def cell_module(layer: Recurrent, use: Use) -> EquationModule:
    """The module of a recurrent layer."""
    return _CellWriter(layer, use).module()


class _CellWriter(EquationWriter):
    def __init__(self, layer: Recurrent, use: Use) -> None:
        self.layer, self.use = layer, use
        self.flags = ("reverse", "sequences") if use.reversible or layer.reverse else ("sequences",)
        parsed = prune(split_products(layer.cell))
        self.parts, self.tables = _in_parts(layer.cell, parsed)
        self.dropped = _dropped_states(parsed) if layer.recurrent_dropout else ()
        equations = [*self.parts.fixed, *self.parts.before, *self.parts.step]
        found = [*parsed.inputs, *parsed.states, *(target for e in equations for target in e.targets)]
        states = [*(f"initial.{s}" for s in parsed.states), *(f"carried.{s}" for s in parsed.states)]
        local = [*found, *map(_mask, self.dropped), *map(_now, self.parts.carried)]
        super().__init__(layer.cell, parsed, local, states, trainable=layer.trainable, fixed=layer.fixed)
        self.values |= {name: Value(1, False) for name in self.tables}
        for name, norm in self.norms.items():
            if norm.affine:
                self.texts[name], self.texts[affine_call(name)] = norm.plain, norm.affine
        self.learn(self.parts.before)
        for state in self.dropped:
            self.values[_dropped(state)] = self.values[state]
            self.texts[_dropped(state)] = f"({self.local[state]} * {self.local[_mask(state)]})"

    def module(self) -> EquationModule:
        body = [*self._before(), self._step(), *self._reset(), self._forward()]
        made = self._made("\n".join(line for method in body for line in method))
        sizes = self.sizes.read_by("\n".join(made))
        body.insert(0, self._init(sizes, made))
        methods = "\n\n".join("\n".join(indented(method)) for method in body)
        source = f"class {{class_name}}(nn.Module):\n{self._docstring()}\n\n{methods}"
        flags = [f"{flag}=True" for flag in self.flags if self._flag(flag)]
        flags += [f"{name}={number(getattr(self.layer, name))}" for name in self._rates()]
        weights = self.weights()
        learned = [f"initial.{name}" for name, state in self.cell.states.items() if state.learned]
        weights |= {name: self.attribute[name] for name in learned}
        return EquationModule(class_name(self.parsed.name), source, (*map(str, sizes.values()), *flags), weights)

    def _rates(self) -> list[str]:
        """The constructor's arguments for dropout."""
        return [*(["dropout"] if self.layer.dropout else []), *(["recurrent_dropout"] if self.dropped else [])]

    def _flag(self, flag: str) -> bool:
        return self.layer.reverse if flag == "reverse" else self.layer.return_sequences

    def _docstring(self) -> str:
        shapes = [f"{self.local[n]} {self.shape(('batch', 'time'), n)}" for n in self.parsed.inputs]
        states = [f"{self.local[n]} {self.shape(('batch',), n)}" for n in self.cell.states]
        family = self.cell.family if self.cell.family != self.parsed.name else ""
        title = f"The cell `{one_line(self.parsed.name)}`{family and f' ({one_line(family)})'}, run over time."
        text = f"Inputs {', '.join(shapes)}; states {', '.join(states)}."
        if "reverse" in self.flags:
            text += " With `reverse` the steps are read from the last to the first."
        text += " Without `sequences` the output is that of the step read last."
        lines = [f'"""{title}', "", *indented(self.text()), "", *wrapped(text), '"""']
        return "\n".join(indented(lines))

    def _init(self, sizes: Iterable[str], made: list[str]) -> list[str]:
        arguments = [*(f"{name}: int" for name in sizes), "*", *(f"{flag}: bool = False" for flag in self.flags)]
        arguments += [f"{name}: float = 0.0" for name in self._rates()]
        return [signature("__init__", ["self", *arguments], "None"), *indented(["super().__init__()", *made])]

    def _made(self, methods: str) -> list[str]:
        """The lines of the constructor that make what the methods read."""
        kept = [*self.sizes.kept(methods), *self.flags, *(["recurrent_dropout"] if self.dropped else [])]
        body = kept_arguments(kept)
        body += self.members()
        for name, state in self.cell.states.items():
            size = ", ".join(self.sizes.shape(name, state.shape))
            if state.learned:
                body.append(self.array(f"initial.{name}", f"torch.zeros({size})"))
            if self.layer.stateful:
                attribute = self.attribute[f"carried.{name}"]
                body.append(f'self.register_buffer("{attribute}", torch.zeros(0, {size}), persistent=False)')
        if self.layer.stateful:
            body.append('self.register_buffer("steps_read", torch.zeros([], dtype=torch.int64), persistent=False)')
        if self.layer.dropout:
            body.append("self.dropout = SharedDropout(dropout, [1])")
        return body

    def _before(self) -> list[list[str]]:
        """The method for what does not depend on the states, if there is any."""
        equations = [*self.parts.fixed, *self.parts.before]
        if not equations:
            return []
        targets = [self.local[name] for name in self._computed_before()]
        inputs = [f"{self.local[name]}: Tensor" for name in self.parsed.inputs]
        inputs += ["t: Tensor"] if self.needs_step(equations) else []
        lines = [signature("before_steps", ["self", *inputs], tuple_type(len(targets)))]
        body = ['"""What depends on no state, for all time steps at once; inputs time first."""']
        body += self.code(equations, products_batch_first=self.use.exported)
        return [[*lines, *indented([*body, f"return {', '.join(targets)}"])]]

    def _computed_before(self) -> list[str]:
        return [name for name in self.parts.carried if name not in self.parsed.inputs]

    def _step(self) -> list[str]:
        arguments = [f"{self.local[name]}: Tensor" for name in self._step_arguments()]
        arguments += [f"{self.local[_mask(state)]}: Tensor" for state in self.dropped]
        results = [self.local[name] for name in self._step_results()]
        arguments += ["t: Tensor"] if self.needs_step(self.parts.step) else []
        lines = [signature("step", ["self", *arguments], tuple_type(len(results)))]
        equations = [self._with_dropout(equation) for equation in self.parts.step]
        body = [f'"""One time step: the next states{"" if self._output_is_state() else ", and the output"}."""']
        body += [*self.code(equations, in_step=True), f"return {', '.join(results)}"]
        return [*lines, *indented(body)]

    def _step_arguments(self) -> list[str]:
        return [*self.parts.carried, *self.parsed.states]

    def _step_results(self) -> list[str]:
        following = [next_value(state) for state in self.parsed.states]
        return following if self._output_is_state() else [*following, self.parsed.outputs[0]]

    def _output_is_state(self) -> bool:
        return self.parsed.outputs[0] in {next_value(state) for state in self.parsed.states}

    def _with_dropout(self, equation: Equation) -> Equation:
        """States multiplied by the dropout's mask where they enter a product."""

        def rule(expression: Expression) -> Expression:
            if isinstance(expression, Binary) and expression.operator == "@":
                return replace(expression, left=rewrite(expression.left, dropped))
            return expression

        def dropped(expression: Expression) -> Expression:
            is_state = isinstance(expression, Name) and expression.name in self.dropped
            return Name(_dropped(expression.name)) if is_state and isinstance(expression, Name) else expression

        return replace(equation, value=rewrite(equation.value, rule)) if self.dropped else equation

    def _reset(self) -> list[list[str]]:
        if not self.layer.stateful:
            return []
        body = ['"""Starts a new sequence."""', "self.steps_read = torch.zeros_like(self.steps_read)"]
        for state in self.parsed.states:
            name = f"self.{self.attribute[f'carried.{state}']}"
            body.append(f"{name} = {name}[:0]")
        return [["@torch.jit.export", "def reset_states(self) -> None:", *indented(body)]]

    def _forward(self) -> list[str]:
        output = self.parsed.outputs[0]
        shape = self.checked[output].shape
        limits = [n.steps for n in self.cell.norms.values() if n.steps is not None and n.past_end == "error"]
        loop = Loop(
            inputs=tuple(self.local[name] for name in self.parsed.inputs),
            computed=tuple(self.local[name] for name in self._computed_before()),
            carried=tuple((self.local[name], self._at_step(name)) for name in self.parts.carried),
            states=tuple(self._state(name) for name in self.parsed.states),
            given=self.use.initial,
            output=self.local[output] if self._output_is_state() else "",
            output_size=", ".join(self.sizes.shape_inside(self._output_name(), [size or 0 for size in shape])),
            output_rank=len(shape),
            masks={self.local[name]: self.local[_mask(name)] for name in self.dropped},
            masked=self.use.masked,
            zero_masked=self.layer.zero_masked,
            return_state=self.layer.return_state,
            stateful=self.layer.stateful,
            dropout=self.layer.dropout > 0,
            timed_before=self.needs_step([*self.parts.fixed, *self.parts.before]),
            timed_step=self.needs_step(self.parts.step),
            most_steps=min(limits) if limits else None,
            exported=self.use.exported,
            reversible="reverse" in self.flags,
            docstring=self._forward_docstring(),
        )
        return forward_method(loop)

    def _at_step(self, name: str) -> str:
        """The variable for one step's part of what `step` reads; empty for what is the same at every step."""
        has_time = {*self.parsed.inputs, *self.tables, *(target for e in self.parts.before for target in e.targets)}
        return self.local[_now(name)] if name in has_time else ""

    def _output_name(self) -> str:
        """The output, under the name of the state that it is if it is one."""
        output = self.parsed.outputs[0]
        return output.rstrip("'") if self._output_is_state() else output

    def _forward_docstring(self) -> list[str]:
        """What goes in and comes out, with shapes."""
        given = [f"{self.local[name]} {self.shape(('batch', 'time'), name)}" for name in self.parsed.inputs]
        given += ["mask [batch, time], true for real steps"] if self.use.masked else []
        given += [
            f"initial {self.local[name]} {self.shape(('batch',), name)}"
            for name in self.parsed.states[: self.use.initial]
        ]
        result = self._output_name()
        text = f"From {', '.join(given)} to {self.shape(('batch', 'time'), result)}"
        text += f", or {self.shape(('batch',), result)} without `sequences`"
        if self.layer.return_state:
            text += f", and the final {', '.join(self.local[name] for name in self.parsed.states)}"
        return docstring(f"{text}.")

    def _state(self, name: str) -> StateCode:
        state = self.cell.states[name]
        return StateCode(
            name=self.local[name],
            following=self.local[next_value(name)],
            size=", ".join(self.sizes.shape_inside(name, state.shape)),
            rank=len(state.shape),
            learned=self.attribute[f"initial.{name}"] if state.learned else "",
            carried=self.attribute[f"carried.{name}"],
        )


def _in_parts(cell: Cell, equations: Equations) -> tuple[Hoisted, frozenset[str]]:
    """What is computed before the steps and in them, and the names of the norms' scales and shifts."""
    own = {name: norm.features for name, norm in cell.norms.items() if not is_native(norm)}
    written_out = affine_norms(equations, own)
    values = {**analyse(cell), **written_out.values}
    return hoist(gather_terms(written_out.equations, values), values), frozenset(written_out.values)


def _now(name: str) -> str:
    """The part of a value that belongs to one step; no equation can have such a name."""
    return f"{name} now"


def _dropped(state: str) -> str:
    """The name of a state times its dropout mask; no equation can have such a name."""
    return f"{state} dropped"


def _mask(state: str) -> str:
    return f"{state} mask"


def _dropped_states(equations: Equations) -> tuple[str, ...]:
    """The states that enter a product, to which recurrent dropout applies."""
    read: set[str] = set()
    for equation in equations.body:
        for node in walk(equation.value):
            if isinstance(node, Binary) and node.operator == "@":
                read |= names_in(node.left)
    return tuple(state for state in equations.states if state in read)
