"""The reference's kept energies: what they are, when they are made, and that no loss is another for them."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_var as program
import torch
from run_log import assert_same_losses

from mclr_fast.config import ObjectiveConfig
from mclr_fast.methods.needs import NeedMaker
from mclr_fast.methods.own_energies import own_energies
from mclr_fast.methods.registry import Needs
from mclr_fast.models import describe, save_model
from mclr_fast.runtime.errors import Interrupted
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.runtime.process.signals import StopRequest


class Tokens(program.TinyTokens):
    """With an identity, and of classes that have names."""

    notes, class_names = (), ["0", "1", "2", "3"]

    def __init__(self, seed=0):
        super().__init__(seed)
        self.identity = {"images": 40, "checksums": f"of {seed}", "read": 3, "times": "now"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two bases, `a` and `b`, of one VQVAE."""
    folder = tmp_path_factory.mktemp("kept")
    program.write_vqvae(folder / "vqvae")
    for seed, name in enumerate("ab"):
        net = program.tiny_net(program.tiny_model(folder), seed)
        save_model(folder / name, net.state_dict(), describe(program.NET | {"vqvae": "../vqvae"}, "var"))
    return folder


def frozen(folder, seed=0):
    model = program.tiny_model(folder)
    return model.family.frozen(program.tiny_net(model, seed))


def kept(folder, places, reference=None, name="a", data=None, stop=None, batch_size=7):
    data, model = data or Tokens(), program.tiny_model(folder)
    rest = (batch_size, Ranks("cpu"), stop or StopRequest())
    reference = reference or frozen(folder)
    return own_energies(places, reference, str(folder / name), data, model.codec(data), *rest)


def test_they_are_the_reference_s(folder, tmp_path):
    """Image by image, -log p under its label; in the order of the data."""
    data, reference = Tokens(), frozen(folder)
    found = kept(folder, tmp_path, reference, data=data)
    assert found.shape == (40,) and found.dtype == torch.float32
    tokens = torch.from_numpy(data.images(np.arange(40))).long()
    inputs = reference.net.tokenizer.quantizer(torch.device("cpu")).teacher_inputs(tokens)
    with torch.no_grad():
        expected = [
            -reference.net.log_prob(tokens[i : i + 1], torch.tensor([i % 4]), inputs[i : i + 1]).item()
            for i in range(40)
        ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_they_are_made_once(folder, tmp_path):
    """Of a reference, and of the data however they were looked at; of others there are others."""
    first = kept(folder, tmp_path)
    unusable = frozen(folder)
    unusable.energies = None
    again = Tokens()
    again.identity |= {"read": 40, "times": "later"}
    assert torch.equal(kept(folder, tmp_path, unusable, data=again, batch_size=9), first)
    assert len(list(tmp_path.iterdir())) == 1
    assert not torch.equal(kept(folder, tmp_path, frozen(folder, 1), "b"), first)
    assert not torch.equal(kept(folder, tmp_path, data=Tokens(1)), first)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_signal_leaves_no_part_of_them(folder, tmp_path):
    with pytest.raises(Interrupted):
        kept(folder, tmp_path, stop=type("Stop", (), {"check": staticmethod(interrupt)}))
    assert not list(tmp_path.iterdir())


def interrupt():
    raise Interrupted


@pytest.mark.parametrize(
    ("objective", "options", "micro_batch"),
    [
        ("cca", {"pairing": "labels"}, 0),
        ("cca", {"pairing": "labels"}, 6),  # cut by columns
        ("cca", {"pairing": "images"}, 1),  # one column at a time
        ("ccdpo", {}, 8),
    ],
)
def test_same_losses_as_without(folder, tmp_path, monkeypatch, objective, options, micro_batch):
    """Over more than an epoch, and the reference has one evaluation a row less to make."""
    (tmp_path / "vqvae").symlink_to(folder / "vqvae")
    config = program.tiny_config

    def with_options(*args, **more):
        made = config(*args, **more)
        return replace(made, objective=replace(made.objective, label_dropout=0.0, **options))

    monkeypatch.setattr(program, "tiny_config", with_options)
    counts = []
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vqvae").symlink_to(folder / "vqvae")
        reference = frozen(folder, 1)
        seen = []
        reference.net.register_forward_pre_hook(lambda net, args, seen=seen: seen.append(args[0].numel()))
        own = kept(folder, tmp_path, reference, "b") if name == "with" else None
        seen.clear()
        trainer = program.tiny_trainer(tmp_path / name, objective, micro_batch=micro_batch)
        trainer.use(Needs(reference, own_energies=own))
        trainer.train_until(trainer.config.duration)
        counts.append(sum(seen))
    assert_same_losses(tmp_path / "with" / objective, tmp_path / "without" / objective)
    assert counts[1] * 4 == counts[0] * 3  # K = 3


def maker(folder, outdir, objective="cca", init="a", **train):
    config = program.tiny_config(objective, precision="fp32")
    config = replace(
        config,
        objective=ObjectiveConfig(
            objective=objective,
            refresh_every=train.pop("refresh_every", 0),
            label_dropout=train.pop("label_dropout", None),
        ),
        train=replace(config.train, **{"duration": 64} | train),
        init=str(folder / init),
        outdir=outdir,
    )
    description = describe(program.NET | {"vqvae": str(folder / "vqvae")}, "var")
    return NeedMaker(config, description, Tokens(), Ranks("cpu"), StopRequest())


@pytest.mark.parametrize("objective", ["cca", "ccdpo"])
def test_a_run_keeps_them_in_its_folder(folder, tmp_path, objective):
    needs = maker(folder, tmp_path, objective).make()
    assert needs.own_energies.shape == (40,)
    (path,) = tmp_path.glob("reference-energies-*.safetensors")
    stamp = path.stat().st_mtime_ns
    assert torch.equal(maker(folder, tmp_path, objective).make().own_energies, needs.own_energies)
    assert path.stat().st_mtime_ns == stamp
    # A later round's reference has its own.
    later = maker(folder, tmp_path, objective).make(folder / "b", 1).own_energies
    assert not torch.equal(later, needs.own_energies)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "mclr"},
        {"dropout": 0.1},
        {"label_dropout": 0.1},
        {"duration": 40},
        {"refresh_every": 32},
    ],
    ids=["no-reference", "dropout", "label-dropout", "one-epoch", "short-rounds"],
)
def test_where_they_are_not_fixed_or_not_met_again_none_are_made(folder, tmp_path, options):
    """40 images: what sees each once has nothing to gain."""
    assert maker(folder, tmp_path, **options).make().own_energies is None
    assert not list(tmp_path.iterdir())
