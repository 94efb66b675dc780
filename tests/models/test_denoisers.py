"""Denoisers made of plain networks, by DDPM's noise prediction and by flow matching: what they train with."""

import math

import pytest
import torch
from torch import nn

from mclr_fast.config import ObjectiveConfig, RunConfig, SamplerConfig, TrainConfig
from mclr_fast.methods.registry import Needs
from mclr_fast.models import Facts, Model
from mclr_fast.models.codecs import PixelCodec
from mclr_fast.models.denoiser import Denoiser, Denoisers
from mclr_fast.models.scalings import DDPM, EDM, Flow
from mclr_fast.runtime.logs import RunLog
from mclr_fast.runtime.process.ranks import Ranks
from mclr_fast.sampling.noise_level import NoiseLevel
from mclr_fast.training.trainer import Trainer

BATCH = 12


class TinyNet(nn.Module):
    """net(x, t, labels) of no library; twice the channels, the second half of which nobody uses."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype
        self.enter, self.leave = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)
        self.time, self.label = nn.Linear(1, 8), nn.Embedding(5, 8)  # the last: no label

    def forward(self, x, t, labels):
        assert x.dtype == self.dtype and x.ndim == 4 and t.shape == labels.shape == (len(x),)
        condition = self.time(t[:, None].to(self.time.weight.dtype) / 100) + self.label(labels % 5)
        h = self.enter(x.to(self.enter.weight.dtype)) + condition[:, :, None, None]
        return self.leave(nn.functional.silu(h))


class Noise(Denoisers):
    scalings = DDPM()

    def build(self, arguments, *, dtype, dropout=0.0):
        return TinyNet(dtype)

    def facts(self, arguments):
        return Facts((1, 8, 8), 4)

    def codec(self, arguments, dataset=None):
        return PixelCodec((1, 8, 8))


class Velocity(Noise):
    scalings = Flow()


FAMILIES = [Noise, Velocity]


def trainer(family, outdir, tiny, objective="mclr", micro_batch=0, stop_after=0, **train):
    config = RunConfig(
        recipe="denoiser",
        seed=3,
        objective=ObjectiveConfig(objective=objective, num_negatives=3, label_dropout=None),
        train=TrainConfig(
            duration=1000, batch_size=BATCH, micro_batch=micro_batch, lr=1e-2, precision="fp32", **train
        ),
    )
    outdir.mkdir(exist_ok=True)
    torch.manual_seed(0)
    net, stop = TinyNet(torch.float32), tiny.StopAfter(stop_after)
    places = (Ranks("cpu"), RunLog(outdir / "log.jsonl"), outdir / "states", "", stop)
    made = Trainer("tiny", config, Model(family, {}), net, tiny.TinyData(), *places)
    if made.method.needs_reference:
        torch.manual_seed(1)
        made.use(Needs(family.frozen(TinyNet(torch.float32))))
    return made


def exact(family, net, rows, labels):
    """D and w of rows in float64, by the formulas of the networks' own papers, one evaluation at a time."""
    sigma = rows.law["sigma"].double().view(-1, 1, 1, 1)
    x_noisy = family.inputs(net, rows).x_noisy.double()
    if isinstance(family, Velocity):  # x_t = (1 - t) x_0 + t eps, v = eps - x_0
        t = sigma / (1 + sigma)
        x_t, time = (1 - t) * x_noisy, t
    else:  # x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps
        abar = 1 / (1 + sigma**2)
        x_t = abar.sqrt() * x_noisy
        time = (family.scalings.levels - sigma.flatten()[:, None]).abs().argmin(dim=1).double()
    raw = net.double()(x_t, time.flatten(), labels)[:, :1]
    if isinstance(family, Velocity):
        return x_t - t * raw, t.flatten() ** -2
    return (x_t - (1 - abar).sqrt() * raw) / abar.sqrt(), sigma.flatten() ** -2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("objective", ["mclr", "ccdpo"])  # labels on one image, and images under one label
def test_energies_are_the_formula_in_float64(family, objective, tiny, tmp_path):
    run = trainer(family(), tmp_path, tiny, objective)
    rows, found = run.source.draw(0), []
    energies = run.family.energies(run.net, run.family.inputs(run.net, rows), rows.labels)
    exact_net = TinyNet(torch.float64).double()
    exact_net.load_state_dict(run.net.state_dict())
    for k in range(rows.labels.shape[1]):
        column = rows.part(slice(None), slice(k, k + 1))
        if not rows.shared:
            column = column.__class__(**{**vars(column), "x": column.x[:, 0], "shared": True})
        denoised, weight = exact(run.family, exact_net, column, column.labels[:, 0])
        found.append(weight * (denoised - column.x.double()).square().sum(dim=(1, 2, 3)))
    torch.testing.assert_close(energies.double(), torch.stack(found, dim=1), rtol=2e-5, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("objective", ["mclr", "gft", "denoising", "cca", "weighted-mclr"])
def test_trains_whatever_the_micro_batch(family, objective, tiny, tmp_path):
    losses, grads = [], []
    for micro_batch in (0, 5, 3):
        run = trainer(family(), tmp_path / str(micro_batch), tiny, objective, micro_batch)
        if run.method.needs_ratio:
            run.use(Needs(ratio=tiny.tiny_ratio))
        losses.append(run.step(0).loss)
        grads.append(torch.cat([p.grad.flatten() for p in run.net.parameters()]))
        run.train_until(4 * BATCH)
        assert all(p.isfinite().all() for p in run.net.parameters())
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-4, abs=1e-3)
    for grad in grads[1:]:
        assert (grad - grads[0]).norm() < 1e-4 * grads[0].norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_gft_are_autograds_of_its_formula(family, tiny, tmp_path):
    """|beta D + (1 - beta) sg(U) - x|^2 in float64, against the one pass of the trainer."""
    run = trainer(family(), tmp_path, tiny, "gft")
    rows = run.source.draw(0)
    loss, beta = run.step(0).loss, run.method.objective.beta
    net = TinyNet(torch.float64).double()
    net.load_state_dict(run.net.state_dict())
    cond, weight = exact(run.family, net, rows, rows.labels[:, 0])
    uncond, _ = exact(run.family, net, rows, torch.full_like(rows.labels[:, 0], -1))
    error = beta * cond + (1 - beta) * uncond.detach() - rows.x.double()
    expected = (weight * error.square().sum(dim=(1, 2, 3))).mean()
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    for own, truth in zip(run.net.parameters(), net.parameters(), strict=True):
        assert (own.grad - truth.grad).norm() <= 1e-3 * truth.grad.norm() + 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_resumes_with_the_same_weights(family, tiny, tmp_path):
    whole = trainer(family(), tmp_path / "whole", tiny)
    whole.train_until(4 * BATCH)
    first = trainer(family(), tmp_path / "parts", tiny)
    first.train_until(2 * BATCH)
    first.save()
    first.states.wait()
    second = trainer(family(), tmp_path / "parts", tiny)
    assert second.images_seen == 2 * BATCH
    second.train_until(4 * BATCH)
    assert all(map(torch.equal, whole.net.parameters(), second.net.parameters()))


@pytest.mark.parametrize("family", FAMILIES)
def test_its_sampler_solves_for_its_own_denoiser(family, tiny):
    """Heun's method on D: many steps and few end near each other, labels and guidance count."""
    family = family()
    torch.manual_seed(0)
    net = TinyNet(torch.float32)
    images = {}
    for name, steps, guidance in (("few", 20, 1.0), ("many", 60, 1.0), ("guided", 20, 2.0)):
        options = SamplerConfig(num_steps=steps, sigma_max=20.0)
        sampler = Model(family, {}).sampler(net, options, guidance=guidance)
        with torch.no_grad(), sampler.held():
            images[name] = sampler(sampler.start([0, 1, 0]), torch.tensor([0, 1, 2]))
        assert sampler.nfe == (2 * steps - 1) * (1 if guidance == 1 else 2)
    assert images["few"].shape == (3, 1, 8, 8)
    assert (images["few"] - images["many"]).norm() < 0.05 * images["many"].norm()
    assert not torch.allclose(images["few"][0], images["few"][2], rtol=1e-3)
    assert not torch.allclose(images["few"], images["guided"], rtol=1e-3)


SIGMA = torch.tensor([0.02, 0.3, 1.0, 7.0, 60.0], dtype=torch.float64)


@pytest.mark.parametrize("scalings", [EDM(NoiseLevel(-0.8, 1.6)), DDPM(), Flow()])
def test_the_weight_makes_an_energy_the_networks_own_squared_error(scalings):
    torch.testing.assert_close(scalings.weight(SIGMA), scalings.c_out(SIGMA) ** -2)


@pytest.mark.parametrize("scalings", [DDPM(), Flow()])
def test_levels_are_drawn_by_their_law(scalings):
    sigma = scalings.sigma(0, torch.arange(20_000))
    assert torch.equal(sigma[100:200], scalings.sigma(0, torch.arange(100, 200)))
    logs = sigma.double().log()
    assert logs.mean().item() == pytest.approx(scalings.noise.P_mean, abs=0.05)
    assert logs.std().item() == pytest.approx(scalings.noise.P_std, rel=0.03)
    if isinstance(scalings, DDPM):
        steps = scalings.c_noise(sigma)
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=2e-3)
        assert steps.min() < 5 and steps.max() > 994
    else:
        t = scalings.c_noise(sigma)
        assert t.mean().item() == pytest.approx(0.5, abs=0.01) and t.std().item() == pytest.approx(
            12**-0.5, rel=0.02
        )


def test_ddpms_levels():
    levels = DDPM().levels
    assert levels[0].item() == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)))
    assert levels[999].item() == pytest.approx(157.407, rel=1e-5)
    between = DDPM().c_noise((levels[10] * levels[11]).sqrt()[None].float())
    assert between.item() == pytest.approx(10.5, abs=1e-3)
    assert DDPM().c_noise(torch.tensor([1e-4, 1e4])).tolist() == [0, 999]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_samplers_call_is_what_training_calls(family):
    """D(x; sigma, c) = c_skip x + c_out F(c_in x; c_noise, c), under a label and under none."""
    torch.manual_seed(0)
    one = family()
    net, facts = one.build({}, dtype=torch.float32), one.facts({})
    x, sigma, labels = torch.randn(5, 1, 8, 8), torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0]), torch.arange(5) % 4
    for chosen in (labels, None):
        told = torch.full((5,), -1) if chosen is None else chosen
        c = {
            name: getattr(one.scalings, name)(sigma).view(-1, 1, 1, 1) for name in ("c_skip", "c_out", "c_in")
        }
        raw = net(c["c_in"] * x, one.scalings.c_noise(sigma), told)[:, :1]
        expected = c["c_skip"] * x + c["c_out"] * raw
        torch.testing.assert_close(Denoiser(one, net, facts)(x, sigma, chosen), expected)
