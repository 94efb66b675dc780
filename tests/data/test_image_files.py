"""Data sets written batch by batch: the same bytes whichever batches, and there whole or not at all."""

import numpy as np
import pytest
from zips import write_zip

from mclr_fast.data import open_dataset
from mclr_fast.data.image_files import ZipWriter
from mclr_fast.runtime.errors import RunError

LABELS = [0, 1, 2, 0, 1]


@pytest.fixture(params=["pixels", "latents"])
def images(request):
    rng = np.random.default_rng(0)
    if request.param == "pixels":
        return rng.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    return rng.standard_normal((5, 8, 4, 4)).astype(np.float32)


def test_batches_do_not_show(images, tmp_path):
    write_zip(tmp_path / "whole.zip", images, np.array(LABELS))
    with ZipWriter(tmp_path / "parts.zip") as archive:
        archive.add(images[:1], images[1:3])
        archive.add()
        archive.add(images[3:3], images[3:])
        assert not (tmp_path / "parts.zip").exists()
        archive.finish(LABELS)
    assert (tmp_path / "parts.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    read = open_dataset(str(tmp_path / "parts.zip"))
    assert read.labels.tolist() == LABELS
    np.testing.assert_array_equal(read.images(np.arange(5)), images)


def test_what_is_not_finished_is_removed(images, tmp_path):
    with pytest.raises(KeyError), ZipWriter(tmp_path / "images.zip") as archive:
        archive.add(images)
        assert list(tmp_path.iterdir())
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.robust("file systems")
def test_a_disk_that_is_full_is_one_clear_line(images, tmp_path, monkeypatch):
    """One line says so wherever it is met, also where other ranks are told; nothing half-written stays."""

    def full(*_):
        raise OSError(28, "No space left on device")

    archive = ZipWriter(tmp_path / "images.zip")
    with pytest.raises(RunError, match=r"cannot write .*images.zip: No space left on device\. Free"), archive:
        archive.add(images[:2])
        monkeypatch.setattr(archive._archive, "writestr", full)
        archive.add(images[2:])
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_zip(tmp_path / "file" / "images.zip", images, np.array(LABELS))
