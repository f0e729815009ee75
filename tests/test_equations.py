"""The equation language: round trips, renaming, and an error with a place for everything that is not in it."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from equation_strategies import equations, typed_cells
from hypothesis import given, settings
from hypothesis import strategies as st

from normconvert.errors import EquationError
from normconvert.interpreter.cell import step
from normconvert.ir.cell import Cell, State
from normconvert.ir.checking import check
from normconvert.ir.expressions import Equations, Name, Number
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.norm import Norm
from normconvert.ir.parser import parse
from normconvert.ir.printer import print_equations
from normconvert.ir.sizes import parse_size


@settings(max_examples=300, deadline=None)
@given(equations())
def test_printed_equations_parse_to_the_same(tree: Equations) -> None:
    assert parse(print_equations(tree)) == tree


@pytest.mark.parametrize(
    "text",
    [
        "a - (b - c)",
        "a / (b * c)",
        "a * (b / c)",
        "a @ (b @ c)",
        "-(a + b)",
        "-a * b",
        "-(a * b)",
        "a - -b",
        "--a",
        "(-a)[0:1]",
        "(a + b)[0:1, :]",
        "f(-a)",
        "a * 1e-30 + inf",
        "a + 1e+300",
        "f(a, axis=-1, shape=(2, -1))",
    ],
)
def test_parentheses_survive(text: str) -> None:
    tree = parse(f"layer t(a, b, c) -> y:\n    y = {text}")
    assert str(tree.body[0].value)
    assert parse(print_equations(tree)) == tree
    assert print_equations(tree).splitlines()[1].strip() == f"y = {text}"


def test_numbers_keep_every_digit() -> None:
    for value in (0.1, 1 / 3, 1e-300, 2**53 + 2.0, 1e22, 5e-324, 123456789.125):
        tree = parse(f"layer t(a) -> y:\n    y = a * {value!r}")
        assert parse(print_equations(tree)).body[0].value.right == Number(value)  # type: ignore[union-attr]


def test_every_assignment_gets_a_name_of_its_own() -> None:
    tree = parse("""
        cell lstm(x; c, h):   # a comment: with (brackets
            z = x + h
            z = z * z_2       # z_2 is taken

            c = c + z
            c = c * 2
            h = h + c
    """)
    assert [equation.targets for equation in tree.body] == [("z",), ("z_3",), ("c_2",), ("c'",), ("h'",)]
    assert tree.body[1].value.left == Name("z")  # type: ignore[union-attr]
    assert tree.body[2].value.left == Name("c")  # type: ignore[union-attr]
    assert tree.body[3].value.left == Name("c_2")  # type: ignore[union-attr]
    assert tree.body[4].value.right == Name("c'")  # type: ignore[union-attr]
    assert tree.outputs == ("h'",)


def test_an_old_state_that_cannot_be_said_is_not_printed() -> None:
    tree = parse("cell f(x; h) -> y:\n    y = h\n    h = x")
    with pytest.raises(ValueError, match="old value"):
        print_equations(replace(tree, body=tree.body[::-1]))


def test_outputs() -> None:
    assert parse("cell f(x; s):\n    s = x").outputs == ("s'",)
    assert parse("cell f(x; c, h):\n    c = x\n    h = x").outputs == ("h'",)
    assert parse("cell f(x; c, h) -> c, y:\n    c = x\n    h = x\n    y = x").outputs == ("c'", "y")
    assert parse("layer f(x) -> x:").outputs == ("x",)


def at(line: int, column: int) -> str:
    return f"line {line}, column {column}"


BODY = "cell f(x; h):\n"
MISTAKES: list[tuple[str, str, str]] = [
    ("", at(1, 1), "header"),
    ("# only a comment\n\n", at(1, 1), "header"),
    ("\n\n  cel f(x; h):\n    h = x", at(3, 3), "header"),
    ("cell f(x; h)\n    h = x", at(1, 1), "header"),
    ("  cell class(x; h):\n    h = x", at(1, 8), "cannot be a name"),
    ("cell f(x):\n    h = x", at(1, 1), "states"),
    ("layer f(x; h) -> h:\n    h = x", at(1, 1), "states"),
    ("cell f(x, x; h):\n    h = x", at(1, 1), "listed twice"),
    ("cell f(x, ; h):\n    h = x", at(1, 11), "cannot be a name"),
    ("cell f(x; a b):\n    h = x", at(1, 11), "cannot be a name"),
    ("cell f(x; h, lambda):\n    h = x", at(1, 14), "cannot be a name"),
    ("cell f(x; h) -> 2y:\n    h = x", at(1, 17), "cannot be a name"),
    ("cell f(x; h) -> y:\n    h = x", at(1, 1), "output y has no equation"),
    ("cell f(x; a, b):\n    a = x\n    b = x", at(1, 1), "which value is the output"),
    ("cell f(x; c, h):\n    h = x", at(1, 1), "state c has no equation"),
    ("cell f(x; h):", at(1, 1), "state h has no equation"),
    (BODY + "    h = x.T", at(2, 9), "a dot after a value"),
    (BODY + "    h = x.__class__.__mro__", at(2, 9), "a dot after a value"),
    (BODY + "    h = tanh(x) + (lambda: x)", at(2, 20), "lambda"),
    (BODY + "    h = [x for x in h]", at(2, 9), "comprehension"),
    (BODY + "    h = f(x for x in h)", at(2, 10), "comprehension"),
    (BODY + "    h = f'{x}'", at(2, 9), "formatted text"),
    (BODY + "    h = (y := x)", at(2, 10), "':='"),
    (BODY + "    h = await x", at(2, 9), "Await"),
    (BODY + "    h = x if x else h", at(2, 9), "'if'"),
    (BODY + "    h = x and h", at(2, 9), "'and'"),
    (BODY + "    h = x < h", at(2, 9), "comparison"),
    (BODY + "    h = x ** 2", at(2, 9), "operator"),
    (BODY + "    h = x // h", at(2, 9), "operator"),
    (BODY + "    h = +x", at(2, 9), "sign"),
    (BODY + "    h = not x", at(2, 9), "sign"),
    (BODY + "    h = x + 'text'", at(2, 13), "text"),
    (BODY + "    h = x + None", at(2, 13), "text"),
    (BODY + "    h = x + 2j", at(2, 13), "imaginary"),
    (BODY + "    h = x * True", at(2, 13), "True"),
    (BODY + "    h = x, h", at(2, 9), "list of values"),
    (BODY + "    h = [x]", at(2, 9), "list of values"),
    (BODY + "    h = {x: h}", at(2, 9), "Dict"),
    (BODY + "    h = f(*x)", at(2, 11), "star"),
    (BODY + "    h = f(**x)", at(2, 11), "name=value"),
    (BODY + "    h = f(x, a=1, a=2)", at(2, 19), "once"),
    (BODY + "    h = f(x, a=x)", at(2, 16), "option's value"),
    (BODY + "    h = f(x, a=(1, 2.5))", at(2, 16), "option's value"),
    (BODY + "    h = f(x, a=(True,))", at(2, 16), "option's value"),
    (BODY + "    h = f(x, a='\"')", at(2, 16), "letters"),
    (BODY + "    h = f(x)(h)", at(2, 9), "by its name"),
    (BODY + "    h = x[0]", at(2, 11), "slice"),
    (BODY + "    h = x[0:2:1]", at(2, 11), "slice"),
    (BODY + "    h = x[::-1]", at(2, 11), "slice"),
    (BODY + "    h = x[0:h.a]", at(2, 13), "a size is"),
    (BODY + "    h = x[0:1/2]", at(2, 13), "a size is"),
    (BODY + "    h = x[0:True]", at(2, 13), "a size is"),
    (BODY + "    a, h = x", at(2, 5), "split"),
    (BODY + "    h = split(x, 2)", at(2, 5), "split"),
    (BODY + "    h, = split(x, 1)", at(2, 5), "split"),
    (BODY + "    h = tanh(split(x, 2))", at(2, 14), "split stands alone"),
    (BODY + "    h, h = split(x, 2)", at(2, 5), "twice"),
    (BODY + "    h, *a = split(x, 2)", at(2, 8), "only names"),
    (BODY + "    h[0] = x", at(2, 5), "only names"),
    (BODY + "    h.a = x", at(2, 5), "only names"),
    (BODY + "    h = a = x", at(2, 5), "expected an equation"),
    (BODY + "    h += x", at(2, 5), "expected an equation"),
    (BODY + "    h: int = x", at(2, 5), "expected an equation"),
    (BODY + "    tanh(x)", at(2, 5), "expected an equation"),
    (BODY + "    import os\n    h = x", at(2, 5), "expected an equation"),
    (BODY + "    def g(): pass\n    h = x", at(2, 5), "expected an equation"),
    (BODY + "    inf = x\n    h = inf", at(2, 5), "cannot be a name"),
    (BODY + "    h = x\ny = x", at(3, 1), "further left"),
    (BODY + "    h = (x", at(2, 9), "cannot be read"),
    (BODY + "    h = 1e400 * x", at(2, 9), "too large"),
    (BODY + "    h = 9007199254740993 * x", at(2, 9), "2**53"),
    (BODY + f"    h = {'9' * 4000} * x", at(2, 9), "2**53"),
    (BODY + f"    h = 0x{'f' * 3000} * x", at(2, 9), "2**53"),
    (BODY + "    h = x[0:9007199254740993]", at(2, 13), "2**53"),
    (BODY + "    h = x[0:9007199254740992*(9007199254740992*a)]", at(2, 13), "2**53"),
    (BODY + "    h = f(x, a=9007199254740993)", at(2, 16), "2**53"),
    (BODY + "    h = f(x, a=-1e400)", at(2, 16), "too large"),
    (BODY + "    h = \N{GREEK SMALL LETTER SIGMA}(x)", at(2, 9), "'\\u03c3'"),
    (BODY + "    \N{LATIN SMALL LIGATURE FI} = x\n    h = fi", at(2, 5), "'\\ufb01'"),
    ("cell \N{GREEK SMALL LETTER SIGMA}(x; h):\n    h = x", at(1, 6), "'\\u03c3'"),
    (BODY + "    h = x\x00", at(2, 10), "'\\x00'"),
    (BODY + "    h = x\x0c + 1", at(2, 10), "'\\x0c'"),
    (BODY + "    h = x + \\\n    1", at(2, 13), "'\\\\'"),
    (BODY + "    h = x\r    h = x", at(2, 10), "'\\r'"),
    ("\ufeff" + BODY + "    h = x", at(1, 1), "'\\ufeff'"),
]


@pytest.mark.parametrize(("text", "where", "what"), MISTAKES, ids=[text[-40:] for text, _, _ in MISTAKES])
def test_a_mistake_has_a_place(text: str, where: str, what: str) -> None:
    with pytest.raises(EquationError) as caught:
        parse(text)
    assert caught.value.where == where
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        BODY + "    h = " + "-" * 4000 + "x",
        BODY + "    h = " + "+".join(["x"] * 2000),
        BODY + "    h = " + "f(" * 99 + "(" * 90 + "x" + ")" * 189 + "+" * 3000,
        BODY + "    h = " + "(" * 4000 + "x" + ")" * 4000,
        BODY + "    h = x" + "[0:1]" * 700,
        BODY + "    h = x[" + "-" * 3000 + "1:]",
        BODY + "    h = x[" + "+".join(["a"] * 1500) + ":]",
        BODY + "    h = (" + "x + \n" * 3000 + "x)",
        BODY + "    h = x" + " " * 5000 + "+ x",
        "x" * 70_000,
        "cell f(" + " " * 60_000,
        "layer f(x) -> " + "y " * 30_000,
        "cell f(" + ",".join(f"x{n}" for n in range(9000)) + "; h):\n    h = y.z",
        BODY + "    " + "h = " * 900 + "x",
        BODY + "    " + ", ".join(["h"] * 1200) + " = split(x, 2)",
    ],
    ids=range(15),
)
def test_a_hostile_text_is_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(EquationError):
        parse(text)
    assert time.perf_counter() - started < 2


def test_a_long_harmless_text_is_read_at_once() -> None:
    started = time.perf_counter()
    tree = parse(BODY + "    h = x\n" * 6000)
    assert len({equation.targets for equation in tree.body}) == 6000
    assert time.perf_counter() - started < 2


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text("abhx()[]{}:;,.=+-*/@#'\"\n\t \\09_", max_size=60).map(lambda end: BODY + "    h = " + end))
def test_any_text_parses_or_is_a_mistake(text: str) -> None:
    with contextlib.suppress(EquationError):
        tree = parse(text)
        assert parse(print_equations(tree)) == tree


def test_sizes() -> None:
    dims = {"units": 5, "inputs": 3}
    for text, value in (
        ("7", 7),
        ("4*units", 20),
        ("inputs + 2*units - 1", 12),
        ("-(inputs - units)", 2),
        ("-2*units + units*3", 5),
    ):
        assert parse_size(text).resolve(dims) == value
    for text in (
        "units*inputs",
        "1.5",
        "units.a",
        "f(x)",
        "",
        "9" * 5000,
        "-" * 3000 + "1",
        "\x00",
        "a b",
        "1 if 2 else 3",
    ):
        with pytest.raises(EquationError):
            parse_size(text)


def cell(body: str, **changes: Any) -> Cell:
    fields: dict[str, Any] = {
        "equations": "cell f(x; h):\n" + body,
        "dims": {"units": 5},
        "input_shapes": {"x": (3,)},
        "states": {"h": State((5,))},
        "parameters": {"W": (3, 5), "b": (5,)},
        "constants": {"rate": 0.7},
        "norms": {"ln": Norm(kind="layer", features=5, epsilon=1e-3)},
    }
    return Cell(**{**fields, **changes})


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ({"W": ("3", "unit")}, "Did you mean units?"),
        ({"V": ("units",)}, "not an input"),
        ({"b": ("2*units",)}, "is [10], the shape is [5]"),
        ({"b": ("units", "units")}, "is [5, 5], the shape is [5]"),
        ({"ln": ("units+1",)}, "is [6], the shape is [5]"),
    ],
)
def test_a_written_shape_is_the_shape(written: dict[str, Any], what: str) -> None:
    body = "    h = ln(x @ W + b)"
    check(cell(body, written={"x": ("3",), "h": ("units",), "W": ("3", "units"), "b": ("units",), "ln": ("units",)}))
    with pytest.raises(EquationError) as caught:
        check(cell(body, written=written))
    assert what in str(caught.value)


SEQUENCE = {"bn": Norm(kind="batch", features=5, epsilon=1e-3, scope="sequence", source="batch")}
MISFITS: list[tuple[str, dict[str, Any], str, str]] = [
    ("    h = x @ V", {}, at(2, 13), "V is not an input"),
    ("    h = x @ W + bb", {}, at(2, 17), "Did you mean b?"),
    ("    h = tahn(h)", {}, at(2, 9), "Did you mean tanh?"),
    ("    h = qqqq(h)", {}, at(2, 9), "Known: abs,"),
    ("    h = x @ W + x", {}, at(2, 9), "[5] and [3] do not fit"),
    ("    h = h @ W", {}, at(2, 9), "inner sizes 5 and 3"),
    ("    h = W @ x", {}, at(2, 9), "not a matrix product"),
    ("    h = x @ b", {}, at(2, 9), "not a matrix product"),
    ("    h = x", {}, at(2, 5), "the next h has shape [3], the state [5]"),
    ("    h = b", {}, at(2, 5), "the next h has shape [5], the state [5]"),
    ("    h = h + W", {}, at(2, 9), "different numbers of axes"),
    ("    h = h + sum(x)", {}, at(2, 9), "different numbers of axes"),
    ("    h = sum(x, axis=1)", {}, at(2, 9), "axis 1 of a value with 1 axes"),
    ("    h = sum(x, axis=True)", {}, at(2, 9), "axis True"),
    ("    h = sum(x, keepdims=2)", {}, at(2, 9), "keepdims"),
    ("    h = softmax(h, exis=1)", {}, at(2, 9), "no option exis"),
    ("    h = tanh()", {}, at(2, 9), "takes 1 value"),
    ("    h = tanh(h, h)", {}, at(2, 9), "takes 1 value"),
    ("    h = minimum(h)", {}, at(2, 9), "takes 2 values"),
    ("    h = leaky_relu(h)", {}, at(2, 9), "needs slope"),
    ("    h = leaky_relu(h, h)", {}, at(2, 9), "numbers or constants"),
    ("    h = reshape(h)", {}, at(2, 9), "needs shape"),
    ("    h = reshape(h, shape=(2, 2))", {}, at(2, 9), "does not reshape"),
    ("    h = reshape(h, shape=(-1, -1))", {}, at(2, 9), "at most one"),
    ("    h = reshape(h, shape=(-2, -3))", {}, at(2, 9), "takes sizes"),
    ("    h = reshape(h, shape=0)", {}, at(2, 9), "takes sizes"),
    ("    h = h + reshape(rate, shape=1)", {}, at(2, 13), "reshape of a number"),
    ("    h = transpose(h)", {}, at(2, 9), "two axes"),
    ("    h = concat(x, W)", {}, at(2, 9), "same number of axes"),
    ("    a, h = split(x, 2)", {}, at(2, 12), "equal pieces"),
    ("    a, h = split(x, 3)", {}, at(2, 5), "3 pieces for 2 names"),
    ("    a, h = split(x, b)", {}, at(2, 12), "must be numbers"),
    ("    a, h = split(x, inf)", {}, at(2, 12), "number of pieces"),
    ("    a, h = split(x)", {}, at(2, 12), "needs pieces"),
    ("    h = glu(h)", {}, at(2, 9), "halves"),
    ("    h = h[0:6]", {}, at(2, 9), "axis 0 of size 5"),
    ("    h = h[2:2]", {}, at(2, 9), "axis 0 of size 5"),
    ("    h = h[0:1, 0:1]", {}, at(2, 9), "2 slices"),
    ("    h = h[0:unit]", {}, at(2, 9), "Did you mean units?"),
    ("    h = ln(x)", {}, at(2, 9), "declared for 5 features"),
    ("    h = h + ln(b)", {}, at(2, 13), "declared for 5 features"),
    ("    h = ln(h, h)", {}, at(2, 9), "takes one argument"),
    ("    b = h\n    h = h", {}, at(2, 5), "cannot be assigned"),
    ("    rate = h\n    h = h", {}, at(2, 5), "cannot be assigned"),
    ("    h = bn(h)", {"norms": SEQUENCE}, at(2, 9), "depends on a state"),
    ("    z = x @ W + 0 * h\n    h = bn(z)", {"norms": SEQUENCE}, at(3, 9), "depends on a state"),
    ("    h = h + conv(x, W)", {}, at(2, 13), "conv of"),
    ("    h = h", {"states": {"h": State((5,)), "c": State((5,))}}, "line 1", "states in the header"),
    ("    h = h", {"input_shapes": {}}, "line 1", "inputs in the header"),
    ("    h = h", {"constants": {"b": 1.0}}, "", "declared twice"),
    ("    h = h", {"constants": {"tanh": 1.0}}, "", "a function's"),
    ("    h = h", {"parameters": {"a = 1; import os": (1,)}}, "", "cannot be a name"),
    ("    h = h", {"dims": {"a-b": 1}}, "", "cannot be the name of a size"),
    ("    h = h", {"parameters": {"W": (0, 5)}}, "W", "size below 1"),
    ("    h = h", {"dims": {"units": -1}}, "sizes", "size below 1"),
]


@pytest.mark.parametrize(("body", "changes", "where", "what"), MISFITS, ids=[body.strip() for body, *_ in MISFITS])
def test_what_does_not_fit_has_a_place(body: str, changes: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(EquationError) as caught:
        check(cell(body, **changes))
    assert caught.value.where == where
    assert what in str(caught.value)


CONV = {"input_shapes": {"x": (7, 3)}, "parameters": {"K": (3, 3, 5)}, "states": {"h": State((7, 5))}}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("strides=0", "strides of conv"),
        ("strides=(1, 1)", "strides of conv"),
        ("strides=True", "strides of conv"),
        ("strides='a'", "strides of conv"),
        ("dilation=-1", "dilation of conv"),
        ("dilation=1000000000", "dilation of conv"),
        ("padding='wide'", "no padding"),
        ("padding=1", "no padding"),
        ("dilation=4", "larger than [7, 3]"),
    ],
)
def test_convolution_options_are_bounded(options: str, what: str) -> None:
    with pytest.raises(EquationError, match="line 2, column 13") as caught:
        check(cell(f"    h = h + conv(x, K, {options})", **CONV))
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"features": 5, "groups": 2}, "equal groups"),
        ({"features": 5, "groups": 0}, "at least 1"),
        ({"features": 5, "epsilon": -1.0}, "epsilon"),
        ({"features": 5, "epsilon": float("nan")}, "epsilon"),
        ({"features": 5, "affine_per_step": True}, "for how many"),
        ({"features": 5, "kind": "batch", "scope": "per_step"}, "for how many"),
        ({"features": 5, "kind": "batch", "scope": "per_step", "steps": 0}, "at least 1"),
        ({"features": 5, "source": "batch"}, "only a batch norm"),
        ({"features": 5, "scope": "sequence"}, "only a batch norm"),
        ({"features": 5, "kind": "batch", "groups": 5}, "only a layer"),
        ({"features": 5, "groups": 5, "pooled": True}, "pooled"),
        ({"features": 5, "groups": 5, "unbiased": True}, "unbiased"),
        ({"features": 5, "positions": (3,)}, "only a batch norm has statistics per position"),
        ({"features": 5, "positions": (3,), "kind": "batch", "pooled": True}, "pooled moments are not per position"),
        ({"features": 5, "positions": (3, 0), "kind": "batch"}, "at least 1"),
    ],
)
def test_a_norm_that_contradicts_itself(fields: dict[str, Any], what: str) -> None:
    norm = Norm(**{"kind": "layer", "epsilon": 1e-3, **fields})
    with pytest.raises(EquationError, match="norm ln: ") as caught:
        check(cell("    h = ln(h)", norms={"ln": norm}))
    assert what in str(caught.value)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (2, 3, 4), (None, 4)])
def test_positions_are_all_axes_before_the_features(shape: tuple[int | None, ...]) -> None:
    norm = Norm(kind="batch", features=4, positions=(3,), epsilon=1e-3)
    layer = Cell(equations="layer f(x) -> y:\n    y = bn(x)", dims={}, input_shapes={"x": shape}, norms={"bn": norm})
    assert check(msgspec.structs.replace(layer, input_shapes={"x": (3, 4)}))["y"] == (3, 4)
    with pytest.raises(EquationError, match=r"declared for 4 features at positions \[3\]"):
        check(layer)


def test_an_output_that_depends_on_nothing() -> None:
    with pytest.raises(EquationError, match="does not depend"):
        check(cell("    h = h\n    y = b", equations="cell f(x; h) -> y:\n    h = h\n    y = b"))


def test_every_function_is_known_to_the_checker() -> None:
    shapes = {"conv": ((7, 3), (3, 3, 5)), "transpose": ((7, 3),), "glu": ((4,),)}
    extra = {"reshape": ", shape=-1", "split": ", 5"}
    for name, info in FUNCTIONS.items():
        given_shapes = shapes.get(name, ((5,),) * (info.tensors or 2))
        arguments = "".join(f", {0.5}" for _ in info.parameters) if name != "split" else ""
        target = "a, b, c, d, y" if name == "split" else "y"
        names = ", ".join(f"x{n}" for n in range(len(given_shapes)))
        values = names if name != "conv" else "x0, K"
        parameters = {"K": given_shapes[1]} if name == "conv" else {}
        inputs = {f"x{n}": shape for n, shape in enumerate(given_shapes) if not (name == "conv" and n == 1)}
        text = f"layer f({', '.join(inputs)}) -> y:\n    {target} = {name}({values}{arguments}{extra.get(name, '')})"
        assert "y" in check(Cell(equations=text, dims={}, input_shapes=dict(inputs.items()), parameters=parameters))


@settings(max_examples=150, deadline=None)
@given(typed_cells(), st.integers(1, 3))
def test_the_interpreter_gives_the_shapes_that_check_predicts(random_cell: Cell, batch: int) -> None:
    rng = np.random.default_rng(0)
    predicted = check(random_cell)
    assert None not in (shape for value in predicted.values() for shape in value)
    weights = {name: rng.uniform(0.1, 0.5, shape) for name, shape in random_cell.weight_shapes().items()}
    seen: dict[str, tuple[int, ...]] = {}
    inputs = {"x": rng.normal(size=(batch, *predicted["x"]))}
    states = {name: rng.normal(size=(batch, *state.shape)) for name, state in random_cell.states.items()}
    outputs, following = step(
        random_cell, inputs, states, weights, 0, record=lambda name, value: seen.update({name: value.shape})
    )
    assert {name: (batch, *predicted[name]) for name in seen} == seen
    assert outputs[0].shape == following["h"].shape == states["h"].shape
    assert all(np.isfinite(output).all() for output in outputs)


DOCUMENT = (Path(__file__).resolve().parent.parent / "docs" / "equations.md").read_text(encoding="utf-8")


def signature(name: str) -> str:
    info = FUNCTIONS[name]
    values = "a, b, ..." if info.tensors is None else ", ".join("xyz"[: info.tensors])
    numbers = [key if default is None else f"{key}={default:g}" for key, default in info.parameters.items()]
    options = [f"{key}=..." if default is None else f"{key}={default!r}" for key, default in info.options.items()]
    return f"{name}({', '.join([values, *numbers, *options])})"


def test_the_document_lists_every_function_and_every_field_of_a_norm() -> None:
    for name, info in FUNCTIONS.items():
        formula = info.formula.replace("|x|", "\\|x\\|")
        assert f"| `{signature(name)}` | `{formula}` |" in DOCUMENT
    norms = DOCUMENT.partition("## Norms")[2].partition("## A cell file")[0]
    for field in Norm.__struct_fields__:
        assert f"`{field}`" in norms, field


def test_the_documents_examples_are_in_the_language() -> None:
    texts = [
        block for block in re.findall(r"```\n(.*?)```", DOCUMENT, re.DOTALL) if block.startswith(("cell", "layer"))
    ]
    assert len(texts) == 3
    for text in texts:
        assert parse(print_equations(parse(text))) == parse(text)


def test_the_documents_cell_file_is_the_proven_one() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    fixture = Path(__file__).resolve().parent.parent / "fixtures" / "layer_norm_gru.toml"
    assert block == fixture.read_text(encoding="utf-8")
