"""Normalisations in whatever way a graph spells them.

`gamma * (u - mean) / sqrt(variance + epsilon) + beta` may be written in any order: with `rsqrt` or a division, with
gamma in the divisor, multiplied out, with the variance as a mean of squares less the square of the mean. All of them
are one polynomial in the term `u`, the moments, the deviation to the power -1, and the parameters. So the arithmetic
around moments is done on polynomials, and a normalisation is found once the terms that make it are together:

    u * X / s - mean * X / s    is    N(u) * X
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from normconvert.ir.norm import EpsilonPlacement, NormKind
from normconvert.sources.tf1.graph.values import Atom, Deviation, Moment, Monomial, Row, Term

ONE: Monomial = frozenset()
MAX_MONOMIALS = 64
"""Largest polynomial worth looking at: a normalisation has a handful of terms, and products can explode."""

_CANCELLED = 1e-9
"""What is left of two numbers that cancel each other, at most; relative to them."""

Sum = Mapping[Monomial, float]


@dataclass(frozen=True)
class NormSpec:
    """A normalisation that was found.

    Attributes:
        kind, features, positions, groups, epsilon, epsilon_placement, unbiased, pooled: as in `ir.norm.Norm`.
        mean, variance: stored statistics; none for those of the batch or of the sample.
        gamma, beta: scale and offset.
    """

    kind: NormKind
    features: int
    epsilon: float
    epsilon_placement: EpsilonPlacement = "inside"
    positions: tuple[int, ...] = ()
    groups: int = 1
    unbiased: bool = False
    pooled: bool = False
    mean: Term | Row | None = None
    variance: Term | Row | None = None
    gamma: Term | Row | None = None
    beta: Term | Row | None = None


@dataclass(frozen=True)
class Found:
    """A normalisation inside a polynomial, which is `N(term) * factor + rest`."""

    term: Term
    spec: NormSpec
    factor: Sum
    rest: Sum


def of_atom(atom: Atom, power: int = 1) -> Sum:
    """The polynomial of one atom."""
    return {frozenset({(atom, power)}): 1.0}


def of_number(number: float) -> Sum:
    """The polynomial of a constant."""
    return {ONE: number} if number else {}


def added(a: Sum, b: Sum, sign: float = 1.0) -> Sum:
    """`a + sign * b`."""
    result = dict(a)
    for monomial, value in b.items():
        total = result.pop(monomial, 0.0) + sign * value
        if abs(total) > _CANCELLED * abs(value):
            result[monomial] = total
    return result


def multiplied(a: Sum, b: Sum) -> Sum | None:
    """`a * b`; None if it is too large to be a normalisation."""
    if len(a) * len(b) > MAX_MONOMIALS:
        return None
    result: Sum = {}
    for left, x in a.items():
        for right, y in b.items():
            result = added(result, {_joined(left, right): x * y})
    return result


def _joined(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return frozenset((atom, power) for atom, power in powers.items() if power)


def inverse(a: Sum) -> Sum | None:
    """`1 / a` of a single monomial, or of a deviation with a number added to it; None for any other."""
    if len(a) == 1:
        ((monomial, value),) = a.items()
        return {frozenset((atom, -power) for atom, power in monomial): 1 / value}
    numbers, rest = _apart(a)
    if len(rest) == 1 and numbers:
        ((monomial, value),) = rest.items()
        if value == 1 and len(monomial) == 1:
            ((atom, power),) = monomial
            if isinstance(atom, Deviation) and power == 1:
                return of_atom(replace(atom, outside=atom.outside + numbers), -1)
    return None


def _apart(a: Sum) -> tuple[float, Sum]:
    """The constant of a polynomial, and the rest."""
    return a.get(ONE, 0.0), {monomial: value for monomial, value in a.items() if monomial != ONE}


def root(a: Sum) -> Deviation | None:
    """`sqrt(a)` where it is the deviation of a normalisation."""
    epsilon, rest = _apart(a)
    if len(rest) == 1:
        ((monomial, value),) = rest.items()
        if value != 1 or len(monomial) != 1:
            return None
        ((atom, power),) = monomial
        if power == 1 and isinstance(atom, Moment) and atom.square:
            return Deviation(atom, epsilon, centred=False)
        if power == 1 and (isinstance(atom, Row) or (isinstance(atom, Term) and not atom.batched)):
            return Deviation(atom, epsilon)
        return None
    moments = {atom for monomial in rest for atom, _ in monomial if isinstance(atom, Moment) and atom.square}
    if len(rest) != 2 or len(moments) != 1:
        return None
    square = moments.pop()
    factor = rest.get(frozenset({(square, 1)}), 0.0)
    mean = replace(square, square=False)
    if factor <= 0 or abs(rest.get(frozenset({(mean, 2)}), 0.0) + factor) > 1e-9:
        return None
    count = _count(square)
    if abs(factor - 1) < 1e-9:
        return Deviation(mean, epsilon)
    if count > 1 and abs(factor - count / (count - 1)) < 1e-6:
        return Deviation(mean, epsilon, unbiased=True)
    return None


def _count(moment: Moment) -> int:
    """How many numbers a mean over features takes; 0 over the batch, whose size is not known."""
    if moment.over_batch:
        return 0
    total = 1
    for size in moment.term.shape if moment.pooled else moment.term.shape[-1:]:
        total *= size
    return total


def mean(a: Sum, like: Moment) -> Sum | None:
    """The mean of a polynomial over the axes of `like`; moments over these axes are constant there.

    None for one with anything else than numbers, a term, its square, and such moments.
    """
    result: Sum = {}
    for monomial, value in a.items():
        powers = dict(monomial)
        terms = [atom for atom in powers if isinstance(atom, Term)]
        rest = [atom for atom in powers if not isinstance(atom, Term)]
        fixed = all(
            isinstance(atom, Moment) and replace(like, term=atom.term, square=atom.square) == atom for atom in rest
        )
        if len(terms) > 1 or not fixed or (terms and powers[terms[0]] not in (1, 2)):
            return None
        factors = of_number(value)
        for atom, power in powers.items():
            if isinstance(atom, Term):
                moment = replace(like, term=atom, square=power == 2)
                factors = multiplied(factors, of_atom(moment)) or {}
            else:
                factors = multiplied(factors, of_atom(atom, power)) or {}
        result = added(result, factors)
    return result


def find_norm(a: Sum) -> Found | None:
    """A normalisation whose terms are all there."""
    for divisor in dict.fromkeys(atom for monomial in a for atom, power in monomial if power == -1):
        if isinstance(divisor, Deviation) and _is_sound(divisor):
            divided = {monomial - {(divisor, -1)}: v for monomial, v in a.items() if (divisor, -1) in monomial}
            rest = {monomial: v for monomial, v in a.items() if (divisor, -1) not in monomial}
            stored = not isinstance(divisor.variance, Moment)
            found = _by_population(divided, divisor) if stored else _by_moments(divided, divisor)
            if found is not None:
                return replace(found, rest=rest)
    return None


def _is_sound(divisor: Deviation) -> bool:
    """Whether the language has a norm with this divisor: epsilon in one place, or the same in both."""
    return 0 in (divisor.inside, divisor.outside) or divisor.inside == divisor.outside


def _by_moments(divided: Sum, divisor: Deviation) -> Found | None:
    """`u * X - mean * X` over the moments' own term; without the mean for a mean square."""
    moment = divisor.variance
    assert isinstance(moment, Moment)
    term = moment.term
    scaled = {_without(monomial, term): value for monomial, value in divided.items() if (term, 1) in monomial}
    shifted = {_without(monomial, moment): -value for monomial, value in divided.items() if (moment, 1) in monomial}
    if not scaled or len(scaled) + len(shifted) != len(divided) or shifted != (scaled if divisor.centred else {}):
        return None
    centred: NormKind = "batch" if moment.over_batch else "layer"
    positions = term.shape[:-1] if moment.positions else ()
    return Found(term, _spec(divisor, term, centred if divisor.centred else "rms", positions), scaled, {})


def _by_population(divided: Sum, divisor: Deviation) -> Found | None:
    """Stored statistics: the term is the only one that depends on the sample, the mean is stored like the variance."""
    scaled: dict[Monomial, float] = {}
    shifted: dict[Monomial, float] = {}
    terms: set[Term] = set()
    for monomial, value in divided.items():
        batched = [atom for atom, power in monomial if isinstance(atom, Term) and atom.batched and power == 1]
        if batched:
            terms.update(batched)
            scaled[_without(monomial, batched[0])] = value
        else:
            shifted[monomial] = -value
    if len(terms) != 1 or len(scaled) != 1 or len(shifted) != 1:
        return None
    ((scale, factor),), ((shift, other),) = scaled.items(), shifted.items()
    left = _joined(shift, frozenset((atom, -power) for atom, power in scale))
    if len(left) != 1 or abs(factor - other) > 1e-9:
        return None
    ((centre, power),) = left
    term = terms.pop()
    if power != 1 or not isinstance(centre, (Term, Row)):
        return None
    assert isinstance(divisor.variance, (Term, Row))
    positions = {_positions(stored, term) for stored in (centre, divisor.variance)}
    if len(positions) > 1 or None in positions:
        return None
    spec = _spec(divisor, term, "batch", positions.pop() or ())
    return Found(term, replace(spec, mean=centre, variance=divisor.variance), scaled, {})


def _positions(stored: Term | Row, term: Term) -> tuple[int, ...] | None:
    """The positions of a term that stored statistics are kept for, if any; None if they are of some of its axes."""
    if math.prod(stored.shape[:-1]) == 1:
        return ()
    shape = stored.shape[len(stored.shape) - len(term.shape) :]
    return shape[:-1] if shape == term.shape and math.prod(stored.shape) == math.prod(shape) else None


def _without(monomial: Monomial, atom: Atom) -> Monomial:
    return frozenset(entry for entry in monomial if entry[0] != atom)


def _spec(divisor: Deviation, term: Term, kind: NormKind, positions: tuple[int, ...] = ()) -> NormSpec:
    placement: EpsilonPlacement = "inside"
    if divisor.outside:
        placement = "both" if divisor.inside else "outside"
    pooled = isinstance(divisor.variance, Moment) and divisor.variance.pooled
    return NormSpec(
        kind,
        term.shape[-1],
        divisor.inside or divisor.outside,
        placement,
        positions,
        unbiased=divisor.unbiased,
        pooled=pooled,
    )


def pending_atoms(a: Sum) -> list[Atom]:
    """What is not an ordinary term: moments, deviations, and rows that the time step picks."""
    return [atom for monomial in a for atom, _ in monomial if not isinstance(atom, Term)]
