"""Saved states: whole or ignored, the newest and the protected kept, and never another run's."""

import json
import pickle
import shutil

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import file_sha256
from mclr_fast.runtime.process.faults import Fault
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.training import state_files
from mclr_fast.training import states as states_module
from mclr_fast.training.state_files import DamagedState, StateReader
from mclr_fast.training.states import TrainingStates


@pytest.fixture
def states(tmp_path):
    """states(keep=2, run="run"): the states in tmp_path/states, as a new process finds them."""
    return lambda keep=2, run="run": TrainingStates(tmp_path / "states", Ranks("cpu"), run, keep, Fault(0, 1))


def state_of(value):
    return {
        "net": {"w": torch.full((4, 3), float(value)), "empty": torch.zeros(0, 3)},
        "n": {"": torch.tensor(value)},
    }


def save(states, *values):
    for value in values:
        states.save(value, state_of(value), {"value": value})
    states.wait()


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "states").iterdir())


def loaded(states):
    """What a new process goes on from: the meta, after a look that the tensors are the same state's."""
    state = state_of(0)
    meta = states.load(state)
    if meta is not None:
        expected = state_of(meta["value"])
        assert all(torch.equal(state[g][n], expected[g][n]) for g in state for n in state[g])
    return meta


def test_the_newest_is_loaded_and_the_last_and_the_protected_stay(states, tmp_path):
    assert loaded(states()) is None
    first = states()
    save(first, 1, 2)
    first.protect(2)
    save(first, 3, 4, 5)
    assert [int(name) for name in names(tmp_path)] == [2, 4, 5]
    assert loaded(states()) == {"value": 5}
    first.protect(4)
    save(first, 6)
    assert [int(name) for name in names(tmp_path)] == [4, 5, 6]


def test_a_save_holds_what_was_there_when_it_began(states):
    tensor, first = torch.zeros(1000, 1000), states()
    first.save(1, {"net": {"w": tensor}}, {})
    tensor.fill_(1)
    first.wait()
    found = {"net": {"w": torch.full((1000, 1000), 2.0)}}
    states().load(found)
    assert not found["net"]["w"].any()


DAMAGES = {
    "cut short": lambda folder: data(folder).write_bytes(data(folder).read_bytes()[:-100]),
    "one bit": lambda folder: flip(data(folder)),
    "metadata": lambda folder: flip(folder / ".metadata"),
    "a file gone": lambda folder: data(folder).unlink(),
    "no marker": lambda folder: (folder / "complete.json").unlink(),
    "marker cut short": lambda folder: (folder / "complete.json").write_text('{"files": {'),
    "another marker": lambda folder: (folder / "complete.json").write_text("[]"),
}


def data(folder):
    return next(folder.glob("*.distcp"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.robust("states")
def test_a_damaged_state_falls_back_to_the_one_before(states, tmp_path, capsys, damage):
    """It is put aside with a warning, and the run goes on from the one before."""
    save(states(), 1, 2)
    damage(tmp_path / "states" / "000000000002")
    again = states()
    assert loaded(again) == {"value": 1}
    (warning,) = capsys.readouterr().out.splitlines()
    assert "warning:" in warning and "000000000002 is damaged (" in warning
    save(again, 2)  # the time comes again
    assert loaded(states()) == {"value": 2}
    assert names(tmp_path) == ["000000000001", "000000000002", "damaged-000000000002"]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.robust("states")
def test_all_states_damaged_is_no_new_beginning(states, tmp_path, damage):
    """The run stops and says which state, why and the mend, each time; removed, the run begins again."""
    save(states(), 1, 2)
    for folder in (tmp_path / "states").iterdir():
        damage(folder)
    words = (
        r"states/0+2 is damaged \(.*\), as 1 more there, and no sound state is left to go on from. Nothing "
        "was changed: .* to begin again at 0, remove .*/states or choose another --outdir"
    )
    for _ in range(2):
        with pytest.raises(RunError, match=words) as stopped:
            loaded(states())
        assert "\n" not in str(stopped.value)
    assert names(tmp_path) == ["000000000001", "000000000002"]
    shutil.rmtree(tmp_path / "states")
    assert loaded(states()) is None


@pytest.mark.robust("states")
def test_a_state_put_aside_is_not_forgotten_when_the_one_before_it_goes(states, tmp_path):
    """The run stops where the state that it fell back to is gone, instead of beginning again."""
    save(states(), 1, 2)
    DAMAGES["one bit"](tmp_path / "states" / "000000000002")
    assert loaded(states()) == {"value": 1}
    shutil.rmtree(tmp_path / "states" / "000000000001")
    with pytest.raises(RunError, match=r"damaged-0+2 was put aside as damaged, and no sound state is left"):
        loaded(states())
    assert names(tmp_path) == ["damaged-000000000002"]


@pytest.mark.robust("states")
def test_a_whole_copy_brought_back_is_gone_on_from(states, tmp_path):
    """As the line that a run with damaged states stops with says."""
    save(states(), 1)
    state = tmp_path / "states" / "000000000001"
    shutil.copytree(state, tmp_path / "copy")
    DAMAGES["cut short"](state)
    with pytest.raises(RunError, match="bring back a whole copy"):
        loaded(states())
    shutil.rmtree(state)
    (tmp_path / "copy").rename(state)
    assert loaded(states()) == {"value": 1}


@pytest.mark.robust("states")
def test_a_first_save_that_was_cut_short_is_nothing_lost(states, tmp_path):
    """It never became a state, so the run begins again without a word."""
    save(states(), 1)
    (tmp_path / "states" / "000000000001").rename(tmp_path / "states" / ".000000000001.tmp")
    assert loaded(states()) is None
    assert names(tmp_path) == []


@pytest.mark.parametrize("stray", [".DS_Store", ".nfs0000000000c0ffee", "@eaDir/x", "Thumbs.db"])
@pytest.mark.robust("states")
def test_what_others_leave_in_a_states_folder_is_none_of_it(states, tmp_path, stray, monkeypatch):
    """Only what the marker lists counts, whatever came or went since."""

    def leave(folder):
        (folder / stray).parent.mkdir(exist_ok=True)
        (folder / stray).write_text("x")

    save(states(), 1)
    leave(tmp_path / "states" / "000000000001")
    assert loaded(states()) == {"value": 1}
    marked = state_files.mark_complete
    with monkeypatch.context() as patch:
        patch.setattr(states_module, "mark_complete", lambda folder, c: (leave(folder), marked(folder, c)))
        save(states(), 2)
    left = tmp_path / "states" / "000000000002" / stray
    assert left.exists()
    left.unlink()
    assert loaded(states()) == {"value": 2}


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]
)
@pytest.mark.robust("states")
def test_what_cannot_be_read_is_not_damaged(states, tmp_path, monkeypatch, error):
    """The run stops and says which file; the state stays, and counts once it can be read."""
    save(states(), 1, 2)
    before = names(tmp_path)

    def unreadable(path):
        error.filename = str(path)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(state_files, "file_sha256", unreadable)
        with pytest.raises(RunError, match=rf"000000000002/.* cannot be read: {error.strerror}"):
            loaded(states())
    assert names(tmp_path) == before and loaded(states()) == {"value": 2}


@pytest.mark.robust("states")
def test_what_a_killed_save_left_is_removed(states, tmp_path):
    """It never counts, and the next process removes it."""
    save(states(), 1)
    shutil.copytree(tmp_path / "states" / "000000000001", tmp_path / "states" / ".000000000002.tmp")
    assert loaded(states()) == {"value": 1}
    assert names(tmp_path) == ["000000000001"]


@pytest.mark.robust("identity")
def test_another_runs_and_older_states_are_refused(states, tmp_path):
    """An error asks for another --outdir."""
    save(states(), 1)
    with pytest.raises(RunError, match="written by another run"):
        loaded(states(run="other"))
    with pytest.raises(ValueError, match=r"'net.w' is \[4, 3\] in the file and \[4, 4\] in the run"):
        states().load({**state_of(0), "net": {"w": torch.zeros(4, 4), "empty": torch.zeros(0, 3)}})
    with pytest.raises(ValueError, match=r"1 tensors are missing or unknown, first 'net.more'"):
        states().load({**state_of(0), "net": {**state_of(0)["net"], "more": torch.zeros(1)}})
    (tmp_path / "states.safetensors").write_text("")
    with pytest.raises(RunError, match="a state of an older mclr_fast"):
        loaded(states())


@pytest.mark.robust("file systems")
def test_a_save_that_fails_is_one_clear_line_and_leaves_nothing(states, tmp_path, monkeypatch):
    """One line says why and which state is intact; nothing half-written stays."""
    monkeypatch.setenv("MCLR_FAST_FAULT", "0:2:disk-full")
    first = states()
    first.save(1, state_of(1), {"value": 1})
    first.save(2, state_of(2), {})
    with pytest.raises(
        RunError, match=r"cannot write a state .*No space left on device.*/0+1 is intact"
    ) as error:
        first.wait()
    assert "\n" not in str(error.value)
    assert names(tmp_path) == ["000000000001"]
    assert loaded(states()) == {"value": 1}


@pytest.mark.robust("states")
def test_metadata_that_names_other_code_is_refused(states, tmp_path):
    """It is refused, even with hashes that fit."""
    save(states(), 1)
    folder = tmp_path / "states" / "000000000001"
    ran = tmp_path / "ran"
    metadata = FileSystemReader(folder).read_metadata()
    metadata.planner_data = _Hostile(ran)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    marker = json.loads((folder / "complete.json").read_text())
    content = {"bytes": (folder / ".metadata").stat().st_size, "sha256": file_sha256(folder / ".metadata")}
    marker["files"][".metadata"] = content
    (folder / "complete.json").write_text(json.dumps(marker))
    with pytest.raises(RunError, match=r"cannot be read: .*it asks for (posix|nt)\.mkdir"):
        loaded(states())
    assert not ran.exists()


class _Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.robust("states")
def test_metadata_may_name_no_other_file(states, tmp_path):
    """A record that names a file outside the state is refused."""
    save(states(), 1)
    folder = tmp_path / "states" / "000000000001"
    with pytest.raises(DamagedState, match=r"names '__0_0.distcp', which is not the state's"):
        StateReader(folder, ["other"]).read_metadata()


def test_fault_that_is_none(monkeypatch):
    for wrong in ("0:1", "0:1:fire", "x:1:sigkill"):
        monkeypatch.setenv("MCLR_FAST_FAULT", wrong)
        with pytest.raises(RunError, match="is not rank:step:kind; kinds: sigkill, "):
            Fault(0, 12)
