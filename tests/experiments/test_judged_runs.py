"""Runs judged by the literature's protocols: the paper's experiment on small networks and stand-ins."""

import json
from dataclasses import replace

import extractor_stand_ins as stand_ins
import numpy as np
import pytest
import torch
from stand_ins import snapshot
from zips import write_zip

from mclr_fast import evaluate
from mclr_fast.evaluation.evaluator import Evaluator
from mclr_fast.experiments.checks import check_options
from mclr_fast.experiments.run import Run
from mclr_fast.experiments.tables.cells import cell_config
from mclr_fast.experiments.tables.table import make_table
from mclr_fast.models import describe, load, save_model
from mclr_fast.models.edm2 import Precond
from mclr_fast.models.storage.card import card
from mclr_fast.recipes import get_recipe
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest
from mclr_fast.runtime.tensor_files import load_tensors

NET = dict(
    img_resolution=16, img_channels=3, label_dim=4, model_channels=8, channel_mult=[1], num_blocks=1,
    attn_resolutions=[], channels_per_head=8, logvar_channels=8,
)  # fmt: skip
PUBLISHED = NET | dict(model_channels=64, channels_per_head=64)  # as theirs are: heads of 64 channels
METRICS = {"fd-dinov2": {"fd"}, "pr-inception": {"precision", "recall"}, "is": {"is", "is_std"}}


def net_of(arguments, seed=0):
    torch.manual_seed(seed)
    net = Precond(**arguments)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(0.5)
    return net


def as_recipe(recipe, folder, weights, init, **options):
    """A recipe of the paper's, with small numbers."""
    run = get_recipe(recipe)
    train = replace(
        run.train, duration=48, batch_size=8, micro_batch=0, warmup_images=0, precision="fp32", log_every=8
    )
    small = dict(num_steps=2, eval_every=16, num_samples=20, final_samples=24, sample_batch=7, patience=0)
    small |= dict(cfg_scales=(1.5, 2.0), best_cfg_scales=(1.3,), dial=(0.5, 1.5), grid_noises=1)
    files = {f"{name}_weights": path for name, path in weights.items()}
    evaluation = replace(run.eval, **{**small, **files, **options})
    places = dict(outdir=folder / "run", data=str(folder / "data.zip"), init=str(init), net=None)
    return replace(run, train=train, eval=evaluation, device="cpu", **places)


def executed(config):
    return Run(config, Ranks("cpu"), StopRequest()).execute()


@pytest.fixture
def folder(tmp_path):
    """A base, a network that guides, data, and EDM2's reference of them, without features."""
    for name, seed, arguments in (("base", 0, NET), ("guide", 1, NET | {"label_dim": 0})):
        save_model(tmp_path / name, net_of(arguments, seed).state_dict(), describe(arguments, made_by="me"))
    write_zip(tmp_path / "data.zip", stand_ins.fields(40, 0, size=16), np.arange(40) % 4)
    return tmp_path


def reference(folder, weights):
    """EDM2's .pkl of the data, by the door."""
    files = [f"--{name}-weights={path}" for name, path in weights.items()]
    options = ["--protocol", "fid,fd-dinov2", "--stats-out", str(folder / "ref.pkl"), "--device", "cpu"]
    assert evaluate.main(["--images", str(folder / "data.zip"), *options, *files]) == 0
    return (str(folder / "ref.pkl"),)


def test_the_papers_experiment(folder, weights, capsys, monkeypatch):
    """Every row of its table, the best by FD-DINOv2, the final rows, and a report with the paper's beside."""
    ref = reference(folder, weights)
    config = as_recipe("edm2-img64-s", folder, weights, folder / "base", ref=ref, gnet=str(folder / "guide"))
    summary = executed(config)
    kinds = [row.kind for row in summary.rows]
    assert kinds == ["base", *["guidance"] * 2, "control", *["trained"] * 3, "guided", *["dial"] * 2]
    assert [row.kind for row in summary.final] == ["base", "guidance", "control", "trained", "guided"]
    assert {row.samples for row in summary.rows} == {20} and {row.samples for row in summary.final} == {24}
    for row in [*summary.rows, *summary.final]:
        assert row.chosen_by == "fd-dinov2" and row.nfe == 3 * (1 + (row.guidance != 1))
        assert {name: set(metrics) for name, metrics in row.metrics.items()} == METRICS
    trained = summary.of("trained")
    assert summary.best == min(trained, key=lambda row: row.metrics["fd-dinov2"]["fd"])
    assert {row.images_seen for row in [*summary.of("guided"), *summary.of("dial")]} == {
        summary.best.images_seen
    }
    assert summary.comparison == {}  # too many features for an interval
    assert summary.protocol["classes"] == "drawn by seed"
    about = summary.protocol["protocols"]["pr-inception"]["reference"]
    assert (about["source"], about["num_images"]) == (config.data, 40)

    page = (folder / "run" / "report.html").read_text()
    guides = f"{config.eval.gnet} guides."
    for text in ("The paper's Table 1", "Final rows", "+ MCLR + CFG 1.3", "Dial 0.5", "this run", guides):
        assert text in page, text

    # The door's row is the report's: the run's protocol, counts, seeds, references, steps and precision.
    assert (
        evaluate.main(
            [str(folder / "run"), "--device", "cpu"]
            + [f"--{name}-weights={path}" for name, path in weights.items()]
        )
        == 0
    )
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    (final,) = (row for row in summary.final if row.kind == "trained")
    assert (row["samples"], row["seeds"], row["nfe"]) == (24, [20, 43], 3)
    for protocol, metrics in final.metrics.items():
        assert row["metrics"][protocol] == pytest.approx(metrics, rel=1e-4)

    cards = {name: said_of(folder / "run/checkpoints" / name) for name in ("best", "best-denoising")}
    for name, kind in (("best", "trained"), ("best-denoising", "control")):
        chose = min(summary.of(kind), key=lambda row: row.fd)
        (final,) = (row for row in summary.final if row.kind == kind)
        assert cards[name]["images_seen"] == chose.images_seen
        found = [(m["chose"], m["seeds"], m["samples"], m["metrics"]) for m in cards[name]["metrics"]]
        assert found == [(True, [0, 19], 20, chose.metrics), (False, [20, 43], 24, final.metrics)]

    monkeypatch.setattr(Evaluator, "make", None)  # the same command again judges nothing
    again = executed(config)
    assert again.rows == summary.rows and again.final == summary.final
    assert cards == {name: said_of(folder / "run/checkpoints" / name) for name in cards}


def said_of(model):
    """config.json of a model that has the card that is made of it."""
    said = json.loads((model / "config.json").read_text())
    assert (model / "README.md").read_text() == card(said)
    assert said["data"] | {"contents": 0} == {"name": "data.zip", "images": 40, "classes": 4, "contents": 0}
    assert said["training"]["batch_size"] == 8 and said["settings"] and said["versions"]["mclr_fast"]
    return said


def test_latents_are_judged_as_images(tmp_path, weights, tiny_vae):
    """And shown as images; the reference is of images."""
    latents = np.random.default_rng(0).normal(size=(40, 8, 8, 8)).astype(np.float32)
    latents[:, 4:] = np.abs(latents[:, 4:])
    write_zip(tmp_path / "data.zip", latents, np.arange(40) % 4)
    write_zip(tmp_path / "images.zip", stand_ins.fields(40, 0, size=16), np.arange(40) % 4)
    arguments = NET | {"img_channels": 4, "img_resolution": 8}
    save_model(tmp_path / "base", net_of(arguments).state_dict(), describe(arguments))
    options = dict(ref=(str(tmp_path / "images.zip"),), vae=str(tiny_vae), gnet=None, cfg_scales=())
    options |= dict(best_cfg_scales=(), dial=(), final_samples=0, control="none", heldout=options["ref"][0])
    config = as_recipe("edm2-img512-l", tmp_path, weights, tmp_path / "base", **options)
    summary = executed(config)
    assert [row.kind for row in summary.rows] == ["real", "base", *["trained"] * 3]
    real = summary.rows[0].metrics["pr-inception"]
    assert real["precision"] == 1 and 0.5 < real["recall"] < 1  # 20 of the 40 that are compared with
    groups, _ = load_tensors(tmp_path / "run" / "evaluations" / "base-0.safetensors")
    assert groups["grid"]["images"].shape == (1, 4, 3, 16, 16) and "seen" not in groups
    with pytest.raises(RunError, match="give their decoder, --vae"):
        executed(replace(config, outdir=tmp_path / "other", eval=replace(config.eval, vae=None)))


def test_a_published_base_without_a_guide_has_no_guided_rows(tmp_path, weights, server, capsys):
    """It comes from its address; nothing guides it, as its file does not say that it knows no label."""
    server.content = snapshot(net_of(PUBLISHED), PUBLISHED)
    write_zip(tmp_path / "data.zip", stand_ins.fields(40, 0, size=16), np.arange(40) % 4)
    options = dict(gnet=None, dial=(), final_samples=0, control="none", ref=())
    config = as_recipe("edm2-img64-s", tmp_path, weights, server.address, **options)
    summary = executed(replace(config, train=replace(config.train, duration=8)))
    assert [row.kind for row in summary.rows] == ["base", "trained"]
    assert "no rows under guidance:" in capsys.readouterr().out
    assert load(tmp_path / "run").description["base"]["model"] == server.address


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(protocol="is"), "chooses its best model by an FD"),
        (dict(protocol="mnist16"), "mnist16 compares with its own digits"),
        (dict(protocol="fid", neighbors=5), "--neighbors does nothing here"),
        (dict(protocol="fid", best_by="fd-dinov2"), "--best-by fd-dinov2 is none of --protocol fid"),
        (dict(protocol="fid", num_samples=5), "fid needs at least 9 images, and there are 5"),
        (dict(protocol="fid", gnet="digits"), "--gnet digits makes samples of 1x16x16"),
        (dict(protocol="fid", ref=("no.npz",)), "no.npz holds no statistics"),
        (dict(protocol=None), "--eval-every 16 has nothing to judge by"),
    ],
)
def test_mistakes(folder, weights, monkeypatch, options, said):
    """One line each, before anything is trained."""
    monkeypatch.chdir(folder)
    digits = NET | {"img_channels": 1}
    save_model(folder / "digits", net_of(digits).state_dict(), describe(digits))
    protocol = options.pop("protocol")
    options = {"ref": (), "gnet": None, **options}
    config = replace(
        as_recipe("edm2-img64-s", folder, weights, folder / "base", **options), protocol=protocol
    )
    with pytest.raises(RunError, match=said):
        executed(config)
    assert not (folder / "run" / "checkpoints").exists()


def test_a_proof_needs_intervals(folder, weights):
    from mclr_fast.experiments.proof import check_comparable

    config = as_recipe("edm2-img64-s", folder, weights, folder / "base")
    check_options(config, 1)
    with pytest.raises(RunError, match="needs an interval for each difference of FDs"):
        check_comparable(config)


def test_a_search(folder, weights):
    """Short runs of every setting, then the best with each seed, judged on fresh samples; none made twice."""
    options = dict(ref=(), gnet=str(folder / "guide"), best_cfg_scales=(), dial=(), final_samples=0)
    config = as_recipe("edm2-img64-s-search", folder, weights, folder / "base", **options)
    grid = [dict(lr=1e-4, batch_size=8, num_negatives=1), dict(lr=2e-4, batch_size=4, num_negatives=3)]
    table = {**config.table, "grid": {"mclr": grid}, "tried_train": {"duration": 16}}
    table["tried"] = {**table["tried"], "eval_every": 16}
    config = replace(config, table=table, proof_seeds=(0, 1), proof_samples=24)
    summary = make_table(config, Ranks("cpu"), StopRequest())
    assert [row.kind for row in summary.rows] == ["base", "guidance", "trained", "trained"]
    assert {row.samples for row in summary.rows} == {24}
    tried = summary.methods["mclr"].grid
    assert [entry.settings for entry in tried] == grid
    assert all([row.images_seen for row in entry.rows] == [0, 16] for entry in tried)
    assert summary.methods["mclr"].settings == min(tried, key=lambda entry: entry.fd).settings
    assert [run.seed for run in summary.methods["mclr"].runs] == [0, 1]
    assert (folder / "run" / "report.html").exists()
    again = make_table(config, Ranks("cpu"), StopRequest())
    assert again.rows == summary.rows


def test_a_search_at_scale_can_be():
    """Every run of the shipped one passes the checks; its settings are what the paper leaves open."""
    config = replace(get_recipe("edm2-img64-s-search"), data="x.zip", init="x")
    settings = config.table["grid"]["mclr"]
    assert len(settings) == 12 and {*settings[0]} == {"lr", "batch_size", "num_negatives"}
    for setting in settings:
        for tried in (True, False):
            cell = cell_config(config, "mclr", setting, 0, tried=tried)
            check_options(cell, 8)
            assert cell.eval.num_samples == 5000 and cell.eval.patience == 3
    assert cell.train.duration == 2**20 and config.proof_samples == 50_000
