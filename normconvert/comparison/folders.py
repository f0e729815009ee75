"""PyTorch folders that normconvert wrote, compared by their code and their arrays."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator

import msgspec

from normconvert.comparison.code import Code
from normconvert.comparison.records import Difference, EquationPair, LayerPair, LoneLayer, Setting, Side
from normconvert.comparison.settings import ABSENT
from normconvert.comparison.tensors import Arrays
from normconvert.comparison.verdict import conclude

NOTE = (
    "a PyTorch folder was compared by the text of its model.py, a model of another kind by what this version of "
    "normconvert writes for it; nothing was run"
)
_OTHER_TEXT = (
    "The text differs, which does not show that the function does: another version of normconvert may write the same "
    "in other words. 'normconvert validate A B' runs both and tells."
)
_STATISTICS = ("running_mean", "running_var", "mean", "variance")


def compare_code(a: Code, b: Code, sides: tuple[Side, Side], *, weights: bool) -> Difference:
    """Compare two PyTorch models by their text."""
    pairs = dict(_paired(a, b))
    found = Difference(
        a=sides[0],
        b=sides[1],
        verdict="different",
        summary="",
        meaning="",
        interface=tuple(_elsewhere(a, b)),
        layers=tuple(_compared(a, x, b, y, weights=weights) for x, y in pairs.items()),
        only_a=tuple(_lone(a, set(pairs))),
        only_b=tuple(_lone(b, set(pairs.values()))),
        evaluation=NOTE,
    )
    verdict = conclude(found, None, weights=weights)
    arrays = any(not tensor.same for layer in found.layers for tensor in layer.tensors)
    if verdict.same or arrays or any(layer.settings for layer in found.layers):
        return verdict
    return msgspec.structs.replace(verdict, summary="different: the text of model.py", meaning=_OTHER_TEXT)


def _paired(a: Code, b: Code) -> Iterator[tuple[str, str]]:
    """Modules of the same name, then in their order those that are made alike."""
    for name in a.modules:
        if name in b.modules:
            yield name, name
    left = [name for name in b.modules if name not in a.modules]
    for name, made in a.modules.items():
        other = next((each for each in left if _kind(b.modules[each]) == _kind(made)), None)
        if name not in b.modules and other is not None:
            left.remove(other)
            yield name, other


def _compared(a: Code, x: str, b: Code, y: str, *, weights: bool) -> LayerPair:
    one, other = a.modules[x], b.modules[y]
    settings = list(_arguments(one, other))
    pair = _code_of(one, a), _code_of(other, b)
    differing = () if pair[0] == pair[1] else (_first_difference(*pair),)
    held = [
        {name[len(place) + 1 :]: array for name, array in code.arrays.items() if name.startswith(f"{place}.")}
        for code, place in ((a, x), (b, y))
    ]
    statistics = [name for name in held[0] if name.rpartition(".")[2] in _STATISTICS]
    stepped = [name for name in statistics if held[0][name].ndim > 1]
    return LayerPair(
        a=x,
        b=y,
        kind_a=_kind(one),
        kind_b=_kind(other),
        matched_by="name" if x == y else "place",
        settings=tuple(settings),
        equations="differ" if differing else "as written",
        differing=differing,
        tensors=tuple(Arrays(held[0], held[1], statistics, stepped).by_name()) if weights else (),
    )


def _kind(made: ast.expr) -> str:
    return ast.unparse(made.func) if isinstance(made, ast.Call) else ast.unparse(made)


def _arguments(a: ast.expr, b: ast.expr) -> Iterator[Setting]:
    """Arguments that two modules are made with."""
    if _kind(a) != _kind(b):
        yield Setting("made by", _kind(a), _kind(b))
        return
    one, other = _given(a), _given(b)
    for name in {**one, **other}:
        if one.get(name) != other.get(name):
            yield Setting(name, one.get(name, ABSENT), other.get(name, ABSENT))


def _given(made: ast.expr) -> dict[str, str]:
    if not isinstance(made, ast.Call):
        return {}
    named = {each.arg or "**": ast.unparse(each.value) for each in made.keywords}
    return {**{f"argument {place}": ast.unparse(each) for place, each in enumerate(made.args, 1)}, **named}


def _code_of(made: ast.expr, code: Code) -> dict[str, str]:
    """The classes and functions that a module is made of, by name, those that they use included."""
    found: dict[str, str] = {}
    wanted = [_kind(made)]
    while wanted:
        name = wanted.pop()
        if name in found or name not in code.helpers:
            continue
        found[name] = code.helpers[name]
        names = {node.id for node in ast.walk(ast.parse(found[name])) if isinstance(node, ast.Name)}
        wanted += sorted(names)
    return found


def _first_difference(a: dict[str, str], b: dict[str, str]) -> EquationPair:
    """The first lines of code that differ."""
    for name in {**a, **b}:
        lines = [each.get(name, "").splitlines() for each in (a, b)]
        for tag, i, j, k, m in difflib.SequenceMatcher(None, lines[0], lines[1], autojunk=False).get_opcodes():
            if tag != "equal":
                one, other = (" ".join(line.strip() for line in part) for part in (lines[0][i:j], lines[1][k:m]))
                return EquationPair(f"{name}: {one}" if one else "", f"{name}: {other}" if other else "")
    return EquationPair("", "")


def _elsewhere(a: Code, b: Code) -> Iterator[Setting]:
    """Lines of `forward`, and of code that no module is made of, that differ."""
    yield from _lines_apart("forward", a.forward, b.forward)
    yield from _lines_apart("other code", _other_code(a), _other_code(b))


def _other_code(code: Code) -> tuple[str, ...]:
    used = {name for made in code.modules.values() for name in _code_of(made, code)}
    left = [text for name, text in sorted(code.helpers.items()) if name not in used]
    return (*code.rest, *(line for text in left for line in text.splitlines()))


def _lines_apart(name: str, a: tuple[str, ...], b: tuple[str, ...]) -> Iterator[Setting]:
    for tag, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            one, other = (" ".join(line.strip() for line in part) for part in (a[i:j], b[k:m]))
            yield Setting(name, one or ABSENT, other or ABSENT)


def _lone(code: Code, paired: set[str]) -> Iterator[LoneLayer]:
    for name, made in code.modules.items():
        if name not in paired:
            size = sum(array.size for key, array in code.arrays.items() if key.startswith(f"{name}."))
            yield LoneLayer(name, _kind(made), int(size), _kind(made) in ("nn.Identity", "nn.Dropout"))
