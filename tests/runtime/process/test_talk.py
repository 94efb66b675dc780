"""Talking never ends the work: whatever stdout and stderr are, a door does its work and says what it can."""

import errno
import io
import os
import subprocess
import sys

import pytest

from mclr_fast import report, sample
from mclr_fast.runtime.logs import say
from mclr_fast.runtime.process.talk import safe_streams
from mclr_fast.runtime.stages import progress_bar


class Failing(io.StringIO):
    """A stream that takes `lines` lines, and then raises."""

    def __init__(self, error, lines=0):
        super().__init__()
        self.error, self.lines = error, lines

    def flush(self):
        if self.getvalue().count("\n") > self.lines:
            raise self.error


def talk():
    """As a run does: lines, a bar, a warning."""
    with safe_streams():
        say(True, "first")
        with progress_bar("mclr", 2, 0, True) as bar:
            bar.update(2)
        print("warning", file=sys.stderr)
        say(True, "last")


def set_streams(monkeypatch, stdout, stderr):
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def unread_pipe():
    """The end of a pipe that is written to, when nobody reads it any more."""
    read, write = os.pipe()
    os.close(read)
    return open(write, "w")


@pytest.mark.parametrize("make", [lambda: None, closed, unread_pipe])
@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
@pytest.mark.robust("talking")
def test_a_stream_that_is_gone_is_passed_over(monkeypatch, make, which):
    """A closed stdout or stderr, or one whose reader has left, takes nothing, and the other one all."""
    streams = {"stdout": io.StringIO(), "stderr": io.StringIO()}
    broken = streams | {name: make() for name in streams if which in (name, "both")}
    set_streams(monkeypatch, **broken)
    talk()
    assert (sys.stdout, sys.stderr) == tuple(broken.values())  # given back
    if which == "stderr":
        assert streams["stdout"].getvalue() == "first\nlast\n"
    if which == "stdout":
        assert "warning\n" in streams["stderr"].getvalue() and "last" not in streams["stderr"].getvalue()
    if make is unread_pipe:
        for name in streams:
            if broken[name] is not streams[name]:
                broken[name].close()  # raises nothing: as at the interpreter's end


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.EBADF])
@pytest.mark.robust("talking")
def test_what_a_reader_has_gone_from_is_dropped(monkeypatch, number):
    """After `| head -1` has its line, or the terminal was closed, the rest is dropped."""
    stdout, stderr = Failing(OSError(number, os.strerror(number)), lines=1), io.StringIO()
    set_streams(monkeypatch, stdout, stderr)
    talk()
    assert stdout.getvalue().startswith("first\n") and "last" not in stderr.getvalue()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.robust("talking")
def test_what_a_full_disk_does_not_take_is_said_on_stderr(monkeypatch, number):
    """Where stdout is a file on a full disk, a warning says so on stderr, and then what is said."""
    set_streams(monkeypatch, Failing(OSError(number, os.strerror(number)), lines=1), io.StringIO())
    talk()
    said = f"warning: stdout cannot be written ({os.strerror(number)}); what is said goes here.\nlast\n"
    assert sys.stderr.getvalue().endswith(said) and "first" not in sys.stderr.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.robust("talking")
def test_letters_that_a_stream_does_not_know_are_spelled(monkeypatch, encoding):
    """An ASCII-only stdout or stderr gets a tick as \\u2713."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
    set_streams(monkeypatch, *streams)
    with safe_streams():
        print("✓ FD")
        print("✗", file=sys.stderr)
    assert [s.buffer.getvalue() for s in streams] == [b"\\u2713 FD\n", b"\\u2717\n"]


@pytest.mark.robust("talking")
def test_a_pipe_that_does_not_block_is_waited_for(monkeypatch):
    """A stdout that another program made non-blocking loses no line, however slowly it is read."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    program = [sys.executable, "-c", "import sys; print(len(sys.stdin.buffer.read()))"]
    with open(write, "w") as stream, open(read) as end:
        monkeypatch.setattr(sys, "stdout", stream)
        with subprocess.Popen(program, stdin=end, stdout=subprocess.PIPE, text=True) as reader:
            end.close()
            with safe_streams():
                for _ in range(40):
                    print("x" * 4095)
            stream.close()
            assert int(reader.stdout.read()) == 40 * 4096


@pytest.mark.robust("talking")
def test_a_door_works_with_nobody_to_talk_to(monkeypatch, tmp_path):
    """`sample >&- 2>&-` writes its images and ends with 0."""
    set_streams(monkeypatch, None, None)
    arguments = ["mnist16-base", "--seeds", "0-1", "--outdir", str(tmp_path / "out"), "--device", "cpu"]
    assert sample.main(arguments) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


@pytest.mark.robust("talking")
def test_an_error_keeps_its_exit_code_with_nobody_to_talk_to(monkeypatch, tmp_path):
    """A mistake still ends with 1, and a wrong command line with 2."""
    set_streams(monkeypatch, closed(), unread_pipe())
    assert sample.main([str(tmp_path), "--seeds", "0", "--outdir", str(tmp_path / "out")]) == 1
    with pytest.raises(SystemExit) as ended:
        report.main([str(tmp_path)])
    assert ended.value.code == 2


@pytest.mark.robust("talking")
def test_the_process_ends_well_when_nobody_reads(tmp_path):
    """`report --help | true` ends with 0 and no word on stderr; no file is given a closed descriptor."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "mclr_fast.report", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")
    program = (
        "import os, sys\nfrom mclr_fast.runtime.process.talk import safe_streams\n"
        "with safe_streams(), open(sys.argv[1], 'w') as file: file.write(str(file.fileno()))"
    )
    arguments = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', sys.executable, "-c", program, tmp_path / "file"]
    subprocess.run(arguments, check=True)
    assert int((tmp_path / "file").read_text()) > 2
