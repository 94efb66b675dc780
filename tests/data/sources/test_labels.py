"""Classes of a dataset.json or of folders: their numbers, names and counts, and what is no label."""

import pytest
from kept import AS_PETS, classes, dataset_json, opened, pets


@pytest.mark.parametrize("inside", ["", "img64/"])
@pytest.mark.robust("archives")
def test_a_dataset_json_in_the_folder_that_holds_everything(make, inside):
    """It is read as if it were at the top, whether its names begin with that folder or not."""
    names = ["00000/img00000000.png", "00000/img00000001.png"]
    labels = dataset_json([[f"{inside}{name}", 5 + i] for i, name in enumerate(names)])
    source = opened(make(pets("img64/", names) | {"img64/dataset.json": labels, "__MACOSX/._a": b""}))
    assert source.names == names and source.classes.labels.tolist() == [5, 6]


@pytest.mark.robust("classes")
def test_a_dataset_json_of_some_images_alone_is_not_passed_over(make):
    """An error names it, and --within for its folder alone."""
    path = make(
        pets("a/", ["0.png"]) | pets("b/", ["0.png"]) | {"a/dataset.json": dataset_json([["0.png", 3]])}
    )
    with pytest.raises(ValueError, match=r"dataset.json in 'a', not at its top.*--within a"):
        _ = opened(path).classes
    assert opened(path, within="a").classes.labels.tolist() == [3]


@pytest.mark.robust("classes")
def test_folders_may_be_the_classes_in_spite_of_a_dataset_json(make):
    """One of another program is malformed, an error; with --class-level folders are the classes."""
    path = make(pets() | {"dataset.json": b'{"name": "pets"}'})
    with pytest.raises(ValueError, match=r"dataset.json is malformed"):
        _ = opened(path).classes
    assert classes(opened(path, class_level=1)) == AS_PETS


@pytest.mark.robust("classes")
def test_names_in_dataset_json_however_written(make):
    """./a, /a and backslashes name the same image."""
    labels = dataset_json([["./cat\\0.png", 4], ["cat/1.png", 1], ["/dog/0.png", 0]])
    assert opened(make(pets() | {"dataset.json": labels})).classes.labels.tolist() == [4, 1, 0]


@pytest.mark.parametrize(
    "labels",
    [
        [["cat/0.png", 0], ["cat/1.png", 0], ["dog/0.png", 1], ["cat/0.png", 1]],
        [["cat/0.png", 0], ["cat/1.png", 0], ["dog/0.png", 1], ["./cat/0.png", 0]],
    ],
)
@pytest.mark.robust("classes")
def test_a_name_twice_in_dataset_json(make, labels):
    """It is an error that names it, also where it is written in two ways."""
    with pytest.raises(ValueError, match=r"dataset.json labels 'cat/0.png' twice \(1 of 3 images\)"):
        _ = opened(make(pets() | {"dataset.json": dataset_json(labels)})).classes


@pytest.mark.robust("classes")
def test_a_key_twice_in_dataset_json(make):
    """It is the same error where labels are an object."""
    text = b'{"labels": {"cat/0.png": 0, "cat/1.png": 0, "dog/0.png": 1, "cat/0.png": 1}}'
    with pytest.raises(ValueError, match=r"labels 'cat/0.png' twice"):
        _ = opened(make(pets() | {"dataset.json": text})).classes


@pytest.mark.parametrize(
    ("label", "message"),
    [(10**12, "0 to at most 999,999"), (10**30, "at most"), (1_000_000, "at most"), (-1, "indices from 0$")],
)
@pytest.mark.robust("arguments")
def test_labels_that_are_no_class_indices(make, label, message):
    """An error names the image, its label and the largest index that can be."""
    labels = dataset_json([["cat/0.png", 0], ["cat/1.png", label], ["dog/0.png", 1]])
    with pytest.raises(ValueError, match=f"label of 'cat/1.png' is {label}; .*{message}"):
        _ = opened(make(pets() | {"dataset.json": labels})).classes


@pytest.mark.robust("classes")
def test_a_labelled_file_that_is_no_image(make):
    """An error names it and the suffixes that images have."""
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
@pytest.mark.robust("classes")
def test_numbered_folders_sort_as_strings_with_a_hint(make, folders, order, hint):
    """They are numbered by their names as strings, and a note shows where that is not how they count."""
    found = opened(make(pets("", [f"{folder}/0.png" for folder in folders]))).classes
    assert found.names == order and found.labels.tolist() == list(range(len(order)))
    assert (len(found.notes) == 0) if hint is None else (hint in found.notes[0])


@pytest.mark.robust("classes")
def test_classes_that_are_called_alike_are_told_of(make):
    """They are different classes, and a note names each pair."""
    found = opened(make(pets("", ["Cat/0.png", "cat/0.png", "caf\u00e9/0.png", "cafe\u0301/0.png"]))).classes
    assert len(found.names) == 4 and len(found.notes) == 2
    assert "'Cat' and 'cat' are different classes" in found.notes
