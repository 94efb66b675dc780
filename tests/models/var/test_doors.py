"""`sample`, `evaluate` and `generate` take a VAR as they take an EDM2 network."""

import json
import re

import numpy as np
import pytest
import tiny_var as program
import torch
from PIL import Image

from mclr_fast import evaluate, generate, sample
from mclr_fast.models import describe, load, save_model
from mclr_fast.models.var.inference import generate as tokens_of
from mclr_fast.sampling.autoregressive import drawn_at


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model's folder with its VQVAE inside; trained without labels too, as VAR's are."""
    folder = tmp_path_factory.mktemp("doors") / "small"
    program.write_vqvae(folder / "vqvae")
    net = program.tiny_net(program.tiny_model(folder))
    said = describe(program.NET | {"vqvae": "vqvae"}, "var", null_label=True, sampler={"top_k": 8})
    save_model(folder, net.state_dict(), said)
    return folder


def images_in(outdir):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(outdir.glob("*.png"))])


def run(door, capsys, *arguments):
    code = door.main([*map(str, arguments), "--device", "cpu"])
    return code, capsys.readouterr()


def test_sample(folder, tmp_path, capsys):
    """Images of 48x48 by seed, in any batches, of the model's own top-k."""
    assert run(sample, capsys, folder, "--seeds", "0-4", "--outdir", tmp_path / "whole")[0] == 0
    options = ("--seeds", "0-4", "--outdir", tmp_path / "parts", "--sample-batch", 2, "--top-k", 8)
    assert run(sample, capsys, folder, *options)[0] == 0
    whole = images_in(tmp_path / "whole")
    assert whole.shape == (5, 48, 48, 3)
    assert int(np.abs(whole.astype(int) - images_in(tmp_path / "parts")).max()) <= 1
    net = load(folder)
    uniforms = torch.stack([torch.rand(14, generator=torch.Generator().manual_seed(s)) for s in range(5)])
    labels, quantizer = torch.arange(5) % 4, net.tokenizer.quantizer(torch.device("cpu"))
    tokens = tokens_of(net, labels, quantizer, top_k=8, draw=drawn_at(uniforms))
    expected = net.tokenizer.decode(tokens).permute(0, 2, 3, 1).numpy()
    assert int(np.abs(whole.astype(int) - expected).max()) <= 1


def test_guided_and_filtered_samples_are_others(folder):
    plain = generate(folder, range(3), device="cpu")
    for options in ({"guidance": 2.0}, {"top_k": 1}, {"top_p": 0.1}):
        assert not torch.equal(generate(folder, range(3), device="cpu", **options), plain)
    assert torch.equal(generate(folder, range(3), device="cpu", guidance=0.0), plain)
    assert torch.equal(generate(load(folder), range(3), device="cpu"), plain)


def test_smooth_samples(folder, tmp_path, capsys):
    """Images of mixtures, a stream a seed however they are batched; said where they are kept."""
    smooth = generate(folder, range(4), device="cpu", precision="fp32", more_smooth=True)
    assert smooth.shape == (4, 3, 48, 48) and len(smooth.flatten(1).unique(dim=0)) == 4
    assert not torch.equal(smooth, generate(folder, range(4), device="cpu", precision="fp32"))
    options = ("--seeds", "0-3", "--outdir", tmp_path / "out", "--more-smooth", "--sample-batch", 3)
    options += ("--precision", "fp32")
    assert run(sample, capsys, folder, *options)[0] == 0
    parts = images_in(tmp_path / "out").transpose(0, 3, 1, 2)
    assert int(np.abs(parts.astype(int) - smooth.numpy()).max()) <= 1
    code, printed = run(sample, capsys, folder, *options[:4], "--precision", "fp32")
    assert code == 1 and "made otherwise (more_smooth differ" in printed.err
    code, printed = run(sample, capsys, "mnist16-base", "--more-smooth", "--outdir", tmp_path / "other")
    assert (
        code == 1 and "--more-smooth is an option of VAR models' sampler, not of mnist16-base" in printed.err
    )


def test_evaluate(folder, weights, tmp_path, capsys):
    """A row says what it cost, how it was guided, and which tokens were dropped."""
    assert run(sample, capsys, folder, "--seeds", "0-11", "--outdir", tmp_path / "ref.zip")[0] == 0
    said = ("--protocol", "fid", "--ref", tmp_path / "ref.zip", "--num-samples", 12)
    said += ("--inception-weights", weights["inception"])
    rows = []
    for guidance in ((), ("--guidance", 1.5, "--top-p", 0.96)):
        code, printed = run(evaluate, capsys, folder, *said, *guidance)
        assert code == 0, printed.err
        rows.append(json.loads(printed.out))
    plain, guided = rows
    assert (plain["name"], plain["kind"], plain["nfe"], plain["guidance"]) == ("small", "trained", 3, 0.0)
    assert (guided["name"], guided["kind"], guided["nfe"]) == ("varcfg-1.5", "guidance", 6)
    assert plain["judged"]["top_k"] == 8 and guided["judged"]["top_p"] == 0.96
    assert plain["fd"] == pytest.approx(0, abs=1e-2) and "num_steps" not in plain["judged"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-steps", 8), "--num-steps is no option of .* sampler, which has --top-k, --top-p"),
        (("--top-p", 2.0), r"--top-p must be in \[0, 1\], not 2"),
        (("--top-k", -1), "--top-k must be at least 0"),
        (("--labels", "4"), "the model knows 0 to 3"),
        (("--guidance", "nan"), "--guidance must be finite"),
        (("--vae", "x"), "--vae decodes latents"),
        (("--gnet", "mnist16-base", "--guidance", 1.5), "is of another family"),
    ],
)
def test_mistakes(folder, tmp_path, capsys, options, message):
    code, printed = run(sample, capsys, folder, "--seeds", "0", "--outdir", tmp_path / "out", *options)
    assert code != 0 and re.search(message, printed.err)
    assert len([line for line in printed.err.splitlines() if line.startswith("error")]) <= 1
