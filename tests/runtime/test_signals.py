"""What asks a run to save and stop."""

import signal

import pytest

from mclr_fast.runtime.errors import Interrupted
from mclr_fast.runtime.signals import StopRequest

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@pytest.mark.parametrize("number", ALL)
@pytest.mark.robust("processes")
def test_each_asks_to_stop(number):
    """SIGTERM, SIGINT, SIGUSR1 and SIGHUP ask the run to save and stop."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop = StopRequest()
    signal.raise_signal(number)
    with pytest.raises(Interrupted):
        stop.check()


@pytest.mark.robust("processes")
def test_a_run_under_nohup_outlives_its_terminal():
    """SIGHUP stays ignored, as nohup wished."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    signal.raise_signal(signal.SIGHUP)
    stop.check()
