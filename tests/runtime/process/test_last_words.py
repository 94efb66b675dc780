"""The error of the rank that failed first is what a run ends with, whatever the others then do."""

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import failing_rank as program
import pytest
import torch.distributed as dist

from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.process import last_words, main
from mclr_fast.runtime.process.last_words import LastWords, is_lost
from mclr_fast.runtime.process.launch import Launch

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1"
LOST = RuntimeError(GLOO)


@pytest.fixture
def end(monkeypatch, capsys):
    """end(rank, error): the exit code and the last line of that one of three ranks; they share a store."""
    store = dist.HashStore()
    monkeypatch.setattr(main, "GRACE", 0)
    monkeypatch.setattr(last_words, "GRACE", 0)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)

    def one(rank, error, stopped=False):
        words = LastWords(store, Launch(rank, 3))
        ranks = SimpleNamespace(rank=rank, is_main=rank == 0, last_words=words, close=lambda: None)
        code = main._end(error, ranks, SimpleNamespace(requested=stopped))
        told = capsys.readouterr()
        return code, (told.err + told.out).rpartition("\n\n")[2].splitlines()[-1:]

    return one


@pytest.fixture
def torchrun(monkeypatch, tmp_path):
    """torchrun has started this process; what it would show of it in its summary, or None."""
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    return lambda: json.loads(path.read_text())["message"]["extraInfo"] if path.exists() else None


@pytest.mark.robust("ranks")
def test_the_first_of_several_errors_is_said_once(end):
    """Of ranks that fail alike the first says its line; the others say nothing of their own."""
    assert end(2, RunError("image 7\nis damaged.")) == (1, ["error: image 7 is damaged."])
    assert end(1, RunError("image 9 is damaged.")) == (1, [])
    assert end(0, KeyError("later")) == (1, ["error: image 7 is damaged."])


@pytest.mark.parametrize("error", [LOST, dist.DistBackendError("NCCL"), Interrupted()])
@pytest.mark.robust("ranks")
def test_rank_0_repeats_the_line_of_another(end, error):
    """What rank 0 ends with is the first one's line, whether its collective broke or it was told to stop."""
    end(1, RunError("image 7 is damaged."))
    assert end(2, error) == (1, [])
    assert end(0, error) == (1, ["error: image 7 is damaged."])


@pytest.mark.robust("ranks")
def test_a_save_that_broke_with_its_rank_is_no_error_of_its_own():
    """A line made of a broken collective's words, or caused by one, is not taken for the first error."""
    caused = RunError("cannot write a state.")
    caused.__cause__ = LOST
    assert is_lost(RunError(f"cannot write a state to runs/x: {GLOO}."))
    assert is_lost(caused) and is_lost(dist.DistNetworkError("gone"))
    assert not is_lost(RunError("image 7 is damaged.")) and not is_lost(RuntimeError("shapes"))


@pytest.mark.robust("ranks")
def test_a_rank_that_left_no_word(end):
    """Where a rank was killed, one of the others says that it is gone."""
    code, (line,) = end(2, LOST)
    assert code == 1 and line.startswith("error: rank 2 has lost another rank") and "closed by peer" in line
    assert end(1, LOST) == (1, [])


@pytest.mark.robust("ranks")
def test_all_told_to_stop(end):
    """Ranks that are told to stop, with no error before, end with 143."""
    assert end(1, Interrupted()) == (143, [])
    assert end(0, Interrupted()) == (143, ["stopped; run the same command again to go on."])


@pytest.mark.robust("ranks")
def test_an_unexpected_error_names_its_rank(end):
    """What is no mistake of the user's keeps its traceback, and ends with the rank and the error."""
    assert end(1, KeyError("a bug")) == (1, ["error: rank 1: KeyError: 'a bug'"])


@pytest.mark.robust("ranks")
def test_a_store_that_went_with_its_rank(end, monkeypatch):
    """Where the rank that kept the store is gone, the one that fails says its own line."""

    def gone(*_):
        raise dist.DistNetworkError("Broken pipe")

    monkeypatch.setattr(dist.HashStore, "check", gone)
    monkeypatch.setattr(dist.HashStore, "compare_set", gone)
    assert end(1, RunError("image 7 is damaged.")) == (1, ["error: image 7 is damaged."])


@pytest.mark.robust("ranks")
def test_torchrun_is_told_the_line_alone(end, torchrun, monkeypatch):
    """torchrun shows the one line, without a traceback, and no rank beside the first one's."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert end(1, LOST, stopped=True) == (0, []) and torchrun() is None  # to a killed one
    end(2, RunError("image 7 is damaged."))
    assert torchrun()["py_callstack"] == "error: image 7 is damaged."
    assert end(0, LOST, stopped=True) == (0, [])
    assert end(1, LOST) == (1, [])  # torchrun does not tell it, as on another node
    assert torchrun()["py_callstack"] == "error: image 7 is damaged."


@pytest.mark.robust("ranks")
def test_a_line_before_the_ranks_meet_is_said_once_a_node(torchrun, monkeypatch, capsys):
    """A mistake that all ranks find before they meet is said by the first of a node."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setattr(main, "GRACE", 0)
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for rank, lines in (("1", []), ("0", ["error: no recipe x."])):
        for name, value in (place | {"RANK": rank, "LOCAL_RANK": rank}).items():
            monkeypatch.setenv(name, value)
        assert main.fail(ValueError("no recipe x.")) == 1
        assert capsys.readouterr().err.splitlines() == lines
    assert torchrun()["py_callstack"] == "error: no recipe x."


@pytest.mark.robust("ranks")
def test_under_torchrun_the_last_words_are_the_first_error(on_ranks):
    """torchrun's summary ends with the line of rank 1, lists no other, and the exit code is 1."""
    done = on_ranks(2, program.__file__, "one", 1)
    assert done.returncode == 1
    assert "<NO_OTHER_FAILURES>" in done.stderr and "RuntimeError" not in done.stderr
    last = [line for line in done.stderr.splitlines() if line.strip("=")][-1]
    assert last == "  traceback : error: image 1 of rank 1 is damaged."


@pytest.mark.slow
@pytest.mark.parametrize("case", ["reads", "bug", "all"])
@pytest.mark.robust("ranks")
def test_three_ranks_under_torchrun(on_ranks, case):
    """Nor does it matter how many ranks there are, what they do then, or whether all fail."""
    done = on_ranks(3, program.__file__, case, 2)
    said = [line for line in done.stderr.splitlines() if line.strip("=")][-1].removeprefix("  traceback : ")
    assert done.returncode == 1 and said.startswith("error: ") and "gloo" not in done.stderr
    assert said in done.stderr.replace("images/s]", "\n").splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("case, victim", [("one", 0), ("one", 1), ("bug", 1), ("killed", 1)])
@pytest.mark.robust("ranks")
def test_two_ranks_without_torchrun(case, victim):
    """Without torchrun, too, rank 0 ends with the first error, and nobody with a broken collective's."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    started = [
        subprocess.Popen(
            [sys.executable, program.__file__, case, str(victim)],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [1, -9 if case == "killed" else 1]
    line = {"one": f"error: image {victim} of rank {victim} is damaged.", "bug": "error: rank 1: KeyError"}
    assert said[0].splitlines()[-1].startswith(line.get(case, "error: rank 0 has lost another rank"))
    assert not any("RuntimeError" in text for text in said)
