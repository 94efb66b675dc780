"""Two processes of one command in one place: the second is refused, a lock left behind taken over."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from mclr_fast.data.on_disk import EDM2Dataset
from mclr_fast.runtime import lock_file, locks
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.lock_file import LockFile
from mclr_fast.runtime.locks import owned_alone

HOLD = """
import sys
from pathlib import Path
from mclr_fast.runtime.lock_file import LockFile
lock = LockFile(Path(sys.argv[1]))
print("held" if lock.take() else "not held", flush=True)
sys.stdin.read()  # until it is closed
"""
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


@pytest.fixture
def path(tmp_path):
    """Where the lock file is to be."""
    return tmp_path / "running.lock"


@pytest.fixture
def own(path, tmp_path):
    """own(): take and release the lock of tmp_path, or raise its RunError."""

    def take():
        with owned_alone(path, tmp_path):
            assert json.loads(path.read_text())["pid"] == os.getpid()

    return take


@pytest.fixture
def without_flock(monkeypatch):
    """without_flock(number): the file system has no locks, and says so with that error."""

    def become(number):
        def refuse(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refuse)

    return become


def leave(path, **said):
    """The file of a holder that is not this process."""
    usual = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "begun": "1",
        "started": "today",
        "flock": False,
    }
    path.write_text(json.dumps(usual | said))


@pytest.mark.robust("processes")
def test_the_second_process_is_told_of_the_first(path, own):
    """The second process is refused at once, with the host and process of the first, until that is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path], **PIPES) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"is being written by process {first.pid} on ") as caught:
            own()
        assert socket.gethostname() in str(caught.value) and "delete" not in str(caught.value)
        first.kill()
        first.wait()
    assert path.exists()  # its lock went with it
    own()
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
@pytest.mark.robust("processes")
def test_a_file_system_without_locks(path, own, without_flock, number):
    """Where flock gives ENOLCK or ENOSYS a lock holds all the same, by its process."""
    without_flock(number)
    with subprocess.Popen([sys.executable, "-c", HOLD, path], **PIPES) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"process {first.pid} on "):
            own()
        first.kill()
        first.wait()
    own()
    with owned_alone(path, path), pytest.raises(RunError, match=f"process {os.getpid()} on "):
        own()


@pytest.mark.robust("processes")
def test_a_lock_of_a_process_that_is_gone(path, own, without_flock):
    """A lock whose process is gone, or whose number another process has now, is taken over."""
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    for said in ({"pid": gone.pid}, {"pid": os.getppid()}, {"pid": 2**40}, {"flock": True}):
        leave(path, **said)
        own()
    without_flock(errno.ENOLCK)
    for said in ({"pid": gone.pid}, {"pid": os.getppid()}, {}):
        leave(path, **said)
        own()


@pytest.mark.parametrize("text", ["", "[1]", '{"pid": 1', "null"])
@pytest.mark.robust("processes")
def test_a_lock_file_that_says_nothing(path, own, without_flock, text):
    """An empty or cut lock file is nobody's; where nothing else tells, once it is a few seconds old."""
    path.write_text(text)
    own()
    without_flock(errno.ENOSYS)
    path.write_text(text)
    with pytest.raises(RunError, match="by another process"):
        own()
    os.utime(path, (time.time() - 10, time.time() - 10))
    own()


@pytest.fixture
def quick(monkeypatch):
    """Seconds become tenths."""
    monkeypatch.setattr(lock_file, "STALE", 0.6)
    monkeypatch.setattr(locks, "STALE", 0.6)
    monkeypatch.setattr(locks, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(lock_file, "BEAT", 0.05)


@pytest.mark.robust("processes")
def test_another_hosts_lock_that_lives(path, own, quick):
    """A holder on another host that touches its file is named, and what to delete if it is gone."""
    leave(path, host="node7", pid=12)
    held = LockFile(path)
    beating = threading.Thread(target=held._beat)
    beating.start()
    try:
        with pytest.raises(RunError, match="process 12 on node7 ") as caught:
            own()
    finally:
        held._released.set()
        beating.join()
    assert str(caught.value).endswith(f"If that process is gone, delete {path}.")


@pytest.mark.robust("processes")
def test_another_hosts_lock_that_does_not(path, own, quick, capsys):
    """A holder on another host that does not touch its file is waited for a minute, and taken over."""
    leave(path, host="node7", pid=12)
    own()
    assert f"if you know that it is not, delete {path}" in " ".join(capsys.readouterr().err.split())
    leave(path, host="node7", pid=12)
    os.utime(path, (0, 0))  # at once, where it is old already
    own()
    assert capsys.readouterr().err == ""


@pytest.mark.robust("processes")
def test_another_hosts_lock_by_a_shared_flock(path, own):
    """Where the file system's locks reach another host its holder is refused at once."""
    leave(path, host="node7", pid=12)
    with open(path) as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="process 12 on node7 ") as caught:
            own()
    assert "delete" not in str(caught.value)


@pytest.mark.robust("processes")
def test_a_lock_that_cannot_be_kept(path, monkeypatch, capsys):
    """Where no lock file can be made the work goes on, and says what will not be seen."""

    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with owned_alone(path, path.parent):
        pass
    assert "cannot be kept (Read-only file system): another process" in capsys.readouterr().err


@pytest.mark.robust("processes")
def test_a_run_in_a_folder_of_a_run(tiny_run, files):
    """A second run in a run's folder is refused before it loads anything, and before its first step."""
    first, second = tiny_run("run"), tiny_run("run")
    with owned_alone(files / "run" / "running.lock", files / "run"):
        for begin in (lambda: tiny_run("run"), second.execute):
            with pytest.raises(RunError, match=f"run is being written by process {os.getpid()} on "):
                begin()
    first.execute()
    assert not (files / "run" / "running.lock").exists()


@pytest.mark.robust("processes")
def test_samples_in_a_folder_of_samples(files, capsys):
    """A second `sample` into a folder or file that one writes is refused; so is a second `prepare`."""
    from mclr_fast import prepare, sample

    options = ["--seeds", "0-3", "--num-steps", "2", "--device", "cpu"]
    for name, lock in (("out", "out/.running.lock"), ("out.zip", ".out.zip.lock"), ("a.npz", ".a.npz.lock")):
        with owned_alone(files / lock, files / name):
            assert sample.main([str(files / "base"), *options, "--outdir", str(files / name)]) == 1
        assert f"{name} is being written by process {os.getpid()} on " in capsys.readouterr().err
    with owned_alone(files / ".b.zip.lock", files / "b.zip"):
        assert prepare.main([str(files / "data.zip"), str(files / "b.zip"), "--resolution", "8"]) == 1
    assert f"b.zip is being written by process {os.getpid()} on " in capsys.readouterr().err
    assert sample.main([str(files / "base"), *options, "--outdir", str(files / "out")]) == 0
    assert len(EDM2Dataset(files / "out").labels) == 4
    assert sorted(p.name for p in (files / "out").iterdir()) == [
        *(f"00000{n}.png" for n in range(4)),
        "dataset.json",
    ]
