"""Do the equations of a cell fit together? Shapes, symbols, and what may be normalised with what.

Shapes are those of one sample. A value that depends on an input or a state is *batched*: it has one array per
sample. Parameters and numbers are not, and may have fewer axes than what they are combined with, but not more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from normconvert.errors import EquationError
from normconvert.ir.cell import Cell
from normconvert.ir.expressions import (
    Binary,
    Call,
    Constant,
    Equation,
    Expression,
    Index,
    Name,
    Negate,
    Number,
    Position,
    is_next,
)
from normconvert.ir.functions import FUNCTIONS, FunctionInfo
from normconvert.ir.norm import Norm
from normconvert.ir.windows import window_length

Shape = tuple["int | None", ...]


@dataclass(frozen=True)
class Value:
    """What is known of a value before anything is computed.

    Attributes:
        shape: of one sample; None for a size that may change.
        batched: it depends on an input or a state.
        recurrent: it depends on a state.
    """

    shape: Shape
    batched: bool = False
    recurrent: bool = False


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
    _check_distinct(cell)
    known: dict[str, Value] = {name: Value(shape, True) for name, shape in cell.input_shapes.items()}
    known |= {name: Value(state.shape, True, True) for name, state in cell.states.items()}
    known |= {name: Value(shape) for name, shape in cell.parameters.items()}
    known |= {name: Value(()) for name in cell.constants}
    checker = _Checker(cell, known)
    for equation in equations.body:
        checker.equation(equation)
    return known


def _check_distinct(cell: Cell) -> None:
    seen: set[str] = set()
    for kind in (cell.input_shapes, cell.states, cell.parameters, cell.constants, cell.norms):
        for name in kind:
            if name in seen or (kind is cell.norms and name in FUNCTIONS):
                raise EquationError(f"the name {name} is declared twice or is a function's")
            seen.add(name)


def _fail(what: str, position: Position, remedy: str = "") -> NoReturn:
    raise EquationError(what, where=str(position), remedy=remedy)


def broadcast(a: Shape, b: Shape) -> Shape | None:
    """The shape of `a + b` by NumPy's rule, or None where they do not fit; an unknown size fits everything."""
    length = max(len(a), len(b))
    pairs = zip((1,) * (length - len(a)) + a, (1,) * (length - len(b)) + b, strict=True)
    result: list[int | None] = []
    for m, n in pairs:
        if m is not None and n is not None and m != n and 1 not in (m, n):
            return None
        result.append(n if m == 1 else m if n in (1, None) or m is not None else None)
    return tuple(result)


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
                _fail(f"{target} is declared as a parameter or constant and cannot be assigned", equation.position)
            if is_next(target):
                state = self.cell.states[target[:-1]]
                if value.shape != state.shape or not value.batched:
                    _fail(
                        f"the next {target[:-1]} has shape {show(value.shape)}, the state {show(state.shape)}",
                        equation.position,
                    )
            self.known[target] = value

    def piece(self, equation: Equation, whole: Value) -> Value:
        """One piece of a split: the checker of `split` has put the pieces on a leading axis."""
        if whole.shape[0] != len(equation.targets):
            _fail(f"split gives {whole.shape[0]} pieces for {len(equation.targets)} names", equation.position)
        return Value(whole.shape[1:], whole.batched, whole.recurrent)

    def value(self, expression: Expression) -> Value:
        match expression:
            case Number():
                return Value(())
            case Name(name=name, position=position):
                if name not in self.known:
                    _fail(
                        f"{name} is not an input, a state, a parameter, a constant or an earlier result",
                        position,
                        f"Known here: {', '.join(sorted(self.known))}",
                    )
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
                known = ", ".join(sorted([*FUNCTIONS, *self.cell.norms]))
                _fail(f"{function} is not a function or a declared norm", position, f"Known: {known}")

    def elementwise(self, values: list[Value], position: Position) -> Value:
        result = values[0]
        for other in values[1:]:
            shape = broadcast(result.shape, other.shape)
            ranks = {len(v.shape) for v in (result, other) if v.batched}
            if shape is None:
                _fail(f"shapes {show(result.shape)} and {show(other.shape)} do not fit", position)
            if len(ranks) > 1 or (ranks and len(shape) > max(ranks)):
                _fail(
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
            _fail(f"{show(a)} @ {show(b)} is not a matrix product", position)
        if None not in (a[-1], b[-2]) and a[-1] != b[-2]:
            _fail(f"{show(a)} @ {show(b)}: the inner sizes {a[-1]} and {b[-2]} differ", position)
        leading = b[:-2] if of_parameter else ()
        return Value((*leading, *a[:-1], b[-1]), left.batched or right.batched, left.recurrent or right.recurrent)

    def index(self, expression: Index) -> Value:
        value = self.value(expression.value)
        shape = list(value.shape)
        if len(expression.slices) > len(shape):
            _fail(f"{len(expression.slices)} slices of a value with {len(shape)} axes", expression.position)
        for axis, part in enumerate(expression.slices):
            try:
                start, stop = (None if end is None else end.resolve(self.cell.dims) for end in (part.start, part.stop))
            except KeyError as error:
                known = ", ".join(self.cell.dims) or "none"
                _fail(f"the size {error.args[0]} is not declared", expression.position, f"Known sizes: {known}")
            size = shape[axis]
            if size is None:
                shape[axis] = None if (start, stop) != (None, None) else size
                continue
            length = len(range(*slice(start, stop).indices(size)))
            if length == 0 or max(abs(start or 0), abs(stop or 0)) > size:
                _fail(f"the slice leaves axis {axis} of size {size}", expression.position)
            shape[axis] = length
        return Value(tuple(shape), value.batched, value.recurrent)

    def norm(self, norm: Norm, call: Call) -> Value:
        if len(call.arguments) != 1 or call.options:
            _fail(f"the norm {call.function} takes one argument", call.position)
        value = self.value(call.arguments[0])
        if not value.batched or not value.shape or value.shape[-1] != norm.features:
            _fail(
                f"the norm {call.function} is declared for {norm.features} features, its argument has shape "
                f"{show(value.shape)}",
                call.position,
            )
        if norm.features % norm.groups:
            _fail(f"{norm.features} features do not make {norm.groups} equal groups", call.position)
        per_step = norm.affine_per_step or norm.scope == "per_step"
        if per_step and norm.has_population and norm.steps is None:
            _fail(f"the norm {call.function} differs per time step but says not for how many (steps)", call.position)
        if norm.scope == "sequence" and value.recurrent:
            _fail(
                f"the norm {call.function} takes moments over the sequence, but its argument depends on a state",
                call.position,
            )
        return value

    def call(self, info: FunctionInfo, call: Call) -> Value:
        arguments = [self.value(argument) for argument in call.arguments]
        tensors = len(arguments) if info.tensors is None else info.tensors
        if len(arguments) < max(tensors, 1) or len(arguments) > tensors + len(info.parameters):
            _fail(f"{call.function} takes {_signature(info)}, not {len(arguments)} arguments", call.position)
        required = sum(default is None for default in info.parameters.values())
        if len(arguments) < tensors + required:
            _fail(f"{call.function} needs {', '.join(info.parameters)}", call.position)
        if any(value.shape or value.batched for value in arguments[tensors:]):
            _fail(f"{', '.join(info.parameters)} of {call.function} must be numbers or constants", call.position)
        given = dict(call.options)
        for name in set(given) - set(info.options):
            _fail(f"{call.function} has no option {name}", call.position)
        options = {name: given.get(name, default) for name, default in info.options.items()}
        missing = [name for name, value in options.items() if value is None]
        if missing:
            _fail(f"{call.function} needs {missing[0]}=...", call.position)
        if info.kind == "elementwise":
            return self.elementwise(arguments[:tensors], call.position)
        return (_RULES.get(call.function) or _RULES[info.kind])(self, call, arguments[:tensors], options)


Options = dict[str, "Constant | None"]


def _axis(call: Call, value: Value, options: Options) -> int:
    axis = options["axis"]
    rank = len(value.shape)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        _fail(f"axis {axis} of a value with {rank} axes", call.position)
    return axis % rank


def _along_axis(checker: _Checker, call: Call, values: list[Value], options: Options) -> Value:
    _axis(call, values[0], options)
    return values[0]


def _reduction(checker: _Checker, call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    axis = _axis(call, value, options)
    kept = (1,) if options["keepdims"] else ()
    return Value((*value.shape[:axis], *kept, *value.shape[axis + 1 :]), value.batched, value.recurrent)


def _halves(checker: _Checker, call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    axis = _axis(call, value, options)
    size = value.shape[axis]
    if size is not None and size % 2:
        _fail(f"an axis of size {size} has no halves", call.position)
    shape = (*value.shape[:axis], None if size is None else size // 2, *value.shape[axis + 1 :])
    return Value(shape, value.batched, value.recurrent)


def _split(checker: _Checker, call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    axis = _axis(call, value, options)
    count = call.arguments[1]
    if not isinstance(count, Number) or count.value != int(count.value) or count.value < 1:
        _fail("split takes a number of pieces", call.position)
    pieces, size = int(count.value), value.shape[axis]
    if size is None or size % pieces:
        _fail(f"an axis of size {size} does not make {pieces} equal pieces", call.position)
    piece = (*value.shape[:axis], size // pieces, *value.shape[axis + 1 :])
    return Value((pieces, *piece), value.batched, value.recurrent)


def _concat(checker: _Checker, call: Call, values: list[Value], options: Options) -> Value:
    axis = _axis(call, values[0], options)
    shapes = [value.shape for value in values]
    if any(len(shape) != len(shapes[0]) for shape in shapes) or len({value.batched for value in values}) > 1:
        _fail("concat joins values with the same number of axes", call.position)
    for shape in shapes[1:]:
        if shape[:axis] + shape[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :]:
            _fail(f"concat: shapes {show(shapes[0])} and {show(shape)} do not fit", call.position)
    sizes = [shape[axis] for shape in shapes]
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    shape = (*shapes[0][:axis], total, *shapes[0][axis + 1 :])
    return Value(shape, values[0].batched, any(value.recurrent for value in values))


def _transpose(checker: _Checker, call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    if len(value.shape) < 2:
        _fail("transpose needs two axes", call.position)
    shape = (*value.shape[:-2], value.shape[-1], value.shape[-2])
    return Value(shape, value.batched, value.recurrent)


def _reshape(checker: _Checker, call: Call, values: list[Value], options: Options) -> Value:
    (value,) = values
    wanted = options["shape"]
    shape = (wanted,) if isinstance(wanted, int) else wanted
    if not isinstance(shape, tuple) or sum(size == -1 for size in shape) > 1:
        _fail("shape=(...) takes integers, at most one of them -1", call.position)
    if None in value.shape:
        return Value(tuple(None if size == -1 else size for size in shape), value.batched, value.recurrent)
    total = 1
    for size in value.shape:
        total *= size or 1
    known = 1
    for size in shape:
        known *= size if size != -1 else 1
    if known < 1 or (total % known if -1 in shape else total != known):
        _fail(f"{show(value.shape)} does not reshape to {show(shape)}", call.position)
    return Value(tuple(total // known if size == -1 else size for size in shape), value.batched, value.recurrent)


def _conv(checker: _Checker, call: Call, values: list[Value], options: Options) -> Value:
    value, kernel = values
    rank = len(value.shape) - 1
    if kernel.batched or len(kernel.shape) != rank + 2 or kernel.shape[-2] != value.shape[-1]:
        _fail(f"conv of {show(value.shape)} with a kernel {show(kernel.shape)}", call.position)
    window = [size for size in kernel.shape[:rank] if size is not None]
    strides, dilation = per_axis(options["strides"], rank), per_axis(options["dilation"], rank)
    padding = str(options["padding"])
    space = tuple(
        window_length(size, w, s, d, padding)
        for size, w, s, d in zip(value.shape[:-1], window, strides, dilation, strict=True)
    )
    return Value((*space, kernel.shape[-1]), value.batched, value.recurrent)


def per_axis(option: Constant | None, rank: int) -> tuple[int, ...]:
    """An option that is one number for all axes or one per axis, as one per axis."""
    values = option if isinstance(option, tuple) else (option,) * rank
    return tuple(int(value) for value in values if value is not None)


_RULES = {
    "along_axis": _along_axis,
    "reduction": _reduction,
    "glu": _halves,
    "split": _split,
    "concat": _concat,
    "transpose": _transpose,
    "reshape": _reshape,
    "conv": _conv,
}


def show(shape: Shape) -> str:
    """A shape for people: `[7, ?]`."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _signature(info: FunctionInfo) -> str:
    tensors = "one or more values" if info.tensors is None else f"{info.tensors} value{'s' if info.tensors > 1 else ''}"
    return tensors + (f" and {', '.join(info.parameters)}" if info.parameters else "")
