"""Constants beside a layer norm as part of its beta: no node adds them in the loop, or to the whole sequence before it.

Needs: the values of one step of a cell, before its gates are merged. Keeps: the function, up to the order of sums.
`ln_x(x @ W_x) + ln_h(h @ W_h) + b` is left with one beta, of the norm that is computed before the loop.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from normconvert.ir.model import Array
from normconvert.targets.onnx.gates import in_order, substitute
from normconvert.targets.onnx.moments import is_native
from normconvert.targets.onnx.nodes import Level, Node, Normalised, Sum, Take, operands


def fold_offsets(roots: Sequence[Node]) -> list[Node]:
    """The same values with constants moved into the norms that they are added to."""
    order = in_order(roots)
    own = _own_parts(order, roots)
    betas = {id(part.norm): _beta(part.norm).copy() for part in own.values()}
    replaced: dict[int, Node] = {}
    for node in order:
        if isinstance(node, Sum):
            # A value of one feature, which broadcasts, has no beta that the others could go into.
            parts = [own[id(term)] for term in operands(node) if id(term) in own and term.shape == node.shape]
            kept = _fold(node, parts, betas)
            if kept is not node:
                replaced[id(node)] = kept
    for part in own.values():
        beta = betas[id(part.norm)]
        if not np.array_equal(beta, _beta(part.norm)):
            replaced[id(part.norm)] = replace(part.norm, beta=beta if beta.any() else None)
    return substitute(roots, replaced) if replaced else list(roots)


@dataclass(frozen=True)
class _Part:
    """Elements of a norm that one sum reads and nothing else does."""

    norm: Normalised
    elements: slice

    @property
    def level(self) -> Level:
        return self.norm.level

    @property
    def takes_for_nothing(self) -> bool:
        """Its norm adds a beta anyway, or can without a node more."""
        norm = self.norm.norm
        return self.norm.beta is not None or (norm.groups == 1 and is_native(norm, len(self.norm.value.shape)))


def _own_parts(order: Sequence[Node], roots: Sequence[Node]) -> dict[int, _Part]:
    """Norms and parts of norms that are read once, by a sum; parts of one norm do not overlap."""
    uses = Counter(id(operand) for node in order for operand in operands(node))
    uses.update(map(id, roots))
    summed = {id(term) for node in order if isinstance(node, Sum) for term in operands(node)}
    takes: dict[int, list[Take]] = defaultdict(list)
    for node in order:
        if isinstance(node, Take):
            takes[id(node.value)].append(node)
    found: dict[int, _Part] = {}
    for norm in order:
        if not isinstance(norm, Normalised) or norm.shape[-1:] != (norm.norm.features,):
            continue
        cuts = takes[id(norm)]
        covered = Counter(n for cut in cuts for n in range(cut.start, cut.stop))
        if not cuts and uses[id(norm)] == 1 and id(norm) in summed:
            found[id(norm)] = _Part(norm, slice(0, norm.norm.features))
        elif len(cuts) == uses[id(norm)] and max(covered.values(), default=0) == 1:
            for cut in cuts:
                if uses[id(cut)] == 1 and id(cut) in summed:
                    found[id(cut)] = _Part(norm, slice(cut.start, cut.stop))
    return found


def _beta(norm: Normalised) -> Array:
    return np.zeros(norm.norm.features) if norm.beta is None else norm.beta


def _fold(node: Sum, parts: Sequence[_Part], betas: dict[int, Array]) -> Node:
    """The sum with its constant moved to where it is added for nothing, and betas of the loop moved out of it."""
    outside = [part for part in parts if part.level is Level.SEQUENCE]
    inside = [part for part in parts if part.level is Level.STEP]
    into = next(iter([*outside, *(part for part in inside if part.takes_for_nothing)]), None)
    if into is None:
        return node
    total = betas[id(into.norm)][into.elements]
    if outside:
        for part in inside:
            moved = betas[id(part.norm)][part.elements]
            total += moved
            moved[:] = 0.0
    if node.constant is None or node.constant.ndim > 1:
        return node
    total += node.constant
    return replace(node, constant=None)
