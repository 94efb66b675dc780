"""The classes of images on disk: dataset.json's, or the folders that they lie in."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .files import Files

MEND = 'expected {"labels": [["file name", class index], ...]}, or a folder for every class'
EDM2_NAME = re.compile(r"\d{5}/img[^/]*\d{8}\.\w+")  # its folders hold 1,000 images each, not a class


def read_labels(path: Path, files: Files, names: Sequence[str]) -> np.ndarray:
    """Class indices of these images, int64 [n].

    Errors    ValueError, one line: no labels, labels that do not fit the images, a class without images.
    """
    if "dataset.json" in files.names:
        return _from_json(path, files, names)
    if any("/" not in name for name in names) or all(EDM2_NAME.fullmatch(name) for name in names):
        raise ValueError(f"{path} has no dataset.json, so no labels; {MEND}")
    return _from_folders(path, files, names)


def _from_folders(path: Path, files: Files, names: Sequence[str]) -> np.ndarray:
    folders = [name.split("/", 1)[0] for name in names]
    classes = {folder: i for i, folder in enumerate(sorted(set(folders)))}
    empty = sorted(files.folders - classes.keys())
    if empty:
        raise ValueError(
            f"{path}: the class folder {empty[0]!r} holds no image ({len(empty)} of {len(files.folders)} "
            "folders); fill or remove it: the classes are numbered by their folders"
        )
    return np.array([classes[folder] for folder in folders], dtype=np.int64)


def _from_json(path: Path, files: Files, names: Sequence[str]) -> np.ndarray:
    try:
        labels = json.loads(bytes(files.read("dataset.json")))["labels"]
        labels = None if labels is None else dict(labels)
    except Exception as error:  # damaged, or of another structure
        raise ValueError(f"{path}: dataset.json is malformed ({error!r}); {MEND}") from error
    if labels is None:
        raise ValueError(f'{path}: dataset.json says "labels": null; {MEND}')
    unlabelled = [name for name in names if name not in labels]
    if unlabelled:
        raise ValueError(
            f"{path}: dataset.json has no label for {unlabelled[0]!r} "
            f"({len(unlabelled)} of {len(names)} images lack one); names must match exactly"
        )
    missing = sorted(labels.keys() - set(names))
    if missing:
        raise ValueError(
            f"{path}: dataset.json labels {missing[0]!r}, which is not there ({len(missing)} of "
            f"{len(labels)} images are missing); bring them back, or take them out of it"
        )
    for name in names:
        if type(labels[name]) is not int or labels[name] < 0:
            raise ValueError(
                f"{path}: the label of {name!r} is {labels[name]!r}; "
                "labels must be integer class indices from 0"
            )
    return np.array([labels[name] for name in names], dtype=np.int64)
