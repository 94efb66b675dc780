"""The literature's protocols, as one table: what each sees images with, what it needs, and its arithmetic."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mclr_fast.runtime.errors import RunError

from .collected import Collected
from .metrics.class_entropy import inception_score
from .metrics.kernel_distance import SUBSET_SIZE, kernel_distance
from .metrics.manifold import openai_distances, precision_recall
from .rows import Metrics

IS_SPLITS, IS_SEED = 10, 2020  # torch-fidelity's
ADM_SPLIT = 5000  # images
EVERYTHING = frozenset({"moments", "features", "logits"})


@dataclass(frozen=True)
class LiteratureProtocol:
    """How a set of images is judged, by published conventions.

    Attributes:
        extractor: its name in `extractors.MAKERS`.
        images: what it needs of the images, of "moments", "features", "logits"; reference: of the reference.
        metrics: (images, reference) -> the row's metrics; reference is a Collected with what was asked for.
        minimum: (D features) -> how many images make sense, at least.
        k: the neighbours of precision and recall, where it has any.
    """

    extractor: str
    images: frozenset[str]
    reference: frozenset[str]
    metrics: Callable[[Collected, Collected | None], Metrics]
    minimum: Callable[[int], int]
    k: int | None = None


def _distance(images: Collected, reference: Collected) -> Metrics:
    return {"fd": images.moments.frechet(reference.moments)}


def _score(images: Collected, _: Collected | None) -> Metrics:
    """torch-fidelity's Inception Score: images are shuffled, so that sorted ones make no smaller score."""
    order = np.random.RandomState(IS_SEED).permutation(len(images.logits))
    mean, std = inception_score(images.logits[order].double().softmax(dim=1), IS_SPLITS)
    return {"is": mean, "is_std": std}


def _openai(images: Collected, reference: Collected) -> Metrics:
    """OpenAI's evaluator (ADM's, VAR's, CCA's papers): IS of consecutive splits of 5,000, in order."""
    splits = images.logits.double().softmax(dim=1).split(ADM_SPLIT)
    scores = [inception_score(part, 1)[0] for part in splits]
    precision, recall = precision_recall(reference.features, images.features, 3, openai_distances)
    score = {"is": float(np.mean(scores)), "is_std": float(np.std(scores))}
    return {**_distance(images, reference), **score, "precision": precision, "recall": recall}


def _kernel(images: Collected, reference: Collected) -> Metrics:
    mean, std = kernel_distance(images.features, reference.features)
    return {"kid": mean, "kid_std": std}


def _frechet(extractor: str) -> LiteratureProtocol:
    # With no more images than features a covariance says nothing of most directions.
    moments = frozenset({"moments"})
    return LiteratureProtocol(extractor, moments, moments, _distance, lambda width: width + 1)


def _manifold(extractor: str, k: int) -> LiteratureProtocol:
    def metrics(images: Collected, reference: Collected) -> Metrics:
        precision, recall = precision_recall(reference.features, images.features, k)
        return {"precision": precision, "recall": recall}

    features = frozenset({"features"})
    return LiteratureProtocol(extractor, features, features, metrics, lambda _: k + 1, k)


PROTOCOLS: Mapping[str, LiteratureProtocol] = {
    "fid": _frechet("inception"),
    "fd-dinov2": _frechet("dinov2"),
    "is": LiteratureProtocol("inception", frozenset({"logits"}), frozenset(), _score, lambda _: IS_SPLITS),
    "pr-inception": _manifold("inception", 3),
    "pr-dinov2": _manifold("dinov2", 5),
    "adm": LiteratureProtocol(
        "inception", EVERYTHING, EVERYTHING - {"logits"}, _openai, lambda width: width + 1, 3
    ),
    "kid": LiteratureProtocol(
        "inception", frozenset({"features"}), frozenset({"features"}), _kernel, lambda _: SUBSET_SIZE
    ),
}
GROUPS = {"paper": ("fd-dinov2", "pr-inception", "is")}  # the columns of MCLR's Table 1
EMBEDDED = "mnist16"  # the embedded run's own, see mnist16.py: it judges models, and stands alone


def protocol_names(text: str) -> list[str]:
    """The protocols of a list like "fid,is", groups resolved, each once. RunError for an unknown one."""
    names: dict[str, None] = {}
    for name in text.split(","):
        name = name.strip()
        if name not in {*PROTOCOLS, *GROUPS, EMBEDDED}:
            every = [*PROTOCOLS, *GROUPS, EMBEDDED]
            near = difflib.get_close_matches(name, every, 1)
            raise RunError(
                f"there is no protocol {name!r}"
                + (f"; did you mean {near[0]}?" if near else "")
                + f" The protocols are {', '.join(every)}."
            )
        names.update(dict.fromkeys(GROUPS.get(name, (name,))))
    if EMBEDDED in names and len(names) > 1:
        raise RunError(f"--protocol {text}: {EMBEDDED} stands alone, judge by the others in a second call.")
    return list(names)


def needs_of(names: Sequence[str], whose: str) -> dict[str, set[str]]:
    """By extractor, what these protocols need together of the "images", or of the "reference"."""
    needs: dict[str, set[str]] = {}
    for name in names:
        if wanted := getattr(PROTOCOLS[name], whose):
            needs.setdefault(PROTOCOLS[name].extractor, set()).update(wanted)
    return needs


def check_count(
    names: Sequence[str], num_images: int, widths: Mapping[str, int], what: str = "images"
) -> None:
    """RunError for fewer images than a protocol's minimum; widths: features by extractor."""
    for name in names:
        minimum = PROTOCOLS[name].minimum(widths[PROTOCOLS[name].extractor])
        if num_images < minimum:
            raise RunError(f"{name} needs at least {minimum:,} {what}, and there are {num_images:,}.")
