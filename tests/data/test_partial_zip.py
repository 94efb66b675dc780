"""A zip written in several goes: every whole member is gone on after, and nothing else."""

import zipfile

import pytest

from mclr_fast.data.partial_zip import PartialZip

MEMBERS = {f"0000{i}/img.png": bytes([i]) * (50 + i) for i in range(4)}


@pytest.fixture
def begun(tmp_path):
    """The path of a zip that a first go left with the first three members."""
    first = PartialZip(tmp_path / "out.zip", "key")
    for name in list(MEMBERS)[:3]:
        first.write(name, MEMBERS[name])
    first.pause()
    return first.partial


def finished(tmp_path, keep=None):
    """Go on, write what is missing: the names that were there, and what is read of the end."""
    archive = PartialZip(tmp_path / "out.zip", "key")
    if keep is not None:
        archive.keep(keep)
    there = archive.names
    for name in MEMBERS.keys() - set(there):
        archive.write(name, MEMBERS[name])
    archive.finish()
    with zipfile.ZipFile(tmp_path / "out.zip") as read:
        assert len(read.namelist()) == len(set(read.namelist()))
        return there, {name: read.read(name) for name in read.namelist()}


def test_it_goes_on_after_what_is_there(begun, tmp_path):
    there, read = finished(tmp_path)
    assert there == list(MEMBERS)[:3] and read == MEMBERS
    assert not begun.exists()


def test_the_first_members_alone_may_be_kept(begun, tmp_path):
    there, read = finished(tmp_path, keep=1)
    assert there == list(MEMBERS)[:1] and read == MEMBERS


def test_nothing_is_left_of_members_that_are_forgotten(begun, tmp_path):
    again = PartialZip(tmp_path / "out.zip", "key")
    again.keep(1)
    again.finish()
    alone = PartialZip(tmp_path / "alone.zip", "key")
    alone.write(*next(iter(MEMBERS.items())))
    alone.finish()
    assert (tmp_path / "out.zip").read_bytes() == (tmp_path / "alone.zip").read_bytes()


@pytest.mark.parametrize("member", [0, 1, 2])
@pytest.mark.parametrize("part", ["signature", "checksum", "data"])
@pytest.mark.robust("identity")
def test_a_member_that_changed_between_two_goes(begun, tmp_path, member, part):
    """It and those after it are written again: their signatures and checksums are looked at."""
    content = bytearray(begun.read_bytes())
    headers = [i for i in range(len(content)) if content[i : i + 4] == b"PK\3\4"]
    place = {"signature": 0, "checksum": 14, "data": 60}[part]  # 30 bytes of header, 13 of name, then data
    content[headers[member] + place] ^= 1
    begun.write_bytes(content)
    there, read = finished(tmp_path)
    assert there == list(MEMBERS)[:member] and read == MEMBERS


@pytest.mark.parametrize("cut", [1, 50, 60, 90])
@pytest.mark.robust("processes")
def test_a_member_half_written_by_a_killed_process(begun, tmp_path, cut):
    """Those before it are kept, and it is written again."""
    begun.write_bytes(begun.read_bytes()[:-cut])
    there, read = finished(tmp_path)
    assert there == list(MEMBERS)[:2] and read == MEMBERS


@pytest.mark.robust("processes")
def test_two_processes_that_write_one_zip(begun, tmp_path):
    """The second is refused; the first goes on."""
    first = PartialZip(tmp_path / "out.zip", "key")
    with pytest.raises(ValueError, match=r"another process is writing .*out.zip"):
        PartialZip(tmp_path / "out.zip", "key")
    assert first.names == list(MEMBERS)[:3]
    first.pause()
