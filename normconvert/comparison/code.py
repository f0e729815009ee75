"""The `model.py` of a converted PyTorch folder, read as text: nothing in it is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from normconvert.errors import CorruptFile, Unsupported
from normconvert.ir.model import Array, Model
from normconvert.sources.pytorch.safetensors_file import read_safetensors
from normconvert.targets.torch.model_text import write_model

_MODEL = "Model"
_LARGEST = 8 << 20
"""Longest text that is parsed."""


@dataclass(frozen=True)
class Code:
    """A PyTorch model as text.

    Attributes:
        modules: by attribute of the model, how each is made.
        forward: the lines of `forward`.
        helpers: the other classes and functions, as text without comments.
        rest: everything else: imports, statements of the file, and what else stands in the model's class.
        arrays: its state dict.
    """

    modules: Mapping[str, ast.expr]
    forward: tuple[str, ...]
    helpers: Mapping[str, str]
    rest: tuple[str, ...]
    arrays: Mapping[str, Array]


def code_of_folder(folder: Path) -> Code:
    """The model in a folder.

    Raises:
        CorruptFile: its text or its weights are damaged, or not those of a folder that normconvert wrote.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CorruptFile("has no model.safetensors beside model.py", where=str(folder))
    text = folder / "model.py"
    if text.stat().st_size > _LARGEST:
        raise CorruptFile("is too long to be compared", where=str(text))
    try:
        source = text.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CorruptFile("is not UTF-8 text", where=str(text)) from None
    arrays = {name: tensor.load() for name, tensor in read_safetensors(weights).items()}
    return _parsed(source, arrays, str(text))


def code_of_model(model: Model) -> Code:
    """What a model would be written as.

    Raises:
        Unsupported: a layer has no PyTorch form.
    """
    try:
        written = write_model(model)
    except Unsupported as error:
        raise error.at("as the other side, a PyTorch folder") from None
    return _parsed(written.text, written.arrays, "model.py")


def _parsed(text: str, arrays: Mapping[str, Array], where: str) -> Code:
    try:
        tree = ast.parse(text)
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
        raise CorruptFile(f"cannot be parsed ({type(error).__name__})", where=where) from None
    found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    model = found.pop(_MODEL, None)
    if not isinstance(model, ast.ClassDef):
        raise CorruptFile(f"has no class {_MODEL}", where=where)
    methods = {node.name: node for node in model.body if isinstance(node, ast.FunctionDef)}
    if not {"__init__", "forward"} <= methods.keys():
        raise CorruptFile(f"the class {_MODEL} has no __init__ and forward", where=where)
    modules, forward = dict(_modules(methods["__init__"])), tuple(_lines(methods["forward"]))
    return Code(
        modules=modules,
        forward=forward,
        helpers={name: "\n".join(_lines(node)) for name, node in found.items()},
        rest=tuple(_rest(tree, model)),
        arrays=arrays,
    )


def _rest(tree: ast.Module, model: ast.ClassDef) -> Iterator[str]:
    """The lines of what is neither a helper, nor a module of the model, nor its `forward`."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) and not _is_docstring(node):
            yield from _lines(node)
    for method in model.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            method.body = [each for each in method.body if not _is_module(each)]
    model.body = [each for each in model.body if not (isinstance(each, ast.FunctionDef) and each.name == "forward")]
    yield from _lines(model)


def _is_module(node: ast.stmt) -> bool:
    """Whether a statement sets an attribute of the model."""
    match node:
        case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"))]):
            return True
    return False


def _modules(method: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    for node in method.body:
        match node:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)], value=value):
                yield name, value


def _lines(node: ast.AST) -> list[str]:
    """A class or function as lines, without docstrings and comments."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.ClassDef | ast.FunctionDef):
            inner.body = [each for each in inner.body if not _is_docstring(each)] or [ast.Pass()]
    return ast.unparse(node).splitlines()


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
