"""The `forward` of a cell's module: the loop over time around its `step`."""

from __future__ import annotations

from dataclasses import dataclass, field

from normconvert.targets.python_code.text import LONGEST, assignment, indented, signature, tuple_type

_INSIDE_LOOP = 12
"""Columns before a line of the loop."""


@dataclass(frozen=True)
class StateCode:
    """How the code writes a state.

    Attributes:
        name, following: the state before and after the step.
        size: its sizes for one sample, as arguments.
        rank: its axes for one sample.
        learned, carried: the attributes with its learned initial value and with what a stateful layer carries.
    """

    name: str
    following: str
    size: str
    rank: int
    learned: str = ""
    carried: str = ""


@dataclass(frozen=True)
class Loop:
    """What the loop is made of; names are those of the code.

    Attributes:
        inputs: of the cell.
        computed: what `before_steps` gives.
        carried: arguments of `step` from before the loop, and the variable for one step's part of each; empty for
            what is the same at every step. What has a time axis has it first, but for the inputs and the mask.
        states: in the cell's order.
        given: how many states are arguments of `forward`.
        output: the state (after the step) that is the output, or empty if `step` gives it separately.
        output_size, output_rank: of the output, for one sample.
        masks: by state, the dropout mask it is multiplied by.
        timed_before, timed_step: whether `before_steps` and `step` read the index of the time step.
        reversible: the class has the argument `reverse`.
        docstring: of `forward`.
    """

    inputs: tuple[str, ...]
    computed: tuple[str, ...]
    carried: tuple[tuple[str, str], ...]
    states: tuple[StateCode, ...]
    given: int
    output: str
    output_size: str
    output_rank: int
    masks: dict[str, str]
    masked: bool = False
    zero_masked: bool = False
    return_state: bool = False
    stateful: bool = False
    dropout: bool = False
    timed_before: bool = False
    timed_step: bool = False
    most_steps: int | None = None
    exported: bool = False
    reversible: bool = False
    docstring: list[str] = field(default_factory=list)


def forward_method(loop: Loop) -> list[str]:
    """The lines of `forward`."""
    arguments = [*loop.inputs, *(["mask"] if loop.masked else []), *(s.name for s in loop.states[: loop.given])]
    results = 1 + (len(loop.states) if loop.return_state else 0)
    head = signature("forward", ["self", *(f"{name}: Tensor" for name in arguments)], tuple_type(results))
    body = [
        *loop.docstring,
        *_prepared(loop),
        *_initial(loop),
        *(_scanned(loop) if loop.exported else _looped(loop)),
        *_finished(loop),
    ]
    return [head, *indented(body)]


def _prepared(loop: Loop) -> list[str]:
    turned = [*loop.inputs, *(["mask"] if loop.masked else [])]
    x = loop.inputs[0]
    lines = []
    if loop.reversible:
        lines += ["if self.reverse:", f"    {', '.join(turned)} = {', '.join(f'{name}.flip(1)' for name in turned)}"]
    if loop.dropout:
        lines.append(f"{x} = self.dropout({x})")
    if loop.timed_step or loop.timed_before or loop.most_steps is not None:
        counted = f"torch.arange({x}.shape[1], device={x}.device).unsqueeze(1)"
        lines.append(f"steps = {counted} + self.steps_read" if loop.stateful else f"steps = {counted}")
    if loop.most_steps is not None and loop.exported:
        lines.append(f"torch._check({x}.shape[1] <= {loop.most_steps})")
    elif loop.most_steps is not None:
        lines += [f"if steps[-1] >= {loop.most_steps}:"]
        lines += [f'    raise IndexError("there are statistics for {loop.most_steps} time steps only")']
    if loop.computed:
        given = [*(_time_first(loop, name) for name in loop.inputs), *(["steps"] if loop.timed_before else [])]
        lines.append(assignment(loop.computed, "self.before_steps", given, 8))
    return lines


def _initial(loop: Loop) -> list[str]:
    lines = []
    x = loop.inputs[0]
    for position, state in enumerate(loop.states):
        if position < loop.given:
            continue
        zeros = f"{x}.new_zeros({x}.shape[0], {state.size})"
        if state.learned:
            zeros = f"self.{state.learned}.expand({x}.shape[0], {', '.join(['-1'] * state.rank)})"
        if loop.stateful:
            lines.append(f"{state.name} = {zeros}")
            lines += [f"if self.{state.carried}.shape[0] == {x}.shape[0]:", f"    {state.name} = self.{state.carried}"]
        else:
            lines.append(f"{state.name} = {zeros}")
    for state_name, mask in loop.masks.items():
        lines.append(f"{mask} = F.dropout(torch.ones_like({state_name}), self.recurrent_dropout, self.training)")
    if loop.masked:
        lines.append(f"y = {x}.new_zeros({x}.shape[0], {loop.output_size})")
    return lines


def _time_first(loop: Loop, name: str) -> str:
    # `scan` reads any order, and a program turns it back for products; see `TorchCode`.
    return f"{name}.transpose(0, 1)" + ("" if loop.exported else ".contiguous()")


def _parts(loop: Loop) -> dict[str, str]:
    """What the loop goes through, time first, by the variable for one step's part."""
    raw = {*loop.inputs} - {*loop.computed}
    parts = {now: _time_first(loop, name) if name in raw else name for name, now in loop.carried if now}
    parts |= {"t": "steps"} if loop.timed_step else {}
    return parts | ({"keep": _time_first(loop, "mask")} if loop.masked else {})


def _arguments(loop: Loop) -> list[str]:
    index = ["t"] if loop.timed_step else []
    carried = [now or name for name, now in loop.carried]
    return [*carried, *(state.name for state in loop.states), *loop.masks.values(), *index]


def _step_lines(loop: Loop) -> list[str]:
    """One call of `step`, and what a mask keeps."""
    if not loop.masked:
        results = [state.name for state in loop.states] + ([] if loop.output else ["y"])
        return [assignment(results, "self.step", _arguments(loop), _INSIDE_LOOP)]
    results = [state.following for state in loop.states] + ([] if loop.output else ["output"])
    lines = [assignment(results, "self.step", _arguments(loop), _INSIDE_LOOP)]
    for state in loop.states:
        lines.append(f"{state.name} = torch.where({_spread(state.rank)}, {state.following}, {state.name})")
    hidden = "torch.zeros_like(y)" if loop.zero_masked else "y"
    lines.append(f"y = torch.where({_spread(loop.output_rank)}, {_emitted(loop)}, {hidden})")
    return lines


def _emitted(loop: Loop) -> str:
    """The output of `step`, before the mask."""
    following = {state.following: state.name for state in loop.states}
    if not loop.output:
        return "output" if loop.masked else "y"
    return loop.output if loop.masked else following[loop.output]


def _collected(loop: Loop) -> str:
    return "y" if loop.masked else _emitted(loop)


def _spread(rank: int) -> str:
    return f"keep[{', '.join([':', *['None'] * rank])}]"


def _looped(loop: Loop) -> list[str]:
    body = [*_step_lines(loop), f"outputs.append({_collected(loop)})"]
    return ["outputs: list[Tensor] = []", _over_time(loop), *indented(body)]


def _over_time(loop: Loop) -> str:
    """The line that begins the loop, broken as a formatter would."""
    parts = _parts(loop)
    if not parts:
        return f"for _ in range({loop.inputs[0]}.shape[1]):"
    names, values = ", ".join(parts), ", ".join(parts.values())
    if len(parts) == 1:
        return f"for {names} in {values}:"
    line = f"for {names} in zip({values}):"
    return line if 8 + len(line) <= LONGEST else f"for {names} in zip(\n    {values}\n):"


def _scanned(loop: Loop) -> list[str]:
    """The loop as a `scan`, which keeps the number of steps open in an exported program."""
    states = [*(state.name for state in loop.states), *(["y"] if loop.masked else [])]
    parts = _parts(loop)
    carry = ", ".join(states)
    body = [f"{carry}, = carry", f"{', '.join(parts)}, = inputs"]
    body += _step_lines(loop)
    body += [f"return ({carry},), ({_collected(loop)}).clone()"]
    moved = ", ".join(parts.values())
    result = ", ".join(f"{name}.clone()" for name in states)
    return [
        "def body(carry: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:",
        *indented(body),
        "",
        f"({carry},), stacked = scan(body, ({result},), ({moved},))",
    ]


def _finished(loop: Loop) -> list[str]:
    lines = []
    if loop.stateful:
        lines += [f"self.{state.carried} = {state.name}.detach()" for state in loop.states]
        lines.append(f"self.steps_read = self.steps_read + {loop.inputs[0]}.shape[1]")
    sequence = "stacked.movedim(0, 1)" if loop.exported else "torch.stack(outputs, dim=1)"
    last = "y" if loop.masked else _emitted(loop)
    if not loop.masked and not loop.output:
        last = "stacked[-1]" if loop.exported else "outputs[-1]"
    states = [state.name for state in loop.states] if loop.return_state else []
    lines += ["if not self.sequences:", f"    return {', '.join([last, *states])}"]
    if not loop.reversible:
        return [*lines, f"return {', '.join([sequence, *states])}"]
    aligned = "sequence.flip(1) if self.reverse else sequence"
    return [*lines, f"sequence = {sequence}", f"return {', '.join([aligned, *states])}"]
