"""Images in folders, zips and tars, under any names: what the tests of sources read."""

import io
import json
import tarfile
import zipfile

import PIL.Image

from mclr_fast.data.sources import Reading, Scratch, Source

PETS = ("cat/0.png", "cat/1.png", "dog/0.png")


def png(value=0, kind="PNG"):
    file = io.BytesIO()
    PIL.Image.new("RGB", (2, 2), (value, value, value)).save(file, kind)
    return file.getvalue()


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


def dataset_json(labels, **more):
    return json.dumps({"labels": labels} | more).encode()
