"""What the columns of a row hold."""

import dataclasses

import numpy as np
import pytest
import torch

from mclr_fast.config import ObjectiveConfig
from mclr_fast.data import SampleOrder, rng
from mclr_fast.data.samples import ClassSamples
from mclr_fast.methods import columns
from mclr_fast.objectives import pair_labels


class Marked:
    """20 images of 4 classes, image i all of brightness first + i."""

    num_classes = 4
    image_shape = (1, 2, 2)

    def __init__(self, first=0):
        self.labels = np.arange(20) % 4
        self.first = first

    def __len__(self):
        return 20

    def images(self, index):
        marks = (self.first + np.asarray(index)).astype(np.uint8)
        return np.broadcast_to(marks[:, None, None, None], (len(marks), 1, 2, 2)).copy()


class Lopsided(Marked):
    """Images 0 to 15 are of class 0, 16 to 18 of class 1 and 19 of class 2."""

    def __init__(self, first=0):
        super().__init__(first)
        self.labels = np.repeat([0, 1, 2], [16, 3, 1])


class LatentMarked(Marked):
    """The same as latents of spread 1."""

    image_shape = (8, 2, 2)

    def images(self, index):
        return np.broadcast_to(super().images(index).astype(np.float32), (len(index), 8, 2, 2)).copy()


class LatentAlike(LatentMarked):
    """The same, all images alike."""

    def images(self, index):
        return np.ones((len(index), 8, 2, 2), np.float32)


@pytest.fixture
def draw(tiny, tmp_path):
    """draw(objective, **options): a first minibatch of 12 marked images, samples marked from 100 and 200."""

    def make(objective, dataset=Marked, images_seen=0, **options):
        config = dataclasses.replace(
            tiny.tiny_config(), objective=ObjectiveConfig(objective=objective, **options)
        )
        trainer = tiny.tiny_trainer(tmp_path, config, tiny.StopAfter(0), dataset())
        plus = ClassSamples(dataset(100)) if options.get("positives") == "base" else None
        samples = dataclasses.replace(trainer.source.samples, plus=plus, minus=ClassSamples(dataset(200)))
        trainer.source.samples = samples
        return trainer.source.draw(images_seen)

    return make


def marks(x):
    return ((x[..., 0, 0, 0] + 1) * 127.5).round().long()


def test_samples_are_of_the_rows_class(draw):
    batch = draw("ddo")
    mark = marks(batch.x)
    assert batch.labels.shape == mark.shape == (12, 4)
    assert (batch.labels == batch.labels[:, :1]).all()
    assert (mark[:, 0] < 20).all() and (mark[:, 1:] >= 200).all()
    assert (mark % 4 == batch.labels).all()  # both 100 and 200 are multiples of 4
    assert len(mark[:, 1:].unique()) > 10


def test_positives_may_be_samples(draw):
    mark = marks(draw("plus-minus", positives="base").x)
    assert ((mark[:, 0] >= 100) & (mark[:, 0] < 120)).all()
    assert (mark[:, 1:] >= 200).all()
    alike = (mark[:, 1:] - 200 == mark[:, :1] - 100).float().mean(dim=0)
    assert (alike < 0.7).all()  # drawn apart: 5 samples a class meet by chance now and then


def test_kl_form_has_the_image_under_all_labels_and_a_sample_under_its_own(draw):
    batch = draw("kl-mclr")
    mark = marks(batch.x)
    assert mark.shape == (12, 5)
    assert (mark[:, :4] == mark[:, :1]).all() and (mark[:, 4] >= 200).all()
    assert (batch.labels[:, 1:4] != batch.labels[:, :1]).all()
    assert (batch.labels[:, 4] == batch.labels[:, 0]).all()
    assert (mark[:, 4] % 4 == batch.labels[:, 0]).all()


def test_image_pairs_are_of_another_class_under_the_rows_label(draw):
    batch = draw("ccdpo")
    mark = marks(batch.x)
    assert (mark[:, 1:] % 4 != batch.labels[:, 1:]).all()
    assert (mark[:, 0] % 4 == batch.labels[:, 0]).all()


def test_weighted_mclr_draws_all_labels_and_mclr_others(draw):
    own = {
        name: (b.labels[:, 1:] == b.labels[:, :1]) for name in ("weighted-mclr", "mclr") for b in [draw(name)]
    }
    assert not own["mclr"].any()
    assert 0 < own["weighted-mclr"].sum() < own["weighted-mclr"].numel()


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 1, 11), (1.0, 12, 12)])
def test_a_share_of_labels_is_dropped(draw, share, least, most):
    batch = draw("denoising", label_dropout=share)
    dropped = batch.labels[:, 0] == -1
    assert least <= dropped.sum() <= most
    assert (batch.labels[:, 0] == marks(batch.x) % 4)[~dropped].all()


@pytest.mark.parametrize("pairing", ["labels", "images"])
def test_of_a_dropped_row_all_labels_are(draw, pairing):
    kept, some = (draw("cca", pairing=pairing, label_dropout=share) for share in (0.0, 0.5))
    dropped = (some.labels == -1).all(dim=1)
    assert 0 < dropped.sum() < 12 and torch.equal(some.labels[~dropped], kept.labels[~dropped])
    assert torch.equal(some.x, kept.x) and (kept.labels >= 0).all()


def test_samples_differ_from_step_to_step(draw):
    first, second = (marks(draw("ddo", images_seen=n).x)[:, 1:] for n in (0, 12))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("objective", "num_shared"), [("ddo", 1), ("kl-mclr", 4)])
def test_every_columns_latent_is_sampled_by_its_own_draw(draw, objective, num_shared):
    """Of columns that are encoded apart too: with one image everywhere, no two values are alike."""
    x = draw(objective, dataset=LatentAlike).x[:, num_shared - 1 :]
    assert len(x.unique()) == x.numel() > 12 * 16


@pytest.mark.parametrize("objective", ["mclr", "kl-mclr"])
def test_a_latent_is_sampled_once_for_all_labels_of_its_row(draw, objective):
    x = draw(objective, dataset=LatentMarked).x
    if objective == "kl-mclr":
        assert (x[:, :4] == x[:, :1]).all()
        x = x[:, 0]
    assert x.shape == (12, 4, 2, 2)
    assert len(x.unique()) == x.numel()


@pytest.fixture
def one_class():
    """Images seen before a minibatch of 12 lopsided images that are all of class 0."""
    labels, order = Lopsided().labels, SampleOrder(20, 3)
    return next(n for n in range(0, 12_000, 12) if not labels[order.indices(np.arange(n, n + 12))].any())


@pytest.mark.parametrize("objective", ["mclr", "kl-mclr", "cca", "ccdpo"])
@pytest.mark.robust("batches")
def test_a_minibatch_of_one_class_draws_its_negatives_from_all_of_the_data(draw, one_class, objective):
    """Each of the other classes' images is drawn equally often, by labels as by images."""
    batch = draw(objective, Lopsided, one_class, num_negatives=1000)
    negatives = slice(1, 1001)
    if objective.endswith("mclr"):
        assert not batch.labels[:, 0].any()
        found = torch.bincount(batch.labels[:, negatives].flatten(), minlength=3)
        expected = torch.tensor([0, 9000, 3000])
    else:
        found = torch.bincount(marks(batch.x)[:, negatives].flatten(), minlength=20)
        expected = torch.tensor([0] * 16 + [3000] * 4)
        assert not batch.labels.any()
    assert (found - expected).abs().max() < 250 and found.sum() == 12_000
    assert torch.equal(found > 0, expected > 0)


@pytest.mark.robust("batches")
def test_a_minibatch_of_one_class_is_drawn_alike_on_all_ranks(tiny, one_class):
    """A rank's negatives are its rows of the global minibatch's, and another step's are others."""

    def negatives(rows, images_seen=one_class):
        index = SampleOrder(20, 3).indices(np.arange(one_class, one_class + 12))
        data = Lopsided()
        labels = torch.from_numpy(data.labels[index])
        share = (tiny.MODEL.codec(data), None, 3, images_seen, index, labels, rows, 4)
        return columns.Draw(data, *share, False, 0.0, False, torch.device("cpu")).negatives()

    whole = negatives(slice(0, 12))
    assert np.array_equal(np.concatenate([negatives(slice(0, 5)), negatives(slice(5, 12))]), whole)
    assert not np.array_equal(negatives(slice(0, 12), images_seen=one_class + 12), whole)


@pytest.mark.parametrize("include_own", [False, True])
def test_negatives_of_any_other_minibatch_are_the_minibatchs(draw, include_own):
    """As `pair_labels` draws them: what a minibatch of one class does changes no other."""
    index = SampleOrder(20, 3).indices(np.arange(12))
    labels = torch.from_numpy(Marked().labels[index])
    options = {"include_own": include_own, "generator": rng.pairing_generator(3, 0)}
    places = pair_labels(labels, 3, **options)
    assert torch.equal(draw("mclr", include_own=include_own).labels[:, 1:], labels[places])
    assert np.array_equal(
        marks(draw("ccdpo", include_own=include_own).x)[:, 1:].numpy(), index[places.numpy()]
    )
