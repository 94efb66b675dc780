"""The protocols, as one table: what each sees images with, what it needs, and its arithmetic."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mclr_fast.runtime.errors import RunError

from .collected import Against, Collected
from .metrics.class_entropy import inception_score
from .metrics.kernel_distance import SUBSET_SIZE, kernel_distance
from .metrics.manifold import openai_distances, precision_recall
from .rows import Metrics

IS_SPLITS, IS_SEED = 10, 2020  # torch-fidelity's
ADM_SPLIT = 5000  # images
MOMENTS, FEATURES, LOGITS = (frozenset({part}) for part in ("moments", "features", "logits"))


@dataclass(frozen=True)
class Protocol:
    """How a set of images is judged.

    Attributes:
        extractor: its name in `extractors.MAKERS`.
        images: what it needs of the images, of "moments", "features", "logits"; reference: of the reference.
        metrics: (images, what they are judged against) -> the row's metrics; both hold what was asked for.
        minimum: (D features) -> how many images make sense, at least.
        k: the neighbours of precision and recall, where it has any.
        own_data: the embedded data set that it compares with, and with no other; None: what is named.
        heldout: what it needs of images that were not trained on.
        needs_labels: whether the images' classes are needed.
        is_trained: whether the extractor is trained on what is compared with, see `own_classifier`.
        has_intervals: whether a difference of FDs has a bootstrap interval: for few features, which are kept.
    """

    extractor: str
    images: frozenset[str]
    reference: frozenset[str]
    metrics: Callable[[Collected, Against], Metrics]
    minimum: Callable[[int], int]
    k: int | None = None
    own_data: str | None = None
    heldout: frozenset[str] = frozenset()
    needs_labels: bool = False
    has_intervals: bool = False
    is_trained: bool = False

    @property
    def measures_fd(self) -> bool:
        """Whether an FD is among its metrics."""
        return "moments" in self.reference

    @property
    def stands_alone(self) -> bool:
        """Whether it compares with what no other protocol would."""
        return self.own_data is not None or self.is_trained


def _distance(images: Collected, against: Against) -> Metrics:
    return {"fd": images.moments.frechet(against.reference.moments)}


def _manifold(images: Collected, against: Against) -> Metrics:
    precision, recall = precision_recall(against.reference.features, images.features, against.k)
    return {"precision": precision, "recall": recall}


def _score(images: Collected, _: Against) -> Metrics:
    """torch-fidelity's Inception Score: images are shuffled, so that sorted ones make no smaller score."""
    order = np.random.RandomState(IS_SEED).permutation(len(images.logits))
    mean, std = inception_score(images.logits[order].double().softmax(dim=1), IS_SPLITS)
    return {"is": mean, "is_std": std}


def _openai(images: Collected, against: Against) -> Metrics:
    """OpenAI's evaluator (ADM's, VAR's, CCA's papers): IS of consecutive splits of 5,000, in order."""
    splits = images.logits.double().softmax(dim=1).split(ADM_SPLIT)
    scores = [inception_score(part, 1)[0] for part in splits]
    score = {"is": float(np.mean(scores)), "is_std": float(np.std(scores))}
    real = against.reference.features
    precision, recall = precision_recall(real, images.features, against.k, openai_distances)
    return {**_distance(images, against), **score, "precision": precision, "recall": recall}


def _kernel(images: Collected, against: Against) -> Metrics:
    mean, std = kernel_distance(images.features, against.reference.features)
    return {"kid": mean, "kid_std": std}


def _classified(images: Collected, against: Against) -> Metrics:
    """FD, held-out FD (of no set with itself), Inception Score of all at once, and class accuracy."""
    probs = images.logits.softmax(dim=1)
    heldout, labels = against.heldout, against.labels
    return {
        **_distance(images, against),
        "fd_heldout": None if heldout is None else images.moments.frechet(heldout.moments),
        "is": inception_score(probs, splits=1)[0],
        **_manifold(images, against),
        "accuracy": None if labels is None else (probs.argmax(dim=1) == labels.cpu()).double().mean().item(),
    }


def _frechet_protocol(extractor: str) -> Protocol:
    # With no more images than features a covariance says nothing of most directions.
    return Protocol(extractor, MOMENTS, MOMENTS, _distance, lambda width: width + 1)


def _manifold_protocol(extractor: str, k: int) -> Protocol:
    return Protocol(extractor, FEATURES, FEATURES, _manifold, lambda _: k + 1, k)


PROTOCOLS: Mapping[str, Protocol] = {
    "fid": _frechet_protocol("inception"),
    "fd-dinov2": _frechet_protocol("dinov2"),
    "is": Protocol("inception", LOGITS, frozenset(), _score, lambda _: IS_SPLITS),
    "pr-inception": _manifold_protocol("inception", 3),
    "pr-dinov2": _manifold_protocol("dinov2", 5),
    "adm": Protocol(
        "inception", MOMENTS | FEATURES | LOGITS, MOMENTS | FEATURES, _openai, lambda width: width + 1, 3
    ),
    "kid": Protocol("inception", FEATURES, FEATURES, _kernel, lambda _: SUBSET_SIZE),
    "mnist16": Protocol(
        "mnist16-classifier",
        MOMENTS | FEATURES | LOGITS,
        MOMENTS | FEATURES,
        _classified,
        lambda _: 4,
        3,
        own_data="mnist16",
        heldout=MOMENTS,
        needs_labels=True,
        has_intervals=True,
    ),
    "classifier": Protocol(
        "classifier",
        MOMENTS | FEATURES | LOGITS,
        MOMENTS | FEATURES,
        _classified,
        lambda width: width + 1,
        3,
        heldout=MOMENTS,
        needs_labels=True,
        has_intervals=True,
        is_trained=True,
    ),
}
GROUPS = {"paper": ("fd-dinov2", "pr-inception", "is")}  # the columns of MCLR's Table 1
EMBEDDED = "mnist16"  # the embedded runs'


def protocol_names(text: str) -> list[str]:
    """The protocols of a list like "fid,is", groups resolved, each once. RunError for an unknown one."""
    names: dict[str, None] = {}
    for name in text.split(","):
        name = name.strip()
        if name not in {*PROTOCOLS, *GROUPS}:
            every = [*PROTOCOLS, *GROUPS]
            near = difflib.get_close_matches(name, every, 1)
            raise RunError(
                f"there is no protocol {name!r}"
                + (f"; did you mean {near[0]}?" if near else "")
                + f" The protocols are {', '.join(every)}."
            )
        names.update(dict.fromkeys(GROUPS.get(name, (name,))))
    alone = next((name for name in names if PROTOCOLS[name].stands_alone), None)
    if alone and len(names) > 1:
        raise RunError(f"--protocol {text}: {alone} stands alone, judge by the others in a second call.")
    return list(names)


def own_data(names: Sequence[str]) -> str | None:
    """The embedded data set that these protocols compare with; None where it is to be named."""
    return PROTOCOLS[names[0]].own_data


def is_trained(names: Sequence[str]) -> bool:
    """Whether these see images with a classifier that is trained on what they compare with."""
    return PROTOCOLS[names[0]].is_trained


def needs_of(names: Sequence[str], whose: str) -> dict[str, set[str]]:
    """By extractor, what these protocols need together of the "images", the "reference" or the "heldout"."""
    needs: dict[str, set[str]] = {}
    for name in names:
        if wanted := getattr(PROTOCOLS[name], whose):
            needs.setdefault(PROTOCOLS[name].extractor, set()).update(wanted)
    return needs


def check_count(
    protocols: Mapping[str, Protocol], num_images: int, widths: Mapping[str, int], what: str = "images"
) -> None:
    """RunError for fewer images than a minimum. protocols: by name; widths: features by extractor."""
    for name, protocol in protocols.items():
        minimum = protocol.minimum(widths[protocol.extractor])
        if num_images < minimum:
            raise RunError(f"{name} needs at least {minimum:,} {what}, and there are {num_images:,}.")
