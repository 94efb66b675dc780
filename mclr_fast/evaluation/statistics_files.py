"""Statistics of reference images on disk: EDM2's .pkl, EDM's .npz (mu, sigma), and our .npz, one of those."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mclr_fast.pickles import reading
from mclr_fast.runtime import formats
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.files import replacing

from .metrics.moments import Moments

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile)
EDM2_NAMES = {"fid": "inception", "fd_dinov2": "dinov2"}  # of a .pkl's entries -> extractor
# How protocol 3 names an array's maker. Before 1.26 numpy has no _core, and all know the older name.
NUMPY_2, NUMPY_1 = (
    f"c{module}.multiarray\n_reconstruct\n".encode() for module in ("numpy._core", "numpy.core")
)


@dataclass(frozen=True)
class Statistics:
    """What an extractor saw in reference images.

    Attributes:
        extractor: its name; source: the file or data set, in words.
        moments: of all images; features float32 [n,D] of some or all of them, None where they are not known.
        size: (H, W) of the images; weights: SHA-256 of the extractor's; resize: in words; images: the hash of
            the set. Each None where the file does not say.
    """

    extractor: str
    source: str
    moments: Moments
    features: Tensor | None = None
    size: tuple[int, int] | None = None
    weights: str | None = None
    resize: str | None = None
    images: str | None = None

    def count_of(self, need: str) -> int:
        """Of how many images its "moments" or "features" are; 0 where that is not known."""
        return len(self.features) if need == "features" else self.moments.count

    def described(self) -> dict[str, Any]:
        """What a result says of its reference."""
        names = ("source", "weights", "images")
        size = None if self.size is None else list(self.size)
        said = {name: getattr(self, name) for name in names}
        return {"num_images": self.moments.count, "size": size, **said}


def holds(path: str) -> tuple[bool, bool]:
    """Whether a reference is a file of statistics, and whether it has images; OpenAI's .npz may be both."""
    if path.lower().endswith(".npz") and Path(path).is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            return "mu.npy" in names or "arr_0.npy" not in names, "arr_0.npy" in names
        except zipfile.BadZipFile:
            return True, False  # `read_statistics` says what it is
    is_file = path.lower().endswith((".pkl", ".npz"))
    return is_file, not is_file


def read_statistics(path: str) -> list[Statistics]:
    """What a file holds, one for an extractor. RunError for a file of another kind, and a damaged one."""
    try:
        found = _read_pickle(path) if path.lower().endswith(".pkl") else [_read_npz(path)]
    except UNREADABLE as error:
        raise RunError(
            f"{path} holds no statistics of a reference ({' '.join(str(error).split())[:300]}): those are "
            "EDM2's .pkl, or an .npz with mu and sigma."
        ) from error
    for statistics in found:
        _check(statistics, path)
    return found


def write_statistics(path: Path, statistics: Statistics) -> None:
    """Our .npz, atomically: EDM's mu and sigma, the features where there are any, and what they are of."""
    meta = {
        "format": formats.STATISTICS_FORMAT,
        "extractor": statistics.extractor,
        "num_images": statistics.moments.count,
        "size": statistics.size,
        "weights": statistics.weights,
        "resize": statistics.resize,
        "images": statistics.images,
        "source": statistics.source,
    }
    arrays = {"mu": statistics.moments.mu.numpy(), "sigma": statistics.moments.sigma.numpy()}
    if statistics.features is not None:
        arrays["features"] = statistics.features.numpy()
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **arrays)


def check_writable(path: Path, extractors: Sequence[str]) -> None:
    """RunError where `write_reference` could not write what these extractors see to a file of that name."""
    if path.suffix not in (".pkl", ".npz"):
        raise RunError(f"{path}: name the file of statistics .pkl, as EDM2's, or .npz, as EDM's.")
    if path.suffix == ".npz" and list(extractors) != ["inception"]:
        raise RunError(
            f"{path}: EDM's .npz holds the statistics of inception alone, and those of "
            f"{', '.join(extractors)} are asked for: name an EDM2 .pkl, or ask for fid alone."
        )


def write_reference(path: Path, statistics: Sequence[Statistics]) -> None:
    """Moments of one set of images, a Statistics for each extractor, as others' programs read them; atomic.

    A .pkl is EDM2's: {"num_images": N, "fid": {"mu", "sigma"}, "fd_dinov2": {"mu", "sigma"}}, those that
    there are, numpy arrays of float64. An .npz is EDM's, mu and sigma of inception; beside them it says what
    they are of.
    """
    check_writable(path, [each.extractor for each in statistics])
    if path.suffix == ".npz":
        write_statistics(path, replace(statistics[0], features=None))
        return
    names = {extractor: name for name, extractor in EDM2_NAMES.items()}
    held = {
        names[each.extractor]: {"mu": each.moments.mu.numpy(), "sigma": each.moments.sigma.numpy()}
        for each in statistics
    }
    content = pickle.dumps({"num_images": statistics[0].moments.count, **held}, protocol=3)
    with replacing(path) as temporary:
        temporary.write_bytes(content.replace(NUMPY_2, NUMPY_1))


def _read_pickle(path: str) -> list[Statistics]:
    held = reading.read(path)
    found = []
    for name, extractor in EDM2_NAMES.items():
        if name in held:
            mu, sigma = (reading.tensor(path, held[name][part]).double() for part in ("mu", "sigma"))
            found.append(Statistics(extractor, path, Moments(int(held.get("num_images") or 0), mu, sigma)))
    if not found:
        raise ValueError(f"it has none of {', '.join(EDM2_NAMES)}")
    return found


def _read_npz(path: str) -> Statistics:
    with np.load(path, allow_pickle=False) as file:
        meta = (
            json.loads(str(file["meta"])) if "meta" in file else {"num_images": 0, "extractor": "inception"}
        )
        formats.number(meta, formats.STATISTICS_FORMAT, path)
        moments = Moments(
            meta["num_images"], *(torch.from_numpy(file[name]).double() for name in ("mu", "sigma"))
        )
        features = torch.from_numpy(file["features"]) if "features" in file else None
    size = tuple(meta["size"]) if meta.get("size") else None
    known = {name: meta.get(name) for name in ("weights", "resize", "images")}
    return Statistics(meta["extractor"], path, moments, features, size, **known)


def _check(statistics: Statistics, path: str) -> None:
    mu, sigma = statistics.moments.mu, statistics.moments.sigma
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise RunError(f"{path}: mu {list(mu.shape)} and sigma {list(sigma.shape)} do not belong together.")
    if not bool(mu.isfinite().all() and sigma.isfinite().all()):
        raise RunError(f"{path}: its statistics of {statistics.extractor} are not finite.")
