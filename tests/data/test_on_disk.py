"""EDM2's zips and folders, and folders of classes: the recorded images and labels, or one clear line."""

import json
import shutil
import zipfile

import numpy as np
import PIL.Image
import pytest

from mclr_fast.data import open_dataset
from mclr_fast.data.on_disk import EDM2Dataset


@pytest.fixture(params=["zip", "folder"])
def unpack(request, golden, tmp_path):
    """Writes one of the golden datasets as a zip or as a folder and returns its path."""

    def write(name):
        path = tmp_path / f"{name}.zip"
        path.write_bytes(golden("edm2_dataset")[f"{name}/zip_bytes"].tobytes())
        if request.param == "zip":
            return path
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def write_dataset(tmp_path):
    """Writes a folder of {name: array}, with dataset.json holding `labels` as given."""

    def write(images, **dataset_json):
        folder = tmp_path / "set"
        for name, image in images.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".npy":
                np.save(file, image)
            else:
                PIL.Image.fromarray(image).save(file)
        if dataset_json:
            (folder / "dataset.json").write_text(json.dumps(dataset_json))
        return folder

    return write


def rgb(value=0, size=4):
    return np.full((size, size, 3), value, np.uint8)


def test_rgb_matches_golden(golden, unpack):
    expected = golden("edm2_dataset")
    dataset = EDM2Dataset(unpack("rgb"))
    images = dataset.images(range(len(dataset)))
    assert (len(dataset), dataset.image_shape, dataset.num_classes) == (6, (3, 8, 8), 8)
    assert images.dtype == np.uint8
    assert dataset.labels.dtype == np.int64
    np.testing.assert_array_equal(images, expected["rgb/images"])
    np.testing.assert_array_equal(dataset.labels, expected["rgb/raw_labels"])
    np.testing.assert_array_equal(np.eye(8)[dataset.labels], expected["rgb/labels"])


def test_latents_match_golden(golden, unpack):
    expected = golden("edm2_dataset")
    dataset = EDM2Dataset(unpack("latents"))
    images = dataset.images(np.arange(5))
    assert (len(dataset), dataset.image_shape, dataset.num_classes) == (5, (8, 4, 4), 5)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, expected["latents/images"])
    np.testing.assert_array_equal(np.eye(5)[dataset.labels], expected["latents/labels"])


def test_images_in_the_order_asked(golden, unpack):
    dataset = EDM2Dataset(unpack("rgb"))
    expected = golden("edm2_dataset")["rgb/images"]
    np.testing.assert_array_equal(dataset.images([4, 0, 4]), expected[[4, 0, 4]])
    assert dataset.images([]).shape == (0, 3, 8, 8)


def test_grey_images_and_string_order(write_dataset):
    grey = {f"{i}.PNG": np.full((4, 4), i, np.uint8) for i in (2, 10)}
    dataset = EDM2Dataset(write_dataset(grey, labels=[["2.PNG", 0], ["10.PNG", 3]]))
    assert dataset.names == ["10.PNG", "2.PNG"]
    assert dataset.labels.tolist() == [3, 0]
    assert dataset.images([0, 1]).shape == (2, 1, 4, 4)
    assert dataset.images([0, 1])[:, 0, 0, 0].tolist() == [10, 2]


@pytest.mark.parametrize(
    ("dataset_json", "message"),
    [
        ({}, "no dataset.json"),
        ({"labels": None}, '"labels": null'),
        ({"label": []}, "malformed.*'labels'"),
        ({"labels": [["a.png"]]}, "malformed"),
        ({"labels": [["A.png", 0]]}, "no label for 'a.png' .1 of 1"),
        ({"labels": [["a.png", 0], ["b.png", 1]]}, "labels 'b.png', which is not there .1 of 2"),
        ({"labels": [["a.png", 1.0]]}, "label of 'a.png' is 1.0; labels must be integer"),
        ({"labels": [["a.png", [0, 1]]]}, r"is \[0, 1\]; labels must be integer"),
        ({"labels": [["a.png", True]]}, "is True; labels must be integer"),
        ({"labels": [["a.png", -1]]}, "is -1; labels must be integer class indices from 0"),
    ],
)
def test_labels_that_cannot_be_used_are_one_line_and_images_go_on(write_dataset, dataset_json, message):
    dataset = EDM2Dataset(write_dataset({"a.png": rgb(7)}, **dataset_json))
    assert dataset.images([0]).max() == 7
    with pytest.raises(ValueError, match=message) as caught:
        _ = dataset.labels
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("a.png", np.zeros((4, 4, 4), np.uint8), "'a.png' is uint8 4x4x4 .RGBA.; expected grey"),
        ("a.npy", np.zeros((4, 8, 8), np.float32), "float32 4x8x8 .npy.; expected"),
        ("a.npy", np.zeros((8, 4, 4), np.float64), "float64 8x4x4"),
        ("a.npy", np.zeros((), np.float32), "float32 a scalar"),
        ("a.npy", np.array([None]), "'a.npy' cannot be read .*allow_pickle=False"),
    ],
)
@pytest.mark.robust("pixels")
def test_images_of_an_unknown_kind_are_refused(write_dataset, name, image, message):
    """An error names the image, what it is and the door that makes RGB of it."""
    with pytest.raises(ValueError, match=message):
        EDM2Dataset(write_dataset({name: image}))


def test_palette_images_are_refused(tmp_path):
    PIL.Image.fromarray(rgb()).convert("P").save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"uint8 1x4x4 \(P\); expected grey or RGB"):
        EDM2Dataset(tmp_path)


@pytest.mark.robust("pixels")
def test_images_of_two_shapes_are_refused(write_dataset):
    """An error names the image and both shapes."""
    with pytest.raises(ValueError, match=r"'b.png' has shape 3x5x5, the first image 3x4x4.*prepare does"):
        EDM2Dataset(write_dataset({"a.png": rgb(), "b.png": rgb(size=5)}))


def test_opening_looks_at_few_images_and_reading_at_each(write_dataset):
    folder = write_dataset({f"{i:02}.png": rgb(i, size=5 if i == 1 else 4) for i in range(60)})
    dataset = EDM2Dataset(folder)
    assert dataset.images([2])[0, 0, 0, 0] == 2
    with pytest.raises(ValueError, match=r"'01.png' has shape 3x5x5"):
        dataset.images([0, 1])


@pytest.mark.robust("pixels")
def test_a_damaged_image_is_named(write_dataset):
    """It is an error when it is read, with its name."""
    folder = write_dataset({"a.png": rgb(), "b.png": rgb()})
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"'b.png' cannot be read"):
        EDM2Dataset(folder)


@pytest.mark.robust("pixels")
def test_damaged_latents_in_a_zip_are_named(golden, tmp_path):
    """numpy would read them: by the archive's checksum it is an error."""
    path = tmp_path / "latents.zip"
    data = bytearray(golden("edm2_dataset")["latents/zip_bytes"].tobytes())
    data[data.index(b"\x93NUMPY") + 200] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"00000002.npy' cannot be read .*checksum"):
        EDM2Dataset(path)


def test_compressed_members_read_the_same(golden, tmp_path):
    expected = golden("edm2_dataset")
    (tmp_path / "stored.zip").write_bytes(expected["rgb/zip_bytes"].tobytes())
    with (
        zipfile.ZipFile(tmp_path / "stored.zip") as stored,
        zipfile.ZipFile(tmp_path / "deflated.zip", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for name in stored.namelist():
            deflated.writestr(name, stored.read(name))
    dataset = EDM2Dataset(tmp_path / "deflated.zip")
    np.testing.assert_array_equal(dataset.images(range(6)), expected["rgb/images"])
    np.testing.assert_array_equal(dataset.labels, expected["rgb/raw_labels"])


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_folder_for_every_class(write_dataset, tmp_path, as_zip):
    path = write_dataset({"wolf/b.png": rgb(1), "ant/x/a.png": rgb(2), "ant/c.png": rgb(3)})
    if as_zip:
        path = shutil.make_archive(tmp_path / "classes", "zip", path)
    dataset = open_dataset(path)
    assert dataset.names == ["ant/c.png", "ant/x/a.png", "wolf/b.png"]
    assert (dataset.labels.tolist(), dataset.num_classes) == ([0, 0, 1], 2)
    assert dataset.images([0, 1, 2])[:, 0, 0, 0].tolist() == [3, 2, 1]


def test_a_class_folder_without_images_is_named(write_dataset):
    folder = write_dataset({"ant/a.png": rgb(), "wolf/b.png": rgb()})
    (folder / "bee").mkdir()
    (folder / "bee" / "notes.txt").write_text("none yet")
    with pytest.raises(ValueError, match=r"class folder 'bee' holds no image \(1 of 3 folders\)"):
        _ = EDM2Dataset(folder).labels


@pytest.mark.robust("classes")
def test_edm2s_own_folders_are_no_classes(write_dataset):
    """Folders of 1,000 images as EDM2 numbers them are no labels: an error."""
    names = ["00000/img00000000.png", "00001/img00001000.png"]
    with pytest.raises(ValueError, match=r"no dataset.json, so no labels"):
        _ = EDM2Dataset(write_dataset({name: rgb() for name in names})).labels


@pytest.mark.robust("arguments")
def test_paths_that_are_no_dataset_are_told_what_they_are(tmp_path):
    """One line says what is there, or what is near it."""
    (tmp_path / "img64.zip").write_text("not an archive")
    with pytest.raises(ValueError, match=r"img64.zip is not a zip archive, .*expected an EDM2"):
        EDM2Dataset(tmp_path / "img64.zip")
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("a.txt", "x" * 1000)
    (tmp_path / "cut.zip").write_bytes((tmp_path / "whole.zip").read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"cut.zip is not a zip archive, or was cut short"):
        EDM2Dataset(tmp_path / "cut.zip")
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*img46.zip; near it: img64.zip"):
        EDM2Dataset(tmp_path / "img46.zip")
    with pytest.raises(FileNotFoundError, match=r"no dataset at .*none$"):
        EDM2Dataset(tmp_path / "nowhere" / "none")
    with pytest.raises(ValueError, match="holds no images"):
        EDM2Dataset(tmp_path)
