"""Which axes of a cell's arrays are its units and its inputs, where the order of the units does not matter to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from normconvert.errors import EquationError
from normconvert.ir.cell import Cell
from normconvert.ir.checking import check
from normconvert.ir.expressions import Binary, Call, Expression, Name, Negate, Number
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.sizes import parse_size


@dataclass(frozen=True)
class UnitAxes:
    """Axes of a cell's arrays.

    Attributes:
        units: array, axis, and of how many blocks of all units it is.
        inputs: array and axis.
    """

    units: tuple[tuple[str, int, int], ...]
    inputs: tuple[tuple[str, int], ...]


def unit_axes(cell: Cell) -> UnitAxes | None:
    """The axes of a cell, if it computes the same for each unit, so that these may come in any order; else None.

    Its shapes must be written in the sizes of its state and of its input alone, its values be made element by element,
    by matrix products, norms over whole blocks of units, and splits into such blocks.
    """
    if not {*cell.input_shapes, *cell.states, *cell.parameters, *cell.norms} <= cell.written.keys():
        return None
    of_inputs, of_states = ({cell.written[name] for name in names} for names in (cell.input_shapes, cell.states))
    if len(of_inputs) != 1 or len(of_states) != 1:
        return None
    (given,), (units,) = of_inputs, of_states
    plain = len(given) == len(units) == 1 and given != units and {*given, *units} <= cell.dims.keys()
    if not plain or not _each_alike(cell, units[0]):
        return None
    found = UnitAxes(tuple(_axes(cell, units[0])), tuple((name, axis) for name, axis, _ in _axes(cell, given[0])))
    known = {(name, axis) for name, axis, _ in found.units} | set(found.inputs)
    return found if all(place in known for place in _all_axes(cell)) else None


def _written(cell: Cell) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each stored array with its shape as it is written; a norm's rows of time steps have an empty name."""
    for name in cell.parameters:
        yield name, cell.written[name]
    for name, state in cell.states.items():
        if state.learned:
            yield f"initial.{name}", cell.written[name]
    for name, norm in cell.norms.items():
        for role, shape in norm.weight_shapes().items():
            yield f"{name}.{role}", ("",) * (len(shape) - 1) + cell.written[name][-1:]


def _axes(cell: Cell, size: str) -> Iterator[tuple[str, int, int]]:
    """The axes that are so many blocks of a size, and nothing else."""
    for name, shape in _written(cell):
        for axis, text in enumerate(shape):
            bound = parse_size(text) if text else None
            if bound is not None and bound.constant == 0 and [each for each, _ in bound.terms] == [size]:
                yield name, axis, bound.terms[0][1]


def _all_axes(cell: Cell) -> Iterator[tuple[str, int]]:
    for name, shape in _written(cell):
        yield from ((name, axis) for axis, text in enumerate(shape) if text not in ("", "1"))


def _each_alike(cell: Cell, size: str) -> bool:
    """Whether the equations treat all units alike."""
    units = cell.dims[size]
    if any(norm.positions or norm.features // norm.groups % units for norm in cell.norms.values()):
        return False
    try:
        shapes = check(cell)
    except EquationError:
        return False
    if any(shapes[name] != (units,) for name in cell.parsed().outputs):
        return False
    for equation in cell.parsed().body:
        pieces = [shapes[target] for target in equation.targets]
        if len(pieces) > 1 and any(not shape or shape[-1] is None or shape[-1] % units for shape in pieces):
            return False
        if not _by_element(cell, equation.value):
            return False
    return True


def _by_element(cell: Cell, expression: Expression) -> bool:
    match expression:
        case Number():
            return True
        case Name(name=name):
            return name not in cell.input_shapes
        case Negate(operand=operand):
            return _by_element(cell, operand)
        case Binary(operator="@", left=left, right=Name(name=right)):
            is_input = isinstance(left, Name) and left.name in cell.input_shapes
            return right in cell.parameters and (is_input or _by_element(cell, left))
        case Binary(operator="+" | "-" | "*" | "/", left=left, right=right):
            return _by_element(cell, left) and _by_element(cell, right)
        case Call(function=function, arguments=arguments, options=options):
            known = function in cell.norms or FUNCTIONS[function].kind == "elementwise"
            split = function == "split" and dict(options).get("axis", -1) == -1
            return (known or split) and all(_by_element(cell, each) for each in arguments)
    return False
