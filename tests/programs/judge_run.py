"""Samples judged, written to a zip and as files, by any number of ranks; what each rank held is counted.

Usage: judge_run.py OUTDIR MODEL; writes OUTDIR/evaluations/, samples.zip, files/, files.zip, files.npz and
rank<i>.json. The judged
images are made without a network, and seen without rounding, so that they are the same to the bit.
"""

import pickle
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from mclr_fast.config import EvalConfig, SampleConfig
from mclr_fast.evaluation import protocols
from mclr_fast.evaluation.evaluator import Evaluator
from mclr_fast.evaluation.extractors import published
from mclr_fast.evaluation.image_sets import ArrayImages
from mclr_fast.evaluation.judge import Judge, Panel
from mclr_fast.experiments.one_model.sample_files import sample_files
from mclr_fast.methods.model_samples import write_samples
from mclr_fast.models.codecs import PixelCodec
from mclr_fast.runtime.files import write_json
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.sampling import seeded_noise

SHAPE, CLASSES, BATCH, SAMPLES = (3, 32, 32), 4, 3, 40
IMAGE_BYTES = 3 * 32 * 32


class NeverStops:
    """A stop request that does not come."""

    requested = False

    def check(self):
        pass


class CountingRanks(Ranks):
    """Keeps the size of the largest value that was given to be gathered."""

    largest = 0

    def gather(self, value):
        self.largest = max(self.largest, len(pickle.dumps(value)))
        return super().gather(value)

    def gather_on_main(self, value):
        self.largest = max(self.largest, len(pickle.dumps(value)))
        return super().gather_on_main(value)


class Noise:
    """A sampler, and the model that makes it: an image is its seed's noise, brighter from class to class."""

    nfe, unguided = 7, 1.0
    facts = SimpleNamespace(num_classes=CLASSES)

    def sampler(self, net, options, *, guidance=None, guide=None):
        self.guidance = self.unguided if guidance is None else guidance
        return self

    def held(self):
        return nullcontext()

    def start(self, seeds):
        return seeded_noise(seeds, SHAPE)[0] / 4

    def __call__(self, start, labels):
        return start + labels.view(-1, 1, 1, 1) / 8


class Decode:
    """Decodes to bytes, and counts how many decoded images there are at once."""

    def __init__(self):
        self.made, self.most = [], 0

    def __call__(self, x):
        images = PixelCodec(SHAPE).decode(x)
        self.made = [made for made in self.made if made() is not None] + [weakref.ref(images)]
        self.most = max(self.most, sum(len(made()) for made in self.made))
        return images


def extract(images):
    """Whole numbers that float32 holds: their order of summing does not matter."""
    weights = torch.from_numpy(np.random.default_rng(0).integers(-3, 4, (IMAGE_BYTES, 8))).float()
    features = images.flatten(1).float() @ weights
    return features, features[:, :CLASSES] / 1000


class Pixels:
    """A data set of the samples' shape, for the reference and for the format of a zip."""

    num_classes, image_shape = CLASSES, SHAPE
    labels = np.arange(SAMPLES) % CLASSES

    def images(self, indices):
        return np.random.default_rng(1).integers(0, 256, (SAMPLES, *SHAPE), dtype=np.uint8)[indices]


def judge_of(folder, ranks, decode, **options):
    """An evaluator of noise, by the digits' protocol with another network."""
    data, stop = Pixels(), NeverStops()
    real = ArrayImages(data.images(np.arange(SAMPLES)), data.labels)
    protocols.PROTOCOLS["noise"] = replace(protocols.PROTOCOLS["mnist16"], extractor="noise", own_data=None)
    published.SHIPPED["noise"] = Path(__file__)
    published.MAKERS["noise"] = lambda path, device: published.Extractor("noise", 8, "none", extract, "0")
    panel = Panel(["noise"], [real], real)
    judge = Judge.of(panel, SAMPLES, SHAPE, BATCH, ranks, stop)
    config = EvalConfig(num_samples=SAMPLES, sample_batch=BATCH, grid_noises=2, **options)
    seeds, labels = range(100, 100 + SAMPLES), torch.arange(SAMPLES) % CLASSES
    places = (seeds, labels, range(CLASSES), Noise(), decode, folder)
    return Evaluator(judge, config, *places, "mclr", ranks, stop)


def work(outdir, model, ranks):
    """All three -> what this rank held."""
    decode = Decode()
    judge = judge_of(outdir / "evaluations", ranks, decode)
    judge.choose_grid_seeds(None)
    row = judge.evaluate(None, "mclr", "trained", 32).row
    held = {"row": row.to_json(), "grid_seeds": judge.grid_seeds, "decoded": decode.most}
    held["gathered"] = ranks.largest

    ranks.largest = 0
    data, codec = Pixels(), PixelCodec(SHAPE)
    write_samples(outdir / "samples.zip", Noise(), SAMPLES, 5, data, codec, BATCH, ranks, NeverStops())
    held["gathered_for_zip"] = ranks.largest

    options = {"seeds": "0-6,11", "num_steps": 2, "sample_batch": BATCH, "outdir": outdir / "files"}
    held["files"] = sample_files(SampleConfig(model=model, **options), ranks, NeverStops())
    for name in ("files.zip", "files.npz"):
        sample_files(SampleConfig(model=model, **options | {"outdir": outdir / name}), ranks, NeverStops())
    write_json(outdir / f"rank{ranks.rank}.json", held)


def main(outdir, model):
    ranks = CountingRanks("cpu")
    work(Path(outdir), model, ranks)
    ranks.wait()
    ranks.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
