"""Files made to do harm, and files that were damaged: refused in words, and nothing of them happens."""

import io
import os
import pickle
import pickletools
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from stand_ins import snapshot, training_state

from mclr_fast.models.edm2 import Precond
from mclr_fast.models.storage.pickled import read_pickled
from mclr_fast.pickles import reading

P = b"\x80\x04"  # protocol 4


@pytest.fixture(scope="module")
def worker():
    worker = reading.Worker(timeout=300)  # seconds: none of these tests waits for it
    yield worker
    worker.close()


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name(module, member):
    return text(module) + text(member) + b"\x93"


def storage(numel=4, announced=4):
    """A saved storage, as torch.storage._load_from_bytes gets it; announced: how long it says that it is."""
    identity = text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + integer(announced)
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    saved = b"".join(pickle.dumps(value, 2) for value in head) + P + b"(" + identity + b"NtQ."
    return saved + pickle.dumps(["0"], 2) + struct.pack("<q", announced) + bytes(4 * numel)


def tensor_pickle(saved, shape, stride, offset=0):
    """A pickle of one tensor of a saved storage, as it is in a snapshot."""
    load = name("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(saved)) + saved + b"\x85R"
    sizes = b"".join(b"(" + b"".join(map(integer, each)) + b"t" for each in (shape, stride))
    hooks = name("collections", "OrderedDict") + b")R"
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return P + rebuild + b"(" + load + integer(offset) + sizes + b"\x89" + hooks + b"tR."


def integer(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def dtype(code="f8"):
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R"


def scalar(data):
    return name("numpy._core.multiarray", "scalar") + dtype() + b"C" + bytes([len(data)]) + data + b"\x86R."


def array_pickle(size):
    """An array of two elements that says it has another shape."""
    sides = text(size) if isinstance(size, str) else integer(size)
    buffer = b"\x96" + struct.pack("<Q", 16) + bytes(16)
    return (
        P
        + name("numpy._core.numeric", "_frombuffer")
        + b"("
        + buffer
        + dtype()
        + sides
        + b"\x85"
        + text("C")
        + b"tR."
    )


def stream_of(pid):
    """A torch stream of one persistent id."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return (
        b"".join(pickle.dumps(value, 2) for value in head)
        + pickle.dumps(pid, 2)[:-1]
        + b"Q."
        + pickle.dumps([], 2)
    )


def hostile(mark):
    """Case -> (bytes, what the refusal says)."""
    shell = f"touch {mark}"
    nested = io.BytesIO()
    torch.save(Calls(os.system, shell), nested, _use_new_zipfile_serialization=False)
    zipped = io.BytesIO()
    torch.save({"a": Calls(os.system, shell)}, zipped)
    load = torch.storage._load_from_bytes
    bomb = io.BytesIO()
    torch.save({"a": torch.zeros(1 << 16)}, bomb)
    packed = io.BytesIO()
    with zipfile.ZipFile(bomb) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    doubles = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(60))
    return {
        "os.system": (pickle.dumps(Calls(os.system, shell)), "it names 'posix.system'"),
        "os.system, protocol 0": (pickle.dumps(Calls(os.system, shell), 0), "it names 'posix.system'"),
        "eval": (pickle.dumps(Calls(eval, "1")), "it names 'builtins.eval'"),
        "exec by getattr": (pickle.dumps(Calls(getattr, 1, "real")), "it names 'builtins.getattr'"),
        "a prefix of a known name": (P + name("torch._utils", "_rebuild_tensor") + b".", "_rebuild_tensor'"),
        "a dotted name": (P + name("torch.storage", "_load_from_bytes.__globals__") + b".", "__globals__'"),
        "a known module's os": (P + name("torch.serialization", "os") + b".", "'torch.serialization.os'"),
        "torch.load": (pickle.dumps(Calls(torch.load, "x")), "it names 'torch.serialization.load'"),
        "INST": (b"(S'true'\nios\nsystem\n.", "opcode STRING"),
        "OBJ": (P + b"(" + name("collections", "OrderedDict") + b"o.", "opcode OBJ"),
        "an extension": (P + b"\x82\x01.", "opcode EXT1"),
        "a nested load": (pickle.dumps(Calls(load, nested.getvalue())), "it names 'posix.system'"),
        "a pickle in a load": (pickle.dumps(Calls(load, pickle.dumps("x" * 9))), "is no torch stream"),
        "a zip": (zipped.getvalue(), "it names 'posix.system'"),
        "a packed zip": (packed.getvalue(), "is compressed"),
        "an attribute of a name": (P + name("collections", "OrderedDict") + b"}b.", "holds Global where"),
        "a call of a text": (P + text("os.system") + b")R.", "holds str where Global"),
        "a call of a storage": (P + name("torch", "FloatStorage") + b")R.", "calls torch.FloatStorage"),
        "an object of a storage": (P + name("torch", "FloatStorage") + b")\x81.", "makes an object of"),
        "a tensor by another function": (
            P + name("torch._tensor", "_rebuild_from_type_v2") + b"("
            + name("torch._utils", "_rebuild_parameter") + name("torch", "Tensor") + b")NtR.",
            "makes a tensor by torch._utils._rebuild_parameter",
        ),
        "a storage of another length": (
            tensor_pickle(storage()[:-24] + struct.pack("<q", 3) + bytes(16), (3,), (1,)),
            "is not as long as it announces",
        ),
        "a huge storage": (tensor_pickle(storage(4, 1 << 40), (4,), (1,)), "4,398,046,511,104 bytes has"),
        "a huge tensor": (tensor_pickle(storage(), (1 << 20, 1 << 20), (0, 0)), "1048576] of a storage of 4"),
        "a huge empty tensor": (tensor_pickle(storage(), (0, 1 << 62), (1, 1)), "of 4 elements"),
        "past its storage": (tensor_pickle(storage(), (4,), (1,), 1), "reaches past its storage"),
        "before its storage": (tensor_pickle(storage(), (2,), (1,), -1), "reaches past its storage"),
        "huge bytes": (P + b"\x8e" + struct.pack("<Q", 1 << 50) + b"x.", "ends before 1,125,899,906,842,624"),
        "a huge text": (P + b"\x8d" + struct.pack("<Q", 1 << 62) + b"x.", "it ends before"),
        "a huge memo": (P + b"Nr\xff\xff\xff\xff0j\xff\xff\xff\xfe.", "recalls a value 4278190079"),
        "a billion laughs": (P + b")\x94" + doubles + b".", "holds over 250,000 values"),
        "itself": (P + b"]\x94h\x00a.", "nested deeper than 64"),
        "deep": (P + b"]" * 100_000 + b"a" * 99_999 + b".", "nested deeper than 64"),
        "a deep key": (P + b"}" + b")" + b"\x85" * 200_000 + b"Ns.", "holds tuple where str or int"),
        "many values": (P + b"(" + b"]" * 600_000 + b"t.", "more than 500,000 steps"),
        "a number of a million digits": (P + b"\x8b\0\0\x08\0" + b"\x7f" * (1 << 19) + b".", None),
        "no end": (P + b"N", "it ends before 1 bytes"),
        "nothing": (b"", "it is empty"),
        "a text file": (b"Some text.", "no pickled model but a text that begins 'Some text.'"),
        "a text, cut": ("Some text\u2026".encode()[:-1], "but a text that begins 'Some text'"),
        "another codec": (P + name("_codecs", "encode") + text("x") + text("rot13") + b"\x86R.", "rot13"),
        "a huge number": (P + scalar(b"x" * 99), "99 bytes where at most 16 belong"),
        "a number of too few bytes": (P + scalar(b"x"), "no pickled model"),
        "an array of too few bytes": (array_pickle(3), "of a storage of 2 elements"),
        "an array of a text": (array_pickle("x"), "holds str where int"),
        "a module's class": (stream_of(("module", "os.system", "x.py", "exec")), "holds str where Global"),
        "a set of lists": (P + name("builtins", "set") + b"]](]e\x85R.", "where"),
        "a line without end": (P + b"c" + b"a" * 1_000_000, "no newline"),
    }  # fmt: skip


CASES = list(hostile("mark"))


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_file_is_refused_in_words(tmp_path, worker, mark, case):
    content, says = hostile(mark)[case]
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    if says is None:
        assert worker.read(path) is None
    else:
        with pytest.raises(ValueError, match="is refused") as refusal:
            worker.read(path)
        assert says in str(refusal.value)  # not that it took too long
    assert not mark.exists()


def test_hostile_arguments(theirs, tmp_path):
    """A network described as larger than its tensors is refused before it is built."""
    content = theirs[1].read_bytes()
    key, value = b"\x8c\nnum_blocks\x94K\x01", b"\x8c\nnum_blocks\x94J\xff\xff\xff\x7f"
    assert content.count(key) == 1
    path = tmp_path / "many.pkl"
    path.write_bytes(unframed(content).replace(key, value))
    with pytest.raises(ValueError, match=r"cannot have channel_mult .* and num_blocks 2147483647"):
        read_pickled(path)


def unframed(content):
    """A pickle without its frames, so that its length may change."""
    starts = [(opcode.name, start) for opcode, _, start in pickletools.genops(content)]
    ends = [start for _, start in starts[1:]] + [len(content)]
    return b"".join(content[a:b] for (name, a), b in zip(starts, ends, strict=True) if name != "FRAME")


def mutations(content, count, seed):
    """Truncated, bit-flipped, with bytes replaced, doubled, dropped and moved."""
    draw = random.Random(seed)
    for i in range(count):
        changed = bytearray(content)
        kind = ("truncate", "flip", "flips", "opcode", "double", "drop", "lengthen", "splice")[i % 8]
        at = draw.randrange(len(changed))
        if kind == "truncate":
            del changed[at:]
        elif kind == "flip":
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == "flips":
            for _ in range(50):
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        elif kind == "opcode":
            changed[at] = draw.choice(b"Rbco\x81\x92\x93ijQPtsu(.0123h\x94")
        elif kind == "double":
            changed[at:at] = changed[at : at + draw.randrange(1, 200)]
        elif kind == "drop":
            del changed[at : at + draw.randrange(1, 200)]
        elif kind == "lengthen":
            changed[at : at + 4] = b"\xff\xff\xff\x7f"
        else:
            other = draw.randrange(len(changed))
            changed[at : at + 64] = changed[other : other + 64]
        yield bytes(changed)


@pytest.mark.parametrize("which", ["snapshot", "training-state", "os.system in a snapshot"])
def test_a_damaged_file_is_read_or_refused(tmp_path, worker, mark, which, monkeypatch):
    """None runs code, hangs or takes memory; what is no network any more is a ValueError too."""
    monkeypatch.setattr(reading, "_worker", worker)
    arguments = dict(img_resolution=4, img_channels=1, label_dim=2, model_channels=4, channel_mult=[1])
    arguments |= dict(num_blocks=1, attn_resolutions=[], logvar_channels=4)
    net = Precond(**arguments)
    content = (
        training_state(net) if which == "training-state" else snapshot(net, arguments, f"open('{mark}', 'w')")
    )
    if which.startswith("os.system"):
        call = pickle.dumps(Calls(os.system, f"touch {mark}"), protocol=4)[2:-1]
        content = P + call + b"0" + content[2:]
    path = tmp_path / "mutated.pkl"
    read = refused = 0
    for changed in mutations(content, 100, seed=len(which)):
        path.write_bytes(changed)
        try:
            read_pickled(path)
            read += 1
        except ValueError as error:
            refused += "is refused" in str(error)
    assert refused >= 40 and (read > 0) == (not which.startswith("os.system"))
    assert not mark.exists()


def test_the_process_survives_what_it_refuses(worker):
    """All of the above went through one process, which is alive and small."""
    assert worker.starts == 1 and worker._process.poll() is None
    status = Path(f"/proc/{worker._process.pid}/status")
    if status.exists():  # on Linux
        (peak,) = (line for line in status.read_text().splitlines() if line.startswith("VmPeak"))
        assert int(peak.split()[1]) <= 256 << 10
