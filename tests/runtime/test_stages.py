"""How far a stage is: a bar where somebody watches, elsewhere whole lines and no carriage return."""

import pytest

from mclr_fast.runtime import stages
from mclr_fast.runtime.stages import EVERY, StageLines, duration, on_terminal, progress_bar


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_pipe_gets_one_line_a_stage_and_no_carriage_return(capsys):
    for name in ("base samples", "mclr samples"):
        with progress_bar(name, 200, 0, True) as bar:
            for _ in range(20):
                bar.set_postfix_str("99 calls/s", refresh=False)
                bar.update(10)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["base samples", "mclr samples"]
    assert all(" 200 images in 0.0 s, 99 calls/s" in line for line in lines)
    assert "\r" not in said.err and not said.out


def test_a_long_stage_says_now_and_then_what_is_left(capsys):
    clock = Clock()
    with StageLines("base samples", 1000, 0, "images", clock=clock) as stage:
        for _ in range(10):
            clock.now += EVERY / 2
            stage.update(100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "base samples: 200 of 1,000 images in 5 min 00 s, 20 min 00 s left",
        "base samples: 400 of 1,000 images in 10 min 00 s, 15 min 00 s left",
        "base samples: 600 of 1,000 images in 15 min 00 s, 10 min 00 s left",
        "base samples: 800 of 1,000 images in 20 min 00 s, 5 min 00 s left",
        "base samples: 1,000 images in 25 min 00 s",
    ]


def test_what_was_there_before_counts_but_not_for_what_is_left(capsys):
    clock = Clock()
    with StageLines("x.zip", 1000, 500, "images", clock=clock) as stage:
        clock.now = 400.0
        stage.update(100)
        stage.update(400)
    assert capsys.readouterr().err.splitlines() == [
        "x.zip: 600 of 1,000 images in 6 min 40 s, 26 min 40 s left",
        "x.zip: 1,000 images in 6 min 40 s",
    ]


def test_a_stage_that_fails_leaves_the_last_line_to_its_error(capsys):
    with pytest.raises(KeyError), progress_bar("x", 2, 0, True) as bar:
        bar.update(1)
        raise KeyError
    assert capsys.readouterr().err == ""


def test_other_ranks_say_nothing(capsys):
    with progress_bar("x", 2, 0, False) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(stages, "on_terminal", lambda: True)
    with progress_bar("x", 200, 0, True) as bar:
        bar.update(200)
    assert "\r" in capsys.readouterr().err and not on_terminal()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7500, "2 h 05 min"),
        (86400 * 3 + 3600 * 4, "3 d 04 h"),
    ],
)
def test_times_in_words(seconds, words):
    assert duration(seconds) == words
