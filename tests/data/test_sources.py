"""What is an image and what is a class, in folders, zips and tars alike: nothing shifts silently."""

import io
import json
import os
import shutil
import stat
import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest

from mclr_fast.data import open_dataset
from mclr_fast.data.sources import Reading, Scratch, Source

PETS = ("cat/0.png", "cat/1.png", "dog/0.png")


def png(value=0, kind="PNG"):
    file = io.BytesIO()
    PIL.Image.new("RGB", (2, 2), (value, value, value)).save(file, kind)
    return file.getvalue()


@pytest.fixture(params=["folder", "zip", "tar", "tgz"])
def make(request, tmp_path):
    """Writes {name: bytes} as a folder, a zip or a tar, under the names as they are -> Source's arguments."""

    def write(files, folders=()):
        path = tmp_path / f"set.{request.param}"
        if request.param == "folder":
            for name in folders:
                (path / name).mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
        elif request.param == "zip":
            write_zip(path, files.items(), folders)
        else:
            write_tar(path, files, folders, "w:gz" if request.param == "tgz" else "w")
        return path

    return write


def write_zip(path, files, folders=()):
    with zipfile.ZipFile(path, "w") as archive:
        for name in folders:
            archive.writestr(f"{name}/", b"")
        for name, data in files:
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: ZipInfo would change separators
            archive.writestr(info, data)
    return path


def write_tar(path, files, folders=(), mode="w"):
    with tarfile.open(path, mode) as archive:
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def pets(prefix="", names=PETS):
    return {f"{prefix}{name}": png(i) for i, name in enumerate(names)}


def opened(path, **reading):
    return Source(path, Reading(**reading), Scratch())


def classes(source):
    """Which images are of which class, by its name."""
    found = source.classes
    return {
        name: [n for n, label in zip(source.names, found.labels, strict=True) if label == i]
        for i, name in enumerate(found.names)
    }


AS_PETS = {"cat": ["cat/0.png", "cat/1.png"], "dog": ["dog/0.png"]}


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints/a-checkpoint.png",
        "@eaDir/a.png",
        "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/cat/._0.png",
        "cat/._0.png",
        ".git/objects/a.png",
        "#recycle/old/a.png",
        "$RECYCLE.BIN/a.png",
        "System Volume Information/a.png",
        "lost+found/a.png",
        "dog/.thumbnails/0.png",
        "__pycache__/a.png",
    ],
)  # fmt: skip
def test_hidden_and_foreign_folders_are_no_classes_and_that_is_said(make, name):
    source = opened(make(pets() | {name: png(9), "cat/Thumbs.db": b"x", ".DS_Store": b"x"}))
    assert classes(source) == AS_PETS
    (note,) = source.notes
    assert note.startswith("left aside, hidden or another program's: ")
    assert ".DS_Store" in note and "cat/Thumbs.db" in note


@pytest.mark.parametrize("name", ["cat/notes.pdf", "dog/x.h5", "cat/a.eps", "dog/movie.mpg", "readings.csv"])
def test_what_pil_may_open_but_is_no_picture_is_left_aside(make, name):
    source = opened(make(pets() | {name: b"%PDF"}))
    assert classes(source) == AS_PETS
    assert source.notes == [f"left aside, no images by their suffix: {name}"]


def test_readme_and_license_need_no_word(make):
    assert opened(make(pets() | {"README.md": b"", "LICENSE": b""})).notes == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_images_without_a_suffix_are_named(make, kind):
    source = opened(make(pets() | {"dog/1": png(3, kind)}))
    assert classes(source) == AS_PETS
    assert "dog/1" in source.notes[0] and "by content: name it so" in source.notes[0]
    with pytest.raises(ValueError, match=r"class folder 'owl' holds no image .1 of 3 folders., but owl/1;"):
        _ = opened(make(pets() | {"owl/1": png(3, kind)})).classes


@pytest.mark.parametrize("suffix", [".PNG", ".JPeG", ".jfif", ".tif", ".webp", ".bmp", ".pgm", ".jp2"])
def test_formats_of_pictures_are_images(make, suffix):
    assert opened(make({f"a/0{suffix}": b"", "b/0.png": b""})).names == [f"a/0{suffix}", "b/0.png"]


@pytest.mark.parametrize(
    "prefix", ["./", "pets/", "./pets/", "data/pets/", "/a/pets/", "C:\\pets\\", "../pets//"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_what_stands_before_all_names_is_no_class(tmp_path, prefix, kind):
    files = pets(prefix)
    path = write_zip(tmp_path / "set", files.items()) if kind == "zip" else write_tar(tmp_path / "set", files)
    source = opened(path)
    assert classes(source) == AS_PETS
    assert [bytes(source.read(name)) for name in source.names] == [png(i) for i in range(3)]
    assert [note for note in source.notes if "holds everything" in note] == source.notes
    assert len(source.notes) == (prefix != "./")


def test_a_single_folder_is_a_class_where_that_is_said(make):
    path = make(pets("pets/"))
    assert opened(path).notes == [
        "pets/ holds everything, so it is no class (python -m mclr_fast.prepare --class-level 1 takes it for "
        "a class)"
    ]
    one = opened(path, class_level=1)
    assert classes(one) == {"pets": [f"pets/{name}" for name in PETS]}
    assert "one class alone, pets" in one.classes.notes[-1]


def test_a_single_class_folder_stays_one(make):
    source = opened(make({"cat/0.png": png(), "cat/1.png": png()}))
    assert classes(source) == {"cat": ["cat/0.png", "cat/1.png"]}
    assert "contrasting classes takes two" in source.classes.notes[0]


@pytest.mark.parametrize("separator", ["\\", "\\\\"])
def test_windows_separators(tmp_path, separator):
    files = {name.replace("/", separator): data for name, data in pets("pets/").items()}
    for path in (write_zip(tmp_path / "a", files.items()), write_tar(tmp_path / "b", files)):
        assert classes(opened(path)) == AS_PETS
    (tmp_path / "c").mkdir()
    for name, data in files.items():  # unpacked by a program that did not know them
        (tmp_path / "c" / name).write_bytes(data)
    source = opened(tmp_path / "c")
    assert classes(source) == AS_PETS and source.read("dog/0.png") == png(2)


@pytest.mark.parametrize(
    ("tops", "below"),
    [
        (("train", "val"), ("cat", "dog")),
        (("Training", "Test"), ("a", "b", "c")),
        (("fold1", "fold2", "fold3"), ("cat", "dog")),
        (("amazon", "webcam"), ("bike", "mug")),
        (("ILSVRC_img_train", "ILSVRC_img_val"), ("n01", "n02")),
    ],
)
def test_nested_splits_show_both_readings_and_the_option_for_each(make, tops, below):
    names = [f"{top}/{inner}/{i}.png" for top in tops for inner in below for i in range(2)]
    path = make(pets("", names))
    with pytest.raises(ValueError, match="can be parts of one data set, or its classes") as caught:
        _ = opened(path).classes
    first, last = next((top for top in tops if "rain" in top), tops[0]), sorted(tops)[-1]
    for words in (
        f"one part alone: --within {first}",
        "together: --class-level 2",
        "--class-level 1",
        below[-1],
    ):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(classes(opened(path, within=last))) == list(below)
    assert opened(path, within=last).names == [f"{inner}/{i}.png" for inner in below for i in range(2)]
    together = classes(opened(path, class_level=2))
    assert list(together) == list(below) and {len(images) for images in together.values()} == {2 * len(tops)}
    assert list(classes(opened(path, class_level=1))) == sorted(tops)


def test_splits_in_a_single_folder(make):
    path = make(pets("d/train/") | pets("d/val/"))
    with pytest.raises(ValueError, match=r"--within d/train; .* --class-level 3; .* --class-level 2$"):
        _ = opened(path).classes
    assert classes(opened(path, within="d/val")) == AS_PETS
    assert sorted(classes(opened(path, class_level=3))) == ["cat", "dog"]
    assert sorted(classes(opened(path, within="d", class_level=1))) == ["train", "val"]
    with pytest.raises(ValueError, match=r"--class-level 2; .* --class-level 1"):
        _ = opened(path, within="d").classes


@pytest.mark.parametrize(
    "names",
    [
        ("train/0.png", "val/0.png"),  # no classes in either
        ("train/cat/0.png", "train/dog/0.png", "test/0.png"),
        ("train/cat/0.png", "train/dog/0.png", "unlabeled/0.png"),
    ],
)
def test_parts_that_hold_no_folders_are_no_classes_either(make, names):
    with pytest.raises(ValueError, match=r"can be parts of one data set.*--within .*--class-level 1"):
        _ = opened(make(pets("", names))).classes


@pytest.mark.parametrize(
    "names",
    [
        ("ant/x/a.png", "ant/c.png", "wolf/b.png"),
        ("n01/images/0.png", "n02/images/0.png"),
        ("test_positive/0.png", "test_negative/0.png"),
        ("train/0.png", "plane/0.png", "car/0.png"),
    ],
)
def test_folders_that_only_look_a_little_like_parts_are_classes(make, names):
    assert list(classes(opened(make(pets("", names))))) == sorted({name.split("/")[0] for name in names})


def test_folders_in_every_class_are_told_of(make):
    source = opened(make(pets("", ["bird/owl/0.png", "bird/jay/0.png", "fish/cod/0.png", "fish/eel/0.png"])))
    assert list(classes(source)) == ["bird", "fish"]
    assert (
        "each holds folders (bird: jay, owl): python -m mclr_fast.prepare --class-level 2"
        in source.classes.notes[0]
    )


def test_a_part_beside_a_folder_without_images(make):
    path = make(pets("train/") | {"annotations/a.xml": b""})
    with pytest.raises(
        ValueError, match=r"'annotations' holds no image .*for the folders in train: .*--within train"
    ):
        _ = opened(path).classes
    assert classes(opened(path, within="train/")) == AS_PETS
    with pytest.raises(ValueError, match=r"holds no folder 'trian'; it holds annotations, train"):
        opened(path, within="trian")


def test_an_empty_class_folder_is_named(make):
    with pytest.raises(ValueError, match=r"class folder 'bee' holds no image \(1 of 3 folders\)"):
        _ = opened(make(pets(), folders=["bee", "cat"])).classes


def test_images_beside_class_folders(make):
    with pytest.raises(ValueError, match=r"no labels \(preview.png lie in no folder\)"):
        _ = opened(make(pets() | {"preview.png": png()})).classes


def test_images_above_the_level_of_classes(make):
    with pytest.raises(ValueError, match=r"'cat/0.png' lies above --class-level 2 \(3 of 4 images do\)"):
        _ = opened(make(pets() | {"a/b/0.png": png()}), class_level=2).classes


def dataset_json(labels, **more):
    return json.dumps({"labels": labels} | more).encode()


@pytest.mark.parametrize("inside", ["", "img64/"])
def test_a_dataset_json_in_the_folder_that_holds_everything(make, inside):
    names = ["00000/img00000000.png", "00000/img00000001.png"]
    labels = dataset_json([[f"{inside}{name}", 5 + i] for i, name in enumerate(names)])
    source = opened(make(pets("img64/", names) | {"img64/dataset.json": labels, "__MACOSX/._a": b""}))
    assert source.names == names and source.classes.labels.tolist() == [5, 6]


def test_a_dataset_json_of_some_images_alone_is_not_passed_over(make):
    path = make(
        pets("a/", ["0.png"]) | pets("b/", ["0.png"]) | {"a/dataset.json": dataset_json([["0.png", 3]])}
    )
    with pytest.raises(ValueError, match=r"dataset.json in 'a', not at its top.*--within a"):
        _ = opened(path).classes
    assert opened(path, within="a").classes.labels.tolist() == [3]


def test_folders_may_be_the_classes_in_spite_of_a_dataset_json(make):
    path = make(pets() | {"dataset.json": b'{"name": "pets"}'})
    with pytest.raises(ValueError, match=r"dataset.json is malformed"):
        _ = opened(path).classes
    assert classes(opened(path, class_level=1)) == AS_PETS


def test_names_in_dataset_json_however_written(make):
    labels = dataset_json([["./cat\\0.png", 4], ["cat/1.png", 1], ["/dog/0.png", 0]])
    assert opened(make(pets() | {"dataset.json": labels})).classes.labels.tolist() == [4, 1, 0]


@pytest.mark.parametrize(
    "labels",
    [
        [["cat/0.png", 0], ["cat/1.png", 0], ["dog/0.png", 1], ["cat/0.png", 1]],
        [["cat/0.png", 0], ["cat/1.png", 0], ["dog/0.png", 1], ["./cat/0.png", 0]],
    ],
)
def test_a_name_twice_in_dataset_json(make, labels):
    with pytest.raises(ValueError, match=r"dataset.json labels 'cat/0.png' twice \(1 of 3 images\)"):
        _ = opened(make(pets() | {"dataset.json": dataset_json(labels)})).classes


def test_a_key_twice_in_dataset_json(make):
    text = b'{"labels": {"cat/0.png": 0, "cat/1.png": 0, "dog/0.png": 1, "cat/0.png": 1}}'
    with pytest.raises(ValueError, match=r"labels 'cat/0.png' twice"):
        _ = opened(make(pets() | {"dataset.json": text})).classes


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["cat/0.png", "./cat/0.png", "cat\\0.png", "dataset.json"])
def test_a_name_twice_in_a_zip(tmp_path, second):
    labels = dataset_json([["cat/0.png", 0], ["cat/1.png", 0], ["dog/0.png", 1]])
    files = [
        *pets().items(),
        ("dataset.json", labels),
        (second, png(8) if second != "dataset.json" else labels),
    ]
    with pytest.raises(ValueError, match=r"holds '(cat/0.png|dataset.json)' twice"):
        _ = opened(write_zip(tmp_path / "a.zip", files)).classes


def test_a_later_member_of_a_tar_replaces_the_earlier(tmp_path):
    with tarfile.open(write_tar(tmp_path / "a.tar", pets()), "a") as archive:
        info = tarfile.TarInfo("./cat/0.png")
        info.size = len(png(9))
        archive.addfile(info, io.BytesIO(png(9)))
    source = opened(tmp_path / "a.tar")
    assert classes(source) == AS_PETS and bytes(source.read("cat/0.png")) == png(9)
    assert source.notes == ["there twice, of which the last counts, as in any tar: cat/0.png"]


@pytest.mark.parametrize(
    ("label", "message"),
    [(10**12, "0 to at most 999,999"), (10**30, "at most"), (1_000_000, "at most"), (-1, "indices from 0$")],
)
def test_labels_that_are_no_class_indices(make, label, message):
    labels = dataset_json([["cat/0.png", 0], ["cat/1.png", label], ["dog/0.png", 1]])
    with pytest.raises(ValueError, match=f"label of 'cat/1.png' is {label}; .*{message}"):
        _ = opened(make(pets() | {"dataset.json": labels})).classes


def test_a_labelled_file_that_is_no_image(make):
    labels = dataset_json([["cat/0.png", 0], ["cat/1.png", 0], ["dog/0.png", 1], ["dog/1.dat", 1]])
    with pytest.raises(ValueError, match=r"labels 'dog/1.dat', which by its suffix is no image"):
        _ = opened(make(pets() | {"dataset.json": labels, "dog/1.dat": b"x"})).classes


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["cat", None, "dog"], ["cat", "1", "dog"]),
        ({"0": "cat", "2": "dog"}, ["cat", "1", "dog"]),
        (["cat"], ["cat", "1", "2"]),
        (None, ["0", "1", "2"]),
        ("nonsense", ["0", "1", "2"]),
    ],
)
def test_names_of_classes_in_dataset_json(make, said, expected):
    labels = [["cat/0.png", 0], ["cat/1.png", 0], ["dog/0.png", 2]]
    assert (
        opened(make(pets() | {"dataset.json": dataset_json(labels, class_names=said)})).classes.names
        == expected
    )


@pytest.mark.parametrize(
    ("folders", "order", "hint"),
    [
        (["1", "2", "10"], ["1", "10", "2"], "10 is class 1 and 2 is 2"),
        (["class2", "class10"], ["class10", "class2"], "class10 is class 0 and class2 is 1"),
        (["0", "1", "9", "11"], ["0", "1", "11", "9"], "11 is class 2 and 9 is 3"),
        (["01", "02", "10"], ["01", "02", "10"], None),
        (["n02", "n10"], ["n02", "n10"], None),
    ],
)
def test_numbered_folders_sort_as_strings_with_a_hint(make, folders, order, hint):
    found = opened(make(pets("", [f"{folder}/0.png" for folder in folders]))).classes
    assert found.names == order and found.labels.tolist() == list(range(len(order)))
    assert (len(found.notes) == 0) if hint is None else (hint in found.notes[0])


def test_classes_that_are_called_alike_are_told_of(make):
    found = opened(make(pets("", ["Cat/0.png", "cat/0.png", "caf\u00e9/0.png", "cafe\u0301/0.png"]))).classes
    assert len(found.names) == 4 and len(found.notes) == 2
    assert "'Cat' and 'cat' are different classes" in found.notes


def test_links_to_class_folders_and_images_are_followed(tmp_path):
    for name, data in pets("elsewhere/").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    for i in range(2):
        (tmp_path / "set" / "cat" / f"{i}.png").symlink_to(tmp_path / "elsewhere" / "cat" / f"{i}.png")
    assert classes(opened(tmp_path / "set")) == AS_PETS
    (tmp_path / "whole").symlink_to("set")
    dataset = open_dataset(tmp_path / "whole")
    assert dataset.class_names == ["cat", "dog"] and dataset.images([2])[0, 0, 0, 0] == 2


@pytest.mark.parametrize("name", ["again", "cat/again", "cat/deep/again"])
def test_links_that_lead_back_end(tmp_path, name):
    for image, data in pets("set/").items():
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).write_bytes(data)
    (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "set" / name).symlink_to(tmp_path / "set")
    source = opened(tmp_path / "set")
    assert classes(source) == AS_PETS
    assert source.notes == [f"links not followed, since they lead back: {name}"]


def test_a_folder_twice_by_a_link_is_refused(tmp_path):
    for image, data in pets("set/").items():
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).write_bytes(data)
    (tmp_path / "set" / "kitten").symlink_to("cat")
    with pytest.raises(ValueError, match="'kitten' and 'cat' are the same folder"):
        _ = opened(tmp_path / "set").classes
    (tmp_path / "set" / "kitten").unlink()
    (tmp_path / "set" / "kitten").symlink_to("gone")
    with pytest.raises(ValueError, match="'kitten' is a link to 'gone', which is not there"):
        _ = opened(tmp_path / "set").classes


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_links_in_archives_are_followed(tmp_path, kind):
    """A link to a file, to a folder, to a link, to what is hidden, to nothing; in a tar a hard link."""
    links = {
        "cat/1.png": "0.png",
        "dog": "store/hounds",
        "owl/0.png": "../cat/1.png",
        "owl/1.png": "../.annex/x",
    }
    files = {"set/cat/0.png": png(1), "set/store/hounds/0.png": png(2), "set/.annex/x": png(3)}
    path = tmp_path / "set"
    if kind == "zip":
        with zipfile.ZipFile(write_zip(path, files.items()), "a") as archive:
            for name, target in links.items():
                info = zipfile.ZipInfo(f"set/{name}")
                info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, target)
    else:
        with tarfile.open(path, "w") as archive:
            for name, target in links.items():  # before what they lead to
                info = tarfile.TarInfo(f"./set/{name}")
                info.type, info.linkname = tarfile.SYMTYPE, target
                archive.addfile(info)
            hard = tarfile.TarInfo("./set/owl/2.png")
            hard.type, hard.linkname = tarfile.LNKTYPE, "./set/cat/0.png"
            archive.addfile(hard)
            for name, data in files.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    with pytest.raises(ValueError, match="'set/dog' and 'set/store/hounds' are the same folder"):
        _ = opened(path).classes
    source = opened(path, within="set")
    values = {
        name: np.asarray(PIL.Image.open(io.BytesIO(source.read(name))))[0, 0, 0] for name in source.names
    }
    assert values == {
        **{"cat/0.png": 1, "cat/1.png": 1, "dog/0.png": 2, "store/hounds/0.png": 2},
        **{"owl/0.png": 1, "owl/1.png": 3},
        **({"owl/2.png": 1} if kind == "tar" else {}),
    }


def test_links_in_archives_that_lead_nowhere(tmp_path):
    with tarfile.open(write_tar(tmp_path / "a.tar", pets()), "a") as archive:
        for name, target in (("cat/2.png", "gone.png"), ("cat/self.png", "self.png"), ("dog/up", "../..")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    source = opened(tmp_path / "a.tar")
    assert source.names == ["cat/0.png", "cat/1.png", "cat/2.png", "cat/self.png", "dog/0.png"]
    for name in ("cat/2.png", "cat/self.png"):  # as damaged images, which --skip-damaged leaves out
        with pytest.raises(ValueError, match=r"it is a link to .*which is not there"):
            source.read(name)
    with pytest.raises(ValueError, match=r"'dog/up' is a link to"):
        _ = source.classes


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip"])
@pytest.mark.parametrize("outer", ["folder", "zip", "tar"])
def test_an_archive_for_every_class(tmp_path, suffix, outer):
    mode = {".tar": "w", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}.get(suffix, "w:gz")
    (tmp_path / "set").mkdir()
    for name, files in (("cat", {"0.png": png(0), "1.png": png(1)}), ("dog", {"0.png": png(2)})):
        path = tmp_path / "set" / f"{name}{suffix}"
        write_zip(path, files.items()) if suffix == ".zip" else write_tar(path, files, mode=mode)
    path = tmp_path / "set"
    if outer != "folder":
        path = shutil.make_archive(path, outer, path)
    source = opened(tmp_path / os.path.basename(path))
    assert classes(source) == AS_PETS
    assert [np.asarray(PIL.Image.open(io.BytesIO(source.read(n))))[0, 0, 0] for n in source.names] == [
        0,
        1,
        2,
    ]


def test_archives_beside_images_are_not_passed_over(make):
    path = make(pets() | {"owl.tar": b"", "archive.zip": b""})
    with pytest.raises(
        ValueError, match=r"archives beside them: archive.zip, owl.tar; unpack those, or move"
    ):
        _ = opened(path).classes


def test_data_sets_beside_images_are_no_classes(make):
    """What `prepare` made of a folder may lie in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("dataset.json", b"{}")
    source = opened(make(pets() | {"pets64.zip": file.getvalue()}))
    assert classes(source) == AS_PETS
    assert source.notes == ["left aside, no images by their suffix: pets64.zip"]


def test_archives_are_known_by_content(tmp_path):
    for name, path in (
        ("a.zip", write_tar(tmp_path / "a.zip", pets())),
        ("b.tar", write_zip(tmp_path / "b.tar", pets().items())),
        ("c", write_tar(tmp_path / "c", pets("PK\u0003a/"), mode="w")),
        ("BZh.bin", write_tar(tmp_path / "d", pets("BZh/"), mode="w")),
    ):
        assert classes(opened(path)) == AS_PETS, name


def test_training_does_not_unpack(tmp_path):
    path = write_tar(tmp_path / "a.tgz", pets(), mode="w:gz")
    with pytest.raises(ValueError, match=r"compressed as a whole.*mclr_fast.prepare makes a data set of it"):
        open_dataset(path)
    assert open_dataset(write_tar(tmp_path / "a.tar", pets())).class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "page of HTML"),
        (b"<?xml version='1.0'?><Error>", "page of HTML or XML"),
        (b"7z\xbc\xaf\x27\x1c\0\0", "a 7z archive"),
        (b"PAR1....", "a Parquet file"),
        (b"", "empty"),
        (b"\0" * 2000, "nothing but zeros"),
        (b"\x28\xb5\x2f\xfd....", "a zstd file"),
    ],
)
def test_what_is_no_archive_is_told_what_it_is(tmp_path, contents, what):
    (tmp_path / "img64.zip").write_bytes(contents)
    with pytest.raises(ValueError, match=f"img64.zip is not a zip archive, nor a tar: it is .*{what}"):
        open_dataset(tmp_path / "img64.zip")


def test_tars_that_end_early_or_go_on(tmp_path):
    whole = write_tar(tmp_path / "a.tar", pets()).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    with pytest.raises(ValueError, match=r"cut.tar was cut short, or is damaged"):
        opened(tmp_path / "cut.tar")
    (tmp_path / "joined.tar").write_bytes(whole + whole)
    with pytest.raises(ValueError, match=r"after 3 members comes what is none.*several were joined"):
        opened(tmp_path / "joined.tar")
    damaged = bytearray(whole)
    damaged[1024 + 100] ^= 255  # in the second member's header
    (tmp_path / "damaged.tar").write_bytes(damaged)
    with pytest.raises(ValueError, match="after 1 members comes what is none"):
        opened(tmp_path / "damaged.tar")
    (tmp_path / "open.tar").write_bytes(whole[: 3 * 1024])
    assert "without a tar's end mark" in opened(tmp_path / "open.tar").notes[0]


def test_names_in_utf8_without_the_flag_that_says_so(tmp_path):
    """As macOS's Finder writes them."""
    path = write_zip(tmp_path / "a.zip", {"XXXX/0.png": png(), "b/0.png": png()}.items())
    path.write_bytes(path.read_bytes().replace(b"XXXX", "\u00e9\u00e9".encode()))
    assert opened(path).classes.names == ["b", "\u00e9\u00e9"]


def test_a_zip_cut_short_while_it_is_read_is_an_error(tmp_path):
    path = write_zip(tmp_path / "a.zip", pets().items())
    dataset = open_dataset(path)
    os.truncate(path, 100)
    with pytest.raises(
        ValueError, match=r"'dog/0.png' cannot be read \(the archive is damaged there, or was cut"
    ):
        dataset.images([2])


def test_folders_that_cannot_be_read_are_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "cat").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: .*cat"):
        opened(tmp_path)


def test_what_is_neither_file_nor_folder_is_left_aside(tmp_path):
    for name, data in pets().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "cat" / "2.png")
    source = opened(tmp_path)
    assert classes(source) == AS_PETS and source.notes == ["left aside, neither files nor folders: cat/2.png"]


def test_fingerprints_follow_contents(tmp_path):
    a = write_zip(tmp_path / "a.zip", pets().items())
    b = write_zip(tmp_path / "b.zip", pets().items())
    c = write_zip(tmp_path / "c.zip", (pets() | {"dog/0.png": png(9)}).items())
    assert opened(a).fingerprint == opened(b).fingerprint != opened(c).fingerprint
