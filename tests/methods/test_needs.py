"""What a run makes for its objective: samples, rounds of references, the classifier; made once, resumable."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from run_log import column

from mclr_fast.config import SamplerConfig
from mclr_fast.data import open_dataset
from mclr_fast.data.image_files import write_zip
from mclr_fast.methods.model_samples import write_samples
from mclr_fast.methods.ratio import best_samples
from mclr_fast.models import describe, load, save_model
from mclr_fast.models.codecs import LatentCodec, PixelCodec, codec_for
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.ranks import Ranks
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors


def losses(outdir):
    return column(outdir, "loss").tolist()


def final(files, outdir, arm):
    return load(files / outdir / "checkpoints" / f"final-{arm}").state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_samples_are_balanced_and_repeatable(tiny, tmp_path):
    sampler, data = tiny.MODEL.sampler(tiny.tiny_net(), SamplerConfig(num_steps=2)), tiny.TinyData()
    arguments = (sampler, 10, 2**31, data, PixelCodec((1, 8, 8)), 3, Ranks("cpu"), tiny.StopAfter(0))
    for name in ("one.zip", "two.zip"):
        write_samples(tmp_path / name, *arguments)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    samples = open_dataset(str(tmp_path / "one.zip"))
    assert np.bincount(samples.labels).tolist() == [3, 3, 2, 2]
    images = samples.images(np.arange(10))
    assert images.dtype == np.uint8 and images.shape == (10, 1, 8, 8)
    assert len(np.unique(images.reshape(10, -1), axis=0)) == 10


def test_latent_samples_read_back_as_the_model_made_them(tmp_path):
    x = torch.randn(5, 4, 8, 8)
    write_zip(tmp_path / "latents.zip", LatentCodec((4, 8, 8)).stored(x).numpy(), np.arange(5) % 2)
    latents = open_dataset(str(tmp_path / "latents.zip"))
    raw = torch.from_numpy(latents.images(np.arange(5)))
    read = codec_for(latents.image_shape).encode(raw, torch.randn(5, 4, 8, 8))
    torch.testing.assert_close(read, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("given", [False, True])
def test_missing_negatives_are_made_once_and_reused(tiny_run, files, given):
    options = {"negatives": files / "made.zip"} if given else {}
    path = files / "made.zip" if given else files / "run" / "samples" / "reference-0.zip"
    tiny_run("run", "ddo", **options).execute()
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 8 + 1
    stamp = path.stat().st_mtime_ns
    tiny_run("run", "ddo", **options).execute()
    assert path.stat().st_mtime_ns == stamp


def test_rounds_resume_wherever_they_were_stopped(tiny_run, files):
    """The average becomes the reference every 24 images; a run stopped anywhere ends with the same bits."""
    tiny_run("whole", "ddo", refresh_every=24).execute()
    expected = losses(files / "whole")
    for number in (1, 2):
        assert (files / "whole" / "samples" / f"reference-{number}.zip").exists()
    references = [load(files / "whole" / "checkpoints" / f"round-{n}").state_dict() for n in (1, 2)]
    assert not same(*references)
    assert not (files / "whole" / "checkpoints" / "round-3").exists()

    for stop_after in (2, 4, 5):  # looks at the stop request: sampling batches and steps
        try:
            tiny_run("stopped", "ddo", stop_after, refresh_every=24).execute()
        except Interrupted:
            continue
    tiny_run("stopped", "ddo", refresh_every=24).execute()
    assert losses(files / "stopped") == expected
    assert same(final(files, "stopped", "ddo"), final(files, "whole", "ddo"))

    tiny_run("single", "ddo").execute()
    single = losses(files / "single")
    assert single[:2] == expected[:2] and single[2] != expected[2]
    assert expected[2] == pytest.approx(2 * np.log(2), rel=0.02)  # a new reference is the policy's average


@pytest.mark.parametrize(
    ("objective", "options"),
    [("weighted-mclr", {}), ("plus-minus", {"positives": "best"}), ("kl-mclr", {}), ("ccdpo", {})],
)
def test_runs_and_runs_again(tiny_run, files, objective, options):
    first = tiny_run("run", objective, **options).execute()
    kept = {path: path.stat().st_mtime_ns for path in (files / "run").glob("*.safetensors")}
    assert bool(kept) == (objective in ("weighted-mclr", "plus-minus"))
    if kept:
        assert 0 <= first.classifier["accuracy"] <= 1
        _, meta = load_tensors(files / "run" / "classifier.safetensors")
        assert meta["quality"] == first.classifier
    second = tiny_run("run", objective, **options).execute()
    assert second == replace(first, seconds=second.seconds)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_classifier_may_be_shared_and_must_fit(tiny_run, files):
    path = files / "classifier.safetensors"
    options = {"objective": "weighted-mclr", "classifier": path}
    first = tiny_run("one", **options).execute()
    stamp = path.stat().st_mtime_ns
    assert tiny_run("two", **options).execute().classifier == first.classifier
    assert path.stat().st_mtime_ns == stamp
    groups, meta = load_tensors(path)
    save_tensors(path, groups, {**meta, "arguments": {**meta["arguments"], "image_shape": [3, 8, 8]}})
    with pytest.raises(RunError, match=r"its image_shape is \[3, 8, 8\], this run's \[1, 8, 8\]"):
        tiny_run("three", **options)


def test_autoguidances_negatives_are_another_models(tiny_run, tiny, files):
    save_model(files / "weak", tiny.tiny_net(5).state_dict(), describe(tiny.NET))
    options = {"positives": "base", "negatives_model": str(files / "weak")}
    tiny_run("run", "plus-minus", **options).execute()
    base, negatives = (
        open_dataset(str(files / "run" / "samples" / name)).images(np.arange(8))
        for name in ("reference-0.zip", "negatives.zip")
    )
    assert not np.array_equal(base, negatives)


def test_best_samples_are_a_share_of_each_class():
    """A classifier that reads the class's likelihood off the brightness."""

    class Bright:
        labels = np.repeat(np.arange(2), 10)
        image_shape = (1, 1, 1)

        def __len__(self):
            return 20

        def images(self, index):
            return (np.asarray(index) * 7 % 20).astype(np.uint8).reshape(-1, 1, 1, 1)

    class Classifier:
        def ratio(self, x, sigma, labels):
            return x[:, 0, 0]

    chosen = best_samples(Classifier(), Bright(), PixelCodec((1, 1, 1)), 0.2, 0.1, 0, torch.device("cpu"))
    brightness = np.arange(20) * 7 % 20
    expected = [np.argsort(-brightness[first : first + 10])[:2] + first for first in (0, 10)]
    assert sorted(chosen) == sorted(np.concatenate(expected))
