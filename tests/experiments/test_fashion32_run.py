"""Fashion-MNIST from idx files to rows: prepared, a base, MCLR with a control, judged by classifier.

And one row of the shipped base, as a stranger would make it again, at a tenth of its size.
"""

import gzip
import struct
from dataclasses import replace

import numpy as np
import pytest

from mclr_fast import prepare
from mclr_fast.experiments.run import Run
from mclr_fast.models import Model, read_config
from mclr_fast.recipes import get_recipe
from mclr_fast.runtime.process.ranks import Ranks

TINY = dict(model_channels=8, channels_per_head=8, channel_mult=[1, 1, 2], logvar_channels=8)


def write_idx(folder, part, num_images, rng):
    """Bright squares at ten places, one a class, in noise: images of 28x28 and their labels."""
    labels = np.arange(num_images, dtype=np.uint8) % 10
    pixels = rng.integers(0, 60, (num_images, 28, 28), np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        row, column = divmod(int(label), 5)
        image[14 * row : 14 * row + 9, 5 * column : 5 * column + 5] += 150
    folder.mkdir(exist_ok=True)
    for what, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        data = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
        (folder / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(data))


@pytest.fixture
def data(tmp_path):
    """Both data sets, by the page's commands."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 100)):
        write_idx(tmp_path / "idx", part, count, rng)
        out = str(tmp_path / f"{part}.zip")
        options = [
            "--resolution",
            "32",
            "--pad",
            "--grey",
            "--within",
            part,
            "--class-names",
            ",".join("abcdefghij"),
        ]
        assert prepare.main([str(tmp_path / "idx"), out, *options]) == 0
    return str(tmp_path / "train.zip"), str(tmp_path / "t10k.zip")


@pytest.mark.slow
def test_from_idx_files_to_rows(data, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "cache"))
    base, run = get_recipe("fashion32-small-base"), get_recipe("fashion32-small")
    net, ranks = {**base.net, **TINY}, Ranks("cpu")
    short = dict(batch_size=16, duration=64, checkpoint_every=32)
    base = replace(
        base,
        data=data[0],
        net=net,
        outdir=tmp_path / "base",
        train=replace(base.train, **short, ema_snapshot_every=32),
    )
    summary = Run(base, ranks, tiny.StopAfter(0)).execute()
    assert summary.rows == [] and summary.images_seen == 64
    snapshots = sorted(path.name for path in (tmp_path / "base/snapshots").iterdir())
    assert snapshots == [f"denoising-{seen:012d}-{std}" for seen in (32, 64) for std in ("0.050", "0.100")]
    said = read_config(tmp_path / "base")
    assert said["null_label"] and Model.of(said).sampler_defaults["num_steps"] == base.eval.num_steps
    assert said["sampler"]["classes"] == "in turn"

    options = dict(num_steps=2, num_samples=80, final_samples=70, eval_every=32, heldout=data[1])
    run = replace(
        run,
        data=data[0],
        init=str(tmp_path / "base"),
        net=net,
        outdir=tmp_path / "run",
        train=replace(run.train, batch_size=16, duration=64),
        eval=replace(run.eval, **options, cfg_scales=(1.5,), best_cfg_scales=(1.5,), dial=(0.5,)),
    )
    summary = Run(run, ranks, tiny.StopAfter(0)).execute()
    assert [row.name for row in summary.rows[:3]] == ["real", "base", "cfg-1.5"]
    kinds = {"real", "base", "guidance", "control", "trained", "guided", "dial"}
    assert {row.kind for row in summary.rows} == kinds
    assert all(np.isfinite(row.fd) for row in summary.rows)
    assert {row.samples for row in summary.final} == {70}


@pytest.mark.slow
def test_one_row_of_the_shipped_base_at_a_tenth(data, tiny, tmp_path, monkeypatch):
    """The page's command for it: MCLR's row alone, of a tenth of the images and of the samples."""
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path / "cache"))
    run = get_recipe("fashion32-small")
    tenth, judged = run.train.duration // 10, dict(control="none", cfg_scales=(), best_cfg_scales=(), dial=())
    run = replace(
        run,
        data=data[0],
        outdir=tmp_path / "run",
        train=replace(run.train, duration=tenth),
        eval=replace(
            run.eval,
            **judged,
            eval_every=tenth,
            num_samples=run.eval.num_samples // 10,
            final_samples=run.eval.final_samples // 10,
        ),
    )
    summary = Run(run, Ranks("cpu"), tiny.StopAfter(0)).execute()
    assert [(row.kind, row.samples) for row in summary.rows[1:]] == [("base", 200), ("trained", 200)]
    final = {row.kind: row for row in summary.final}
    assert {kind: row.samples for kind, row in final.items()} == {"base": 500, "trained": 500}
    assert summary.images_seen == tenth and all(np.isfinite(row.fd) for row in final.values())
    assert final["trained"].fd != final["base"].fd and final["trained"].nfe == final["base"].nfe  # unguided
