"""Protocol `classifier`'s network: trained once on the data that images are compared with, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mclr_fast.runtime.errors import RunError, one_line
from mclr_fast.runtime.formats import CLASSIFIER_FORMAT
from mclr_fast.runtime.locks import waited_for
from mclr_fast.runtime.logs import note, say
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.remote.downloads import cache_folder
from mclr_fast.runtime.stages import progress_bar
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors

from .extractors.fitting import fit
from .extractors.image_classifier import NUM_FEATURES, ImageClassifier, resize_words, seen_size, shrink
from .extractors.published import Extractor
from .image_sets import ImageSet, open_images
from .parts import PartImages, check_classes, data_hash, interleaved, labels_of, tenth
from .statistics_files import holds

NAME = "classifier"  # of the protocol, and of the extractor
READ_AT_ONCE = 256  # images
MAX_FEATURES = 10_000  # images that precision and recall compare with: 50,000 take minutes a row on a CPU


@dataclass(frozen=True)
class Training:
    """How it is trained: steps for so many images, each seen `most_epochs` times at most.

    Attributes: max_images, of which it is trained; the others are left out, class by class.
    """

    seed: int = 0
    batch_size: int = 64
    least_epochs: int = 6
    most_epochs: int = 60
    usual_images: int = 200_000
    max_images: int = 100_000

    def num_steps(self, num_images: int) -> int:
        """`usual_images` in all, but within the least and most epochs."""
        least, most = self.least_epochs * num_images, self.most_epochs * num_images
        return max(min(max(self.usual_images, least), most) // self.batch_size, 1)


TRAINING = Training()


@dataclass(frozen=True)
class Plan:
    """What a classifier is trained on and what it has not seen, of a set of labelled images.

    Attributes: train; heldout, any prefix of which has its classes evenly; source, the whole set's path or
    itself; reference, what images are compared with: `train`, or all of the set where `heldout` is another.
    """

    train: PartImages
    heldout: PartImages
    reference: str | ImageSet
    num_classes: int
    class_names: list[str] | None
    data: str
    heldout_data: str | None

    @classmethod
    def of(cls, sources: Sequence[str | ImageSet], heldout: ImageSet | None) -> Plan:
        """Of the first source that has images. RunError for what none can be trained on."""
        source = next((each for each in sources if not isinstance(each, str) or holds(each)[1]), None)
        if source is None:
            raise RunError(
                "protocol classifier trains one on labelled images: name a data set of them with --ref."
            )
        images = open_images(source) if isinstance(source, str) else source
        name = source if isinstance(source, str) else "the reference"
        labels = labels_of(images, name)
        names = getattr(images, "class_names", None)
        check_classes(labels, names, name)
        whole, num_classes = data_hash(images, labels), int(labels.max()) + 1
        if heldout is None:
            left, out = tenth(labels)
            train = PartImages(images, left, name, "nine-tenths")
            return cls(
                train, PartImages(images, out, name, "a-tenth"), train, num_classes, names, whole, None
            )
        theirs = labels_of(heldout, "--heldout")
        _check_heldout(images, heldout, num_classes, theirs)
        train = PartImages(images, interleaved(labels), name, "all")
        out = PartImages(heldout, interleaved(theirs), "--heldout", "all")
        return cls(train, out, source, num_classes, names, whole, data_hash(heldout, theirs))

    @property
    def key(self) -> str:
        """What its classifier is, in 16 characters: data, what was held out, how it was trained."""
        shape = list(self.train.image_shape)
        said = [CLASSIFIER_FORMAT, self.data, self.heldout_data, shape, asdict(TRAINING)]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def places(self, folder: Path | None) -> list[Path]:
        """The files that keep it: a run's, and the cache's."""
        folders = [folder] if folder else []
        return [
            each / f"{NAME}-{self.key}.safetensors" for each in (*folders, cache_folder() / "classifiers")
        ]

    @property
    def num_trained_on(self) -> int:
        """Images of `train`: the first ones, where they are very many."""
        return min(len(self.train), TRAINING.max_images)

    def words(self, folder: Path | None) -> str:
        """For a dry run: what it is, and whether it is there."""
        kept = next((path for path in self.places(folder) if path.is_file()), None)
        steps = TRAINING.num_steps(self.num_trained_on)
        found = f"kept at {kept}" if kept else f"to be trained first, {steps:,} steps, once"
        return (
            f"a classifier of {self.num_trained_on:,} images of {self.train.source}, {self.num_classes} "
            f"classes ({found}); {len(self.heldout):,} held-out images"
        )


@dataclass(frozen=True)
class OwnClassifier:
    """A trained one.

    Attributes: state, of its network; about: what it is and how good, as JSON; weights, a hash of both.
    """

    state: dict[str, Tensor]
    about: dict[str, Any]
    name = NAME

    @property
    def weights(self) -> str:
        """SHA-256 of the weights: another training has another."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state.items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def extractor(self, device: torch.device, class_names: Sequence[str] | None = None) -> Extractor:
        """What protocols see images with."""
        net = ImageClassifier(self.about["image_shape"], self.about["num_classes"])
        net.load_state_dict(self.state)
        net = net.eval().to(device)
        shape = tuple(self.about["image_shape"])
        said = ("accuracy", "train_images", "heldout_images", "num_classes", "data")
        return Extractor(
            NAME,
            NUM_FEATURES,
            resize_words(shape[1:]),
            net.see,
            self.weights,
            channels=shape[0],
            image_shape=shape,
            about={name: self.about[name] for name in said},
            class_names=class_names,
            max_features=MAX_FEATURES,
        )


def own_classifier(plan: Plan, folder: Path | None, ranks: Ranks, stop: StopRequest) -> OwnClassifier:
    """The plan's classifier: kept in `folder` or in the cache, or trained now by rank 0 and kept in both.

    All ranks call it. Errors: RunError for images that cannot be read. Interrupted.
    """
    places = plan.places(folder)
    with _alone(places[0], ranks, stop):
        made = ranks.on_main(_found_or_trained, plan, places, ranks.device, stop)
    return OwnClassifier(*made)


@contextlib.contextmanager
def _alone(path: Path, ranks: Ranks, stop: StopRequest) -> Iterator[None]:
    """Of several processes that want it one trains; where no lock can be made each does."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(waited_for(path.with_name(f"{path.name}.lock"), ranks, stop))
        except OSError as error:
            if ranks.is_main:
                note(f"{path.parent} cannot be used ({error.strerror}): classifiers are trained again.")
        yield


def _found_or_trained(
    plan: Plan, places: Sequence[Path], device: torch.device, stop: StopRequest
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state, about) from the first place that has it, else made; then at all of them."""
    found = next((read for path in places if (read := _read(path, plan)) is not None), None)
    if found is None:
        found = _trained(plan, device, stop)
    say(True, sentence(found[1]))
    for path in places:
        if not path.is_file():
            _keep(path, *found)
    return found


def sentence(about: dict[str, Any]) -> str:
    """What a classifier is and how good."""
    right, count = about["accuracy"], about["heldout_images"]
    return (
        f"classifier of {about['source']}: trained on {about['train_images']:,} images of "
        f"{about['num_classes']} classes in {about['num_steps']:,} steps; gets {right:.2%} of {count:,} "
        "held-out images right."
    )


def _read(path: Path, plan: Plan) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What is kept there; None where there is nothing, and, said, for a damaged file, which is removed."""
    if not path.is_file():
        return None
    try:
        groups, about = load_tensors(path)
        if about["format"] != CLASSIFIER_FORMAT or about["key"] != plan.key:
            raise ValueError("of another data set or format")
        state = groups["net"]
        ImageClassifier(about["image_shape"], about["num_classes"]).load_state_dict(state)
    except (RunError, ValueError, LookupError, TypeError, RuntimeError) as error:
        note(f"{path} is no classifier of this data ({one_line(error)[:120]}): it is trained again.")
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return state, about


def _keep(path: Path, state: dict[str, Tensor], about: dict[str, Any]) -> None:
    try:
        save_tensors(path, {"net": state}, about)
    except RunError as error:
        note(f"{error} The classifier is trained again next time.")


def _trained(plan: Plan, device: torch.device, stop: StopRequest) -> tuple[dict[str, Tensor], dict[str, Any]]:
    shape, started = plan.train.image_shape, time.perf_counter()
    used = plan.num_trained_on
    num_steps = TRAINING.num_steps(used)
    say(
        True,
        f"protocol classifier: training one on {used:,} images of {plan.train.source} ({plan.num_classes} "
        f"classes), {num_steps:,} steps.",
    )
    images, labels = _shrunk(plan.train, used, stop), plan.train.labels[:used]
    with progress_bar("classifier", num_steps, 0, True, "steps") as bar:

        def between() -> None:
            stop.check()
            bar.update(1)

        net = fit(
            lambda: ImageClassifier(shape, plan.num_classes),
            images,
            labels,
            batch_size=TRAINING.batch_size,
            num_steps=num_steps,
            seed=TRAINING.seed,
            outside="border",
            device=device,
            between=between,
        )
    right = 0
    for places in _batches(len(plan.heldout)):
        stop.check()
        seen = torch.from_numpy(np.ascontiguousarray(plan.heldout.images(places)))
        right += int((net.see(seen)[1].argmax(1).cpu().numpy() == plan.heldout.labels[places]).sum())
    say(True, f"protocol classifier: trained in {time.perf_counter() - started:.0f} s.")
    about = {
        "format": CLASSIFIER_FORMAT,
        "key": plan.key,
        "data": plan.data,
        "heldout_data": plan.heldout_data,
        "source": plan.train.source,
        "image_shape": list(shape),
        "num_classes": plan.num_classes,
        "training": asdict(TRAINING),
        "num_steps": num_steps,
        "train_images": used,
        "heldout_images": len(plan.heldout),
        "accuracy": right / len(plan.heldout),
    }
    return {name: tensor.cpu() for name, tensor in net.state_dict().items()}, about


def _shrunk(images: ImageSet, count: int, stop: StopRequest) -> np.ndarray:
    """The first images, as the classifier sees them: uint8 [count,C,h,w]."""
    size = seen_size(images.image_shape[1:])
    found = np.empty((count, images.image_shape[0], *size), np.uint8)
    for places in _batches(count):
        stop.check()
        try:
            read = np.ascontiguousarray(images.images(places))
        except ValueError as error:
            raise RunError(f"{str(error).rstrip('.')}.") from error
        found[places] = shrink(torch.from_numpy(read), size).numpy()
    return found


def _batches(count: int) -> Iterator[np.ndarray]:
    return iter(np.split(np.arange(count), range(READ_AT_ONCE, count, READ_AT_ONCE)))


def _check_heldout(images: ImageSet, heldout: ImageSet, num_classes: int, labels: np.ndarray) -> None:
    """RunError for held-out images that are not of the data's kind."""
    if tuple(images.image_shape) != tuple(heldout.image_shape):
        ours, theirs = ("x".join(map(str, each.image_shape)) for each in (images, heldout))
        raise RunError(f"the images of --heldout are {theirs}, those of the data {ours}: prepare both alike.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise RunError(
            f"the labels of --heldout lie in [{labels.min()}, {labels.max()}]; the data has classes 0 to "
            f"{num_classes - 1}."
        )
    ours, theirs = (getattr(each, "class_names", None) for each in (images, heldout))
    for number in np.unique(labels).tolist() if ours and theirs else ():
        if ours[number] != theirs[number]:
            raise RunError(
                f"class {number} of --heldout is {theirs[number]}, of the data {ours[number]}: number the "
                "classes alike (python -m mclr_fast.prepare with the same folders)."
            )
