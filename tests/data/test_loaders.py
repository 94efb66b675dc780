"""Every loader gives the same pixels, and the same errors, one line with the file's name."""

import importlib.util

import numpy as np
import PIL.Image
import pytest

from mclr_fast.data import open_dataset
from mclr_fast.data.loaders import make_loader
from mclr_fast.data.plain_loader import PlainLoader

NUM_IMAGES = 23
has_dali = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
needs_dali = pytest.mark.skipif(not has_dali, reason="needs NVIDIA DALI: pip install 'mclr_fast[dali]'")
LOADERS = ["plain", pytest.param("dali", marks=needs_dali)]


@pytest.fixture
def write(tmp_path):
    """write(suffix, channels, **save options): a folder for either of two classes; returns its path."""

    def make(suffix, channels, **options):
        rng = np.random.default_rng(0)
        for i in range(NUM_IMAGES):
            path = tmp_path / "set" / f"class{i % 2}" / f"{i:03}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".npy":
                np.save(path, rng.standard_normal((channels, 6, 6)).astype(np.float32))
            else:
                small = PIL.Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
                image = small.resize((24, 18), PIL.Image.Resampling.BICUBIC)
                image.convert("L" if channels == 1 else "RGB").save(path, **options)
        return tmp_path / "set"

    return make


def opened(path, loader):
    return open_dataset(path, loader=loader, num_threads=2)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("suffix", "channels", "options"),
    [
        (".png", 3, {"compress_level": 0}),
        (".png", 3, {"optimize": True}),
        (".png", 1, {}),
        (".jpg", 3, {"quality": 75}),
        (".jpg", 1, {}),
        (".npy", 8, {}),
    ],
)
def test_same_pixels_in_any_order(write, loader, suffix, channels, options):
    path = write(suffix, channels, **options)
    dataset = opened(path, loader)
    single = np.stack([open_dataset(path).image(i) for i in range(NUM_IMAGES)])
    assert len(np.unique(single.reshape(NUM_IMAGES, -1), axis=0)) == NUM_IMAGES
    for indices in (range(NUM_IMAGES), [22, 0, 7, 7], np.arange(NUM_IMAGES)[::-1], [], [5]):
        images = dataset.images(indices)
        assert images.shape == (len(indices), *dataset.image_shape) and images.dtype == single.dtype
        np.testing.assert_array_equal(images, single[list(indices)])


@needs_dali
def test_more_images_than_dali_holds_at_once(write, monkeypatch):
    from mclr_fast.data import dali

    monkeypatch.setattr(dali, "CHUNK", 4)
    path = write(".png", 3)
    dataset, plain = opened(path, "dali"), opened(path, "plain")
    for num_images in (3, 4, 5, 8, 9, NUM_IMAGES):
        indices = np.random.default_rng(num_images).integers(0, NUM_IMAGES, num_images)
        np.testing.assert_array_equal(dataset.images(indices), plain.images(indices))


def damage(path, kind):
    data = path.read_bytes()
    if kind == "cut short":
        path.write_bytes(data[:-30])
    elif kind == "one bit":
        path.write_bytes(data[:300] + bytes([data[300] ^ 1]) + data[301:])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "another size":
        PIL.Image.new("RGB", (18, 24)).save(path)
    elif kind == "palette":
        PIL.Image.new("RGB", (24, 18)).convert("P").save(path)
    elif kind == "grey":
        PIL.Image.new("L", (24, 18)).save(path)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", ["cut short", "one bit", "empty", "another size", "palette", "grey"])
def test_a_bad_image_is_named_and_the_rest_stays_readable(write, loader, kind):
    path = write(".png", 3, compress_level=0)
    dataset = opened(path, loader)  # looks at all 23 of them or at 16
    good = dataset.images([0, 1]).copy()
    name = dataset.names[4]
    damage(path / name, kind)
    with pytest.raises(ValueError, match=f"{name!r} (cannot be read|has shape|is uint8)") as caught:
        dataset.images(np.arange(NUM_IMAGES))
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(dataset.images([0, 1]), good)


@needs_dali
def test_auto_is_dali_for_png_and_plain_for_the_rest(write):
    from mclr_fast.data.dali import DaliLoader

    dataset = opened(write(".png", 3), "plain")
    assert isinstance(make_loader("auto", dataset), DaliLoader)
    dataset.names = [name.replace(".png", ".jpg") for name in dataset.names]
    assert isinstance(make_loader("auto", dataset), PlainLoader)


def test_without_dali_auto_is_plain_and_dali_names_its_extra(write, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = write(".png", 3)
    assert isinstance(make_loader("auto", opened(path, "plain")), PlainLoader)
    with pytest.raises(ValueError, match=r"--loader dali: .*pip install 'mclr_fast\[dali\]'"):
        opened(path, "dali")


def test_an_unknown_loader_is_refused_with_the_known_ones(write):
    with pytest.raises(ValueError, match="must be one of auto, plain, dali, not 'fast'"):
        opened(write(".png", 3), "fast")
