"""Locks: one holder, freed at the block's end and by the holder's death."""

import subprocess
import sys

import pytest

from mclr_fast.runtime.errors import Interrupted
from mclr_fast.runtime.locks import held, waited_for
from mclr_fast.runtime.process.ranks import Ranks

RANKS = Ranks("cpu")
HOLD = """
import sys
from pathlib import Path
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.locks import held
with held(Path(sys.argv[1]), Ranks("cpu")) as mine:
    print(mine, flush=True)
    sys.stdin.read()  # until it is closed
"""


def test_one_holds_it_and_only_during_the_block(tmp_path):
    path = tmp_path / "locks" / "a.lock"
    with held(path, RANKS) as first, held(path, RANKS) as second:
        assert (first, second) == (True, False)
    with pytest.raises(ZeroDivisionError), held(path, RANKS):
        raise ZeroDivisionError
    with held(path, RANKS) as again:
        assert again


def test_a_killed_process_holds_nothing(tmp_path, tiny):
    path = tmp_path / "a.lock"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, path], **pipes) as other:
        assert other.stdout.readline() == "True\n"
        with held(path, RANKS) as mine:
            assert not mine
        other.kill()
        other.wait()
    # Taken at the first try: after one that fails this stop request would end the wait.
    with waited_for(path, RANKS, tiny.StopAfter(1)), held(path, RANKS) as twice:
        assert not twice


def test_a_signal_ends_the_wait(tmp_path, tiny):
    with held(tmp_path / "a.lock", RANKS), pytest.raises(Interrupted):  # noqa: SIM117
        with waited_for(tmp_path / "a.lock", RANKS, tiny.StopAfter(1)):
            pytest.fail("held twice")
