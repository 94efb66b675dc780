"""Disks that lack niceties are gone on with; what fails is named with its own cause and its own mend."""

import errno
import fcntl
import os
import resource
import stat

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mclr_fast.data.partial_zip import PartialZip
from mclr_fast.data.sample_output import SampleArray
from mclr_fast.models import describe, load, save_model
from mclr_fast.runtime import disk, logs, tensor_files
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import replacing, write_json
from mclr_fast.runtime.locks import held
from mclr_fast.runtime.process.faults import Fault
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors
from mclr_fast.training.states import TrainingStates

RANKS = Ranks("cpu")
CANNOT = [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS]
SPACE = {errno.ENOSPC, errno.EDQUOT}


def failing(number, only=lambda *args: True, otherwise=None):
    """A system call that fails so, where `only` says."""

    def call(*args, **options):
        if only(*args):
            raise OSError(number, os.strerror(number))
        return otherwise(*args, **options)

    return call


def is_folder(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def saved(folder):
    """What a new process finds of a state that was saved there."""
    states = TrainingStates(folder, RANKS, "run", 2, Fault(0, 1))
    states.save(5, {"net": {"w": torch.ones(3)}}, {"at": 5})
    states.wait()
    found = {"net": {"w": torch.zeros(3)}}
    return TrainingStates(folder, RANKS, "run", 2, Fault(0, 1)).load(found), found["net"]["w"].tolist()


@pytest.mark.parametrize("number", [*CANNOT, errno.EPERM, errno.EBADF])
@pytest.mark.robust("file systems")
def test_a_folder_that_cannot_be_synced(tmp_path, monkeypatch, number):
    """A disk that syncs files but no folders (EINVAL, ENOTSUP, EPERM...) keeps states like any other."""
    monkeypatch.setattr(os, "fsync", failing(number, is_folder, os.fsync))
    assert saved(tmp_path / "states") == ({"at": 5}, [1, 1, 1])


@pytest.mark.parametrize("number", CANNOT)
@pytest.mark.robust("file systems")
def test_a_disk_that_syncs_nothing(tmp_path, monkeypatch, number):
    """A disk without fsync keeps states, files and archives like any other."""
    monkeypatch.setattr(os, "fsync", failing(number))
    assert saved(tmp_path / "states") == ({"at": 5}, [1, 1, 1])
    write_json(tmp_path / "value.json", [1])
    made = PartialZip(tmp_path / "data.zip", "key")
    made.write("a", b"a")
    made.finish()
    assert {path.name for path in tmp_path.iterdir()} == {"states", "value.json", "data.zip"}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EISDIR, errno.EINVAL])
@pytest.mark.robust("file systems")
def test_a_folder_that_cannot_be_opened(tmp_path, monkeypatch, number):
    """A folder that may be written to but not opened is not synced, and nothing is said."""
    monkeypatch.setattr(os, "open", failing(number, lambda path, *_: path == tmp_path, os.open))
    disk.sync_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.robust("file systems")
def test_a_sync_that_fails_is_no_nicety(tmp_path, monkeypatch, number):
    """Where syncing says that the disk failed or is full, the state was not saved, and the line says so."""
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(RunError, match=f"cannot write a state to .*: {os.strerror(number)}"):
        saved(tmp_path / "states")
    with pytest.raises(RunError, match=rf"cannot write .*value\.json: {os.strerror(number)}"):
        write_json(tmp_path / "value.json", [1])


@pytest.mark.parametrize("number", [errno.EPERM, errno.EROFS, errno.ENOSYS, errno.ENOTSUP])
@pytest.mark.robust("file systems")
def test_permissions_that_cannot_be_set(tmp_path, monkeypatch, number):
    """A disk where the owner is another (chmod: EPERM) or has no permissions keeps files like any other."""
    monkeypatch.setattr(os, "chmod", failing(number))
    save_tensors(tmp_path / "a.safetensors", {"net": {"w": torch.ones(2)}})
    assert load_tensors(tmp_path / "a.safetensors")[0]["net"]["w"].tolist() == [1, 1]


@pytest.fixture
def unnoted(monkeypatch):
    """Notes are said once a process: begin anew."""
    monkeypatch.setattr(logs, "_noted", set())


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
@pytest.mark.robust("file systems")
def test_a_disk_without_locks(tmp_path, monkeypatch, capsys, unnoted, number):
    """Where flock gives ENOSYS or ENOLCK the files are written, and one note asks for a single process."""
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with held(tmp_path / "a.lock", RANKS) as mine:
        assert mine
    made = PartialZip(tmp_path / "data.zip", "key")
    made.write("a", b"a")
    made.finish()
    with SampleArray(tmp_path / "out.npz", [0, 1], [3, 4], {}, RANKS) as samples:
        assert samples.begin() == [0, 1]
        samples.add([0, 1], np.zeros((2, 1, 4, 4), np.uint8))
        samples.finish()
    assert np.load(tmp_path / "out.npz")["arr_1"].tolist() == [3, 4]
    said = capsys.readouterr().err
    assert said.count("note: ") == 1 and f"{tmp_path} has no locks ({os.strerror(number)})" in said


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF])
@pytest.mark.robust("file systems")
def test_a_lock_that_fails_otherwise_is_an_error(tmp_path, monkeypatch, number):
    """An error of flock's that is no lack of locks is not passed over."""
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        PartialZip(tmp_path / "data.zip", "key")


@pytest.mark.robust("file systems")
def test_a_lock_that_another_holds_is_still_seen(tmp_path):
    """A data set that another process is writing is refused."""
    first = PartialZip(tmp_path / "data.zip", "key")
    with pytest.raises(ValueError, match="another process is writing"):
        PartialZip(tmp_path / "data.zip", "key")
    first.pause()


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENOSYS, errno.EINVAL])
@pytest.mark.robust("file systems")
def test_a_disk_that_maps_no_file(tmp_path, monkeypatch, tiny, number):
    """Where files cannot be mapped (ENODEV) models and tensors are read instead, the same."""
    net = tiny.tiny_net()
    save_model(tmp_path / "model", net.state_dict(), describe(tiny.NET))
    save_tensors(tmp_path / "a.safetensors", {"net": {"w": torch.arange(3)}}, [1, "b"])
    mapped = load_tensors(tmp_path / "a.safetensors")

    def safe_open(*args, **options):  # safetensors gives the number in words alone
        raise OSError(f"{os.strerror(number)} (os error {number})")

    monkeypatch.setattr(tensor_files, "safe_open", safe_open)
    groups, meta = load_tensors(tmp_path / "a.safetensors")
    assert groups["net"]["w"].tolist() == mapped[0]["net"]["w"].tolist() == [0, 1, 2]
    assert meta == mapped[1] == [1, "b"]
    for name, value in load(tmp_path / "model").state_dict().items():
        assert torch.equal(value, net.state_dict()[name])


@pytest.mark.robust("file systems")
def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path):
    """A file without its permissions or on a failing disk cannot be read; that is not damage."""
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(RunError, match=r"a\.safetensors cannot be read \("):
        load_tensors(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"no tensors")
    with pytest.raises(RunError, match=r"b\.safetensors is damaged"):
        load_tensors(tmp_path / "b.safetensors")


CAUSES = {
    errno.ENOSPC: "Free some space or choose another folder",
    errno.EDQUOT: "Your quota there is used up: free some space or choose another folder",
    errno.EROFS: "It can only be read there: choose another folder",
    errno.EACCES: "Look at the permissions there, or choose another folder",
    errno.EIO: "The disk itself fails: look at it, or choose another folder",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EMFILE: "Raise the number of files that a process may have open (ulimit -n)",
    errno.ESTALE: "Look at the network drive, or choose another folder",
    errno.ENOSYS: "That disk cannot do it: choose another folder",
    errno.ENXIO: "Choose another folder",
}


@pytest.mark.parametrize(("number", "mend"), CAUSES.items())
@pytest.mark.robust("file systems")
def test_each_cause_has_its_own_mend(tmp_path, number, mend):
    """A file that cannot be written is a line with the system's words and the mend of that cause."""
    with pytest.raises(RunError) as error, replacing(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert str(error.value) == (
        f"cannot write {tmp_path / 'file'}: {os.strerror(number)}. {mend}, then run the same command again; "
        "what was saved before is intact."
    )


@pytest.mark.parametrize("number", sorted(errno.errorcode.keys() - SPACE))
@pytest.mark.robust("file systems")
def test_space_is_spoken_of_where_it_is_wanting_alone(number):
    """No other error of the system's is answered by "free some space"."""
    error = OSError(number, os.strerror(number))
    assert "space" not in str(disk.cannot_write("x", error)).replace(os.strerror(number), "").lower()


@pytest.mark.robust("file systems")
def test_words_of_other_libraries_are_understood():
    """safetensors' "(os error 28)", or what came of an error of the system's, has its words and mend."""
    told = OSError("I/O error while serializing: No space left on device (os error 28)")
    assert "Free some space" in disk.mend(told) and disk.reason(told) == "No space left on device"
    try:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        except OSError:
            raise RuntimeError("file write failed") from None
    except RuntimeError as error:
        assert "quota" in disk.mend(error) and disk.reason(error) == os.strerror(errno.EDQUOT)
    assert disk.mend(ValueError("no tensors")) == "Choose another folder"


@pytest.fixture
def small_files():
    """No file may have more than 64 KiB, as under `ulimit -f`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.robust("file systems")
def test_a_limit_of_the_machines_reaches_the_user_through_every_library(tmp_path, small_files):
    """A file that may not be so large (EFBIG) is named so by states, models and archives."""
    big = torch.zeros(1 << 16)
    save_file({"small": big[:1].clone()}, tmp_path / "small.safetensors")
    states = TrainingStates(tmp_path / "states", RANKS, "run", 2, Fault(0, 1))
    states.save(5, {"net": {"w": big}}, {})
    words = r"File too large\. No file may be so large there"
    with pytest.raises(RunError, match=f"cannot write a state to .*{words}.* none was saved before"):
        states.wait()
    with pytest.raises(RunError, match=rf"cannot write .*a\.safetensors: {words}"):
        save_tensors(tmp_path / "a.safetensors", {"net": {"w": big}})
    made = PartialZip(tmp_path / "data.zip", "key")
    with pytest.raises(RunError, match=rf"cannot write .*data\.zip: {words}"):
        made.write("a", bytes(1 << 18))
    made.pause()


@pytest.mark.parametrize(
    ("usage", "known"), [((0, 0, 0), None), ((10, 10, 0), 0), (errno.ENOSYS, None), (errno.EACCES, None)]
)
@pytest.mark.robust("file systems")
def test_room_that_a_disk_does_not_tell(tmp_path, monkeypatch, usage, known):
    """A disk that says it has no size at all, or does not say, is not called full."""

    def disk_usage(folder):
        if isinstance(usage, int):
            raise OSError(usage, os.strerror(usage))
        return type("Usage", (), dict(zip(("total", "used", "free"), usage, strict=True)))

    monkeypatch.setattr(disk.shutil, "disk_usage", disk_usage)
    assert disk.free_bytes(tmp_path) == known
