"""What is an image, in folders, zips and tars alike: nothing is taken for one, or left out, silently."""

import os

import pytest
from kept import AS_PETS, classes, opened, pets, png, write_tar, write_zip

from mclr_fast.data import open_dataset


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
@pytest.mark.robust("classes")
def test_hidden_and_foreign_folders_are_no_classes_and_that_is_said(make, name):
    """What is hidden or another program's is left aside, in folders, zips and tars, and a note names it."""
    source = opened(make(pets() | {name: png(9), "cat/Thumbs.db": b"x", ".DS_Store": b"x"}))
    assert classes(source) == AS_PETS
    (note,) = source.notes
    assert note.startswith("left aside, hidden or another program's: ")
    assert ".DS_Store" in note and "cat/Thumbs.db" in note


@pytest.mark.parametrize("name", ["cat/notes.pdf", "dog/x.h5", "cat/a.eps", "dog/movie.mpg", "readings.csv"])
@pytest.mark.robust("classes")
def test_what_pil_may_open_but_is_no_picture_is_left_aside(make, name):
    """By its suffix it is no image; a note names it."""
    source = opened(make(pets() | {name: b"%PDF"}))
    assert classes(source) == AS_PETS
    assert source.notes == [f"left aside, no images by their suffix: {name}"]


def test_readme_and_license_need_no_word(make):
    assert opened(make(pets() | {"README.md": b"", "LICENSE": b""})).notes == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.robust("classes")
def test_images_without_a_suffix_are_named(make, kind):
    """A note names those that are images by content; a class of nothing else is an error."""
    source = opened(make(pets() | {"dog/1": png(3, kind)}))
    assert classes(source) == AS_PETS
    assert "dog/1" in source.notes[0] and "by content: name it so" in source.notes[0]
    with pytest.raises(ValueError, match=r"class folder 'owl' holds no image .1 of 3 folders., but owl/1;"):
        _ = opened(make(pets() | {"owl/1": png(3, kind)})).classes


@pytest.mark.parametrize("suffix", [".PNG", ".JPeG", ".jfif", ".tif", ".webp", ".bmp", ".pgm", ".jp2"])
@pytest.mark.robust("classes")
def test_formats_of_pictures_are_images(make, suffix):
    """Their suffixes count in any case of letters."""
    assert opened(make({f"a/0{suffix}": b"", "b/0.png": b""})).names == [f"a/0{suffix}", "b/0.png"]


@pytest.mark.parametrize("separator", ["\\", "\\\\"])
@pytest.mark.robust("archives")
def test_windows_separators(tmp_path, separator):
    """Backslashes are separators, in archives and in the names of files that were unpacked with them."""
    files = {name.replace("/", separator): data for name, data in pets("pets/").items()}
    for path in (write_zip(tmp_path / "a", files.items()), write_tar(tmp_path / "b", files)):
        assert classes(opened(path)) == AS_PETS
    (tmp_path / "c").mkdir()
    for name, data in files.items():  # unpacked by a program that did not know them
        (tmp_path / "c" / name).write_bytes(data)
    source = opened(tmp_path / "c")
    assert classes(source) == AS_PETS and source.read("dog/0.png") == png(2)


@pytest.mark.robust("classes")
def test_links_to_class_folders_and_images_are_followed(tmp_path):
    """Symbolic links are followed: to images, to class folders, to the whole."""
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
@pytest.mark.robust("classes")
def test_links_that_lead_back_end(tmp_path, name):
    """A link to a folder that holds it is not followed, and a note says so."""
    for image, data in pets("set/").items():
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).write_bytes(data)
    (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "set" / name).symlink_to(tmp_path / "set")
    source = opened(tmp_path / "set")
    assert classes(source) == AS_PETS
    assert source.notes == [f"links not followed, since they lead back: {name}"]


@pytest.mark.robust("classes")
def test_a_folder_twice_by_a_link_is_refused(tmp_path):
    """Images that would count twice are an error that names both; so is a link to nothing."""
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


@pytest.mark.robust("file systems")
def test_folders_that_cannot_be_read_are_not_passed_over(tmp_path, monkeypatch):
    """The system's error is raised, with the folder's name."""
    (tmp_path / "cat").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: .*cat"):
        opened(tmp_path)


@pytest.mark.robust("classes")
def test_what_is_neither_file_nor_folder_is_left_aside(tmp_path):
    """A pipe or a socket is left aside, and a note names it."""
    for name, data in pets().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "cat" / "2.png")
    source = opened(tmp_path)
    assert classes(source) == AS_PETS and source.notes == ["left aside, neither files nor folders: cat/2.png"]


@pytest.mark.robust("identity")
def test_fingerprints_follow_contents(tmp_path):
    """Equal contents under another path have one fingerprint, other contents another."""
    a = write_zip(tmp_path / "a.zip", pets().items())
    b = write_zip(tmp_path / "b.zip", pets().items())
    c = write_zip(tmp_path / "c.zip", (pets() | {"dog/0.png": png(9)}).items())
    assert opened(a).fingerprint == opened(b).fingerprint != opened(c).fingerprint
