"""What the restricted reader makes of the three forms of a pickled model."""

import errno
import pickle
import signal
import struct
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch

from mclr_fast.pickles import arrays, reading, values, worker

DTYPES = [*reading.DTYPES.values()]


def write(path, value, form):
    if form == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=4))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    made = {str(dtype): (torch.randn(3, 5) * 9).to(dtype) for dtype in DTYPES}
    base = torch.randn(40)
    made |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "transposed": torch.randn(2, 5).t()}
    made |= {"channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    return made | {"view": base[3:9], "its base": base}


@pytest.mark.parametrize("form", ["pickle", "zip", "stream"])
def test_tensors_are_those_of_torch(tmp_path, tensors, form):
    path = write(tmp_path / "x", OrderedDict(tensors), form)
    nodes = reading.read(path)
    assert nodes.keys() == tensors.keys() and all(map(reading.is_tensor, nodes.values()))
    for name, tensor in tensors.items():
        found = reading.tensor(path, nodes[name])
        assert found.dtype == tensor.dtype and found.shape == tensor.shape and found.is_contiguous()
        assert torch.equal(found, tensor), name


@pytest.mark.parametrize("form", ["pickle", "zip", "stream"])
def test_plain_values_come_as_they_were(tmp_path, form):
    value = {"a": [1, -2.5, None, True, 1 << 40, "\u00e9"], "b": {"c": (3, [])}}
    value[7] = torch.nn.Parameter(torch.ones(2))
    found = reading.read(write(tmp_path / "x", value, form))
    assert found["a"] == value["a"] and found["b"] == {"c": [3, []]}
    assert reading.is_tensor(found["7"])


def test_the_reading_process_opens_the_one_file(monkeypatch):
    """Audit hooks are asked before anything is done: they let one file be opened, for reading."""
    monkeypatch.setattr(worker, "_allowed", ["model.pkl"])
    worker._forbid("open", ("model.pkl", "r", 0))
    for event, *arguments in (
        ("open", "other.pkl", "r", 0), ("open", "model.pkl", "w", 0), ("os.system", "true"), ("import", "os"),
    ):  # fmt: skip
        with pytest.raises(PermissionError, match=f"{event} is forbidden"):
            worker._forbid(event, tuple(arguments))


def test_numbers_of_either_byte_order():
    for order, bits in (("<", "<d"), (">", ">d")):
        assert arrays.number(values.DType("f8", order), struct.pack(bits, 0.1)) == 0.1
    assert arrays.number(values.DType("i4", ">"), struct.pack(">i", -7)) == -7


def test_a_snapshot_runs_nothing(theirs, mark):
    """Its objects come as class names and attributes; their source is nowhere in what is read."""
    _, path, _ = theirs
    assert str(mark).encode() in path.read_bytes()
    found = reading.read(path)
    assert found["ema"]["class"] == "Precond" and found["encoder"]["class"] == "StabilityVAEEncoder"
    assert found["ema"]["state"]["_init_kwargs"]["num_blocks"] == 1
    assert str(mark) not in str(found) and not mark.exists()


def test_one_process_reads_many_files(theirs):
    worker = reading.Worker()
    for path in theirs[1:] * 3:
        worker.read(path)
    assert worker.starts == 1
    worker.close()


def test_a_dead_process_is_replaced(theirs):
    worker = reading.Worker()
    worker.read(theirs[1])
    worker._process.kill()
    worker._process.wait()
    assert worker.read(theirs[1])["ema"]["class"] == "Precond" and worker.starts == 2
    worker.close()


def test_a_slow_process_is_ended(theirs):
    worker = reading.Worker(timeout=0.0)
    with pytest.raises(ValueError, match="reading it went over a limit of memory or time"):
        worker.read(theirs[1])
    assert worker._process is None


def test_the_process_imports_no_torch():
    """Neither torch nor pickle's own unpickling of anything: the standard library, before it is locked."""
    program = "import sys; from mclr_fast.pickles import worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "safetensors"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "attempt",
    [
        "import wave",
        "eval('1')",
        "os.system('true')",
        "open('/etc/hostname')",
        "open(path, 'ab')",
        "os.listdir('/')",
        "__import__('socket').socket()",
        "__import__('subprocess').Popen(['true'])",
    ],
)
def test_the_process_has_locked_itself(tmp_path, attempt):
    """Even code that ran in it could do none of this."""
    program = f"""
import os, sys, io, socket, subprocess
from mclr_fast.pickles import worker
path, attempt = {str(tmp_path / "x")!r}, compile({attempt!r}, "", "exec")
open(path, "w").close()
code = eval("lambda: exec(attempt)")
worker._limit = lambda *_: None
sys.stdin = type("", (), {{"buffer": ()}})()
worker.main()
worker._allowed[:] = [path]
assert open(path, "rb").read() == b""
try:
    code()
except PermissionError as error:
    print("held", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("held"), done.stderr


PROGRAM = """
import io, json, sys
from mclr_fast.pickles import worker
sys.stdin = io.TextIOWrapper(io.BytesIO(json.dumps(sys.argv[1]).encode()))
exec(sys.argv[2])
worker.main()
"""


def run_worker(path, change):
    """The worker's process on one file, after a change to it: exit code and answer."""
    command = [sys.executable, "-c", PROGRAM, str(path), change]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout


def test_its_memory_is_limited(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\x80\x04(" + b"\x8f" * 400_000 + b"t.")  # empty sets, 216 bytes each
    assert "holds over 250,000 values" in run_worker(path, "")[1]
    code, answer = run_worker(path, "worker.MEMORY_BYTES = 64 << 20")
    assert code == 0 and "takes more than 64 MiB of memory" in answer


def test_its_time_is_limited(theirs):
    loop = "def answer(path):\n  while True: pass\nworker.answer, worker.CPU_SECONDS = answer, 0"
    assert run_worker(theirs[1], loop) == (-signal.SIGXCPU, "")


def test_a_file_that_shrank(theirs):
    net, path, _ = theirs
    node = reading.read(path)["ema"]["state"]["_modules"]["unet"]["state"]["_parameters"]["out_gain"]
    assert torch.equal(reading.tensor(path, node), net.unet.out_gain.detach().half().reshape(()))
    path.write_bytes(path.read_bytes()[: node["start"]])
    with pytest.raises(ValueError, match="ends before its tensors do"):
        reading.tensor(path, node)


def test_the_names_are_these():
    """Whoever adds one must show that nothing is called for it."""
    assert len(values.KNOWN) == 76 and not any("*" in name for name in values.KNOWN)
    assert sum(map(len, values.NAMES.values())) == len(values.KNOWN)  # each is explained once


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "x").write_bytes(b"\x80\x04N.")
    monkeypatch.setattr(worker.containers, "read_file", fails)
    assert worker.answer(str(tmp_path / "x")) == {"refused": "it cannot be read (Input/output error)."}


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        reading.read(tmp_path / "x")


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_are_tensors(tmp_path, protocol):
    """In either order of elements; what no tensor holds is nothing; none is longer than its data."""
    square = np.arange(6.0).reshape(2, 3)
    held = {"c": square, "f": np.asfortranarray(square), "i": np.arange(3), "big": square.astype(">f8")}
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps({**held, "long": np.zeros(300_000), "text": np.array("x")}, protocol))
    found = reading.read(path)
    for name in ("c", "f", "i"):
        assert np.array_equal(reading.tensor(path, found[name]), held[name])
    assert reading.tensor(path, found["long"]).shape == (300_000,)
    assert found["big"] is None and found["text"] is None
    whole = pickle.dumps(square, protocol)
    path.write_bytes(whole.replace(b"K\x02K\x03\x86", b"K\x02K\x04\x86"))
    with pytest.raises(ValueError, match="a tensor \\[2, 4\\] of a storage of 6 elements"):
        reading.read(path)
