"""A pickle as data: a stack machine that knows protocols 2 to 5 and a few names, and calls nothing."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from typing import Any

from .arrays import array
from .calls import CALLS, new_object
from .values import (
    KNOWN,
    METADATA,
    Array,
    Bytes,
    DType,
    Global,
    Inert,
    Object,
    RefusedError,
    Storage,
    Window,
    check,
)

MAX_STEPS = 500_000  # files of the presets' depth take 20,000 (a snapshot) to 40,000 (a training state)
LENGTHS = {
    "SHORT_BINBYTES": 1,
    "BINBYTES": 4,
    "BINBYTES8": 8,
    "BYTEARRAY8": 8,
}  # bytes of a bytes value's length


def operations(window: Window) -> Iterator[tuple[str, Any]]:
    """The names and arguments of a pickle's opcodes; of bytes values, where they are."""
    name = ""
    while name != "STOP":
        opcode = pickletools.code2op.get(window.read(1).decode("latin-1"))
        if opcode is None:
            raise ValueError(f"byte {window.position - 1:,} is no opcode")
        name = opcode.name
        if name in LENGTHS:
            length = int.from_bytes(window.read(LENGTHS[name]), "little")
            start = window.skip(length)
            yield name, Bytes(start, start + length)
        else:
            yield name, opcode.arg.reader(window) if opcode.arg else None


class Machine:
    """Runs one pickle.

    Args: persistent: what a persistent id stands for (torch's storages); load_storage: what the bytes of one
        saved storage hold.
    """

    def __init__(self, persistent: Callable[[Any], Any], load_storage: Callable[[Bytes], Storage]):
        self.persistent, self.load_storage = persistent, load_storage

    def run(self, window: Window) -> Any:
        """The value of the pickle that starts at the window's position. RefusedError for anything unknown."""
        self.stack, self.outer, self.memo, self.file = [], [], {}, window.file
        for steps, (name, argument) in enumerate(operations(window)):
            if steps > MAX_STEPS:
                raise RefusedError(f"it takes more than {MAX_STEPS:,} steps to read.")
            if name == "STOP":
                return self.stack.pop()
            if name in VALUES:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name]())
            elif name in OPERATIONS:
                OPERATIONS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise RefusedError(f"it uses the opcode {name}, which no saved model needs.")
        raise RefusedError("it has no end.")

    def content(self, value: Bytes, limit: int) -> bytes:
        """What a short bytes value is."""
        if value.end - value.start > limit:
            raise RefusedError(f"it holds {value.end - value.start:,} bytes where at most {limit} belong.")
        if value.inline is not None:
            return value.inline
        self.file.seek(value.start)
        return self.file.read(value.end - value.start)

    def _mark(self, _) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self, kind: type | tuple[type, ...]) -> Any:
        return check(self.stack.pop(), kind)

    def _top(self, kind: type) -> Any:
        return check(self.stack[-1], kind)

    def _set_items(self, pairs: list) -> None:
        target = self._top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[check(key, (str, int))] = value

    def _extend(self, items: list) -> None:
        self._top(list).extend(items)

    def _add_items(self, items: list) -> None:
        self._top(set).update(check(item, (str, int)) for item in items)

    def _tuple(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise RefusedError(f"it recalls a value {index} that it never kept.")
        self.stack.append(self.memo[index])

    def _global(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in KNOWN:
            raise RefusedError(f"it names {full[:200]!r}, which no saved model needs.")
        self.stack.append(Global(full))

    def _stack_global(self, _) -> None:
        name, module = self._pop(str), self._pop(str)
        self._global(module, name)

    def _new_object(self, _) -> None:
        arguments, name = self._pop(tuple), self._pop(Global)
        self.stack.append(new_object(name, arguments))

    def _reduce(self, _) -> None:
        arguments, name = self._pop(tuple), self._pop(Global).name
        if name not in CALLS:
            raise RefusedError(f"it calls {name}.")
        self.stack.append(CALLS[name](self, *arguments))

    def _build(self, _) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Array):
            target.tensor = array(*check(state, tuple)[-4:]).tensor
        elif isinstance(target, DType):
            target.order = check(check(state, tuple)[1], str)
        elif isinstance(target, Inert):
            return
        elif isinstance(check(target, (Object, dict)), Object):
            target.state.update(check(state, dict))
        elif type(state) is dict:
            self._keep_metadata(target, state.get("_metadata"))

    @staticmethod
    def _keep_metadata(target: dict, metadata: Any) -> None:
        """Of its attributes: what a state_dict says of the whole network, beside torch's version."""
        whole = metadata.get("") if type(metadata) is dict else None
        if type(whole) is dict and whole.keys() - {"version"}:
            target[METADATA] = whole


VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", *LENGTHS}
VALUES |= {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
OPERATIONS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine._since_mark(),
    "TUPLE": lambda machine, _: machine._push(tuple(machine._since_mark())),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "APPEND": lambda machine, _: machine._extend([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine._extend(machine._since_mark()),
    "SETITEM": lambda machine, _: machine._set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine._set_items(machine._since_mark()),
    "FROZENSET": lambda machine, _: machine._push({check(i, (str, int)) for i in machine._since_mark()}),
    "ADDITEMS": lambda machine, _: machine._add_items(machine._since_mark()),
    "PUT": Machine._put,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": lambda machine, _: machine._put(len(machine.memo)),
    "GET": Machine._get,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
    "GLOBAL": lambda machine, argument: machine._global(*argument.split(" ", 1)),
    "STACK_GLOBAL": Machine._stack_global,
    "NEWOBJ": Machine._new_object,
    "REDUCE": Machine._reduce,
    "BUILD": Machine._build,
    "BINPERSID": lambda machine, _: machine.stack.append(machine.persistent(machine.stack.pop())),
}
