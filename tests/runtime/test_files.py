"""Files written whole or not at all."""

import hashlib
import os

import pytest

from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import file_sha256, replacing, write_json


@pytest.mark.robust("file systems")
def test_failed_write_leaves_the_old_file(tmp_path):
    """What was at the path stays as it was, and the half-written file is removed."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RunError, match="No space left"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_readable_by_others_and_known_by_its_hash(tmp_path):
    """As any new file, whatever the library that wrote the temporary one allowed."""
    (tmp_path / "plain.json").write_text("{}\n")
    write_json(tmp_path / "new" / "own.json", {})
    plain, own = tmp_path / "plain.json", tmp_path / "new" / "own.json"
    assert own.stat().st_mode == plain.stat().st_mode
    assert file_sha256(own) == file_sha256(plain) == hashlib.sha256(b"{}\n").hexdigest()


def test_a_file_is_on_disk_before_it_is_in_its_place(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.fstat(file).st_ino), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    write_json(tmp_path / "a.json", {"a": 1})
    assert done == [(tmp_path / "a.json").stat().st_ino, "replace"]


def test_a_hash_is_of_the_whole_file(tmp_path):
    content = bytes(range(256)) * (5 << 12)  # more than is read at once
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
