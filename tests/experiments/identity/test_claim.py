"""A run's folder and its states are one run's, for older and younger versions of the options too."""

import dataclasses
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mclr_fast import train
from mclr_fast.config import RunConfig, TrainConfig
from mclr_fast.experiments.identity import claim
from mclr_fast.experiments.identity.claim import claim_outdir, flat, run_hash
from mclr_fast.recipes import get_recipe
from mclr_fast.runtime import formats
from mclr_fast.runtime.errors import RunError

ZOO = Path(__file__).parents[2] / "golden" / "zoo"
OPTIONS = """--recipe mnist16 --init base --duration 192 --batch-size 32 --num-samples 40 --num-steps 2
--precision fp32 --log-every 32 --checkpoint-every 64 --sample-batch 40 --keep-checkpoints 1 --control none"""
OWN = {
    "interrupted": "--eval-every 64 --cfg-scales 1.25",
    "rounds": """--objective ddo --model-samples 20 --refresh-every 64 --cfg-scales --eval-every 192
    --ema power --ema-snapshot-every 64""",
}


@dataclass(frozen=True, kw_only=True)
class YoungerTrain(TrainConfig):
    """Training's options in a later version."""

    colour: str = "blue"


@dataclass(frozen=True, kw_only=True)
class YoungerRun(RunConfig):
    """A run's options in a later version."""

    train: TrainConfig = dataclasses.field(default_factory=YoungerTrain)


@pytest.fixture
def with_colour(monkeypatch):
    """with_colour(colour): the recipe mnist16 in a version that has one option more."""
    monkeypatch.setattr(claim, "RunConfig", YoungerRun)
    config = get_recipe("mnist16")
    return lambda colour: replace(config, train=YoungerTrain(**vars(config.train), colour=colour))


@pytest.mark.parametrize("folder", OWN)
def test_a_run_of_format_1_has_the_hash_of_its_states(folder):
    config = train.parse(f"{OPTIONS} {OWN[folder]} --outdir {folder}".split())
    markers = sorted((ZOO / folder).glob("checkpoints/*/*/complete.json"))
    assert markers
    assert {json.loads(marker.read_text())["run"] for marker in markers} == {run_hash(config)}


def test_a_younger_option_at_its_default_changes_no_hash(with_colour):
    before = run_hash(get_recipe("mnist16"))
    assert run_hash(with_colour("blue")) == before
    assert run_hash(with_colour("red")) != before


def test_every_option_of_a_run_that_format_1_had_is_in_its_hash():
    config = get_recipe("mnist16")
    assert run_hash(replace(config, seed=1)) != run_hash(config)
    assert run_hash(replace(config, train=replace(config.train, flip=True))) != run_hash(config)
    assert run_hash(replace(config, loader_threads=3)) == run_hash(config)
    assert json.loads((ZOO / "finished/config.json").read_text()).keys() == formats.FORMAT_1_OPTIONS


def test_a_new_folder_gets_the_format_and_every_option(tmp_path):
    config = get_recipe("mnist16")
    for _ in range(2):  # claim, and claim again
        claim_outdir(tmp_path, config)
        content = json.loads((tmp_path / "config.json").read_text())
        assert content == {"format": formats.CONFIG_FORMAT, **flat(config)}
    assert next(iter(content)) == "format"


def test_a_folder_of_format_1_is_claimed_and_left_as_it_is(tmp_path, with_colour):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(flat(get_recipe("mnist16"))))
    claim_outdir(tmp_path, with_colour("blue"))
    assert json.loads(path.read_text()) == flat(get_recipe("mnist16"))
    with pytest.raises(RunError, match=r"train\.colour: 'blue' there, 'red' asked"):
        claim_outdir(tmp_path, with_colour("red"))
    with pytest.raises(RunError, match="seed: 0 there, 1 asked"):
        claim_outdir(tmp_path, replace(with_colour("blue"), seed=1))


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"format": 3}', "format 3.*upgrade"), ("[]", "cannot be read"), ("{", "cannot be read")],
)
@pytest.mark.robust("identity")
def test_a_folder_that_cannot_be_understood(tmp_path, content, message):
    """One line says why config.json cannot be read, and asks for another --outdir."""
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=message) as refused:
        claim_outdir(tmp_path, get_recipe("mnist16"))
    assert "\n" not in str(refused.value)


@pytest.mark.robust("arguments")
def test_the_root_of_a_fresh_disk_counts_as_empty(tmp_path):
    """An --outdir that holds lost+found alone is taken."""
    (tmp_path / "lost+found").mkdir()
    claim_outdir(tmp_path, RunConfig(recipe="mnist16-base"))
    assert (tmp_path / "config.json").exists()


@pytest.mark.robust("arguments")
def test_a_file_beside_lost_and_found_is_somebody_elses(tmp_path):
    """The folder is refused, and left as it is."""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="is not empty"):
        claim_outdir(tmp_path, RunConfig(recipe="mnist16-base"))


@pytest.mark.parametrize(
    "names",
    [
        ["train.log"],
        ["log.txt", "lost+found/"],
        ["nohup.out", "slurm-1234.err"],
        ["stdout", ".nfs000000000123", ".gitkeep"],
        [".DS_Store", "Thumbs.db", "@eaDir/", "$RECYCLE.BIN/", "System Volume Information/"],
    ],
)
@pytest.mark.robust("arguments")
def test_what_nobody_put_there_counts_as_nothing(tmp_path, names):
    """An --outdir that holds only logs and what systems and network drives leave counts as empty."""
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("said")
    claim_outdir(tmp_path, RunConfig(recipe="mnist16-base"))
    assert (tmp_path / "config.json").exists()
    made = {"config.json", "identity.json"}
    assert {entry.name for entry in tmp_path.iterdir()} == {name.rstrip("/") for name in names} | made


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("name", ["what.it-said", "torchrun/attempt_0/0/said"])
@pytest.mark.robust("arguments")
def test_the_commands_own_log_counts_as_nothing(tmp_path, number, name):
    """`> runs/x/what.it-said`: the file that this command's words go to counts as nothing, by any name."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(number)
    with open(tmp_path / name, "w") as file:
        os.dup2(file.fileno(), number)
    try:
        claim_outdir(tmp_path, RunConfig(recipe="mnist16-base"))
    finally:
        os.dup2(before, number)
        os.close(before)
    assert (tmp_path / "config.json").exists()
    for made in ("config.json", "identity.json"):
        (tmp_path / made).unlink()
    with pytest.raises(RunError, match="is not empty"):  # now it is any other file
        claim_outdir(tmp_path, RunConfig(recipe="mnist16-base"))


@pytest.mark.parametrize("name", ["catalog.csv", "logo.png", "results.json", "logs/run.txt", "loginov.docx"])
@pytest.mark.robust("arguments")
def test_what_only_looks_like_a_log_is_somebody_elses(tmp_path, name):
    """A folder with any other file in it is refused."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    with pytest.raises(RunError, match="is not empty"):
        claim_outdir(tmp_path, RunConfig(recipe="mnist16-base"))
