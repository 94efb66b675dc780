"""A run is known by what its files hold, not by how they are spelled; it may grow, and not shrink."""

import dataclasses
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from run_log import column
from safetensors.torch import load_file, save_file
from stand_ins import ARGUMENTS, snapshot
from states import same
from zips import write_zip

from mclr_fast.config import EvalConfig, RunConfig
from mclr_fast.experiments import run as run_module
from mclr_fast.experiments.arms.marks import make_marks
from mclr_fast.experiments.identity.claim import claim_outdir
from mclr_fast.experiments.identity.fingerprints import LOOKS, difference, fingerprints, is_known
from mclr_fast.models.edm2 import Precond
from mclr_fast.runtime.errors import Interrupted, RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.remote.downloads import place_of


@pytest.fixture
def go(run_config, tiny, monkeypatch):
    """go(outdir, objective, stop_after=0, train={}, files={}, **options): run it. files: paths."""
    monkeypatch.setattr(run_module, "write_report", lambda outdir: None)  # takes a second

    def run(outdir="run", objective="mclr", stop_after=0, train=(), files=(), **options):
        config = dataclasses.replace(run_config(outdir, objective, train, **options), **dict(files))
        made = run_module.Run(config, Ranks("cpu"), tiny.StopAfter(stop_after))
        if stop_after:
            with pytest.raises(Interrupted):
                made.execute()
            return None
        return made.execute()

    return run


def weights(folder, arm="mclr"):
    return load_file(folder / "checkpoints" / f"final-{arm}" / "model.safetensors")


def one_pixel(files):
    """One pixel of one image of the zip, written again."""
    data = np.load(files / "pixels.npy")
    data[7, 0, 0, 0] ^= 1
    write_zip(files / "data.zip", data, np.arange(40) % 4)


def one_label(files):
    write_zip(files / "data.zip", np.load(files / "pixels.npy"), np.r_[1, np.arange(1, 40) % 4])


def fewer(files):
    write_zip(files / "data.zip", np.load(files / "pixels.npy")[:39], np.arange(39) % 4)


def one_weight(files):
    path = files / "base" / "model.safetensors"
    state = load_file(path)
    next(iter(state.values())).flatten()[0] += 1
    save_file(state, path)


def other_net(files):
    """Of the same shapes: what it computes shows in its config.json alone."""
    path = files / "base" / "config.json"
    said = json.loads(path.read_text())
    said["net"]["sigma_data"] = 0.6
    path.write_text(json.dumps(said))


@pytest.mark.parametrize("change", [one_pixel, one_label, fewer, one_weight, other_net])
@pytest.mark.robust("identity")
def test_what_was_replaced_since_the_run_stopped_is_refused(go, files, tiny, change):
    """The data or the base: one line with both fingerprints and the mend, and nothing is changed."""
    np.save(files / "pixels.npy", tiny.TinyData().images(range(40)))
    go(stop_after=3)
    kept = {path: path.read_bytes() for path in (files / "run").rglob("*") if path.is_file()}
    change(files)
    option = "init" if change in (one_weight, other_net) else "data"
    with pytest.raises(RunError) as refused:
        go()
    words = str(refused.value)
    assert "\n" not in words and "Choose another --outdir, or give that run's" in words
    assert "as they were, to resume it" in words
    (then, now) = re.search(rf"{option}: '.*' was (\w{{12}}).* there, '.*' is (\w{{12}})", words).groups()
    assert then != now
    assert {path: path.read_bytes() for path in (files / "run").rglob("*") if path.is_file()} == kept


@pytest.mark.robust("identity")
def test_other_files_are_fingerprinted_too(go, files, tiny):
    """Samples that somebody gave, and the model that is compared with, may not be replaced either."""
    shutil.copytree(files / "base", files / "reference")
    shutil.copy(files / "data.zip", files / "negatives.zip")
    options = {"reference": str(files / "reference"), "negatives": files / "negatives.zip"}
    go("run", "ddo", 3, **options)
    write_zip(files / "negatives.zip", tiny.TinyData(1).images(range(40)), np.arange(40) % 4)
    with pytest.raises(RunError, match=r"objective\.negatives: .* of other checksums, contents"):
        go("run", "ddo", **options)
    shutil.copy(files / "data.zip", files / "negatives.zip")
    shutil.copytree(files / "reference", files / "moved" / "reference")
    other_net_of(files / "reference")
    with pytest.raises(RunError, match=r"objective\.reference: .* of other network"):
        go("run", "ddo", **options)
    go("run", "ddo", **options | {"reference": str(files / "moved" / "reference")})


def other_net_of(folder):
    path = folder / "config.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "sampler": {"num_steps": 7}}))


def unzipped(files):
    with zipfile.ZipFile(files / "data.zip") as archive:
        archive.extractall(files / "folder")
    return files / "folder"


def moved(files):
    (files / "elsewhere").mkdir()
    return (files / "data.zip").rename(files / "elsewhere" / "other.zip")


def linked(files):
    (files / "link.zip").symlink_to(files / "data.zip")
    return files / "link.zip"


def packed_again(files):
    """Compressed, so another file."""
    with zipfile.ZipFile(files / "data.zip") as old, zipfile.ZipFile(files / "new.zip", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return files / "new.zip"


def relative(files):
    return Path(os.path.relpath(files / "data.zip"))


@pytest.mark.parametrize("elsewhere", [moved, linked, relative, unzipped, packed_again])
@pytest.mark.robust("identity")
def test_the_same_data_elsewhere_are_the_same_run(go, files, capsys, elsewhere):
    """Moved, linked, by a relative path, as a folder, compressed: the run goes on, and says so."""
    go("whole")
    go("run", stop_after=3)
    path = elsewhere(files)
    capsys.readouterr()
    go("run", files={"data": str(path)})
    assert (
        f"note: --data {path} holds what the run began with, {files / 'data.zip'}." in capsys.readouterr().out
    )
    assert same(weights(files / "run"), weights(files / "whole"))
    assert json.loads((files / "run" / "config.json").read_text())["data"] == str(files / "data.zip")


@pytest.mark.parametrize("spelling", ["copy", "copy/model.safetensors", "relative", "run"])
@pytest.mark.robust("identity")
def test_the_same_base_elsewhere_is_the_same_run(go, files, spelling):
    """A copy, its weights' file, a relative path, a run's best model: the losses are the same."""
    go("whole")
    go("run", stop_after=3)
    shutil.copytree(files / "base", files / "copy")
    if spelling == "run":
        shutil.copytree(files / "base", files / "earlier" / "checkpoints" / "best")
    path = {"relative": os.path.relpath(files / "base"), "run": files / "earlier"}.get(
        spelling, files / spelling
    )
    go("run", files={"init": str(path)})
    assert same(weights(files / "run"), weights(files / "whole"))
    assert column(files / "run", "loss").tolist() == column(files / "whole", "loss").tolist()


@pytest.mark.robust("identity")
def test_a_run_that_moved_with_its_control_goes_on(go, files):
    """Both arms' states are known: the hash in them is of the paths that the run began with."""
    judged = {"eval": EvalConfig(num_steps=2, control="last")}
    go("run", "cca", 8, files=judged)  # six steps of the control, two of its own
    for name in ("base", "data.zip"):
        (files / name).rename(files / f"new-{name}")
    moved = judged | {"init": str(files / "new-base"), "data": str(files / "new-data.zip")}
    go("run", "cca", files=moved)
    assert go("run", "cca", files=moved).images_seen == 72  # a third time, by the same other paths


@pytest.mark.robust("identity")
def test_a_base_by_address_is_known_by_its_content_too(go, files, server):
    """A file of the same bytes is the same base; another one in the cache's place is not."""
    arguments = ARGUMENTS | {"img_channels": 1, "label_dim": 4}
    server.content = snapshot(Precond(**arguments), arguments)
    go("run", stop_after=1, files={"init": server.address}, train={"duration": 36})
    (files / "own.pkl").write_bytes(server.content)
    go("run", stop_after=1, files={"init": str(files / "own.pkl")}, train={"duration": 36})
    place_of(server.address).write_bytes(snapshot(Precond(**arguments), arguments))
    with pytest.raises(
        RunError, match=r"init: 'http.*' was \w{12} there, 'http.*' is \w{12} now, of other w"
    ):
        go("run", files={"init": server.address}, train={"duration": 36})


OPTIONS = [
    ("mclr", {"warmup_images": 30, "ref_batches": 2.0}),
    ("mclr", {"lr_schedule": "hold", "ema": "power", "ema_snapshot_every": 24}),
    ("ddo", {}),
]


@pytest.mark.parametrize(("objective", "train"), OPTIONS, ids=["edm2", "hold", "rounds"])
@pytest.mark.parametrize("first", [36, 30])
@pytest.mark.robust("identity")
def test_a_run_may_grow(go, files, capsys, objective, train, first):
    """Trained to 36 images and then to 72 is trained to 72: every loss and every weight."""
    options = {"refresh_every": 12} if objective == "ddo" else {}
    go("whole", objective, train={**train, "duration": 72}, **options)
    go("run", objective, train={**train, "duration": first}, **options)
    capsys.readouterr()
    summary = go("run", objective, train={**train, "duration": 72}, **options)
    assert (
        f"note: --duration grows from {first} to 72 images: what is trained stays" in capsys.readouterr().out
    )
    assert summary.images_seen == 72
    assert column(files / "run", "loss").tolist() == column(files / "whole", "loss").tolist()
    assert column(files / "run", "lr").tolist() == column(files / "whole", "lr").tolist()
    assert same(weights(files / "run", objective), weights(files / "whole", objective))
    assert json.loads((files / "run" / "config.json").read_text())["train.duration"] == 72
    with pytest.raises(RunError, match="--duration 36 is shorter than the 72 images that the run in"):
        go("run", objective, train={**train, "duration": 36}, **options)
    go("run", objective, train={**train, "duration": 84}, **options)  # and again


@pytest.mark.robust("identity")
def test_a_run_that_stopped_early_may_grow_too(go, files):
    """Its states' hash is of the shorter duration."""
    go("whole", train={"duration": 72})
    go("run", stop_after=2, train={"duration": 48})
    go("run", train={"duration": 72})
    assert same(weights(files / "run"), weights(files / "whole"))


@pytest.mark.robust("identity")
def test_the_old_end_of_a_run_that_grew_stays_a_mark(run_config):
    """So the best model may be that of the old end, and its row is there; a round may begin there."""
    train = dataclasses.replace(run_config("run").train, duration=72, batch_size=12)
    marks = make_marks(train, evaluate_every=24, snapshot_every=48, refresh_every=36, earlier=[30])
    assert [mark.images_seen for mark in marks if mark.evaluate] == [24, 36, 48, 72]
    assert [mark.images_seen for mark in marks if mark.snapshot] == [36, 48, 72]
    assert [mark.images_seen for mark in marks if mark.new_round] == [36]


@pytest.mark.robust("identity")
def test_a_folder_that_kept_no_fingerprints_goes_on_with_a_line(go, files, capsys):
    """What it finds counts from then on."""
    go("whole")
    go("run", stop_after=3)
    (files / "run" / "identity.json").unlink()
    with pytest.raises(RunError, match=r"init: '.*base' there, '.*copy' asked"):
        shutil.copytree(files / "base", files / "copy")
        go("run", files={"init": str(files / "copy")})
    capsys.readouterr()
    path = os.path.relpath(files / "data.zip")
    go("run", stop_after=1, files={"data": path})
    assert "is of a version that kept no fingerprints: the data and models that" in capsys.readouterr().out
    go("run", files={"init": str(files / "copy")})
    assert "no fingerprints" not in capsys.readouterr().out
    assert same(weights(files / "run"), weights(files / "whole"))


@pytest.mark.robust("identity")
def test_an_identity_that_cannot_be_read_is_one_line(go, files):
    """It says what to do."""
    go("run", stop_after=3)
    (files / "run" / "identity.json").write_text("{")
    with pytest.raises(
        RunError, match=r"identity\.json cannot be read .* or remove the file if the run's data"
    ):
        go("run")
    (files / "run" / "identity.json").write_text('{"format": 9}')
    with pytest.raises(RunError, match=r"identity\.json is of format 9"):
        go("run")


@pytest.mark.robust("identity")
def test_a_table_may_not_grow(tmp_path):
    """What is done of it is read, not gone on with."""
    config = RunConfig(recipe="table")
    claim_outdir(tmp_path, config, may_grow=False)
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, duration=10**8))
    with pytest.raises(RunError, match=r"train\.duration: 2048000 there, 100000000 asked"):
        claim_outdir(tmp_path, longer, may_grow=False)


@pytest.mark.robust("identity")
def test_images_that_were_written_again_are_said(go, files, monkeypatch, capsys):
    """In a folder of more images than are read: their times are others, their contents unknown."""
    monkeypatch.setattr("mclr_fast.data.sources.identity.MOST_IMAGES", 10)
    path = unzipped(files)
    go("run", stop_after=3, files={"data": str(path)})
    for file in path.rglob("*.png"):
        os.utime(file, (1, 1))
    capsys.readouterr()
    go("run", files={"data": str(path)})
    assert "written again: not compared are the contents of 30 of its 40 images" in capsys.readouterr().out


@pytest.mark.robust("identity")
def test_every_option_that_names_files_is_looked_at(run_config, files, tmp_path):
    """Those of the evaluation too; what is not there, or is read by address later, has no fingerprint yet."""
    config = run_config("run", "plus-minus", positives=str(files / "data.zip"), negatives=files / "made.zip")
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "weights.bin").write_bytes(b"0" * 100)
    (tmp_path / "fid.npz").write_bytes(b"1" * 100)
    ref = (str(tmp_path / "fid.npz"), str(files / "data.zip"))
    options = {"heldout": str(files / "data.zip"), "gnet": str(files / "base"), "vae": str(tmp_path / "vae")}
    config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, ref=ref, **options))
    (tmp_path / "mine.py").write_text("")
    config = dataclasses.replace(config, recipe_file=f"{tmp_path / 'mine.py'}:run")
    found = fingerprints(config)
    assert found.keys() == set(LOOKS)
    known = {name for name in found if is_known(found[name])}
    assert known == {
        "recipe_file",
        "data",
        "init",
        "objective.positives",
        *(f"eval.{n}" for n in ("ref", *options)),
    }
    for name, path in (("eval.vae", tmp_path / "vae" / "weights.bin"), ("eval.ref", tmp_path / "fid.npz")):
        path.write_bytes(b"2" * 100)
        assert difference(found[name], fingerprints(config)[name]) in (["contents"], ["weights.bin"])
    later = dataclasses.replace(config, eval=dataclasses.replace(config.eval, ref=("https://x.org/fid.npz",)))
    assert not is_known(fingerprints(later)["eval.ref"])
