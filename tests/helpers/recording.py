"""A graph on the CPU: what it replays are the operations of one call, on the tensors that were there then."""

import threading

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from mclr_fast.runtime.device.staging import Staged

SYNCS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


def storages(values):
    """The memory of the tensors among some values."""
    return {t.untyped_storage()._cdata for t in tree_leaves(values) if isinstance(t, torch.Tensor)}


class Tape(TorchDispatchMode):
    """Keeps the operations inside (calls), and what they wrote to that was there before (before)."""

    def __init__(self):
        super().__init__()
        self.calls, self.before, self.made = [], [], set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for argument, value in zip(function._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                outside = [t for t in tree_leaves(value) if not storages(t) <= self.made]
                self.before += [(t, t.clone()) for t in outside]
        result = function(*args, **kwargs)
        self.made |= storages(result) - storages((args, kwargs))
        self.calls.append((function, args, kwargs, result))
        return result


class Recording:
    """A `runtime.device.graphs.Device`.

    Attributes: captured and replays, how many; fail, the capture that fails.
    """

    def __init__(self, free=1.0):
        self.captured, self.replays, self.free, self.fail = 0, 0, free, None

    def warm_up(self, function, inputs):
        return function(*inputs)

    def new_pool(self):
        return object()

    def share_free(self):
        return self.free

    def capture(self, function, inputs, pool=None):
        self.captured += 1
        with Tape() as tape:
            result = function(*inputs)
        for tensor, value in reversed(tape.before):  # a capture computes nothing
            tensor.copy_(value)
        if self.fail is not None and self.captured == self.fail:
            raise RuntimeError("operation not permitted when stream is capturing")

        def replay():
            self.replays += 1
            with _disable_current_modes(), torch.no_grad():
                for function, args, kwargs, recorded in tape.calls:
                    again = function(*args, **kwargs)
                    shared = storages((args, kwargs))
                    for old, new in zip(tree_leaves(recorded), tree_leaves(again), strict=True):
                        if isinstance(new, torch.Tensor) and not storages(new) & shared:
                            old.copy_(new)
            return result

        return replay


class FromTheHost(TorchDispatchMode):
    """Fails on what a CUDA graph cannot hold. Attributes: calls, the operations and their results' shapes."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert function not in SYNCS, f"{function} waits for the device"
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if function not in (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default):
            given = [t for t in given if t.ndim]  # kernels take a host's number as a number
        devices = {t.device.type for t in given}
        assert len(devices) < 2, f"{function} copies between {devices}"
        result = function(*args, **kwargs)
        found = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        assert all(t.device.type == "meta" for t in found), f"{function} makes a tensor on the host"
        self.calls.append((str(function), [tuple(t.shape) for t in found]))
        return result


class NumbersSet(TorchFunctionMode):
    """Fails where a part of a tensor is set to a number: on CUDA that is a copy from the host."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        is_set = function is torch.Tensor.__setitem__ and not isinstance(args[2], torch.Tensor)
        assert not is_set, "a part of a tensor is set to a number"
        return function(*args, **(kwargs or {}))


class Launches(TorchDispatchMode):
    """Counts the operations inside that launch something: neither views nor memory alone."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        writes = any(a.alias_info is not None and a.alias_info.is_write for a in function._schema.arguments)
        makes = bool(storages(result) - storages((args, kwargs)))
        if writes or (makes and "empty" not in str(function)):
            self.calls.append(str(function))
        return result


class Late:
    """A `runtime.device.staging.Staging` whose tensors hold nothing of use until they are taken.

    Attributes: followed, how often; threads, those that brought something.
    """

    def __init__(self):
        self.followed, self.threads = 0, set()

    def bring(self, make):
        self.threads.add(threading.current_thread())
        value = make()
        found = [t.untyped_storage() for t in tree_leaves(vars(value)) if isinstance(t, torch.Tensor)]
        contents = [(storage, storage.clone()) for storage in {s._cdata: s for s in found}.values()]
        for storage, _ in contents:
            storage.fill_(7)
        return Staged(value, contents)

    def take(self, staged, tensors):
        given = storages(list(tensors))
        for storage, content in staged.arrived:
            assert storage._cdata in given, "a tensor that is brought but not waited for"
            storage.copy_(content)
        return staged.value

    def follow(self):
        self.followed += 1
