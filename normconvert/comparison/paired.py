"""Two cells of the same form: what stands for what decides which arrays are compared with which."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from normconvert.comparison.evaluation import Evaluated
from normconvert.comparison.pairing import Biases, Functions, Numbers, Pairing
from normconvert.comparison.records import EquationPair, Setting, TensorPair
from normconvert.comparison.settings import effect_of, norm_settings, shown
from normconvert.comparison.tensors import Arrays, Piece, Total
from normconvert.comparison.terms import Block, Monomial, Term
from normconvert.ir.cell import STATISTICS, Cell
from normconvert.ir.model import Array


@dataclass(frozen=True)
class CellPair:
    """What came of it; the fields as in `records.LayerPair`."""

    equations: str
    settings: tuple[Setting, ...] = ()
    differing: tuple[EquationPair, ...] = ()
    evaluated: Evaluated | None = None
    tensors: tuple[TensorPair, ...] = ()


@dataclass(frozen=True)
class StoredCell:
    """A cell and its arrays, by names relative to the layer."""

    cell: Cell
    weights: Mapping[str, Array]
    digests: dict[Term, frozenset[Hashable]] = field(default_factory=dict)

    def gates(self) -> dict[int, tuple[str, ...]]:
        """Names of the pieces that its values are split into, by their number."""
        pieces = [equation.targets for equation in self.cell.parsed().body if len(equation.targets) > 1]
        return {len(names): names for names in reversed(pieces)}

    def stepped(self) -> set[str]:
        """Names of the arrays with a row per time step."""
        found: set[str] = set()
        for name, norm in self.cell.norms.items():
            for role in norm.weight_shapes():
                if norm.scope == "per_step" if role in STATISTICS else norm.affine_per_step:
                    found.add(f"{name}.{role}")
        return found


def paired(a: StoredCell, b: StoredCell, pairing: Pairing, arrays: Arrays, order: Mapping[str, str]) -> CellPair:
    """Cells of the same form: what stands for what decides what is compared with what."""
    settings: list[Setting] = []
    pieces = [Piece(x.parameter, y.parameter, x.ranges, y.ranges) for x, y in pairing.blocks.items()]
    totals: list[Total] = []
    for biases in pairing.biases:
        own, numbers = _bias_pieces(biases, a, b)
        if own is None:
            totals.append(_total(biases, a, b))
        else:
            pieces += own
            settings += [_number_setting(each, a.cell, b.cell) for each in numbers]
    seen: set[tuple[str, str]] = set()
    for (norm, part), (other, its) in pairing.norms.items():
        if (norm, other) not in seen:
            settings += norm_settings(
                norm if norm == other else f"{norm}|{other}", a.cell.norms[norm], b.cell.norms[other], groups=False
            )
        seen.add((norm, other))
        roles = a.cell.norms[norm].weight_shapes().keys() & b.cell.norms[other].weight_shapes().keys()
        pieces += [Piece(f"{norm}.{role}", f"{other}.{role}", (part,), (its,)) for role in sorted(roles)]
    for state, other in order.items():
        if a.cell.states[state].learned and b.cell.states[other].learned:
            whole = tuple((0, size) for size in a.cell.states[state].shape)
            pieces.append(Piece(f"initial.{state}", f"initial.{other}", whole, whole))
    for mismatch in pairing.mismatches:
        match mismatch:
            case Numbers():
                settings.append(_number_setting(mismatch, a.cell, b.cell))
            case Functions(a=one, b=another):
                settings.append(Setting("activation", one, another))
    if list(order.values()) != list(b.cell.states):
        settings.append(
            Setting("order of states", shown(tuple(a.cell.states)), shown(tuple(b.cell.states)), "interface")
        )
    unlike = tuple(dict.fromkeys([*settings, *size_settings(a.cell, b.cell)]))
    form = "of the same form" if any(each.effect == "function" for each in unlike) else "the same function"
    called = {"initial", *(norm for norm, _ in seen)}, {"initial", *(other for _, other in seen)}
    return CellPair(form, unlike, tensors=tuple(arrays.by_pieces(list(dict.fromkeys(pieces)), totals, called)))


def _bias_pieces(biases: Biases, a: StoredCell, b: StoredCell) -> tuple[list[Piece] | None, list[Numbers]]:
    """Biases that are the same sum of arrays one by one, and their numbers if these differ; None for any other sums."""
    one, other = (_plain_blocks(each) for each in (biases.a, biases.b))
    if one is None or other is None or len(one) != len(other):
        return None, []
    if len(one) > 1 and [x.parameter for x in one] != [y.parameter for y in other]:
        return None, []
    pieces = [Piece(x.parameter, y.parameter, x.ranges, y.ranges) for x, y in zip(one, other, strict=True)]
    if biases.constant_a == biases.constant_b:
        return pieces, []
    total = _total(biases, a, b)
    if total.equal:
        return None, []
    return pieces, [Numbers(biases.constant_a, biases.constant_b, "a number added to a bias")]


def _plain_blocks(offsets: Sequence[tuple[float, Monomial]]) -> list[Block] | None:
    """The arrays of a sum of nothing but arrays."""
    found: list[Block] = []
    for value, monomial in offsets:
        if value != 1 or len(monomial) != 1 or monomial[0][1] != 1 or not isinstance(monomial[0][0], Block):
            return None
        found.append(monomial[0][0])
    return found


def _total(biases: Biases, a: StoredCell, b: StoredCell) -> Total:
    """The sums of the arrays of both, without a number that is added to both."""
    numbers = (0.0, 0.0) if biases.constant_a == biases.constant_b else (biases.constant_a, biases.constant_b)
    values, names = [], []
    dtypes = [np.dtype(np.float64)]
    for stored, offsets, constant in ((a, biases.a, numbers[0]), (b, biases.b, numbers[1])):
        total: Array = np.asarray(constant, np.float64)
        listed: list[str] = []
        for factor, monomial in offsets:
            product: Array = np.asarray(factor, np.float64)
            for block, power in monomial:
                assert isinstance(block, Block)
                array = stored.weights[block.parameter][tuple(slice(*each) for each in block.ranges)]
                dtypes.append(array.dtype)
                product = product * array.astype(np.float64) ** power
                listed.append(block.parameter)
            total = total + product
        listed += [name for name, value in stored.cell.constants.items() if constant and value == constant][:1]
        values.append(total)
        names.append(" + ".join(dict.fromkeys(listed)) or f"{constant:g}")
    shape = np.broadcast_shapes(values[0].shape, values[1].shape) if _broadcasts(*values) else None
    if shape is not None:
        values = [np.broadcast_to(value, shape) for value in values]
    return Total(names[0], names[1], values[0], values[1], min(dtypes, key=lambda dtype: dtype.itemsize))


def _broadcasts(a: Array, b: Array) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(a.shape[::-1], b.shape[::-1], strict=False))


def _number_setting(found: Numbers, a: Cell, b: Cell) -> Setting:
    """A number that differs, under the name of the constant it is."""
    names = {sign * value: name for cell in (b, a) for name, value in cell.constants.items() for sign in (-1.0, 1.0)}
    name = names.get(found.a) or names.get(found.b) or found.where
    return Setting(name, shown(found.a), shown(found.b), effect_of(found.a, found.b))


def size_settings(a: Cell, b: Cell) -> Iterator[Setting]:
    """Sizes of states and inputs that differ."""
    for name, state in a.states.items():
        if name in b.states and state.shape != b.states[name].shape:
            yield Setting(f"size of {name}", shown(state.shape), shown(b.states[name].shape))
    for name, shape in a.input_shapes.items():
        other = b.input_shapes.get(name, shape)
        if shape != other:
            free = None in (*shape, *other) and len(shape) == len(other)
            yield Setting(f"size of {name}", shown(shape), shown(other), "interface" if free else "function")
