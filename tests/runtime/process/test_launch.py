"""What a launcher leaves in the environment: a place among ranks, none, or one line."""

import os
import subprocess
import sys

import pytest
import torch

from mclr_fast import prepare, sample, train
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process import ranks as ranks_module
from mclr_fast.runtime.process.launch import Launch, is_first_of_node, launched
from mclr_fast.runtime.process.ranks import choose_device

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MEETING = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def said(text):
    """ "RANK=1 WORLD_SIZE=" as an environment."""
    return dict(each.split("=") for each in text.split())


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """environment("RANK=1 ..."): exactly these of a launcher's variables are set."""

    def become(text):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in said(text).items():
            monkeypatch.setenv(name, value)

    become("")
    return become


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RANK= WORLD_SIZE=",
        "RANK=0",
        "RANK= WORLD_SIZE=1",
        "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1",
        "LOCAL_WORLD_SIZE=0",
        "LOCAL_RANK=3 LOCAL_WORLD_SIZE=8 MASTER_ADDR=node7",
    ],
)
@pytest.mark.robust("environment")
def test_a_process_alone_is_meant(text):
    """Empty variables, a lone RANK=0 or WORLD_SIZE=1, and leftovers without either mean one process."""
    place = launched(said(text))
    assert (place.rank, place.size, place.local_rank, place.local_size) == (0, 1, 0, 1)


@pytest.mark.parametrize(
    "text, line",
    [
        ("RANK=1", "RANK=1 without WORLD_SIZE"),
        ("RANK=1 WORLD_SIZE=", "RANK=1 without WORLD_SIZE"),
        ("WORLD_SIZE=2", "WORLD_SIZE=2 without RANK"),
        ("WORLD_SIZE=0", "WORLD_SIZE=0 without RANK"),
        ("RANK=0 WORLD_SIZE=0", "RANK=0 with WORLD_SIZE=0: ranks are 0 to"),
        ("RANK=2 WORLD_SIZE=2", "RANK=2 with WORLD_SIZE=2: ranks are 0 to"),
        ("RANK=-1 WORLD_SIZE=2", "RANK=-1 with WORLD_SIZE=2"),
        ("RANK=first WORLD_SIZE=2", "RANK=first is not a whole number"),
        ("RANK=0 WORLD_SIZE=2.0", "WORLD_SIZE=2.0 is not a whole number"),
        ("RANK=\u0661 WORLD_SIZE=2", "is not a whole number"),
        ("RANK=1 WORLD_SIZE=2", "WORLD_SIZE=2 without MASTER_ADDR and MASTER_PORT"),
        ("RANK=1 WORLD_SIZE=2 MASTER_ADDR=a", "WORLD_SIZE=2 without MASTER_PORT"),
        ("RANK=1 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=http", "MASTER_PORT=http is not a whole"),
        ("RANK=1 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=70000", "MASTER_PORT=70000 is no port"),
    ],
)
@pytest.mark.robust("environment")
def test_a_place_that_is_none_is_one_line(text, line):
    """Half of a launcher's variables, or values that name no rank, are refused with value and mend."""
    with pytest.raises(RunError, match=line) as caught:
        launched(said(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, line",
    [
        ("LOCAL_WORLD_SIZE=0", "LOCAL_WORLD_SIZE=0 with WORLD_SIZE=4"),
        ("LOCAL_WORLD_SIZE=5", "LOCAL_WORLD_SIZE=5 with WORLD_SIZE=4"),
        ("LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK=2 of 2"),
        ("LOCAL_RANK=-1", "LOCAL_RANK=-1 of 4"),
        ("LOCAL_RANK=one", "LOCAL_RANK=one is not a whole number"),
    ],
)
@pytest.mark.robust("environment")
def test_a_local_place_that_is_none_is_one_line(text, line):
    """Of a rank among others the local variables are looked at too."""
    with pytest.raises(RunError, match=line):
        launched(said(f"RANK=1 WORLD_SIZE=4 {text}") | MEETING)


@pytest.mark.robust("environment")
def test_a_whole_place_is_believed():
    """All of torchrun's variables give rank, size, and both of them on this machine."""
    place = launched(said("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4") | MEETING)
    assert place == Launch(5, 8, 1, 4, local_known=True)


@pytest.mark.robust("environment")
def test_a_leftover_local_rank_silences_nobody(environment):
    """LOCAL_RANK=1 alone does not make a process wait for a first one that there is not."""
    environment("LOCAL_RANK=1")
    assert is_first_of_node()


@pytest.mark.parametrize("text", ["RANK=1", "WORLD_SIZE=2", "RANK=0 WORLD_SIZE=2", "RANK=x"])
@pytest.mark.robust("environment")
def test_a_door_in_half_a_launch_writes_one_line(environment, text, capsys, tmp_path):
    """A door started so ends with exit code 1 and one line, before it makes anything."""
    environment(text)
    arguments = ["mnist16-base", "--seeds", "0", "--outdir", str(tmp_path / "out")]
    assert sample.main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and text.split("=")[0] in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["gpu", "mps", "cpu:0", "cuda:", "cuda:first", "cuda:-1"])
@pytest.mark.robust("environment")
def test_no_device_is_one_line(device):
    """--device that is none of auto, cpu, cuda and cuda:NUMBER is refused."""
    with pytest.raises(RunError, match=f"--device {device} is none of auto, cpu, cuda"):
        choose_device(device, Launch())


@pytest.mark.parametrize("device", ["cuda", "cuda:9"])
@pytest.mark.robust("environment")
def test_a_gpu_that_is_not_there_is_one_line(device, monkeypatch, capsys, tmp_path):
    """--device cuda without a driver is one line that names --device cpu."""

    def fail():
        raise RuntimeError("Found no NVIDIA driver on your system. Please check that you\nhave one.")

    monkeypatch.setattr(torch.cuda, "init", fail)
    assert prepare.main([str(tmp_path / "a"), str(tmp_path / "b.zip"), "--device", device]) == 1
    line = f"error: --device {device}: Found no NVIDIA driver on your system. Without a GPU: --device cpu.\n"
    assert capsys.readouterr().err == line
    assert train.main(["--device", device, "--outdir", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == line


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs, of those that were chosen a list."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.robust("environment")
def test_a_gpu_by_number(two_gpus):
    """cuda:1 is that GPU, for one process; a rank takes its own, or is told how many there are."""
    assert [choose_device(name, Launch()).index for name in ("cuda:1", "cuda", "auto")] == [1, 0, 0]
    own = choose_device("cuda", Launch(1, 2, 1, 2, local_known=True))
    assert own == torch.device("cuda:1") and two_gpus == [1, 0, 0, 1]
    with pytest.raises(RunError, match="--device cuda:9: torch finds 2 GPU"):
        choose_device("cuda:9", Launch())
    with pytest.raises(RunError, match="rank 2 is LOCAL_RANK=2: torch finds 2 GPU"):
        choose_device("cuda", Launch(2, 3, 2, 3, local_known=True))
    with pytest.raises(RunError, match="cuda:1 is for one process"):
        choose_device("cuda:1", Launch(0, 2, 0, 2, local_known=True))


@pytest.mark.robust("environment")
def test_ranks_without_a_local_rank_do_not_share_a_gpu(two_gpus):
    """Ranks that a launcher gave no LOCAL_RANK would all take GPU 0: refused where there are several."""
    with pytest.raises(RunError, match="rank 1 cannot tell which of 2 GPUs"):
        choose_device("cuda", Launch(1, 2))


@pytest.mark.robust("environment")
def test_ranks_that_do_not_meet_are_one_line(environment, monkeypatch, capsys):
    """Where nobody answers, one line says so with the address, after one of who waits where."""

    def meet():
        raise RuntimeError("The client socket has timed out.\nframe #0")

    environment("RANK=1 WORLD_SIZE=2 MASTER_ADDR=node0 MASTER_PORT=29500")
    monkeypatch.setattr(ranks_module, "_store", meet)
    assert sample.main(["mnist16-base", "--seeds", "0", "--device", "cpu"]) == 1
    note, line = capsys.readouterr().err.splitlines()
    assert note == "note: rank 1 of 2 waits for the others at node0:29500."
    assert line.startswith("error: rank 1 of 2 could not meet the others at node0:29500")
    assert "The client socket has timed out. Look" in line and "unset RANK" in line


@pytest.mark.robust("environment")
def test_a_door_as_a_process(tmp_path):
    """`RANK=1 python -m mclr_fast.sample` ends with exit code 1 and its line."""
    command = [sys.executable, "-m", "mclr_fast.sample", "mnist16-base", "--outdir", str(tmp_path / "out")]
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES} | {"RANK": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: RANK=1 without WORLD_SIZE") and done.stderr.count("\n") == 1
