"""Products with a matrix and convolutions as lines of a cell."""

from __future__ import annotations

from normconvert.ir.expressions import Binary, Call, Expression, Name
from normconvert.ir.windows import window_length
from normconvert.sources.tf1.graph.definitions import Definitions, Handler
from normconvert.sources.tf1.graph.lines import unsupported
from normconvert.sources.tf1.graph.metagraph import Node
from normconvert.sources.tf1.graph.shaping import transposed
from normconvert.sources.tf1.graph.slicing import rows
from normconvert.sources.tf1.graph.values import Term, Value


def _matmul(d: Definitions, node: Node, inputs: list[Value]) -> Value:
    left, right = (d.term(value, node) for value in inputs)
    flags = [bool(node.attributes.get(f"transpose_{side}")) for side in "ab"]
    if (left.batched and right.batched) or (right.batched and not left.batched) or (left.batched and flags[0]):
        raise unsupported(node, "mixes the samples of a batch")
    left, right = (transposed(d, term, node) if flag else term for term, flag in zip((left, right), flags, strict=True))
    if len(right.shape) != 2 or len(left.shape) != (1 if left.batched else 2):
        raise unsupported(node, f"multiplies shapes {list(left.shape)} and {list(right.shape)}")
    shape = (*left.shape[:-1], right.shape[1])
    pieces = _pieces(d, left)
    if len(pieces) == 1:
        return d.define(Binary("@", left.expression, right.expression), shape, left.batched, node)
    products, start = [], 0
    for expression, size in pieces:
        block = rows(right, start, start + size)
        products.append(d.define(Binary("@", expression, block.expression), shape, left.batched, node))
        start += size
    total = products[0]
    for product in products[1:]:
        total = d.define(Binary("+", total.expression, product.expression), shape, left.batched, node)
    return total


def _pieces(d: Definitions, term: Term) -> list[tuple[Expression, int]]:
    """What a value is joined from, with sizes; itself if it is no concatenation."""
    definition = d.definition(term)
    if isinstance(definition, Call) and definition.function == "concat" and len(term.shape) == 1:
        names = [piece for piece in definition.arguments if isinstance(piece, Name)]
        if len(names) == len(definition.arguments):
            return [(piece, d.shape(piece.name)[-1]) for piece in names]
    return [(term.expression, term.shape[-1])]


def _convolution(d: Definitions, node: Node, inputs: list[Value]) -> Value:
    """A convolution of samples `[*space, channels]` with a parameter."""
    x, kernel = (d.term(value, node) for value in inputs)
    rank, channels_last = (3, b"NDHWC") if node.op == "Conv3D" else (2, b"NHWC")
    padding = node.attributes.get("padding", b"").decode().lower()
    strides, dilation = (
        tuple(int(n) for n in node.attributes.get(name) or (1,) * (rank + 2))[1:-1] for name in ("strides", "dilations")
    )
    plain = node.attributes.get("data_format", channels_last) == channels_last and padding in ("same", "valid")
    if not plain or len(x.shape) != rank + 1 or not x.batched or kernel.batched or len(kernel.shape) != rank + 2:
        raise unsupported(node, "is no convolution of the equation language")
    space = tuple(
        window_length(size, window, stride, by, padding)
        for size, window, stride, by in zip(x.shape, kernel.shape[:rank], strides, dilation, strict=False)
    )
    options = (("strides", strides), ("padding", padding), ("dilation", dilation))
    call = Call("conv", (x.expression, kernel.expression), options)
    return d.define(call, (*(size or 0 for size in space), kernel.shape[-1]), True, node)


PRODUCTS: dict[str, Handler] = {
    "MatMul": _matmul,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
}
"""By TensorFlow's name of the operation."""
