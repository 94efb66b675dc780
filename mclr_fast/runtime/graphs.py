"""Functions of tensors as CUDA graphs: the one place that captures. Knows no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Function = Callable[..., Tensor]
Replay = Callable[[], Tensor]


class Device(Protocol):
    """Where functions are captured."""

    def warm_up(self, function: Function, inputs: tuple[Tensor, ...]) -> Tensor:
        """function(*inputs), after which nothing is left to be compiled or chosen."""
        ...

    def capture(self, function: Function, inputs: tuple[Tensor, ...]) -> Replay:
        """What computes function(*inputs) again from the inputs as they then are, into one tensor."""
        ...


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
        if self._device is None and inputs[0].is_cuda:
            self._device = CudaDevice(inputs[0].device)
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
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(f"without a CUDA graph, kernel by kernel: {reason}")


class CudaDevice:
    """Captures CUDA graphs, each with a memory pool of its own, on a stream beside the current one."""

    def __init__(self, device: torch.device):
        self._device = device
        self._side = torch.cuda.Stream(device)

    def warm_up(self, function: Function, inputs: tuple[Tensor, ...]) -> Tensor:
        """As `Device.warm_up`; workspaces are the side stream's, where the capture will be."""
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._side.wait_stream(current)
            with torch.cuda.stream(self._side):
                result = function(*inputs)
            current.wait_stream(self._side)
            result.record_stream(current)
        return result

    def capture(self, function: Function, inputs: tuple[Tensor, ...]) -> Replay:
        """As `Device.capture`. Calls of other threads (a loader's, a logger's) do not disturb it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            pool = torch.cuda.graph_pool_handle()
            mode = {"pool": pool, "stream": self._side, "capture_error_mode": "thread_local"}
            with torch.cuda.graph(graph, **mode):
                result = function(*inputs)

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
