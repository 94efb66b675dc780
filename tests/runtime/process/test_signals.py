"""What asks a run to save and stop, and what ends it at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mclr_fast.runtime.errors import Interrupted, InterruptedAtOnce
from mclr_fast.runtime.process import main, signals
from mclr_fast.runtime.process.signals import StopRequest

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@pytest.fixture
def left(monkeypatch):
    """The exit codes that the process would have been ended with at once."""
    codes = []
    monkeypatch.setattr(signals, "_leave", codes.append)
    return codes


def soon(holds):
    """Whether that comes to hold: another thread makes it so."""
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


@pytest.mark.parametrize("number", ALL)
@pytest.mark.robust("processes")
def test_each_asks_to_stop(number):
    """SIGTERM, SIGINT, SIGUSR1 and SIGHUP are seen at the next look, once there was one."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop = StopRequest()
    stop.check()
    signal.raise_signal(number)
    with pytest.raises(Interrupted):
        stop.check()


@pytest.mark.robust("processes")
def test_a_run_under_nohup_outlives_its_terminal():
    """A process that ignores SIGHUP, as under nohup, goes on when its terminal closes."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    signal.raise_signal(signal.SIGHUP)
    stop.check()


@pytest.mark.parametrize("number", ALL)
@pytest.mark.robust("processes")
def test_before_the_first_look_a_blocked_read_ends(number, tmp_path, capsys):
    """A signal while a door waits in a read, with nothing to save yet, ends it there with code 143."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.mkfifo(tmp_path / "data.zip")

    def work(ranks, stop):
        threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        try:
            (tmp_path / "data.zip").read_bytes()  # nobody writes
        except Exception:
            pytest.fail("taken for a damaged file")

    assert main.run_door("cpu", work) == 143
    assert "run the same command again" in capsys.readouterr().out


@pytest.mark.robust("processes")
def test_a_second_ctrl_c_ends_at_once(left, monkeypatch, capfd):
    """The first Ctrl-C says that another ends at once, and another does, by code 130."""
    monkeypatch.setattr(signals, "ONE_KEY", 0.1)
    stop = StopRequest()
    stop.check()
    signal.raise_signal(signal.SIGINT)
    assert soon(lambda: stop._first_ctrl_c is not None)
    time.sleep(0.2)
    signal.raise_signal(signal.SIGINT)
    assert soon(lambda: left == [130])
    assert "Ctrl-C again ends at once" in capfd.readouterr().err


@pytest.mark.robust("processes")
def test_one_ctrl_c_that_comes_twice_is_one(left, monkeypatch):
    """Two SIGINTs within half a second, by terminal and launcher, are one; SIGTERMs never end at once."""
    stop = StopRequest()
    stop.check()
    now = iter([10.0, 10.4])
    monkeypatch.setattr(signals.time, "monotonic", lambda: next(now))
    for _ in range(2):
        stop._arrived(signal.SIGINT)
    for _ in range(3):
        stop._arrived(signal.SIGTERM)
    assert left == []


@pytest.mark.robust("processes")
def test_what_hears_no_signal_is_left(left, monkeypatch):
    """Where the main thread hears no signal and nothing is to be saved yet, one ends the process."""
    monkeypatch.setattr(signals, "UNHEARD", 0.1)
    stop = StopRequest()
    stop._arrived(signal.SIGTERM)  # as the watching thread sees it, the main thread's handler never runs
    assert left == [143]
    stop.look()
    stop._arrived(signal.SIGTERM)
    assert left == [143]


@pytest.mark.robust("processes")
def test_a_request_that_is_over_ends_nothing(left):
    """Signals that no longer are a door's, after it has ended, do nothing."""
    stop = StopRequest()
    signal.signal(signal.SIGINT, lambda *_: None)
    for _ in range(2):
        stop._arrived(signal.SIGINT)
    assert left == [] and stop._first_ctrl_c is None


HELD = """
import ctypes, sys
from mclr_fast.runtime.process.signals import StopRequest
stop = StopRequest()
stop.check()
mutex = ctypes.create_string_buffer(128)
libc = ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
print("held", flush=True)
libc.pthread_mutex_lock(mutex)  # for ever, whatever the signal: as in a collective
"""


@pytest.mark.robust("processes")
def test_a_process_that_is_held_by_a_collective():
    """Ctrl-C twice ends a process whose main thread never comes back to Python."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = {**os.environ, "PYTHONPATH": str(Path(main.__file__).parents[3])}
    with subprocess.Popen([sys.executable, "-c", HELD], env=env, **pipes) as held:
        assert held.stdout.readline() == "held\n"
        held.send_signal(signal.SIGINT)
        assert held.stderr.readline() == "\n" and "Ctrl-C again" in held.stderr.readline()
        time.sleep(2 * signals.ONE_KEY)
        held.send_signal(signal.SIGINT)
        assert held.wait(60) == 130
        assert held.stderr.read() == signals.AT_ONCE


@pytest.mark.robust("processes")
def test_the_interruption_is_no_exception():
    """What is raised in the middle of work is not caught by what catches a damaged file's errors."""
    assert not issubclass(InterruptedAtOnce, Exception)
