"""`prepare` again: it goes on where it was stopped, and takes for done what is done and nothing else."""

import shutil
import zipfile

import PIL.Image
import pytest
from preparing import NAMES, Stop, as_source, run

from mclr_fast.data import open_dataset
from mclr_fast.data.partial_zip import PartialZip
from mclr_fast.runtime.errors import Interrupted, RunError


@pytest.mark.parametrize("latents", [False, True])
def test_stopped_and_resumed(folder, tmp_path, tiny_vae, small_chunks, latents):
    options = {"latents": str(tiny_vae)} if latents else {}
    whole = run(folder, tmp_path / "whole.zip", **options)
    out = tmp_path / "stopped.zip"
    for at in (2, 3):
        with pytest.raises(Interrupted):
            run(folder, out, Stop(at), **options)
        assert not out.exists()
    last = Stop()
    run(folder, out, last, **options)
    assert last.looks == 1  # of four chunks, three were there: one, then two more
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.robust("processes")
def test_killed_anywhere_and_resumed(folder, tmp_path, small_chunks, monkeypatch):
    """Whatever part of the file reached the disk, also with a damaged end, the result is the same."""
    whole = run(folder, tmp_path / "whole.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "whole.zip") as archive:
        sizes = [member.header_offset for member in archive.infolist()]
    kept = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(PartialZip, "finish", PartialZip.pause)
        run(folder, tmp_path / "out.zip")
    (partial,) = tmp_path.glob(".out.zip.*.partial")
    shutil.copy(partial, kept)
    assert kept.stat().st_size > sizes[-1]
    for cut in (
        0,
        1,
        29,
        sizes[1],
        sizes[4] + 40,
        sizes[9] - 1,
        sizes[10],
        sizes[10] + 20,
        kept.stat().st_size,
    ):
        for damage in (b"", b"\0" * 50):
            partial.write_bytes(kept.read_bytes()[: max(cut - len(damage), 0)] + damage)
            assert run(folder, tmp_path / "out.zip").read_bytes() == whole
            (tmp_path / "out.zip").unlink()


@pytest.mark.robust("identity")
def test_other_settings_begin_anew(folder, tmp_path, small_chunks):
    """What was begun with other settings is left for them."""
    for options in ({}, {"mirror": True}):
        with pytest.raises(Interrupted):
            run(folder, tmp_path / "out.zip", Stop(2), **options)
    assert len(list(tmp_path.glob(".out.zip.*.partial"))) == 2


@pytest.mark.robust("processes")
def test_two_processes_do_not_write_one_file(tmp_path):
    """The second is refused until the first is done."""
    first = PartialZip(tmp_path / "a.zip", "key")
    with pytest.raises(ValueError, match="another process is writing"):
        PartialZip(tmp_path / "a.zip", "key")
    first.pause()
    PartialZip(tmp_path / "a.zip", "key").pause()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 32}, "resolution 16, not 32"),
        ({"mirror": True}, "mirror False, not True"),
        ({"exif_rotation": True}, "exif_rotation False, not True"),
        ({"latents": "some/vae"}, "latents None, not 'vae'"),
        ({"resolution": 8, "mirror": True}, "resolution 16, not 8; mirror False, not True"),
    ],
)
@pytest.mark.robust("identity")
def test_an_out_that_was_made_otherwise_is_not_taken_for_done(folder, tmp_path, options, message):
    """An error names the options that differ; the file stays."""
    before = run(folder, tmp_path / "out.zip").read_bytes()
    with pytest.raises(RunError, match=rf"out.zip is there, and was made otherwise \({message}\): remove it"):
        run(folder, tmp_path / "out.zip", **options)
    assert (tmp_path / "out.zip").read_bytes() == before


@pytest.mark.robust("identity")
def test_an_out_of_another_source_is_not_taken_for_done(folder, tmp_path, capsys):
    """Of the same images kept otherwise it is done; of others it is an error."""
    out = run(folder, tmp_path / "out.zip")
    run(as_source(folder, "zip"), out)  # the same images, kept otherwise
    assert "is there; remove it" in capsys.readouterr().out
    shutil.copy(folder / NAMES[0], folder / "n2" / "more.png")
    with pytest.raises(RunError, match="of images of another SOURCE"):
        run(folder, out)
    shutil.rmtree(folder)
    run(folder, out)  # done with, and gone
    with pytest.raises(RunError, match="resolution 16, not 8"):
        run(folder, out, resolution=8)


@pytest.mark.robust("identity")
def test_an_out_by_edm2s_tool_is_judged_by_its_images(golden, folder, tmp_path, capsys):
    """Its resolution and whether it is of latents are compared."""
    for name, options in (("rgb", {"resolution": 8}), ("latents", {"latents": "some/vae", "resolution": 32})):
        out = tmp_path / f"{name}.zip"
        out.write_bytes(golden("edm2_dataset")[f"{name}/zip_bytes"].tobytes())
        run(folder, out, **options)
        assert "is there; remove it" in capsys.readouterr().out
    with pytest.raises(RunError, match="resolution 8, not 16"):
        run(folder, tmp_path / "rgb.zip")
    with pytest.raises(RunError, match="latents 'some VAE', not None"):
        run(folder, tmp_path / "latents.zip", resolution=32)
    (tmp_path / "junk.zip").write_bytes(b"junk")
    with pytest.raises(RunError, match=r"junk.zip is not a zip archive"):
        run(folder, tmp_path / "junk.zip")


@pytest.mark.robust("identity")
def test_a_source_that_changed_meanwhile_begins_anew(folder, tmp_path, small_chunks):
    """What was made of the images before is not gone on with."""
    with pytest.raises(Interrupted):
        run(folder, tmp_path / "out.zip", Stop(3))
    PIL.Image.new("RGB", (40, 40), (1, 2, 3)).save(folder / sorted(NAMES)[0])  # under the same name
    first = open_dataset(run(folder, tmp_path / "out.zip")).images([0])[0]
    assert first[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.robust("identity")
def test_out_may_lie_in_the_source(folder, capsys):
    """The data set that is made is none of its own images, at the first call and at any other."""
    first = run(folder, folder / "img16.zip").read_bytes()
    assert run(folder, folder / "img16.zip").read_bytes() == first
    assert "is there; remove it" in capsys.readouterr().out
    assert open_dataset(run(folder, folder / "img8.zip", resolution=8)).labels.tolist() == [0] * 5 + [1] * 5
