"""Do the equations of a cell fit together? Shapes, symbols, and what may be normalised with what.

Shapes are those of one sample. A value that depends on an input or a state is *batched*: it has one array per
sample. Parameters and numbers are not, and may have fewer axes than what they are combined with, but not more.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from itertools import zip_longest

from normconvert.errors import EquationError
from normconvert.ir.cell import Cell
from normconvert.ir.expressions import (
    Binary,
    Call,
    Equation,
    Expression,
    Index,
    Name,
    Negate,
    Number,
    Position,
    is_next,
    mistake,
)
from normconvert.ir.function_shapes import RULES, per_axis
from normconvert.ir.functions import FUNCTIONS, FunctionInfo
from normconvert.ir.norm import Norm
from normconvert.ir.sizes import parse_size
from normconvert.ir.values import Shape, Value, broadcast, show, suggestion

__all__ = ["Shape", "Value", "analyse", "broadcast", "check", "per_axis"]


def check(cell: Cell) -> dict[str, Shape]:
    """The shape of every name in the cell's equations, in single-assignment form.

    Raises:
        EquationError: something does not fit; `where` gives line and column of the cell's text.
    """
    return {name: value.shape for name, value in analyse(cell).items()}


def analyse(cell: Cell) -> dict[str, Value]:
    """As `check`, with what each value depends on."""
    equations = cell.parsed()
    for declared, listed, noun in (
        (set(cell.input_shapes), set(equations.inputs), "input"),
        (set(cell.states), set(equations.states), "state"),
    ):
        if declared != listed:
            names = ", ".join(sorted(declared ^ listed))
            raise EquationError(f"{noun}s in the header and in the declarations differ: {names}", where="line 1")
    _check_declarations(cell)
    known: dict[str, Value] = {name: Value(shape, True) for name, shape in cell.input_shapes.items()}
    known |= {name: Value(state.shape, True, True) for name, state in cell.states.items()}
    known |= {name: Value(shape) for name, shape in cell.parameters.items()}
    known |= {name: Value(()) for name in cell.constants}
    checker = _Checker(cell, known)
    for equation in equations.body:
        checker.equation(equation)
    for output in equations.outputs:
        if not known[output].batched:
            raise EquationError(f"the output {output} does not depend on an input or a state", where="line 1")
    return known


def _check_declarations(cell: Cell) -> None:
    """Names are identifiers (targets print them into source code), each declared once; sizes are positive."""
    seen: set[str] = set(FUNCTIONS)
    for declared in (cell.input_shapes, cell.states, cell.parameters, cell.constants, cell.norms):
        for name in declared:
            if not _is_identifier(name):
                raise EquationError(f"{name!r} cannot be a name")
            if name in seen:
                raise EquationError(f"the name {name} is declared twice or is a function's")
            seen.add(name)
    for name in cell.dims:
        if not _is_identifier(name):
            raise EquationError(f"{name!r} cannot be the name of a size")
    shapes = {**cell.input_shapes, **cell.parameters, **{name: state.shape for name, state in cell.states.items()}}
    for name, shape in {**shapes, "sizes": tuple(cell.dims.values())}.items():
        if any(size is not None and size < 1 for size in shape):
            raise EquationError(f"the shape {show(shape)} has a size below 1", where=name)
    for name, norm in cell.norms.items():
        for fault in norm.faults():
            raise EquationError(fault, where=f"norm {name}")
    _check_written(cell, {**shapes, **{name: norm.shape for name, norm in cell.norms.items()}})


def _check_written(cell: Cell, shapes: Mapping[str, Shape]) -> None:
    """What is written with the names of sizes must be the shapes themselves."""
    for name, texts in cell.written.items():
        where = f"written shape of {name}"
        if name not in shapes:
            raise EquationError(f"{name} is not an input, a state, a parameter or a norm", where=where)
        try:
            written = tuple(parse_size(text).resolve(cell.dims) for text in texts)
        except KeyError as error:
            remedy = suggestion(error.args[0], cell.dims)
            raise EquationError(f"{error.args[0]} is not the name of a size", where=where, remedy=remedy) from None
        pairs = zip_longest(shapes[name], written, fillvalue=0)
        if any(size not in (None, given) for size, given in pairs):
            raise EquationError(
                f"[{', '.join(texts)}] is {show(written)}, the shape is {show(shapes[name])}", where=where
            )


def _is_identifier(name: str) -> bool:
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name != "inf"


class _Checker:
    def __init__(self, cell: Cell, known: dict[str, Value]) -> None:
        self.cell = cell
        self.known = known

    def equation(self, equation: Equation) -> None:
        value = self.value(equation.value)
        if len(equation.targets) > 1:
            value = self.piece(equation, value)
        for target in equation.targets:
            if target in self.cell.parameters or target in self.cell.constants:
                raise mistake(f"{target} is a parameter or a constant and cannot be assigned", equation.position)
            if is_next(target):
                state = self.cell.states[target[:-1]]
                if value.shape != state.shape or not value.batched:
                    raise mistake(
                        f"the next {target[:-1]} has shape {show(value.shape)}, the state {show(state.shape)}",
                        equation.position,
                    )
            self.known[target] = value

    def piece(self, equation: Equation, whole: Value) -> Value:
        """One piece of a split: the checker of `split` has put the pieces on a leading axis."""
        if whole.shape[0] != len(equation.targets):
            raise mistake(f"split gives {whole.shape[0]} pieces for {len(equation.targets)} names", equation.position)
        return Value(whole.shape[1:], whole.batched, whole.recurrent)

    def value(self, expression: Expression) -> Value:
        match expression:
            case Number():
                return Value(())
            case Name(name=name, position=position):
                if name not in self.known:
                    what = f"{name} is not an input, a state, a parameter, a constant or an earlier result"
                    raise mistake(what, position, suggestion(name, self.known))
                return self.known[name]
            case Negate(operand=operand):
                return self.value(operand)
            case Binary(operator="@", left=left, right=right, position=position):
                return self.product(self.value(left), self.value(right), position)
            case Binary(left=left, right=right, position=position):
                return self.elementwise([self.value(left), self.value(right)], position)
            case Index():
                return self.index(expression)
            case Call(function=function, position=position):
                if function in self.cell.norms:
                    return self.norm(self.cell.norms[function], expression)
                if function in FUNCTIONS:
                    return self.call(FUNCTIONS[function], expression)
                remedy = suggestion(function, [*FUNCTIONS, *self.cell.norms])
                raise mistake(f"{function} is not a function or a declared norm", position, remedy)

    def elementwise(self, values: list[Value], position: Position) -> Value:
        result = values[0]
        for other in values[1:]:
            shape = broadcast(result.shape, other.shape)
            ranks = {len(v.shape) for v in (result, other) if v.batched}
            if shape is None:
                raise mistake(f"shapes {show(result.shape)} and {show(other.shape)} do not fit", position)
            if len(ranks) > 1 or (ranks and len(shape) > max(ranks)):
                raise mistake(
                    f"shapes {show(result.shape)} and {show(other.shape)} have different numbers of axes",
                    position,
                    "Use reshape, or keepdims=True in a sum",
                )
            result = Value(shape, result.batched or other.batched, result.recurrent or other.recurrent)
        return result

    def product(self, left: Value, right: Value, position: Position) -> Value:
        a, b = left.shape, right.shape
        vector_times_batched = left.batched and right.batched and len(a) == 1 and len(b) == 2
        same_rank = left.batched and right.batched and len(a) == len(b) >= 2
        by_parameter = not right.batched and len(a) >= 1 and len(b) == 2
        of_parameter = not left.batched and right.batched and len(a) == 2 and len(b) >= 2
        if not (vector_times_batched or same_rank or by_parameter or of_parameter):
            raise mistake(f"{show(a)} @ {show(b)} is not a matrix product", position)
        if None not in (a[-1], b[-2]) and a[-1] != b[-2]:
            raise mistake(f"{show(a)} @ {show(b)}: the inner sizes {a[-1]} and {b[-2]} differ", position)
        leading = b[:-2] if of_parameter else ()
        return Value((*leading, *a[:-1], b[-1]), left.batched or right.batched, left.recurrent or right.recurrent)

    def index(self, expression: Index) -> Value:
        value = self.value(expression.value)
        shape = list(value.shape)
        if len(expression.slices) > len(shape):
            raise mistake(f"{len(expression.slices)} slices of a value with {len(shape)} axes", expression.position)
        for axis, part in enumerate(expression.slices):
            try:
                start, stop = (None if end is None else end.resolve(self.cell.dims) for end in (part.start, part.stop))
            except KeyError as error:
                remedy = suggestion(error.args[0], self.cell.dims)
                raise mistake(f"the size {error.args[0]} is not declared", expression.position, remedy) from None
            size = shape[axis]
            if size is None:
                shape[axis] = None if (start, stop) != (None, None) else size
                continue
            length = len(range(*slice(start, stop).indices(size)))
            if length == 0 or max(abs(start or 0), abs(stop or 0)) > size:
                raise mistake(f"the slice leaves axis {axis} of size {size}", expression.position)
            shape[axis] = length
        return Value(tuple(shape), value.batched, value.recurrent)

    def norm(self, norm: Norm, call: Call) -> Value:
        if len(call.arguments) != 1 or call.options:
            raise mistake(f"the norm {call.function} takes one argument", call.position)
        value = self.value(call.arguments[0])
        normalised = value.shape if norm.positions else value.shape[-1:]
        if not value.batched or normalised != norm.shape:
            at = f" at positions {show(norm.positions)}" if norm.positions else ""
            raise mistake(
                f"the norm {call.function} is declared for {norm.features} features{at}, its argument has shape "
                f"{show(value.shape)}",
                call.position,
            )
        if norm.scope == "sequence" and value.recurrent:
            raise mistake(
                f"the norm {call.function} takes moments over the sequence, but its argument depends on a state",
                call.position,
            )
        return value

    def call(self, info: FunctionInfo, call: Call) -> Value:
        arguments = [self.value(argument) for argument in call.arguments]
        tensors = len(arguments) if info.tensors is None else info.tensors
        if len(arguments) < max(tensors, 1) or len(arguments) > tensors + len(info.parameters):
            raise mistake(f"{call.function} takes {_signature(info)}, not {len(arguments)} arguments", call.position)
        required = sum(default is None for default in info.parameters.values())
        if len(arguments) < tensors + required:
            raise mistake(f"{call.function} needs {', '.join(info.parameters)}", call.position)
        if any(value.shape or value.batched for value in arguments[tensors:]):
            raise mistake(
                f"{', '.join(info.parameters)} of {call.function} must be numbers or constants", call.position
            )
        given = dict(call.options)
        for name in set(given) - set(info.options):
            raise mistake(f"{call.function} has no option {name}", call.position)
        options = {name: given.get(name, default) for name, default in info.options.items()}
        missing = [name for name, value in options.items() if value is None]
        if missing:
            raise mistake(f"{call.function} needs {missing[0]}=...", call.position)
        if info.kind == "elementwise":
            return self.elementwise(arguments[:tensors], call.position)
        return (RULES.get(call.function) or RULES[info.kind])(call, arguments[:tensors], options)


def _signature(info: FunctionInfo) -> str:
    tensors = "one or more values" if info.tensors is None else f"{info.tensors} value{'s' if info.tensors > 1 else ''}"
    return tensors + (f" and {', '.join(info.parameters)}" if info.parameters else "")
