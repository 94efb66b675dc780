"""Steps drawn ahead: the same values, whoever asks, and no waiting for them."""

import threading
import time

import pytest

from mclr_fast.methods.prefetch import DEPTH, Prefetch


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


def test_forget():
    factor = [1]
    ahead = Prefetch(lambda n: n * factor[0], 1)
    assert ahead(1) == 1
    time.sleep(0.05)
    factor[0] = 5
    ahead.forget()
    assert ahead(2) == 10


def test_waits_only_for_what_takes_longer_than_the_step():
    ahead = Prefetch(lambda n: time.sleep(0.02), 1)
    ahead(0)
    before = ahead.waited
    assert before >= 0.02
    for n in range(1, 6):
        time.sleep(0.06)  # the step
        ahead(n)
    assert ahead.waited - before < 0.02
    for n in range(6, 16):  # a step that takes no time waits for nearly all of it
        ahead(n)
    assert ahead.waited - before > 0.1
