"""`mclr_fast.score`: images in memory, by the literature's protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest

from .image_sets import ArrayImages, ImageSet, open_images
from .judge import Judge, Panel
from .protocols import is_trained, own_data, protocol_names
from .rows import Metrics

Images = str | Path | np.ndarray | Tensor


def score(
    images: Images,
    reference: Images | list[Images] | None,
    protocol: str,
    *,
    labels: np.ndarray | Tensor | None = None,
    heldout: str | Path | None = None,
    inception_weights: Path | None = None,
    dinov2_weights: Path | None = None,
    batch_size: int = 64,
    device: str = "auto",
) -> dict[str, Metrics]:
    """Metrics by protocol: {"fd-dinov2": {"fd": ...}, "is": {...}}.

    Args:
        images: uint8 [n,C,H,W], grey or RGB; or a path: folder, zip, .npz of them.
        reference: likewise; or the path of a statistics file; or several of these, the first that serves is
            taken; None for protocols that need none.
        protocol: one or several, "fid,is"; "paper" = "fd-dinov2,pr-inception,is". "mnist16" has a reference
            of its own.
        labels: int64 [n], the classes that images in memory were made for, if accuracy is wanted of a
            protocol that measures it.
        heldout: "classifier": a data set that it has not seen, None: a tenth of the reference, a data set.
        inception_weights, dinov2_weights: files; None: where torch keeps them.
    Errors    RunError or ValueError, one line, for what cannot be judged.
    """
    names = protocol_names(protocol)
    references = reference if isinstance(reference, list) else [] if reference is None else [reference]
    own = own_data(names)
    if own and references:
        raise ValueError(f"{names[0]} compares with its own digits: give None as the reference.")
    references = [own] if own else references
    judged, ranks, stop = _opened(images, labels), Ranks(device), _NeverStops()
    sources = [str(r) if isinstance(r, str | Path) else _opened(r) for r in references]
    weights = {"inception": inception_weights, "dinov2": dinov2_weights}
    if heldout is not None and not is_trained(names):
        raise ValueError(f"heldout= is of protocol classifier: leave it out with {protocol}.")
    unseen = open_images(own, "heldout") if own else open_images(str(heldout)) if heldout else None
    panel = Panel(names, sources, unseen, weights)
    judge = Judge.of(panel, len(judged), judged.image_shape, batch_size, ranks, stop)
    return judge.of_images(judged, batch_size, stop)


class _NeverStops(StopRequest):
    """Signals stay the caller's."""

    requested = False

    def __init__(self):
        """Installs none."""


def _opened(images: Any, labels: np.ndarray | Tensor | None = None) -> ImageSet:
    if isinstance(images, str | Path):
        if labels is not None:
            raise ValueError(f"labels= are of images in memory; {images} has its own.")
        return open_images(str(images))
    if labels is not None and (len(labels) != len(images) or np.ndim(labels) != 1):
        raise ValueError(f"labels are {list(np.shape(labels))} for {len(images)} images: give one for each.")
    return ArrayImages(_array(images), None if labels is None else _array(labels).astype(np.int64))


def _array(values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
