"""The rows of a step, read from disk: the same at any world size, with any loader, after any resume."""

import importlib.util
import threading
from concurrent.futures import wait

import numpy as np
import PIL.Image
import pytest
import torch
from recording import Late

from mclr_fast.config import ObjectiveConfig
from mclr_fast.data import open_dataset, rng
from mclr_fast.data.samples import ClassSamples
from mclr_fast.methods import columns
from mclr_fast.methods.minibatch import MinibatchSource
from mclr_fast.methods.prefetch import DEPTH
from mclr_fast.models.codecs import codec_for
from mclr_fast.models.denoiser import DenoiserLaw
from mclr_fast.models.scalings import EDM
from mclr_fast.objectives import NoiseLevel
from mclr_fast.runtime.process.ranks import Ranks

BATCH, SEED = 8, 3
has_dali = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
needs_dali = pytest.mark.skipif(not has_dali, reason="needs NVIDIA DALI: pip install 'mclr_fast[dali]'")


@pytest.fixture
def folder(tmp_path):
    """30 images, no two alike and none like its mirror image, in 3 class folders."""
    noise = np.random.default_rng(1)
    for i in range(30):
        (tmp_path / f"class{i % 3}").mkdir(exist_ok=True)
        pixels = noise.integers(0, 256, (6, 6, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f"class{i % 3}" / f"{i}.png")
    return tmp_path


def source(dataset, rank=0, size=1, flip=True, which=columns.other_images):
    ranks = Ranks("cpu")
    ranks.rank, ranks.size = rank, size  # no collective is called
    objective = ObjectiveConfig(num_negatives=2)
    codec, law = codec_for(dataset.image_shape), DenoiserLaw(EDM(NoiseLevel(0.0, 1.0)))
    return MinibatchSource(dataset, codec, law, objective, which, 0.0, BATCH, SEED, ranks, flip)


@pytest.fixture
def rows(folder):
    """rows(step, ...): x of some step, all ranks' rows together."""

    def make(step, loader="plain", size=1, **options):
        dataset = open_dataset(folder, loader=loader, num_threads=2)
        parts = [source(dataset, rank, size, **options).draw(step * BATCH).x for rank in range(size)]
        return torch.cat(parts)

    return make


def test_any_world_size_and_resume_give_the_same_rows(folder, rows):
    running = source(open_dataset(folder))
    for step in range(9):  # past two epochs of 30
        x = running.draw(step * BATCH).x
        assert x.shape == (BATCH, 3, 3, 6, 6)
        if step in (0, 3, 8):
            assert torch.equal(x, rows(step))  # resumed there
            assert torch.equal(x, rows(step, size=3))


@pytest.mark.parametrize("which", ["own_label", "other_labels", "class_samples", "labels_and_sample"])
def test_ranks_share_out_the_rows_of_one(folder, which):
    dataset = open_dataset(folder)
    samples = columns.SampleSources(minus=ClassSamples(dataset))

    def drawn(rank, size):
        running = source(dataset, rank, size, which=getattr(columns, which))
        running.samples = samples
        return running.draw(2 * BATCH)

    whole, parts = drawn(0, 1), [drawn(rank, 3) for rank in range(3)]
    for name in ("x", "labels", "position"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name
    assert torch.equal(whole.law["sigma"], torch.cat([part.law["sigma"] for part in parts]))


@needs_dali
@pytest.mark.parametrize("flip", [False, True])
def test_any_loader_gives_the_same_rows(rows, flip):
    assert torch.equal(rows(2, "plain", flip=flip), rows(2, "dali", flip=flip))
    assert torch.equal(rows(2, "plain", flip=flip), rows(2, "auto", size=2, flip=flip))


def test_half_of_the_images_are_mirrored_whatever_their_column(rows):
    """Half of the images, whatever their column; labels on one image share its flip."""
    plain, maybe = rows(4, flip=False), rows(4, flip=True)
    flipped = (maybe == plain.flip(-1)).flatten(2).all(2)
    assert (flipped ^ (maybe == plain).flatten(2).all(2)).all()
    assert 4 < flipped.sum() < 20 and len({tuple(row) for row in flipped.tolist()}) > 3
    shared = rows(4, which=columns.other_labels)
    assert shared.shape == (BATCH, 3, 6, 6)
    assert torch.equal(shared, maybe[:, 0])


@pytest.mark.parametrize("which", ["other_images", "class_samples", "labels_and_sample"])
def test_every_column_is_mirrored_by_its_own_draw(folder, which):
    """Whether the columns of a row are encoded together or apart."""
    dataset = open_dataset(folder)
    plain, maybe = (source(dataset, flip=flip, which=getattr(columns, which)) for flip in (False, True))
    plain.samples = maybe.samples = columns.SampleSources(minus=ClassSamples(dataset))
    plain, maybe = plain.draw(5 * BATCH).x, maybe.draw(5 * BATCH).x
    flipped = (maybe == plain.flip(-1)).flatten(2).all(2)
    own = rng.flips(SEED, torch.arange(5 * BATCH, 6 * BATCH), flipped.shape[1])
    if which == "labels_and_sample":
        own[:, :-1] = own[:, :1]  # one image under all labels
    assert torch.equal(flipped, own)


def test_every_image_once_an_epoch(folder):
    dataset = open_dataset(folder)
    running = source(dataset, flip=False, which=columns.own_label)
    drawn = torch.cat([running.draw(step * BATCH).x for step in range(15)])  # 120 = 4 epochs
    for epoch in drawn.split(30):
        assert len(epoch.flatten(1).unique(dim=0)) == 30


def test_the_next_steps_images_are_read_during_the_step(folder):
    """The draws after the first find their images read: they ask the dataset for nothing."""
    dataset, num_reads, read = open_dataset(folder), [], threading.Event()
    images = dataset.images

    def counted(index):
        result = images(index)
        num_reads.append(len(index))
        if sum(num_reads) == 3 * BATCH * (1 + DEPTH):  # three columns, each with its image
            read.set()
        return result

    dataset.images = counted
    running = source(dataset)
    running.draw(0)
    assert read.wait(60)  # seconds, after which nobody reads
    assert running.waited > 0

    def nothing(index):
        raise OSError("read in the step that needs it")

    dataset.images = nothing
    fresh = source(open_dataset(folder))
    for step in range(1, 1 + DEPTH):
        assert torch.equal(running.draw(step * BATCH).x, fresh.draw(step * BATCH).x)
    with pytest.raises(OSError, match="in the step that needs it"):
        running.draw((1 + DEPTH) * BATCH)


def test_new_samples_are_used_from_the_next_step_on(folder):
    dataset = open_dataset(folder)
    running = source(dataset, which=columns.class_samples)
    classes = [ClassSamples(dataset, np.flatnonzero(dataset.labels >= 0)[i::2]) for i in (0, 1)]
    running.samples = columns.SampleSources(minus=classes[0])
    first = running.draw(0).x
    wait([*running._next._futures.values()])  # drawn ahead, of the samples before
    running.samples = columns.SampleSources(minus=classes[1])
    fresh = source(dataset, which=columns.class_samples)
    fresh.samples = columns.SampleSources(minus=classes[1])
    assert torch.equal(running.draw(BATCH).x, fresh.draw(BATCH).x)
    assert not torch.equal(running.draw(0).x[:, 1:], first[:, 1:])


def test_every_tensor_of_a_row_is_brought_by_the_thread_and_waited_for(folder):
    """Until they are taken the tensors hold nothing; the rows are those of a CPU."""
    running, fresh = (source(open_dataset(folder)) for _ in range(2))
    running._staging = late = Late()
    for step in range(3):
        found, expected = running.draw(step * BATCH), fresh.draw(step * BATCH)
        for tensor, wanted in zip(found.tensors, expected.tensors, strict=True):
            assert torch.equal(tensor, wanted)
    assert late.threads and threading.current_thread() not in late.threads


def test_new_samples_are_brought_after_what_computed_them(folder):
    dataset = open_dataset(folder)
    running = source(dataset, which=columns.class_samples)
    running._staging = late = Late()
    running.samples = columns.SampleSources(minus=ClassSamples(dataset))
    assert late.followed == 1
    assert running.draw(0).x.min() >= -1
