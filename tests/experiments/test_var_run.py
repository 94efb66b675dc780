"""A whole run of a VAR on stored tokens: base, guidance, control, trained models, the dial, judged by FID."""

import io
import json
import zipfile
from dataclasses import replace

import extractor_stand_ins as stand_ins
import numpy as np
import pytest
import tiny_var as program
from zips import write_zip

from mclr_fast import evaluate
from mclr_fast.experiments.estimates.dry_run import dry_run
from mclr_fast.experiments.run import Run
from mclr_fast.models import describe, load, save_model
from mclr_fast.models.var import PRESETS
from mclr_fast.recipes import get_recipe
from mclr_fast.recipes.var import DEPTHS
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest


def write_tokens(path, change=lambda tokens: tokens):
    """40 images' tokens as `prepare --tokens` stores them."""
    data, labels = program.TinyTokens(), []
    with zipfile.ZipFile(path, "w") as archive:
        for i, tokens in enumerate(data.images(np.arange(len(data)))):
            file, name = io.BytesIO(), f"00000/img-tokens-{i:08d}.npy"
            np.save(file, change(tokens))
            archive.writestr(name, file.getvalue())
            labels.append([name, int(data.labels[i])])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))


@pytest.fixture
def config(tmp_path, weights):
    """The recipe's run with small numbers, of a base whose VQVAE lies in its folder."""
    program.write_vqvae(tmp_path / "base" / "vqvae")
    said = describe(program.NET | {"vqvae": "vqvae"}, "var", null_label=True)
    base = program.tiny_net(program.tiny_model(tmp_path / "base"))
    save_model(tmp_path / "base", base.state_dict(), said)
    write_tokens(tmp_path / "tokens.zip")
    write_zip(tmp_path / "images.zip", stand_ins.fields(40, 0, size=48), np.arange(40) % 4)
    run = get_recipe("var-d16")
    train = replace(
        run.train, duration=32, batch_size=8, micro_batch=6, warmup_images=0, log_every=8, lr=1e-3
    )
    small = dict(eval_every=16, num_samples=12, final_samples=0, sample_batch=7, top_k=8, grid_noises=1)
    small |= dict(cfg_scales=(1.5,), best_cfg_scales=(0.5,), dial=(0.5,), patience=0)
    small |= dict(ref=(str(tmp_path / "images.zip"),), inception_weights=weights["inception"])
    return replace(
        run,
        net=None,
        protocol="fid",
        train=replace(train, precision="fp32"),
        eval=replace(run.eval, **small),
        outdir=tmp_path / "run",
        data=str(tmp_path / "tokens.zip"),
        init=str(tmp_path / "base"),
        device="cpu",
    )


def test_a_run_as_the_recipe_has_it(config, tmp_path, weights, capsys):
    summary = Run(config, Ranks("cpu"), StopRequest()).execute()
    rows = {row.name: row for row in summary.rows}
    kinds = [row.kind for row in summary.rows]
    assert kinds == ["base", "guidance", "control", "trained", "trained", "guided", "dial"]
    assert {"base", "varcfg-1.5", "denoising", "mclr", "mclr-varcfg-0.5", "mclr-strength-0.5"} == rows.keys()
    assert rows["varcfg-1.5"].nfe == 6 == 2 * rows["base"].nfe and rows["base"].unguided == 0
    protocol = summary.protocol
    assert (protocol["top_k"], protocol["top_p"]) == (8, 0.96) and "num_steps" not in protocol
    page = (tmp_path / "run" / "report.html").read_text()
    for text in ("top-k 8, top-p 0.96", "(0 = none)"):
        assert text in page, text
    # A model of the run finds its VQVAE, and is judged as the run judged it.
    best = load(tmp_path / "run")
    assert best.description["sampler"] == {"top_k": 8, "top_p": 0.96, "classes": "in turn"}
    assert best.description["null_label"]
    capsys.readouterr()
    options = ["--device", "cpu", "--inception-weights", str(weights["inception"])]
    assert evaluate.main([str(tmp_path / "run"), *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fd"] == pytest.approx(summary.best.fd, rel=1e-4)  # the same tokens, in other batches
    assert found["judged"]["top_p"] == 0.96


def test_ddo_takes_its_own_samples(config):
    """They are drawn once, kept as tokens, and read again."""
    options = replace(config.objective, objective="ddo", beta=0.1, model_samples=16)
    config = replace(config, objective=options, eval=replace(config.eval, cfg_scales=(), control="none"))
    summary = Run(config, Ranks("cpu"), StopRequest()).execute()
    assert summary.best.name == "ddo" and summary.best.fd > 0


def test_a_dry_run_counts_the_reference_as_the_run_asks_it(config):
    """40 images: once each in a longer run, in every step of a shorter one."""
    cca = replace(config.objective, objective="cca", beta=0.1)
    for duration, words in (
        (32, "2 columns, and as many of the reference"),
        (
            80,
            "2 columns, and 1 an image of the reference, whose own-label energies are made once (40 in all)",
        ),
    ):
        run = replace(config, objective=cca, train=replace(config.train, duration=duration))
        assert f"8 images x {words}\n" in dry_run(run)


def test_data_that_do_not_fit_it(config, tmp_path):
    """Images of another size, tokens of another length or vocabulary: one line, before the run begins."""
    write_zip(tmp_path / "large.zip", stand_ins.fields(8, 0, size=64), np.arange(8) % 4)
    write_tokens(tmp_path / "long.zip", lambda tokens: np.tile(tokens, 2))
    write_tokens(tmp_path / "wide.zip", lambda tokens: tokens + 9)
    for name, message in (
        ("large", r"images are \[3, 64, 64\], and the network's .* are \[3, 48, 48\]"),
        ("long", r"images of --data .*long.zip are 28, those of --init .*base 14"),
        ("wide", r"hold token \d+, and the network's are 0 to 15"),
    ):
        with pytest.raises(RunError, match=message):
            Run(replace(config, data=str(tmp_path / f"{name}.zip")), Ranks("cpu"), StopRequest())


def test_a_recipe_resolves(tmp_path, monkeypatch):
    """Of the published base, which is not here: its size, its memory, and that its VQVAE comes with it."""
    monkeypatch.setenv("MCLR_FAST_CACHE", str(tmp_path))
    run = get_recipe("var-d16")
    text = dry_run(replace(run, init="var_d16", eval=replace(run.eval, ref=("ref.pkl",))))
    assert "network         var, 310,283,520 parameters" in text and "512 a step = 256 images x 2" in text
    assert "var_d16.pth (VAR-d16" in text and "vae_ch160v4096z32.pth (VAR's VQVAE" in text


@pytest.mark.parametrize("name", DEPTHS)
def test_recipes_are_of_the_published_networks(name):
    run = get_recipe(name)
    assert run.net == PRESETS[name].net and run.family == "var" and "not validated" in run.note
    assert (run.objective.num_negatives, run.eval.top_k, run.eval.top_p) == (1, 900, 0.96)
