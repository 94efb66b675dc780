"""What a dry run says of the disk: how much a run writes, how many of what, and whether there is room."""

from dataclasses import replace

import pytest

from mclr_fast.config import RunConfig
from mclr_fast.experiments.estimates import disk_use as module
from mclr_fast.experiments.estimates.disk_use import disk_lines, disk_use
from mclr_fast.models import Model, describe
from mclr_fast.recipes import get_recipe
from mclr_fast.training.memory import StepMemory


def counted(config: RunConfig, **train):
    config = replace(config, train=replace(config.train, **train))
    net = config.net or get_recipe("mnist16-base").net
    return config, StepMemory(config, Model.of(describe(net, config.family)))


def test_a_state_of_edm2_l_is_12_gb():
    """Parameters, two moments and an average, in float32, of all but u(sigma), which MCLR leaves alone."""
    config, step = counted(get_recipe("edm2-img512-l"))
    found = disk_use(config, step)
    assert found.model == 4 * 777_498_085 and found.state == pytest.approx(4 * found.model, rel=1e-4)
    assert found.state == pytest.approx(12.4e9, rel=0.01)


@pytest.mark.parametrize(
    ("train", "states", "models", "snapshots"),
    [
        # Of the trained arm the best and two more, of the control its end, and one being written.
        ({}, 3 + 1 + 1, 4, 0),
        ({"checkpoint_every": 64}, 3 + 3 + 1, 4, 0),
        ({"keep_checkpoints": 5}, 6 + 1 + 1, 4, 0),
        ({"milestone_every": 640}, 5, 4 + 4, 0),
        ({"ema": "power", "ema_stds": (0.05, 0.1), "ema_snapshot_every": 640}, 5, 4, 2 * 4),
    ],
)
def test_what_is_kept_at_once_is_counted(train, states, models, snapshots):
    found = disk_use(*counted(get_recipe("mnist16"), **train))
    assert (found.num_states, found.num_models, found.num_snapshots) == (states, models, snapshots)
    assert found.total == states * found.state + (models + snapshots) * found.model


def test_a_run_without_metrics_keeps_a_model_at_each_of_eight_milestones():
    found = disk_use(*counted(replace(get_recipe("mnist16"), protocol=None)))
    assert (found.num_states, found.num_models) == (1 + 1 + 1, 2 + 8)


@pytest.mark.parametrize(
    ("options", "sets"),
    [
        ({"objective": "mclr"}, 0),
        ({"objective": "ddo"}, 1),
        ({"objective": "ddo", "refresh_every": 640}, 4),
        ({"objective": "plus-minus", "positives": "best"}, 2),
    ],
)
def test_samples_that_are_trained_on_are_counted_every_round(options, sets):
    config = get_recipe("mnist16")
    config = replace(config, objective=replace(config.objective, **options))
    assert disk_use(*counted(config)).samples == sets * 2000 * 16 * 16 * 4


def test_the_line_says_how_many_and_what_is_free(tmp_path, monkeypatch):
    config, step = counted(replace(get_recipe("mnist16"), outdir=tmp_path / "not" / "yet"))
    for free, noted in ((10**12, 0), (10**6, 1), (None, 0)):
        monkeypatch.setattr(module, "free_bytes", lambda path, free=free: free if path == tmp_path else 0)
        line, *notes = disk_lines(config, step)
        assert line.startswith("disk            6.94 MB at most = 5 states of 1.16 MB + 4 models of 0.289 MB")
        room = {10**12: "; 1e+03 GB free at", 10**6: "; 1 MB free at"}.get(free)
        assert line.endswith(f"{room} {tmp_path}" if room else "of 0.289 MB")
        assert len(notes) == noted
