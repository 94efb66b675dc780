"""What the images of a source are, in a few digests: others are told from them, copies known as the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .stored import Stored

MOST_READ = 1 << 26  # bytes of the images that are read
MOST_IMAGES, LEAST_IMAGES = 1024, 16  # how many those are, where there are as many


def identity_of(
    names: Sequence[str], files: Mapping[str, Stored], labels: np.ndarray | None
) -> dict[str, Any]:
    """Digests of images, wherever they lie: a folder, and an archive of it, have the same.

    Seen: the number, names, sizes and labels of all images, and the contents of `read` of them, spread
    evenly: all of up to 64 MiB and 1,024 images, else as many as these limits allow. Where an archive keeps
    checksums, "checksums" are of all images; elsewhere they are None.
    Not seen: other contents of the same size, under the same name, of an image that is not read and has no
    checksum. "times" change then (when files were written last, or the archive was), but with a copy too.
    """
    sizes, times = np.array([files[name].measure() for name in names], dtype=np.int64).T
    checksums = [files[name].checksum for name in names]
    chosen = _chosen(sizes)
    has_all = None not in checksums
    return {
        "images": len(names),
        "names": digest("\n".join(names).encode(errors="surrogateescape")),
        "labels": None if labels is None else digest(labels.astype(np.int64).tobytes()),
        "sizes": digest(sizes.tobytes()),
        "contents": digest(*(_contents(files[names[index]]) for index in chosen)),
        "read": len(chosen),
        "checksums": digest(np.array(checksums, dtype=np.int64).tobytes()) if has_all else None,
        "times": None if has_all else digest(times.tobytes()),
    }


def digest(*parts: bytes) -> str:
    """16 characters of the parts' SHA-256; where one ends and the next begins counts too."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()[:16]


def _chosen(sizes: np.ndarray) -> np.ndarray:
    """Which images are read: int64 [m]."""
    count = MOST_IMAGES
    if sizes.sum() > MOST_READ:
        count = min(count, max(int(MOST_READ / sizes.mean()), LEAST_IMAGES))
    return np.unique(np.linspace(0, len(sizes) - 1, min(count, len(sizes)), dtype=np.int64))


def _contents(stored: Stored) -> bytes:
    """The bytes; none of what cannot be read, which is said where it is wanted."""
    try:
        return stored.view()
    except Exception:  # as with any damaged file
        return b""
