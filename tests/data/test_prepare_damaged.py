"""Images and latents that `prepare` cannot use: an error, or left out and said; --verify finds them."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from preparing import NAMES, Stop, run

from mclr_fast.config import PrepareConfig
from mclr_fast.data import open_dataset
from mclr_fast.data import prepare as prepare_data
from mclr_fast.data.sources import Source
from mclr_fast.runtime.errors import RunError


@pytest.mark.robust("pixels")
def test_a_damaged_image_ends_it_or_is_left_out(folder, tmp_path, small_chunks, capsys):
    """An error names it; with --skip-damaged it is left out, and counted."""
    bad = sorted(NAMES)[4]
    (folder / bad).write_bytes((folder / bad).read_bytes()[:200])
    with pytest.raises(RunError, match=f"{bad}' cannot be read .*--skip-damaged") as caught:
        run(folder, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists() and "\n" not in str(caught.value)
    dataset = open_dataset(run(folder, tmp_path / "out.zip", skip_damaged=True))
    assert dataset.labels.tolist() == [0] * 4 + [1] * 5
    assert "9 images, 1 damaged left out" in capsys.readouterr().out


@pytest.mark.robust("pixels")
def test_verify_counts_what_is_there_and_names_what_is_damaged(folder, tmp_path, capsys):
    """--verify decodes every image; the first damaged one is an error."""
    out = run(folder, tmp_path / "img16.zip", verify=True)
    assert "10 images of 3x16x16, 2 of 2 classes, 5 to 5 images a class" in capsys.readouterr().out
    data = bytearray(out.read_bytes())
    data[-1500] ^= 1  # within the last image
    out.write_bytes(data)
    with pytest.raises(RunError, match=r"00000009.png' cannot be read .*"):
        run(out, None, verify=True)


def test_verify_counts_what_cannot_be_used(tmp_path):
    for i in range(40):
        path = tmp_path / "set" / f"class{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (4, 4) if i not in (8, 9) else (4, 5)).save(path)
    with pytest.raises(RunError, match=r"has shape .* \(2 of 40 images cannot be used\)"):
        run(tmp_path / "set", None, verify=True)


@pytest.mark.robust("classes")
def test_damaged_images_do_not_move_classes(folder, tmp_path, capsys):
    """Classes are numbered before damaged images are left out; an empty one is told of."""
    for image in (folder / "n10").iterdir():
        image.write_bytes(b"<html>404</html>")
    with pytest.raises(RunError, match=r"'n10/10_0.png' cannot be read \(it is a page of HTML"):
        run(folder, tmp_path / "out.zip")
    dataset = open_dataset(run(folder, tmp_path / "out.zip", skip_damaged=True))
    assert dataset.labels.tolist() == [1] * 5 and dataset.class_names == ["n10", "n2"]
    said = capsys.readouterr().out
    assert "5 damaged left out ('n10/10_0.png' cannot be read (it is a page of HTML" in said
    assert "2 classes: 0 n10 (0), 1 n2 (5)." in said and "no image is of class 0 n10" in said


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "I/O"), MemoryError()]
)
@pytest.mark.robust("file systems")
def test_what_the_machine_fails_at_is_not_left_out_as_damaged(folder, tmp_path, monkeypatch, error):
    """A failing disk, missing rights or memory end it, with --skip-damaged too."""

    def fail(*_):
        raise error

    monkeypatch.setattr(Source, "read", fail)
    with pytest.raises(RunError, match=rf"'n10/10_0.png' cannot be read \({type(error).__name__}.*\)\.$"):
        run(folder, tmp_path / "out.zip", skip_damaged=True)


@pytest.mark.robust("pixels")
def test_pixels_of_no_known_range_end_it_or_are_left_out(folder, tmp_path, capsys):
    """An error names the image; --skip-damaged leaves it out."""
    PIL.Image.fromarray(np.zeros((20, 20), np.float32)).save(folder / "n2" / "0.tif")
    with pytest.raises(RunError, match=r"'n2/0.tif' cannot be read \(its pixels are floating point"):
        run(folder, tmp_path / "out.zip")
    run(folder, tmp_path / "out.zip", skip_damaged=True)
    assert "1 damaged left out ('n2/0.tif' cannot be read (its pixels are floating" in capsys.readouterr().out


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.robust("pixels")
def test_latents_that_are_not_finite_fail_verify(tmp_path, value, as_zip):
    """--verify names the first, in folders and zips."""
    for i in range(40):
        latent = np.ones((8, 2, 2), np.float32)
        latent[7, 1, 1] = value if i == 6 else 1  # not looked at on opening
        path = tmp_path / "set" / f"c{i % 2}" / f"{i:02}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, latent)
    path = tmp_path / "set"
    path = Path(shutil.make_archive(path, "zip", path)) if as_zip else path
    with pytest.raises(RunError, match=r"'c0/06.npy' holds numbers that are not finite \(1 of 40"):
        run(path, None, verify=True)


@pytest.mark.robust("pixels")
def test_latents_that_the_vae_cannot_make_are_not_written(folder, tmp_path):
    """Latents that are not finite are an error, and nothing is written."""
    config = PrepareConfig(source=folder, out=tmp_path / "out.zip", resolution=16, threads=1)
    encoder = lambda images: np.full((len(images), 8, 2, 2), np.nan, np.float32)  # noqa: E731
    with pytest.raises(RunError, match="latents of image 0 are not finite"):
        prepare_data.prepare(config, lambda: encoder, Stop())
    assert not (tmp_path / "out.zip").exists()
