"""Arguments as doors read them."""

import os
import sys
from pathlib import Path

import pytest

from mclr_fast import ema, evaluate, prepare, report, sample, train
from mclr_fast.runtime.options import given
from mclr_fast.runtime.remote.downloads import cache_folder


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return str(tmp_path / "home")


@pytest.mark.parametrize(
    ("argument", "read"),
    [
        ("--outdir=~/x", "--outdir={home}/x"),
        ("--init=~", "--init={home}"),
        ("~/x", "{home}/x"),
        ("~", "{home}"),
        ("--data=a~/x", "--data=a~/x"),
        ("a/~/x", "a/~/x"),
        ("--note=x=~/y", "--note=x=~/y"),
        ("-0.4", "-0.4"),
        ("--outdir=~nobody-of-that-name/x", "--outdir=~nobody-of-that-name/x"),
        ("~$thesis.docx", "~$thesis.docx"),
    ],
)
@pytest.mark.robust("arguments")
def test_ones_home_is_meant_wherever_a_path_begins(home, argument, read):
    """`--outdir=~/x` is the home's x, as a shell has it after a space; any other ~ stays as it is."""
    assert given([argument]) == [read.format(home=home)]


@pytest.mark.robust("arguments")
def test_the_command_lines_arguments_are_read_alike(home, monkeypatch):
    """A door that is called without arguments reads the command line in the same way."""
    monkeypatch.setattr(sys, "argv", ["sample", "--outdir=~/x", "~/model"])
    assert given(None) == [f"--outdir={home}/x", f"{home}/model"]


@pytest.mark.parametrize(
    ("door", "arguments"),
    [
        (train, ["--recipe", "edm2-img64-s", "--init=~/model", "--data=~/data.zip"]),
        (sample, ["~/model"]),
        (evaluate, ["--images=~/data.zip", "--protocol", "is"]),
        (prepare, ["~/data.zip", "--verify"]),
        (ema, ["~/run", "--std", "0.1", "--out=~/x"]),
    ],
)
@pytest.mark.robust("arguments")
def test_every_door_knows_the_home(home, capsys, door, arguments):
    """Each door looks in the home for what `~/` names, and makes no folder of that name."""
    assert door.main(arguments) == 1
    assert home in capsys.readouterr().err and not Path("~").exists()


@pytest.mark.robust("arguments")
def test_a_report_of_a_run_at_home(home, capsys):
    """`python -m mclr_fast.report '~/run'` looks in the home."""
    with pytest.raises(SystemExit):
        report.main(["~/run"])
    assert f"{home}/run has no summary.json" in capsys.readouterr().err


@pytest.mark.robust("arguments")
def test_the_cache_may_be_at_home(home, monkeypatch):
    """MCLR_FAST_CACHE=~/cache, as files of settings have it, is the home's cache."""
    monkeypatch.setenv("MCLR_FAST_CACHE", "~/cache")
    assert str(cache_folder()) == os.path.join(home, "cache")
    monkeypatch.delenv("MCLR_FAST_CACHE")
    assert str(cache_folder()) == os.path.join(home, ".cache/mclr_fast")
