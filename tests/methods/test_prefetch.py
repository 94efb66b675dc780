"""Steps drawn ahead: the same values, whoever asks, and no waiting for those that are there."""

import threading
from types import SimpleNamespace

import pytest

from mclr_fast.methods import prefetch
from mclr_fast.methods.prefetch import DEPTH, Prefetch

HANGS = 60  # seconds after which a test that waits for what never comes is ended


def test_the_following_steps_are_begun_and_no_other():
    called = []
    ahead = Prefetch(lambda n: called.append(n) or n * n, 10)
    assert [ahead(n) for n in (0, 10, 20)] == [0, 100, 400]
    assert ahead(100) == 10_000  # after a resume, say
    assert ahead(110) == 12_100
    wanted = [0, 10, 20, *range(30, 20 + 10 * DEPTH + 1, 10)]
    assert called[:3] == [0, 10, 20]
    assert set(called) <= {*wanted, *range(100, 111 + 10 * DEPTH, 10)}
    assert len(called) == len(set(called))


def test_in_a_thread_of_its_own():
    ahead = Prefetch(lambda n: threading.current_thread().name, 1)
    assert ahead(0) == ahead(1) != threading.current_thread().name


def test_an_error_comes_with_its_step():
    def function(n):
        if n == 2:
            raise ValueError("image 2")
        return n

    ahead = Prefetch(function, 1)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(ValueError, match="image 2"):
        ahead(2)
    assert ahead(3) == 3


def test_forget_drops_what_was_worked_out_before_the_function_changed():
    factor, last = [1], threading.Event()

    def function(n):
        if n == 1 + DEPTH:
            last.set()
        return n * factor[0]

    ahead = Prefetch(function, 1)
    assert ahead(1) == 1
    assert last.wait(HANGS)  # the values of the following steps were worked out with the old factor
    factor[0] = 5
    ahead.forget()
    assert ahead(2) == 10


def test_the_following_steps_are_worked_out_during_the_step():
    """While nobody asks for them; so the next calls find them there."""
    done = {n: threading.Event() for n in range(1 + 2 * DEPTH)}
    ahead = Prefetch(lambda n: done[n].set(), 1)
    ahead(0)
    assert all(done[n].wait(HANGS) for n in range(1, 1 + DEPTH))
    assert not done[1 + DEPTH].is_set()
    ahead(DEPTH)
    assert all(done[n].wait(HANGS) for n in range(1 + DEPTH, 1 + 2 * DEPTH))


class Clock:
    """A clock that moves only when told to, and says when it was first looked at."""

    def __init__(self):
        self.now, self.seen = 0.0, threading.Event()

    def __call__(self):
        self.seen.set()
        return self.now


def test_waited_is_the_time_from_the_question_to_the_value(monkeypatch):
    clock, last = Clock(), threading.Event()
    monkeypatch.setattr(prefetch, "time", SimpleNamespace(perf_counter=clock))

    def function(n):
        if n == 0:  # is asked for, and takes 3 seconds from then on
            assert clock.seen.wait(HANGS)
            clock.now += 3
        if n == DEPTH:
            last.set()
        return n

    ahead = Prefetch(function, 1)
    assert ahead(0) == 0 and ahead.waited == 3
    assert last.wait(HANGS)
    clock.now += 100  # the step
    assert ahead(1) == 1 and ahead.waited == 3
