"""Contenders are timed in turn, each until the device is done, the first round dropped."""

from types import SimpleNamespace

import interleave
import pytest


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told to."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(interleave, "clock", lambda: clock.now)
    return clock


def test_in_turn_without_the_first_round(clock):
    called = []

    def slow():
        called.append("slow")
        clock.now += 100 if len(called) == 1 else 4

    def says():
        called.append("says")
        return 2.5

    times = interleave.in_turn({"slow": slow, "says": says}, rounds=2)
    assert called == ["slow", "says"] * 3
    assert times["slow"].seconds == (4, 4)
    assert times["says"].seconds == (2.5, 2.5)


def test_what_is_launched_counts_until_it_is_done(clock):
    """Once a round, after all its calls."""

    def finish():
        clock.now += 3

    def launch():
        clock.now += 1

    assert interleave.seconds_a_call(launch, 3, finish) == pytest.approx((3 * 1 + 3) / 3)
    times = interleave.in_turn({"a": launch}, rounds=1, calls=3, finish=finish)
    assert times["a"].median == pytest.approx(2.0)


def test_interleave_is_in_turn_through_pytest_benchmark(clock):
    class Benchmark:
        extra_info, stats = {}, "some"

        def pedantic(self, function, *, setup, rounds, warmup_rounds, iterations):
            for _ in range(rounds + warmup_rounds):
                setup()
                function()

    called = []

    def contender(name, seconds):
        def call():
            called.append(name)
            clock.now += seconds

        return call

    times = interleave.interleave(
        Benchmark(), contender("ours", 1), {"b": contender("b", 2)}, rounds=2, calls=2
    )
    assert called == ["b", "b", "ours", "ours"] * 3
    assert times["ours"].seconds == (1, 1) and times["b"].ratios(times["ours"]) == [2, 2]
