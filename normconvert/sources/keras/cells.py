"""The cell of a recurrent Keras layer, from its configuration and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from normconvert.cells import Family, family
from normconvert.errors import CorruptFile, Unsupported
from normconvert.ir.cell import Cell
from normconvert.ir.layers import Activation
from normconvert.ir.model import Array
from normconvert.ir.shapes.basics import Shape
from normconvert.sources.keras.assembly import Assembly
from normconvert.sources.keras.building import Config
from normconvert.sources.keras.entries import unsupported_class
from normconvert.sources.keras.store import Scope


@dataclass(frozen=True)
class BuiltCell:
    """A cell, its arrays by names relative to the layer, and which of them each stored array became."""

    cell: Cell
    arrays: dict[str, Array]
    layout: dict[str, str]


@dataclass(frozen=True)
class _Kind:
    """How a class name maps to the catalogue."""

    family: str
    layout: str = "keras"
    space: int = 0


_KINDS: dict[str, _Kind] = {
    "SimpleRNN": _Kind("simple_rnn"),
    "LSTM": _Kind("lstm"),
    "GRU": _Kind("gru"),
    "CuDNNLSTM": _Kind("lstm", "cudnn"),
    "CuDNNGRU": _Kind("gru_reset_after", "cudnn"),
    "ConvLSTM1D": _Kind("conv_lstm_1d", space=1),
    "ConvLSTM2D": _Kind("conv_lstm_2d", space=2),
    "LayerNormLSTM": _Kind("tfa_layer_norm_lstm"),
    "LayerNormSimpleRNN": _Kind("tfa_layer_norm_simple_rnn"),
}

RECURRENT_LAYERS = tuple(name for name in _KINDS if not name.startswith("LayerNorm"))
"""Layer classes that are a cell and its loop in one."""


def build_cell(assembly: Assembly, class_name: str, config: Config, scope: Scope, input_shape: Shape) -> BuiltCell:
    """A cell from a layer's or cell's class name.

    Args:
        assembly: the model under construction.
        class_name: `LSTM`, `LSTMCell`, `Addons>LayerNormLSTMCell`, or a class the user defined.
        config: its configuration.
        scope: its arrays.
        input_shape: of one time step of one sample; convolutional cells need it.

    Raises:
        Unsupported: the class is unknown.
        CorruptFile: its arrays do not fit.
    """
    defined = assembly.defined(class_name)
    if defined is not None:
        return _build(assembly, defined, _only_layout(defined), config, scope, {})
    base = class_name.split(">")[-1].removesuffix("Cell")
    kind = _KINDS.get(base)
    if kind is None:
        raise unsupported_class(class_name)
    config = assembly.dialect.filled(base, config)
    name, layout = kind.family, kind.layout
    if base == "GRU" and config.get("reset_after"):
        name = "gru_reset_after"
    if assembly.dialect.major == 1 and layout == "keras" and _per_gate(scope):
        layout = "keras1"
    dims = _space(config, input_shape, kind.space) if kind.space else {}
    return _build(assembly, family(name), layout, config, scope, dims)


def _build(
    assembly: Assembly, chosen: Family, layout: str, config: Config, scope: Scope, dims: Mapping[str, int]
) -> BuiltCell:
    names = [name for name in chosen.layout(layout).tensors if _stored(name, config)]
    tensors = scope.take(*names)
    functions: dict[str, Activation | None] = {
        name: assembly.dialect.activation(config[name]) for name in chosen.functions if name in config
    }
    settings = {key: _plain(value) for key, value in config.items()}
    cell, arrays = chosen.build(layout, tensors, config=settings, functions=functions, dims=dims)
    expected = config.get("units", config.get("filters"))
    found = cell.dims.get("units", cell.dims.get("filters"))
    if isinstance(expected, int) and found is not None and expected != found:
        raise CorruptFile(
            f"the configuration says {expected} units, the arrays have {found}",
            remedy="Do the weights belong to this architecture?",
        )
    return BuiltCell(cell, arrays, chosen.layout(layout).tensors)


def _per_gate(scope: Scope) -> bool:
    """Keras 1 stored one array per gate, except with consume_less='gpu'."""
    return len(scope.left()) > 3


def _stored(name: str, config: Config) -> bool:
    """Whether the configuration leaves an array in place."""
    tail = name.replace(".", "/").split("/")[-1]
    if tail in ("bias", "b"):
        return bool(config.get("use_bias", True))
    return {"gamma": config.get("scale", True), "beta": config.get("center", True)}.get(tail, True) is not False


def _only_layout(chosen: Family) -> str:
    return "keras" if "keras" in chosen.layouts or len(chosen.layouts) != 1 else next(iter(chosen.layouts))


def _plain(value: Any) -> Any:
    """A list of equal numbers as one number is kept a list; only nested configurations are dropped."""
    return None if isinstance(value, dict) else value


_WINDOWS = ("kernel_size", "strides", "dilation_rate")


def _space(config: Config, shape: Shape, axes: int) -> dict[str, int]:
    """Sizes of the image a convolutional cell reads, and of the state it keeps."""
    if config.get("data_format") == "channels_first":
        raise Unsupported("channels come first", remedy="Save the model with data_format='channels_last'")
    if len(shape) != axes + 1 or any(size is None for size in shape[:axes]):
        raise Unsupported(
            "the size of its images cannot be found", remedy="Fix the rows and columns of the model's input"
        )
    names = ("rows", "columns")[:axes]
    sizes: dict[str, int] = {}
    for axis, name in enumerate(names):
        size = int(shape[axis] or 0)
        window, stride, dilation = (
            _pick(config.get(key, 1), axis) for key in ("kernel_size", "strides", "dilation_rate")
        )
        span = dilation * (window - 1) + 1
        inner = size if config.get("padding", "valid") == "same" else size - span + 1
        sizes[name], sizes[f"state_{name}"] = size, -(-inner // stride)
    return sizes


def _pick(value: Any, axis: int) -> int:
    return int(value[axis] if isinstance(value, (list, tuple)) else value)
