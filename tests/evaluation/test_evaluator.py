"""The evaluator: the same rows on any number of ranks, no rank holding more than its batch; kept and read."""

import json

import judge_run as program
import numpy as np
import pytest
import torch
from PIL import Image

from mclr_fast.data import open_dataset
from mclr_fast.evaluation.collected import Collector
from mclr_fast.evaluation.extractors.published import Extractor
from mclr_fast.evaluation.rows import Row
from mclr_fast.models import describe, save_model
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.tensor_files import load_tensors, save_tensors


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory, tiny, on_two_ranks):
    """The folders of the program on one rank and on two."""
    files = tmp_path_factory.mktemp("judged")
    save_model(files / "base", tiny.tiny_net().state_dict(), describe(tiny.NET))
    program.work(files / "one", str(files / "base"), program.CountingRanks("cpu"))
    on_two_ranks(program.__file__, files / "two", files / "base")
    return files / "one", files / "two"


def held(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rank*.json"))]


def test_two_ranks_see_what_one_sees(one_and_two):
    """Features, pictures and metrics to the bit; both ranks have the row of rank 0."""
    (one, _), (two, _) = (
        load_tensors(folder / "evaluations" / "mclr-32.safetensors") for folder in one_and_two
    )
    assert one["seen"]["features"].shape == (program.SAMPLES, 8)
    assert one["grid"]["images"].shape == (2, program.CLASSES, *program.SHAPE)
    for group, members in one.items():
        assert all(torch.equal(two[group][name], tensor) for name, tensor in members.items())
    (alone,), both = held(one_and_two[0]), held(one_and_two[1])
    assert both[0]["row"] == both[1]["row"]
    for found in both:
        assert found["grid_seeds"] == alone["grid_seeds"]
        assert {**found["row"], "seconds": None} == {**alone["row"], "seconds": None}


def test_no_rank_holds_more_images_than_its_batches(one_and_two):
    """But for the few of the grid; of the samples that are judged only features are gathered."""
    grid = 2 * program.CLASSES
    assert 3 * (grid + program.BATCH) < program.SAMPLES
    for found in [*held(one_and_two[0]), *held(one_and_two[1])]:
        assert found["decoded"] <= grid + program.BATCH
        assert found["gathered"] < (grid + program.BATCH) * program.IMAGE_BYTES
        assert found["gathered_for_zip"] < (program.BATCH + 1) * program.IMAGE_BYTES


def test_two_ranks_write_what_one_writes(one_and_two):
    one, two = one_and_two
    assert (one / "samples.zip").read_bytes() == (two / "samples.zip").read_bytes()
    names = sorted(path.name for path in (one / "files").iterdir())
    assert names == sorted(path.name for path in (two / "files").iterdir())
    assert len(names) == 8 + 1 and [found["files"] for found in held(two)] == [8, 8]
    assert (one / "files" / "dataset.json").read_bytes() == (two / "files" / "dataset.json").read_bytes()
    for name in names[:-1]:  # a network may round otherwise in another batch
        a, b = (np.asarray(Image.open(folder / "files" / name)).astype(int) for folder in one_and_two)
        assert np.abs(a - b).max() <= 1
    a, b = (np.load(folder / "files.npz") for folder in one_and_two)
    assert np.abs(a["arr_0"].astype(int) - b["arr_0"]).max() <= 1
    assert a["arr_1"].tolist() == b["arr_1"].tolist() == open_dataset(str(two / "files")).labels.tolist()
    a, b = (open_dataset(str(folder / "files.zip")) for folder in one_and_two)
    assert np.abs(a.images(np.arange(8)).astype(int) - b.images(np.arange(8))).max() <= 1
    assert a.labels.tolist() == b.labels.tolist()


def test_features_are_put_together_by_place():
    images = torch.arange(12, dtype=torch.uint8).view(6, 1, 2, 1)
    extract = Extractor("pixels", 2, "none", lambda x: (x.flatten(1).float(), -x.flatten(1).float()), "0", 1)
    collector = Collector({"pixels": extract}, {"pixels": {"features", "logits"}}, 6, Ranks("cpu"))
    for places in (range(4, 6), range(0, 1), range(1, 1), range(1, 4)):
        collector.add(images[places.start : places.stop], places)
    seen = collector.collected()["pixels"]
    assert torch.equal(seen.features, images.flatten(1).float()) and torch.equal(seen.logits, -seen.features)


@pytest.fixture
def judge(tmp_path):
    return program.judge_of(tmp_path, Ranks("cpu"), program.Decode())


def test_an_evaluation_is_made_once(judge):
    assert judge.kept("mclr", 32) is None
    made = judge.evaluate(None, "mclr", "trained", 32)
    judge.model = None  # nothing is sampled again
    read = judge.evaluate(None, "mclr", "trained", 32)
    assert read.row == made.row and read.row.seconds > 0
    assert torch.equal(read.features, made.features) and torch.equal(read.grid, made.grid)
    assert (made.row.kind, made.row.nfe, made.row.samples) == ("trained", 7, program.SAMPLES)
    assert made.row.values == made.row.metrics["noise"] and made.row.chosen_by == "noise"


def test_what_is_made_is_kept_only_when_told(judge):
    made = judge.make(None, "mclr", "trained", 32)
    assert judge.kept("mclr", 32) is None
    judge.keep(made)
    assert judge.kept("mclr", 32).row == made.row


@pytest.mark.parametrize(
    ("name", "kind", "guidance"),
    [
        ("base", "base", 1),
        ("cfg-1.25", "guidance", 1.25),
        ("denoising", "control", 1),
        ("mclr", "trained", 1),
    ],
)
def test_evaluations_of_format_1_are_read(judge, name, kind, guidance):
    """They had a flat row that said neither what was scored nor by which protocol."""
    metrics = {"fd": 0.5, "fd_heldout": 0.6, "is": 8.0, "precision": 0.7, "recall": 0.8, "accuracy": 0.9}
    old = {"name": name, "images_seen": 64, "nfe": 23, "samples": 40, **metrics, "seconds": 2.5}
    groups = {"seen": {"features": torch.zeros(40, 8)}, "grid": {"images": torch.zeros(2, 4, 3, 8, 8)}}
    save_tensors(judge.path(name, 64), groups, old)
    row = judge.kept(name, 64).row
    protocol = "mnist16"
    assert row == Row(name, kind, 64, 23, 40, {protocol: metrics}, protocol, guidance=guidance, seconds=2.5)


def test_the_real_row_is_of_as_many_images_as_are_sampled(judge):
    row = judge.real_row()
    assert (row.kind, row.samples, row.nfe, row.images_seen) == ("real", program.SAMPLES, 0, 0)
    assert row.fd == pytest.approx(0, abs=1e-6) and row.values["fd_heldout"] is None
    judge.seeds = judge.seeds[:10]
    assert judge.real_row().samples == 10
