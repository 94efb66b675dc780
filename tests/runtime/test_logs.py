"""log.jsonl: what is written, and what is taken back."""

import pytest

from mclr_fast.runtime.logs import RunLog


@pytest.fixture
def log(tmp_path):
    """A log of two arms, each of three lines."""
    log = RunLog(tmp_path / "log.jsonl")
    for arm in ("mclr", "denoising"):
        for images in (12, 24, 36):
            log.write({"arm": arm, "images_seen": images, "loss": 1.0})
    return log


def seen(log):
    return [(line["arm"][0], line["images_seen"]) for line in log.lines()]


def test_an_arm_goes_back_alone(log):
    log.rewind("denoising", 12)
    assert seen(log) == [("m", 12), ("m", 24), ("m", 36), ("d", 12)]
    log.rewind("mclr", 0)
    assert seen(log) == [("d", 12)]


def test_a_line_cut_short_is_passed_over(log):
    with open(log.path, "a") as file:
        file.write('{"arm": "mclr", "images_s')
    assert len(seen(log)) == 6
    log.rewind("mclr", 36)
    assert len(log.path.read_text().splitlines()) == 6


def test_other_ranks_write_nothing(tmp_path):
    log = RunLog(None)
    log.write({"arm": "mclr", "images_seen": 12})
    log.rewind("mclr", 0)
    assert log.lines() == [] and not list(tmp_path.iterdir())
