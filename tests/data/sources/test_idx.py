"""MNIST's idx files: which lie beside each other, what is in them, and what is wrong with damaged ones."""

import gzip
import json
import struct
import zipfile

import numpy as np
import PIL.Image
import pytest
from kept import opened, png, write_zip

from mclr_fast import prepare as door
from mclr_fast.data import open_dataset
from mclr_fast.data.crop import center_crop_dhariwal, pad_with_black

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5), np.uint8)
LABELS = np.array([2, 0, 1, 1, 0, 2], np.uint8)
IMAGES_NAME, LABELS_NAME = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array):
    """An array of bytes as an idx file."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_part(folder, part="train", pixels=PIXELS, labels=LABELS, gz=True, dot="-"):
    folder.mkdir(exist_ok=True)
    for what, array in ((f"images{dot}idx3", pixels), (f"labels{dot}idx1", labels)):
        data = idx(array)
        path = folder / f"{part}-{what}-ubyte{'.gz' if gz else ''}"
        path.write_bytes(gzip.compress(data) if gz else data)
    return folder


@pytest.fixture
def square(tmp_path):
    """Both parts, images of 4x4, packed."""
    write_part(tmp_path / "set", pixels=PIXELS[:, :, :4])
    return write_part(tmp_path / "set", "t10k", PIXELS[:2, :, :4], LABELS[:2])


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("dot", ["-", "."])
def test_images_and_labels_in_the_files_order(tmp_path, gz, dot):
    """Every pixel and label of both, packed or not, under MNIST's names and those of copies."""
    source = opened(write_part(tmp_path / "set", gz=gz, dot=dot))
    assert source.names == [f"img{i:08d}.pgm" for i in range(6)]
    assert source.classes.labels.tolist() == LABELS.tolist() and source.classes.names == ["0", "1", "2"]
    (tmp_path / "one.pgm").write_bytes(source.read(source.names[4]))
    with PIL.Image.open(tmp_path / "one.pgm") as image:
        assert image.mode == "L" and np.array_equal(np.asarray(image), PIXELS[4])


@pytest.mark.parametrize("gz", [True, False])
def test_a_single_file_beside_its_labels(tmp_path, gz):
    """The other part's files, the same ones packed, and other images around it do not count."""
    folder = write_part(tmp_path / "set", gz=gz)
    write_part(folder, gz=not gz, labels=LABELS[::-1])
    write_part(folder, "t10k", PIXELS[:2], LABELS[:2])
    (folder / "x.png").write_bytes(png())
    source = opened(folder / f"{IMAGES_NAME}{'.gz' if gz else ''}")
    assert len(source.names) == 6
    with pytest.raises(ValueError, match="holds labels alone: name the idx file of their images"):
        opened(folder / LABELS_NAME)


def test_a_packed_file_lies_beside_the_unpacked_one(tmp_path):
    """As torchvision leaves them: the unpacked is read, and that the other is not is said."""
    folder = write_part(write_part(tmp_path / "raw"), gz=False, labels=LABELS[::-1])
    source = opened(tmp_path)
    assert source.root == "raw/train/" and source.classes.labels.tolist() == LABELS[::-1].tolist()
    assert opened(folder).names == source.names


def test_in_a_zip(tmp_path):
    """Stored, as everything in an archive is read."""
    files = [(f"a/{IMAGES_NAME}", idx(PIXELS)), (f"a/{LABELS_NAME}.gz", gzip.compress(idx(LABELS)))]
    source = opened(write_zip(tmp_path / "a.zip", files))
    assert source.classes.labels.tolist() == LABELS.tolist()
    assert source.read(source.names[1]).endswith(PIXELS[1].tobytes())


def test_unpacked_files_are_a_data_set_as_they_are(tmp_path):
    """For training too; packed ones are not, and the line says what makes one of them."""
    dataset = open_dataset(write_part(tmp_path / "set", gz=False))
    assert np.array_equal(dataset.images([3, 0])[:, 0], PIXELS[[3, 0]]) and dataset.image_shape == (1, 4, 5)
    with pytest.raises(ValueError, match=r"is compressed as a whole.*mclr_fast.prepare makes"):
        open_dataset(write_part(tmp_path / "packed"))


def test_which_of_two_parts_is_asked(square):
    """Both readings are shown, and either can be had."""
    with pytest.raises(
        ValueError, match=r"several data sets, t10k, train\. .*--within t10k or --within train"
    ):
        _ = opened(square).classes
    assert len(opened(square, within="train").names) == 6
    assert opened(square, within="t10k").classes.labels.tolist() == [2, 0]


def change(folder, name, data):
    (folder / name).write_bytes(data)


FAULTS = {
    "cut short": (
        lambda folder: change(folder, IMAGES_NAME, idx(PIXELS)[:-1]),
        r"'train-images-idx3-ubyte' was cut short: 6x4x5 bytes and a header of 16 are 136",
    ),
    "cut in its header": (
        lambda folder: change(folder, IMAGES_NAME, idx(PIXELS)[:10]),
        r"'train-images-idx3-ubyte' was cut short",
    ),
    "longer": (
        lambda folder: change(folder, LABELS_NAME, idx(LABELS) + b"\0"),
        r"'train-labels-idx1-ubyte' is longer than it says: 6 bytes and a header of 8 are 14",
    ),
    "packed and cut short": (
        lambda folder: change(folder, IMAGES_NAME, gzip.compress(idx(PIXELS))[:-20]),
        r"'train-images-idx3-ubyte' was cut short, or is damaged",
    ),
    "labels for images": (
        lambda folder: change(folder, IMAGES_NAME, idx(LABELS)),
        r"begins with 00000801, and idx images begin with 00000803, but is an idx file of labels$",
    ),
    "a page": (
        lambda folder: change(folder, LABELS_NAME, b"<!doctype html><p>404"),
        r"begins with 3c21646f, and idx labels begin with 00000801, but is a page of HTML",
    ),
    "empty": (lambda folder: change(folder, LABELS_NAME, b""), r"begins with nothing, .* but is empty$"),
    "other numbers": (
        lambda folder: change(folder, LABELS_NAME, idx(LABELS[:5])),
        r"'train-images-idx3-ubyte' holds 6 images, and the labels beside it are 5$",
    ),
    "no images": (
        lambda folder: write_part(folder, pixels=PIXELS[:0], labels=LABELS[:0], gz=False),
        r"holds no pixels: 0 images of 4x5$",
    ),
    "no labels": (
        lambda folder: (folder / LABELS_NAME).unlink(),
        r"'train-images-idx3-ubyte' holds images, and the idx file of their labels is not beside it$",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.robust("archives")
def test_damaged_files_are_one_line(tmp_path, fault):
    """MNIST's idx files cut short, longer, swapped, of other numbers, without labels: refused in one line."""
    damage, line = FAULTS[fault]
    folder = write_part(tmp_path / "set", gz=False)
    damage(folder)
    with pytest.raises(ValueError, match=line):
        opened(folder)


def test_an_idx_file_under_another_name_is_called_what_it_is(tmp_path):
    (tmp_path / "digits.bin").write_bytes(idx(PIXELS))
    with pytest.raises(ValueError, match=r"it is an idx file of images .known by a name that ends in"):
        opened(tmp_path / "digits.bin")


def test_the_door_pads_keeps_grey_and_names_classes(square, tmp_path, capsys):
    """Sharp pixels in the middle of black, one channel, the names given; the same command finds it made."""
    out = tmp_path / "out.zip"
    command = [str(square), str(out), "--resolution", "8", "--pad", "--grey", "--within", "train"]
    named = [*command, "--class-names", "a, b,c d", "--verify"]
    assert door.main(named) == 0, capsys.readouterr().err
    dataset = open_dataset(out)
    assert dataset.image_shape == (1, 8, 8) and dataset.class_names == ["a", "b", "c d"]
    expected = np.pad(PIXELS[:, :, :4], ((0, 0), (2, 2), (2, 2)))
    assert np.array_equal(dataset.images(range(6))[:, 0], expected)
    assert dataset.labels.tolist() == LABELS.tolist()
    assert "0 a (2), 1 b (2), 2 c d (2)" in capsys.readouterr().out
    with zipfile.ZipFile(out) as archive:
        made = json.loads(archive.read("dataset.json"))["prepared"]
    assert made["pad"] and made["grey"]
    assert door.main(named) == 0 and "is there; remove it" in capsys.readouterr().out
    assert door.main(command) == 1 and "class_names 'a, b,c d', not None" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--class-names", "a,b"], "--class-names names 2 classes, and {set} has labels 0 to 2: 3 names"),
        (["--class-names", "a,,c"], "--class-names names 2 classes"),
        (["--resolution", "3", "--pad"], "it is 4x4, and --pad makes images of 3 pixels of smaller ones"),
        (["--grey", "--latents", "vae"], "--grey: --latents and --tokens encode three channels"),
    ],
)
def test_what_does_not_fit_is_refused(square, tmp_path, capsys, options, line):
    command = [str(square), str(tmp_path / "out.zip"), "--within", "train", *options]
    assert door.main(command) == 1
    *_, last = capsys.readouterr().err.splitlines()  # after a bar of progress, perhaps
    assert last.startswith("error: ") and line.format(set=square) in last
    assert not (tmp_path / "out.zip").exists()


def test_a_label_far_from_the_others_is_asked_about(tmp_path, capsys):
    """Any byte can be a label: classes without images are said, and --class-names refuses them."""
    labels = LABELS.copy()
    labels[3] = 200
    folder = write_part(tmp_path / "set", pixels=PIXELS[:, :, :4], labels=labels)
    command = [str(folder), str(tmp_path / "out.zip"), "--resolution", "4"]
    assert door.main([*command, "--class-names", "a,b,c"]) == 1
    assert "names 3 classes, and" in capsys.readouterr().err
    assert door.main(command) == 0
    said = "note: no image is of class 3, 4, 5 and 194 more; is the largest label, 200, meant?"
    assert said in capsys.readouterr().out


def test_without_padding_images_are_resized():
    """As any others: padding is asked for."""
    image = PIL.Image.fromarray(PIXELS[0, :, :4])
    assert not np.array_equal(center_crop_dhariwal(image, 6), pad_with_black(image, 6))
    assert np.array_equal(np.asarray(pad_with_black(image, 7))[1:5, 1:5], PIXELS[0, :, :4])
