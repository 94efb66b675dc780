"""Which folders are classes: a parent is none, parts are refused, what is left out is said."""

import pytest
from kept import AS_PETS, PETS, classes, opened, pets, png, write_tar, write_zip


@pytest.mark.parametrize(
    "prefix", ["./", "pets/", "./pets/", "data/pets/", "/a/pets/", "C:\\pets\\", "../pets//"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.robust("archives")
def test_what_stands_before_all_names_is_no_class(tmp_path, prefix, kind):
    """It is left out of the names, and a note says what holds everything."""
    files = pets(prefix)
    path = write_zip(tmp_path / "set", files.items()) if kind == "zip" else write_tar(tmp_path / "set", files)
    source = opened(path)
    assert classes(source) == AS_PETS
    assert [bytes(source.read(name)) for name in source.names] == [png(i) for i in range(3)]
    assert [note for note in source.notes if "holds everything" in note] == source.notes
    assert len(source.notes) == (prefix != "./")


@pytest.mark.robust("classes")
def test_a_single_folder_is_a_class_where_that_is_said(make):
    """It is none unless --class-level 1 says so, which the note names."""
    path = make(pets("pets/"))
    assert opened(path).notes == [
        "pets/ holds everything, so it is no class (python -m mclr_fast.prepare --class-level 1 takes it for "
        "a class)"
    ]
    one = opened(path, class_level=1)
    assert classes(one) == {"pets": [f"pets/{name}" for name in PETS]}
    assert "one class alone, pets" in one.classes.notes[-1]


@pytest.mark.robust("classes")
def test_a_single_class_folder_stays_one(make):
    """It is one class, and a note says that contrasting takes two."""
    source = opened(make({"cat/0.png": png(), "cat/1.png": png()}))
    assert classes(source) == {"cat": ["cat/0.png", "cat/1.png"]}
    assert "contrasting classes takes two" in source.classes.notes[0]


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
@pytest.mark.robust("classes")
def test_nested_splits_show_both_readings_and_the_option_for_each(make, tops, below):
    """One line of error shows both readings, and the option for each: --within, --class-level."""
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


@pytest.mark.robust("classes")
def test_splits_in_a_single_folder(make):
    """The options that the error names count from the outermost folder, and from --within."""
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
@pytest.mark.robust("classes")
def test_parts_that_hold_no_folders_are_no_classes_either(make, names):
    """The same error, also where no classes lie in them."""
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
@pytest.mark.robust("classes")
def test_folders_that_only_look_a_little_like_parts_are_classes(make, names):
    """They are read as classes, without an error."""
    assert list(classes(opened(make(pets("", names))))) == sorted({name.split("/")[0] for name in names})


@pytest.mark.robust("classes")
def test_folders_in_every_class_are_told_of(make):
    """The outermost folders are the classes, and a note names the option that takes those in them."""
    source = opened(make(pets("", ["bird/owl/0.png", "bird/jay/0.png", "fish/cod/0.png", "fish/eel/0.png"])))
    assert list(classes(source)) == ["bird", "fish"]
    assert (
        "each holds folders (bird: jay, owl): python -m mclr_fast.prepare --class-level 2"
        in source.classes.notes[0]
    )


@pytest.mark.robust("classes")
def test_a_part_beside_a_folder_without_images(make):
    """An error names the folder without images, and --within for the classes of the part."""
    path = make(pets("train/") | {"annotations/a.xml": b""})
    with pytest.raises(
        ValueError, match=r"'annotations' holds no image .*for the folders in train: .*--within train"
    ):
        _ = opened(path).classes
    assert classes(opened(path, within="train/")) == AS_PETS
    with pytest.raises(ValueError, match=r"holds no folder 'trian'; it holds annotations, train"):
        opened(path, within="trian")


@pytest.mark.robust("classes")
def test_an_empty_class_folder_is_named(make):
    """It is an error: classes are numbered by their folders."""
    with pytest.raises(ValueError, match=r"class folder 'bee' holds no image \(1 of 3 folders\)"):
        _ = opened(make(pets(), folders=["bee", "cat"])).classes


@pytest.mark.robust("classes")
def test_images_beside_class_folders(make):
    """An error names the image that lies in no folder."""
    with pytest.raises(ValueError, match=r"no labels \(preview.png lie in no folder\)"):
        _ = opened(make(pets() | {"preview.png": png()})).classes


@pytest.mark.robust("classes")
def test_images_above_the_level_of_classes(make):
    """An error names the first, and how many there are."""
    with pytest.raises(ValueError, match=r"'cat/0.png' lies above --class-level 2 \(3 of 4 images do\)"):
        _ = opened(make(pets() | {"a/b/0.png": png()}), class_level=2).classes
