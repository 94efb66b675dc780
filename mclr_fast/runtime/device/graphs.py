"""Functions of tensors as CUDA graphs: the one place that captures. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

Function = Callable[..., Any]  # of tensors, giving a tensor or a list of them
Replay = Callable[[], Any]


class Device(Protocol):
    """Where functions are captured."""

    def warm_up(self, function: Function, inputs: tuple[Tensor, ...]) -> Any:
        """function(*inputs), after which nothing is left to be compiled or chosen."""
        ...

    def capture(self, function: Function, inputs: tuple[Tensor, ...], pool: Any = None) -> Replay:
        """What computes function(*inputs) again from the inputs as they then are, into tensors that stay.

        pool: what captures before it used and may be used again, from `new_pool`; None: memory of its own.
        """
        ...

    def new_pool(self) -> Any:
        """Memory for several captures that are replayed in turn."""
        ...

    def share_free(self) -> float:
        """How much of the device's memory is free, of 1."""
        ...


def capturer(device: torch.device) -> Device | None:
    """What captures on a device; None on a CPU, which has no graphs."""
    return CudaDevice(device) if device.type == "cuda" else None


class _Graph(NamedTuple):
    inputs: tuple[Tensor, ...]
    replay: Replay


class Graphs:
    """`function`, captured once a shape of its inputs, so that no kernel waits for the host.

    function: of tensors, on one device, whose first dimension counts rows -> a tensor of as many rows. A
    row's result must not depend on the others. Nothing in it may wait for the host or copy from it, and what
    else it reads (weights) must stay where it is while this object is used.

    The first call of a shape warms up, the second captures, the others replay. A call of fewer rows than a
    graph of otherwise equal shapes is padded to it: a last batch needs none of its own. On the CPU, and after
    a capture that failed, the function is called as it is; `say` is told why, in one line.
    """

    def __init__(
        self,
        function: Function,
        *,
        say: Callable[[str], None] = lambda line: None,
        device: Device | None = None,
    ):
        """device: what captures; None: the GPU that the inputs are on."""
        self._function, self._say, self._device = function, say, device
        self._warm: dict[tuple, int] = {}  # rows, by the rest of the shapes
        self._graphs: dict[tuple, _Graph] = {}
        self._failed = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As the function; the result is the caller's own."""
        if self._device is None:
            self._device = capturer(inputs[0].device)
        rows = len(inputs[0])
        if self._device is None or self._failed or rows == 0:
            return self._function(*inputs)
        kind = tuple((value.shape[1:], value.dtype, value.device) for value in inputs)
        if rows > self._warm.get(kind, 0):
            self._graphs.pop(kind, None)
            self._warm[kind] = rows
            return self._device.warm_up(self._function, inputs)
        if kind not in self._graphs and rows == self._warm[kind]:
            self._try_to_capture(kind, inputs)
        if kind not in self._graphs:
            return self._function(*inputs)
        graph = self._graphs[kind]
        for static, value in zip(graph.inputs, inputs, strict=True):
            static[:rows].copy_(value)  # the rows after them keep some earlier call's
        return graph.replay()[:rows].clone()

    def _try_to_capture(self, kind: tuple, inputs: tuple[Tensor, ...]) -> None:
        static = tuple(value.clone() for value in inputs)
        try:
            self._graphs[kind] = _Graph(static, self._device.capture(self._function, static))
        except RuntimeError as error:  # torch's own, of every kind that it has
            self._failed = True
            self._say(_why_not(error))


class Procedures:
    """Procedures called in the same order again and again, each captured once, in memory that they share.

    A procedure takes tensors and gives a tensor or a list of them; like `Graphs`' function it may not wait
    for the host or copy from it, and what else it reads or writes must stay where it is. It is known by a key
    and the shapes of what it takes. The first call warms up, the second captures, the others replay; each is
    one call of the procedure. Beyond `most`, without a device, and after a capture that failed, they are
    called as they are.

    Results lie where the graph puts them, until a procedure that was captured before is called again: one
    that is always called first gives what all others may read.
    """

    def __init__(
        self,
        device: Device | None,
        *,
        most: int = 8,
        say: Callable[[str], None] = lambda line: None,
    ):
        """device: what captures; None: nothing is captured."""
        self._device, self._most, self._say = device, most, say
        self._failed = False
        self.forget()

    def forget(self) -> None:
        """Let go of all graphs and their memory: what they read has changed its place."""
        self._pool = None
        self._warm: set[Hashable] = set()
        self._graphs: dict[Hashable, _Graph] = {}

    def make_room(self) -> None:
        """Forget, unless at least half of the device's memory is free: others compute now."""
        if self._graphs and self._device.share_free() < 0.5:
            self.forget()

    def __call__(self, key: Hashable, procedure: Function, *inputs: Tensor, is_read: bool = False) -> Any:
        """procedure(*inputs).

        is_read: other procedures read the result, so it must lie in its place from the first call on: that
        captures too, after a call that only warms up.
        """
        if self._device is None or self._failed:
            return procedure(*inputs)
        key = key, tuple((value.shape, value.dtype) for value in inputs)
        if key not in self._warm:
            self._warm.add(key)
            result = self._device.warm_up(procedure, inputs)
            if not is_read:
                return result
        if key not in self._graphs and (
            len(self._graphs) == self._most or not self._captured(key, procedure, inputs)
        ):
            return procedure(*inputs)
        graph = self._graphs[key]
        for dtype in {value.dtype for value in inputs}:  # a launch each
            pairs = [pair for pair in zip(graph.inputs, inputs, strict=True) if pair[0].dtype == dtype]
            torch._foreach_copy_(*zip(*pairs, strict=True))
        return graph.replay()

    def _captured(self, key: Hashable, procedure: Function, inputs: tuple[Tensor, ...]) -> bool:
        """Try to capture; whether it worked."""
        if self._pool is None:
            self._pool = self._device.new_pool()
        static = tuple(value.clone() for value in inputs)
        try:
            self._graphs[key] = _Graph(static, self._device.capture(procedure, static, self._pool))
        except RuntimeError as error:  # torch's own, of every kind that it has
            self._failed = True
            self.forget()
            self._say(_why_not(error))
        return not self._failed


def _why_not(error: RuntimeError) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"without a CUDA graph, kernel by kernel: {reason}"


class CudaDevice:
    """Captures CUDA graphs on a stream beside the current one."""

    def __init__(self, device: torch.device):
        self._device = device
        self._side = torch.cuda.Stream(device)

    def warm_up(self, function: Function, inputs: tuple[Tensor, ...]) -> Any:
        """As `Device.warm_up`; workspaces are the side stream's, where the capture will be."""
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._side.wait_stream(current)
            with torch.cuda.stream(self._side):
                result = function(*inputs)
            current.wait_stream(self._side)
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor):
                    tensor.record_stream(current)
        return result

    def new_pool(self) -> tuple[int, int]:
        """As `Device.new_pool`."""
        return torch.cuda.graph_pool_handle()

    def share_free(self) -> float:
        """As `Device.share_free`; what the allocator only keeps counts as free."""
        free, total = torch.cuda.mem_get_info(self._device)
        kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return (free + kept) / total

    def capture(self, function: Function, inputs: tuple[Tensor, ...], pool: Any = None) -> Replay:
        """As `Device.capture`. Calls of other threads (a loader's, a logger's) do not disturb it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            mode = {
                "pool": pool or self.new_pool(),
                "stream": self._side,
                "capture_error_mode": "thread_local",
            }
            with torch.cuda.graph(graph, **mode):
                result = function(*inputs)

        def replay() -> Any:
            graph.replay()
            return result

        return replay
