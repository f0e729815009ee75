"""Which cells are a plain LSTM, GRU or RNN, found by algebra rather than by name.

Needs: a checked cell with one input `[inputs]`, states `[units]`, and no norms. Keeps: the function. The equations are
expanded into polynomials over a few kinds of atoms (see `passes.polynomial`), in which the order of gates, of
summands and of factors no longer shows, and matched against the templates

    LSTM    c' = sigmoid(F) * c + sigmoid(I) * tanh(G)        h' = sigmoid(O) * tanh(c')
    GRU     h' = Z * h + (1 - Z) * n      n = tanh(X + sigmoid(R) * H)      Z = sigmoid(U) or 1 - sigmoid(U)
    RNN     h' = tanh(A) or relu(A)

where F, I, G, O, A, R, U are sums of products of x and h with blocks of parameters, of biases and of numbers; X such
a sum without h, and H one without x (the reset gate comes after the product).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from normconvert.ir.cell import Cell
from normconvert.passes.expand import expand
from normconvert.passes.polynomial import Function, Polynomial, State, UnexpandableError

Kind = Literal["LSTM", "GRU", "tanh", "relu"]

MAX_EQUATIONS = 64
"""Longest cell worth looking at; a plain one has about ten, and the text may come from a hostile file."""


@dataclass(frozen=True)
class PlainCell:
    """A cell as one of the standard ones.

    Attributes:
        kind: `tanh` and `relu` are plain RNNs.
        gates: pre-activations in PyTorch's order: i, f, g, o of an LSTM; r, z, n of a GRU, where n is the part outside
            the reset product; one of an RNN.
        recurrent_candidate: H of a GRU.
        states: the cell's names of (h, c) or (h,).
    """

    kind: Kind
    gates: tuple[Polynomial, ...]
    states: tuple[str, ...]
    recurrent_candidate: Polynomial | None = None


def recognise(cell: Cell) -> PlainCell | None:
    """The plain cell that a cell is, or None."""
    equations = cell.parsed()
    shapes = {state.shape for state in cell.states.values()}
    if len(equations.body) > MAX_EQUATIONS:
        return None
    plain = len(equations.inputs) == 1 and len(equations.outputs) == 1 and len(shapes) == 1 and not cell.norms
    if not plain or len(next(iter(shapes))) != 1 or len(cell.input_shapes[equations.inputs[0]]) != 1:
        return None
    try:
        values = expand(cell)
    except UnexpandableError:
        return None
    if equations.outputs[0] not in {state + "'" for state in equations.states}:
        return None
    h = equations.outputs[0].rstrip("'")
    following = {state: values[state + "'"] for state in equations.states}
    if len(following) == 1:
        return _rnn(h, following[h]) or _gru(h, following[h])
    if len(following) == 2:
        c = next(state for state in following if state != h)
        return _lstm(h, c, following[h], following[c])
    return None


def _rnn(h: str, following: Polynomial) -> PlainCell | None:
    atom = following.single_atom()
    if isinstance(atom, Function) and atom.name in ("tanh", "relu") and atom.argument.is_affine(h):
        return PlainCell("relu" if atom.name == "relu" else "tanh", (atom.argument,), (h,))
    return None


def _lstm(h: str, c: str, next_h: Polynomial, next_c: Polynomial) -> PlainCell | None:
    forget = next_c.factor_of(State(c))
    rest = next_c.without(State(c))
    if forget is None or rest is None:
        return None
    write, output = _sigmoid_times_tanh(rest), _sigmoid_times_tanh(next_h)
    f = _gate(forget)
    if f is None or write is None or output is None:
        return None
    (i, g), (o, cell_output) = write, output
    if cell_output != next_c:
        return None
    gates = (i, f, g, o)
    return PlainCell("LSTM", gates, (h, c)) if all(gate.is_affine(h) for gate in gates) else None


def _gru(h: str, following: Polynomial) -> PlainCell | None:
    """`Z * h + n - Z * n` with Z = sigmoid(U), or `h - Z * h + Z * n` where the gate writes."""
    keep = following.factor_of(State(h))
    rest = following.without(State(h))
    if keep is None or rest is None:
        return None
    z = _gate(keep)
    negated = False
    if z is None:
        z = _gate(Polynomial.number(1.0) - keep)
        negated = True
    candidates = [atom for atom in rest.atoms() if isinstance(atom, Function) and atom.name == "tanh"]
    if z is None or len(candidates) != 1:
        return None
    n = candidates[0]
    if rest != (Polynomial.number(1.0) - keep) * Polynomial.atom(n):
        return None
    split = _reset_after(n.argument, h)
    if split is None:
        return None
    outside, reset, inside = split
    gates = (reset, -z if negated else z, outside)
    if not all(gate.is_affine(h) for gate in gates[:2]):
        return None
    return PlainCell("GRU", gates, (h,), recurrent_candidate=inside)


def _reset_after(argument: Polynomial, h: str) -> tuple[Polynomial, Polynomial, Polynomial] | None:
    """X, R and H of `X + sigmoid(R) * H`."""
    gates = [atom for atom in argument.atoms() if isinstance(atom, Function)]
    if len(gates) != 1 or gates[0].name != "sigmoid":
        return None
    inside, outside = argument.factor_of(gates[0]), argument.without(gates[0])
    if inside is None or outside is None or inside.reads_input() or outside.reads_state():
        return None
    return (outside, gates[0].argument, inside) if inside.is_affine(h) and outside.is_affine(h) else None


def _gate(polynomial: Polynomial) -> Polynomial | None:
    """The pre-activation of `sigmoid(A)`."""
    atom = polynomial.single_atom()
    return atom.argument if isinstance(atom, Function) and atom.name == "sigmoid" else None


def _sigmoid_times_tanh(polynomial: Polynomial) -> tuple[Polynomial, Polynomial] | None:
    """A and B of `sigmoid(A) * tanh(B)`."""
    factors = polynomial.single_product()
    if factors is None or len(factors) != 2:
        return None
    by_name = {atom.name: atom.argument for atom in factors if isinstance(atom, Function)}
    return (by_name["sigmoid"], by_name["tanh"]) if by_name.keys() == {"sigmoid", "tanh"} else None
