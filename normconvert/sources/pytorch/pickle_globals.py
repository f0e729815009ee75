"""What the names that a pickle would import stand for: records, and functions of this module in the place of PyTorch's.

`REBUILD` has the few functions that a state dict needs. A class that nobody here knows is recorded and not made. Any
other function is refused: a file that needs it would run code when it is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from normconvert.errors import CorruptFile, Unsupported
from normconvert.ir.model import Array
from normconvert.sources.pytorch.storages import Storage, StoredTensor, dtype_of

_OTHER_TENSOR = re.compile(r"torch\._utils\._rebuild_\w+|torch\.\w+(\.\w+)*\._rebuild_\w+")
"""What rebuilds quantised, sparse, nested and device-only tensors."""

SAFE_WAY = (
    "Where you trust it, load it with the program that wrote it and save the weights alone: "
    "torch.save(model.state_dict(), 'weights.pt')"
)


@dataclass(frozen=True)
class Global:
    """A name that unpickling would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Built:
    """An object of a class that nobody here knows, with what it was to be filled with.

    Attributes:
        of: the class.
        arguments: of its constructor.
        state: what `__setstate__` or `__dict__` would get.
        items: what it would contain, if it is a mapping.
    """

    of: Global
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


def called(function: Global, arguments: tuple[Any, ...]) -> Any:
    """What a call stands for; CorruptFile for one that a state dict does not need."""
    rebuild = REBUILD.get(str(function))
    if rebuild is not None:
        return rebuild(*arguments)
    if function.module in _OF_THE_MACHINE or not function.name.split(".")[-1][:1].isupper():
        if str(function) in _INERT:
            return Built(function, arguments)
        if _OTHER_TENSOR.fullmatch(str(function)):
            raise Unsupported(
                f"holds a tensor of a kind that is not read ({function})",
                remedy="Make it an ordinary one - dequantised, dense, on the CPU - and save the state dict again",
            )
        raise CorruptFile(
            f"loading it would call {function}, which could run any code; nothing of it was run",
            remedy=f"Do not load this file unless you trust its source. {SAFE_WAY}",
        )
    return Built(function, arguments)


@dataclass
class NumpyArray:
    """An array of NumPy; None until it is filled."""

    array: Array | None = None

    def fill(self, state: Any) -> None:
        """Take what `ndarray.__setstate__` gets: version, shape, type, order, bytes."""
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):
            data = data.encode("latin-1")
        if isinstance(dtype, NumpyType) and isinstance(data, bytes):
            flat = np.frombuffer(data, np.dtype(dtype.code).newbyteorder(dtype.order))
            shaped = flat.reshape(tuple(shape), order="F" if fortran else "C")
            self.array = np.asarray(shaped, shaped.dtype.newbyteorder("="))


@dataclass
class NumpyType:
    """An element type of NumPy: its code, and the order of its bytes."""

    code: str
    order: Literal["<", ">", "|"] = "|"

    def fill(self, state: Any) -> None:
        """Take what `dtype.__setstate__` gets: version, order, ..."""
        if state[1] in ("<", ">"):
            self.order = state[1]


def _tensor_v2(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without values")
    return StoredTensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)), storage.dtype)


def _tensor_v3(storage: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *___: Any) -> Any:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without values")
    return StoredTensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)), dtype_of(str(dtype)))


def _first(value: Any, *_: Any) -> Any:
    return value


def _ordered(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    return dict(pairs)


def _reconstruct(chosen: Any, *_: Any) -> Any:
    return NumpyArray() if str(chosen) == "numpy.ndarray" else Built(chosen)


def _object_of(chosen: Any, base: Any = None, *_: Any) -> Any:
    return called(chosen, ()) if isinstance(chosen, Global) else Built(Global("", str(chosen)))


def _encoded(text: Any, *_: Any) -> bytes:
    return str(text).encode("latin-1")


REBUILD: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": _ordered,
    "torch._utils._rebuild_tensor": _tensor_v2,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": lambda function, _, arguments, *__: called(function, arguments),
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.nn.parameter.Parameter": _first,
    "torch.nn.parameter.Buffer": _first,
    "torch.jit._pickle.restore_type_tag": _first,
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_tensorlist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.device": lambda *_: None,
    "torch.serialization._get_layout": lambda *_: None,
    "builtins.set": lambda values=(): list(values),
    "__builtin__.set": lambda values=(): list(values),
    "_codecs.encode": _encoded,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.dtype": lambda code, *_: NumpyType(str(code)),
    "copyreg._reconstructor": _object_of,
    "copy_reg._reconstructor": _object_of,
}
"""What the globals of state dicts stand for; all other functions are refused."""

_MODULES = (
    "builtins __builtin__ os posix nt sys subprocess runpy shutil socket importlib ctypes code codeop pty commands io "
    "_io tempfile pathlib webbrowser multiprocessing threading asyncio pickle _pickle dill cloudpickle torch operator "
    "functools types inspect"
)
_OF_THE_MACHINE = frozenset(_MODULES.split(" "))
"""Modules of which even a class may do something when it is made."""

_HARMLESS = (
    "numpy.core.multiarray.scalar numpy._core.multiarray.scalar datetime.datetime datetime.timedelta datetime.date "
    "collections.deque pathlib.Path pathlib.PosixPath pathlib.WindowsPath pathlib.PurePosixPath "
    "pathlib._local.PosixPath torch.Generator types.SimpleNamespace functools.partial "
    "numpy.random._pickle.__bit_generator_ctor numpy.random._pickle.__generator_ctor "
    "numpy.random._pickle.__randomstate_ctor numpy.random.bit_generator.__pyx_unpickle_SeedSequence"
)
_BUILT_IN = "complex slice range xrange frozenset bytearray object"
_INERT = frozenset(_HARMLESS.split(" ")) | {
    f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILT_IN.split(" ")
}
"""Classes and functions that only hold data; they are recorded, not made."""
