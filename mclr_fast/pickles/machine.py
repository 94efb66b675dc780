"""A pickle as data: a stack machine that knows protocols 2 to 5 and a few names, and calls nothing."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from .values import (
    CONTAINERS,
    EASY_DICT,
    KNOWN,
    LOAD_STORAGE,
    NUMPY_DTYPE,
    ORDERED_DICT,
    PERSISTENT_OBJECT,
    REBUILD_ARRAY,
    REBUILD_PARAMETER,
    REBUILD_TENSOR,
    Array,
    Bytes,
    DType,
    Global,
    Object,
    RefusedError,
    Storage,
    Tensor,
    Window,
    array_tensor,
    check,
    tensor,
)

MAX_STEPS = 500_000  # files of the presets' depth take 20,000 (a snapshot) to 40,000 (a training state)


class Machine:
    """Runs one pickle.

    Args: persistent: what a persistent id stands for (torch's storages); load_storage: what the bytes of one
        saved storage hold.
    """

    def __init__(self, persistent: Callable[[Any], Any], load_storage: Callable[[Bytes], Storage]):
        self.persistent, self.load_storage = persistent, load_storage

    def run(self, window: Window) -> Any:
        """The value of the pickle that starts at the window's position. RefusedError for anything unknown."""
        self.stack, self.outer, self.memo = [], [], {}
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(window)):
            if steps > MAX_STEPS:
                raise RefusedError(f"it takes more than {MAX_STEPS:,} steps to read.")
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in VALUES:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name]())
            elif name in ("BINBYTES", "BINBYTES8", "SHORT_BINBYTES"):
                self.stack.append(Bytes(window.position - len(argument), window.position))
            elif name in OPERATIONS:
                OPERATIONS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise RefusedError(f"it uses the opcode {name}, which no saved model needs.")
        raise RefusedError("it has no end.")

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
        arguments, name = self._pop(tuple), self._pop(Global).name
        if arguments == () and name in (EASY_DICT, ORDERED_DICT):
            self.stack.append({})
        elif arguments == () and name in CONTAINERS:
            self.stack.append(Object(name.rpartition(".")[2]))
        else:
            raise RefusedError(f"it makes an object of {name} with {len(arguments)} arguments.")

    def _reduce(self, _) -> None:
        arguments, name = self._pop(tuple), self._pop(Global).name
        if name == ORDERED_DICT:
            pairs = check(arguments[0], (list, tuple)) if arguments else ()
            value: Any = {}
            for pair in pairs:
                key, item = check(pair, (list, tuple))
                value[check(key, (str, int))] = item
        elif name == PERSISTENT_OBJECT:
            (meta,) = arguments
            meta = check(meta, dict)
            value = Object(check(meta["class_name"], str), check(meta["state"], dict))
        elif name == REBUILD_TENSOR:
            value = tensor(*arguments[:4])
        elif name == REBUILD_PARAMETER:
            value = check(arguments[0], Tensor)
        elif name == LOAD_STORAGE:
            (saved,) = arguments
            value = self.load_storage(check(saved, Bytes))
        elif name == NUMPY_DTYPE:
            value = DType(check(arguments[0], str))
        elif name in REBUILD_ARRAY:
            value = Array()
        else:
            raise RefusedError(f"it calls {name}.")
        self.stack.append(value)

    def _build(self, _) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Array):
            target.tensor = array_tensor(*check(state, tuple)[-4:])
        elif isinstance(target, DType):
            target.order = check(check(state, tuple)[1], str)
        elif isinstance(check(target, (Object, dict)), Object):
            target.state.update(check(state, dict))  # a dict's attributes are not needed


VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
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
