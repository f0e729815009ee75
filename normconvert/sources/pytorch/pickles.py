"""Pickles read as data: no object is made and nothing is called, whatever the file asks for.

A pickle is a program for a stack machine. This one has the machine's stack and memory, but its values are numbers,
texts, lists, dicts and records of what was asked for: `Global` is a name that would be imported, `Built` a class that
would be instantiated. The few globals that a state dict needs are in `REBUILD`, as functions of this module. A call of
any other function ends the reading: a file that needs it would run code when it is loaded.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import numpy as np

from normconvert.errors import CorruptFile, NormconvertError
from normconvert.sources.pytorch.mapped_stream import MappedStream
from normconvert.sources.pytorch.pickle_globals import SAFE_WAY, Built, Global, NumpyArray, NumpyType, called

_MOST_INSTRUCTIONS = 2_000_000
"""Some twenty for each tensor, and a few for each setting beside them."""

_AGAIN = "Take the file from its source again"


class _Mark:
    """Where a group of values begins on the stack."""


_MARK = _Mark()
Load = Callable[[tuple[Any, ...]], Any]


def read_pickle(stream: MappedStream, place: str, load: Load) -> Any:
    """The value of the pickle that begins at the stream's position; the stream is left behind its end.

    Args:
        stream: the file's bytes.
        place: how errors name it.
        load: gives what a persistent id stands for: a `Storage`.

    Raises:
        CorruptFile: it is cut short or damaged, or it would call a function that no state dict needs.
    """
    machine = _Machine(load)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(BinaryIO, stream))):
            if count > _MOST_INSTRUCTIONS:
                raise CorruptFile("the pickle is longer than that of any state dict")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except NormconvertError as error:
        raise error.at(place) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise CorruptFile(
            f"the pickle is damaged ({error or type(error).__name__})", where=place, remedy=_AGAIN
        ) from None
    raise CorruptFile("the pickle is cut short", where=place, remedy=_AGAIN)


def read_bytes(data: bytes, place: str, load: Load) -> Any:
    """The value of a pickle in memory; see `read_pickle`."""
    return read_pickle(MappedStream(np.frombuffer(data, np.uint8)), place, load)


class _Machine:
    """The stack, the memory, and what each instruction does to them."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def pop(self) -> Any:
        """The value on top."""
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def step(self, name: str, argument: Any) -> None:
        """One instruction."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        elif name not in _NOTHING:
            raise CorruptFile(f"the pickle uses the instruction {name}, which no state dict needs", remedy=SAFE_WAY)

    def marked(self) -> list[Any]:
        """The values above the last mark."""
        values: list[Any] = []
        while True:
            value = self.stack.pop()
            if value is _MARK:
                return values[::-1]
            values.append(value)


def _tuple(machine: _Machine, count: int) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.stack.append(tuple(values[::-1]))


def _put(machine: _Machine, index: int) -> None:
    machine.memory[index] = machine.stack[-1]


def _set_items(machine: _Machine, pairs: list[Any]) -> None:
    target = _container(machine.stack[-1])
    if not isinstance(target, dict) or len(pairs) % 2:
        raise ValueError("items for what is no dict")
    target.update(zip(map(_key, pairs[::2]), pairs[1::2], strict=True))


def _append(machine: _Machine, values: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, Built):
        return  # a deque, a set: nothing of it is read
    if not isinstance(target, list):
        raise ValueError("elements for what is no list")
    target.extend(values)


def _add(machine: _Machine, values: list[Any]) -> None:
    if not isinstance(machine.stack[-1], list):
        raise ValueError("elements for what is no set")
    machine.stack[-1].extend(values)


def _container(value: Any) -> Any:
    return value.items if isinstance(value, Built) else value


def _key(value: Any) -> Any:
    """A key of a dict; records stand for themselves by their text."""
    try:
        hash(value)
    except TypeError:
        return str(value)
    return value


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise ValueError("a call of what is no function")
    machine.stack.append(called(function, arguments))


def _new(machine: _Machine, arguments: Any) -> None:
    chosen = machine.pop()
    if not isinstance(chosen, Global) or not isinstance(arguments, tuple):
        raise ValueError("an object of what is no class")
    machine.stack.append(called(chosen, arguments))


def _new_with_keywords(machine: _Machine) -> None:
    machine.pop()
    _new(machine, machine.pop())


def _build(machine: _Machine) -> None:
    state, target = machine.pop(), machine.stack[-1]
    if isinstance(target, Built):
        target.state = state
    elif isinstance(target, (NumpyArray, NumpyType)):
        target.fill(state)


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.stack.append(Global(str(module), str(name)))


def _instance(machine: _Machine, values: list[Any]) -> None:
    machine.stack.append(called(values[0], tuple(values[1:])))


def _global(argument: str) -> Global:
    module, _, name = argument.partition(" ")
    return Global(module, name)


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}

_WORDS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8"
)
_LITERALS = frozenset(_WORDS.split(" "))

_NOTHING = frozenset({"PROTO", "FRAME"})

_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.marked(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.marked())),
    "TUPLE1": lambda m, _: _tuple(m, 1),
    "TUPLE2": lambda m, _: _tuple(m, 2),
    "TUPLE3": lambda m, _: _tuple(m, 3),
    "LIST": lambda m, _: m.stack.append(m.marked()),
    "FROZENSET": lambda m, _: m.stack.append(m.marked()),
    "DICT": lambda m, _: _dict(m),
    "APPEND": lambda m, _: _append(m, [m.pop()]),
    "APPENDS": lambda m, _: _append(m, m.marked()),
    "ADDITEMS": lambda m, _: _add(m, m.marked()),
    "SETITEM": lambda m, _: _set_items(m, [m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: _set_items(m, m.marked()),
    "PUT": lambda m, index: _put(m, index),
    "BINPUT": lambda m, index: _put(m, index),
    "LONG_BINPUT": lambda m, index: _put(m, index),
    "MEMOIZE": lambda m, _: _put(m, len(m.memory)),
    "GET": lambda m, index: m.stack.append(m.memory[index]),
    "BINGET": lambda m, index: m.stack.append(m.memory[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memory[index]),
    "GLOBAL": lambda m, argument: m.stack.append(_global(argument)),
    "STACK_GLOBAL": lambda m, _: _stack_global(m),
    "REDUCE": lambda m, _: _reduce(m),
    "NEWOBJ": lambda m, _: _new(m, m.pop()),
    "NEWOBJ_EX": lambda m, _: _new_with_keywords(m),
    "BUILD": lambda m, _: _build(m),
    "OBJ": lambda m, _: _instance(m, m.marked()),
    "INST": lambda m, argument: _instance(m, [_global(argument), *m.marked()]),
    "BINPERSID": lambda m, _: m.stack.append(m.load(m.pop())),
}


def _dict(machine: _Machine) -> None:
    pairs = machine.marked()
    machine.stack.append({})
    _set_items(machine, pairs)
