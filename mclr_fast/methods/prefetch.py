"""What the next steps need, worked out while this one runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
DEPTH = 2  # steps; the second makes up for a disk that now and then is slow


class Prefetch(Generic[T]):
    """Calls a function of the images seen in one thread of its own, up to DEPTH steps before it is asked to.

    It must be pure until `forget`. An error it raises is raised where its value is asked for.

    Attributes: waited, seconds that callers have waited for values.
    """

    def __init__(self, function: Callable[[int], T], step: int):
        self.function = function
        self.step = step
        self.waited = 0.0
        self._futures: dict[int, Future[T]] = {}
        self._thread = ThreadPoolExecutor(1, "prefetch")
        num_threads = torch.get_num_threads()
        # One thread for its torch calls: a second team of threads would fight the training's for the cores.
        self._thread.submit(torch.set_num_threads, 1).result()
        torch.set_num_threads(num_threads)  # the number is also what later threads begin with

    def __call__(self, images_seen: int) -> T:
        """The function's value; those of the following steps are begun."""
        wanted = [images_seen + i * self.step for i in range(1 + DEPTH)]
        kept = {key: self._futures[key] for key in wanted if key in self._futures}
        self._drop(self._futures.keys() - kept.keys())
        self._futures = {
            key: kept[key] if key in kept else self._thread.submit(self.function, key) for key in wanted
        }
        started = time.perf_counter()
        try:
            return self._futures.pop(images_seen).result()
        finally:
            self.waited += time.perf_counter() - started

    def forget(self) -> None:
        """Drop what has been worked out: the function has changed."""
        self._drop(list(self._futures))

    def _drop(self, keys) -> None:
        for key in keys:
            self._futures.pop(key).cancel()
