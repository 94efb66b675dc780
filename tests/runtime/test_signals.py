"""What asks a run to save and stop."""

import signal

import pytest

from mclr_fast.runtime.errors import Interrupted
from mclr_fast.runtime.signals import StopRequest

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@pytest.mark.parametrize("number", ALL)
def test_each_asks_to_stop(number):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop = StopRequest()
    signal.raise_signal(number)
    with pytest.raises(Interrupted):
        stop.check()


def test_a_run_under_nohup_outlives_its_terminal():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    signal.raise_signal(signal.SIGHUP)
    stop.check()
