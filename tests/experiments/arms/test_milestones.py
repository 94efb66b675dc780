"""A run that nothing judges: what it keeps on its way, and what trackers are shown of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mclr_fast.experiments.arms import milestones as milestones_module
from mclr_fast.models import load
from mclr_fast.reports.grid import read_grid, sheet
from mclr_fast.runtime.errors import Interrupted, RunError

EVERY = {"milestone_every": 24}


class Tracker:
    """Notes what it is told of evaluations."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *_: None

    def evaluated(self, *what):
        self.told.append(what)


@pytest.fixture
def kept(tiny_run, files):
    """The folder of a run of 72 images with milestones at 24, 48 and 72, and its tracker."""
    run, tracker = tiny_run("run", train=EVERY), Tracker()
    run.log.trackers = [tracker]
    run.execute()
    return SimpleNamespace(folder=files / "run", told=tracker.told)


def test_a_model_and_a_grid_are_kept_at_every_milestone(kept):
    folders = sorted(path.name for path in (kept.folder / "milestones").iterdir())
    assert folders == ["base-000000000000", *(f"mclr-{n:012d}" for n in (24, 48, 72))]
    states = [load_file(kept.folder / "milestones" / name / "model.safetensors") for name in folders[1:]]
    final = load_file(kept.folder / "checkpoints" / "final-mclr" / "model.safetensors")
    assert all(torch.equal(states[-1][name], final[name]) for name in final)
    assert not torch.equal(states[0]["unet.out_conv.weight"], states[1]["unet.out_conv.weight"])
    assert load(kept.folder / "milestones" / folders[1]).description["images_seen"] == 24


def test_the_grids_are_the_run_s_own_in_order_of_time(kept, tiny):
    entries = read_grid(kept.folder, "mclr")
    assert [(e.name, e.kind, e.images_seen) for e in entries] == [
        ("base", "base", 0),
        *(("mclr", "trained", n) for n in (24, 48, 72)),
    ]
    assert entries[0].images.shape == (2, tiny.NET["label_dim"], 1, 8, 8)
    assert not (entries[1].images == entries[3].images).all()
    picture = Image.open(kept.folder / "milestones" / "mclr-000000000072" / "grid.png")
    assert np.array_equal(np.asarray(picture), sheet(entries[3].images)[:, :, 0])


def test_trackers_are_shown_the_samples(kept):
    entries = read_grid(kept.folder, "mclr")
    assert [(name, images) for name, images, _, _ in kept.told] == [("mclr", n) for n in (24, 48, 72)]
    for (*_, values, picture), entry in zip(kept.told, entries[1:], strict=True):
        assert values == {} and np.array_equal(picture, sheet(entry.images))


def test_a_sheet_has_a_noise_a_row_and_a_class_a_column():
    images = np.zeros((2, 3, 1, 4, 5), np.uint8)
    images[1, 2, 0, 3, 4] = 7
    picture = sheet(images)
    assert picture.shape == (8, 15, 1) and picture[7, 14, 0] == 7 and picture.sum() == 7


def test_a_resumed_run_makes_none_again(tiny_run, files, monkeypatch):
    with pytest.raises(Interrupted):
        tiny_run("run", stop_after=5, train=EVERY).execute()  # a look a step, and one a batch of samples
    made = []
    real = milestones_module.grid_samples
    monkeypatch.setattr(milestones_module, "grid_samples", lambda *a, **k: (made.append(1), real(*a, **k))[1])
    there = len(list((files / "run" / "milestones").glob("*/grid.npz")))
    tiny_run("run", train=EVERY).execute()
    assert there >= 2 and len(made) == 4 - there
    tiny_run("run", train=EVERY).execute()
    assert len(made) == 4 - there


def test_milestones_change_no_bit_of_the_training(tiny_run, files):
    finals = []
    for name, train in (("with", EVERY), ("without", {})):
        tiny_run(name, train=train).execute()
        finals.append(load_file(files / name / "checkpoints" / "final-mclr" / "model.safetensors"))
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


def test_without_a_decoder_the_models_alone_are_kept_and_it_is_said_once(tiny_run, files, monkeypatch):
    def none(*_):
        raise RunError("the network makes latents of 4 channels: give their decoder.")

    monkeypatch.setattr(milestones_module, "decoder_of", none)
    tiny_run("run", train=EVERY).execute()
    assert len(list((files / "run" / "milestones").glob("mclr-*/model.safetensors"))) == 3
    assert not list((files / "run").glob("**/grid.*"))
    said = (files / "run" / "log.txt").read_text()
    assert said.count("note: milestones are kept without samples: the network makes latents") == 1
