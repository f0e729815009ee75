"""Hypothesis strategies: equations as the parser can give them, and cells that are well typed by construction."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import strategies as st

from normconvert.ir.cell import Cell, State
from normconvert.ir.expressions import (
    Binary,
    Bound,
    Call,
    Equation,
    Equations,
    Expression,
    Index,
    Name,
    Negate,
    Number,
    Slice,
    next_value,
    rewrite,
)
from normconvert.ir.norm import Norm
from normconvert.ir.printer import print_equations

numbers = st.one_of(
    st.integers(0, 10**6).map(float),
    st.floats(0, allow_nan=False, allow_infinity=False),
    st.just(math.inf),
).map(lambda value: Number(abs(value)))
sizes = st.builds(
    lambda constant, terms: Bound(constant, tuple(sorted((n, f) for n, f in terms.items() if f))),
    st.integers(-20, 20),
    st.dictionaries(st.sampled_from(["units", "inputs"]), st.integers(-4, 4), max_size=2),
)
slices = st.builds(Slice, st.none() | sizes, st.none() | sizes)
options = st.dictionaries(
    st.sampled_from(["axis", "keepdims", "padding", "shape", "strides"]),
    st.one_of(
        st.integers(-(2**53), 2**53),
        st.booleans(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text("abc_$-. 019", max_size=8),
        st.lists(st.integers(-9, 9), max_size=3).map(tuple),
    ),
    max_size=2,
).map(lambda found: tuple(sorted(found.items())))


expressions = st.recursive(
    st.one_of(numbers, st.sampled_from(["x", "c", "h", "W", "units", "a", "a_2"]).map(Name)),
    lambda inner: st.one_of(
        st.builds(Negate, inner),
        st.builds(Binary, st.sampled_from("+-*/@"), inner, inner),
        st.builds(
            Call, st.sampled_from(["tanh", "concat", "norm", "x"]), st.lists(inner, max_size=3).map(tuple), options
        ),
        st.builds(Index, inner, st.lists(slices, min_size=1, max_size=2).map(tuple)),
    ),
    max_leaves=12,
)
"""Any expression, well typed or not."""


@st.composite
def equations(draw: st.DrawFn) -> Equations:
    """Any equations in the parser's single-assignment form: a state that has its next value is read as that."""
    states = draw(st.sampled_from([(), ("h",), ("c", "h")]))
    set_already: set[str] = set()

    def value() -> Expression:
        return rewrite(
            draw(expressions),
            lambda node: Name(next_value(node.name)) if isinstance(node, Name) and node.name in set_already else node,
        )

    body: list[Equation] = []
    for name in draw(st.permutations(["a", "b2", "_z", "units", *states])):
        if name in states:
            body.append(Equation((next_value(name),), value()))
            set_already.add(name)
        elif draw(st.booleans()):
            body.append(Equation((name,), value()))
        elif draw(st.booleans()):
            body.append(Equation((name, f"{name}_piece"), Call("split", (value(), Number(2.0)), draw(options))))
    known = ["x", *map(next_value, states), *(n for e in body for n in e.targets if not n.endswith("'"))]
    outputs = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2))
    return Equations("net", ("x",), states, tuple(outputs), tuple(body))


@dataclass
class _Scope:
    """Vectors by size, what is declared on the way, and the equations so far."""

    vectors: dict[int, list[str]] = field(default_factory=dict)
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    norms: dict[str, Norm] = field(default_factory=dict)

    def parameter(self, shape: tuple[int, ...]) -> Name:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = shape
        return Name(name)


ACTIVATIONS = ("sigmoid", "tanh", "relu", "softsign", "softplus", "gelu", "abs", "hard_tanh", "mish")


@st.composite
def vector(draw: st.DrawFn, scope: _Scope, size: int, depth: int) -> Expression:
    """A batched vector of a given size."""
    known = scope.vectors.get(size, [])
    source = draw(st.sampled_from([n for n, names in scope.vectors.items() if names]))
    rules = ["product", "concat"] + (["name"] * 2 if known else [])
    if depth > 0 and known:
        rules += ["unary", "binary", "norm", "norm of positions", "slice", "number", "softmax", "keepdims"]
    rule = draw(st.sampled_from(rules))
    if rule == "name":
        return Name(draw(st.sampled_from(known)))
    if rule == "product":
        return Binary("@", Name(draw(st.sampled_from(scope.vectors[source]))), scope.parameter((source, size)))
    if rule == "concat":
        if size == 1:
            return Call("sum", (Name(draw(st.sampled_from(scope.vectors[source]))),), (("keepdims", True),))
        first = draw(st.integers(1, size - 1))
        return Call("concat", (draw(vector(scope, first, 0)), draw(vector(scope, size - first, 0))))
    inner = draw(vector(scope, size, depth - 1))
    if rule == "unary":
        return Call(draw(st.sampled_from(ACTIVATIONS)), (inner,))
    if rule == "binary":
        other = draw(st.one_of(vector(scope, size, depth - 1), st.just(scope.parameter((size,)))))
        return Binary(draw(st.sampled_from("+-*")), inner, other)
    if rule == "norm":
        name = f"n{len(scope.norms)}"
        groups = draw(st.sampled_from([g for g in range(1, size + 1) if size % g == 0 and size // g > 1] or [1]))
        scope.norms[name] = Norm(kind="layer", features=size, groups=groups, epsilon=0.1)
        return Call(name, (inner,))
    if rule == "norm of positions":
        name = f"n{len(scope.norms)}"
        count = draw(st.sampled_from([count for count in range(1, size + 1) if size % count == 0]))
        scope.norms[name] = Norm(kind="batch", features=size // count, positions=(count,), epsilon=0.1)
        image = Call("reshape", (inner,), (("shape", (count, size // count)),))
        return Call("reshape", (Call(name, (image,)),), (("shape", (size,)),))
    if rule == "slice":
        return Index(draw(vector(scope, size + 2, 0)), (Slice(Bound(1), Bound(1 + size)),))
    if rule == "number":
        return Binary("*", Number(draw(st.sampled_from([0.5, 2.0, 3.0]))), Negate(inner))
    if rule == "softmax":
        return Call("softmax", (inner,), (("axis", -1),))
    return Binary("+", inner, Call("mean", (inner,), (("keepdims", True),)))


@st.composite
def typed_cells(draw: st.DrawFn) -> Cell:
    """A cell whose equations fit together."""
    inputs, units = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    scope = _Scope({inputs: ["x"]})
    scope.vectors.setdefault(units, []).append("h")
    body = []
    for number in range(draw(st.integers(0, 3))):
        size = draw(st.integers(1, 5))
        value = draw(vector(scope, size, 2))
        body.append(Equation((f"v{number}",), value))
        scope.vectors.setdefault(size, []).append(f"v{number}")
    body.append(Equation((next_value("h"),), draw(vector(scope, units, 2))))
    text = print_equations(Equations("random", ("x",), ("h",), (next_value("h"),), tuple(body)))
    return Cell(
        equations=text,
        dims={"units": units},
        input_shapes={"x": (inputs,)},
        states={"h": State((units,))},
        parameters=scope.parameters,
        norms=scope.norms,
    )
