"""Every objective as it trains: gradients against a plain computation, and how often the networks run."""

import dataclasses
import math

import pytest
import torch

from mclr_fast.config import ObjectiveConfig
from mclr_fast.methods import columns
from mclr_fast.methods.losses import LinearLoss
from mclr_fast.methods.registry import METHODS, Needs, make_method, options_of
from mclr_fast.models import get_family
from mclr_fast.models.edm2 import Precond, force_weight_norm_
from mclr_fast.models.rows import Rows
from mclr_fast.objectives import NoiseLevel, WeightedMCLR
from mclr_fast.theory.gaussian_mixture import GaussianMixture

LABELLED, COMPARED = {"gft", "model-guidance", "denoising"}, {"ccdpo", "cca", "ddo"}
SAMPLED, RATED = {"kl-mclr", "plus-minus", "ddo"}, {"weighted-mclr", "plus-minus"}
VARIANTS = [{"objective": name} for name in METHODS]
VARIANTS += [
    {"objective": "mclr", "form": 2, "dsm_weight": 0.3},
    {"objective": "cca", "pairing": "labels", "lambda_coef": 0.5},
    {"objective": "plus-minus", "positives": "base", "eta": 0.5},
    {"objective": "gft", "beta": 0.3, "label_dropout": 0.5},
]


def names(options):
    return "-".join(map(str, options.values()))


@pytest.fixture
def trainer(tiny, tmp_path):
    """trainer(options): one that has not stepped yet."""

    def make(options, **train):
        config = tiny.tiny_config(**train)
        objective = ObjectiveConfig(**{"num_negatives": 3, "P_mean": 0.0, "P_std": 0.5, **options})
        config = dataclasses.replace(config, objective=objective)
        return tiny.tiny_trainer(tmp_path, config, tiny.StopAfter(0))

    return make


def plain_loss(tiny, options, trainer):
    """The mean loss of the trainer's first minibatch, column by column in plain torch; and the net."""
    net, other = tiny.tiny_net(), tiny.tiny_net(1)
    force_weight_norm_(net)
    batch = trainer.source.draw(0)
    sigma = batch.law["sigma"]
    x_noisy = trainer.family.inputs(net, batch).x_noisy
    weight = NoiseLevel(0.0, 0.5, net.sigma_data).weight(sigma)

    def column(values, k):
        return values[:, k] if values.ndim == 5 else values

    def denoised(model, k, labels=None):
        labels = batch.labels[:, k] if labels is None else labels
        return model(column(x_noisy, k), sigma, labels)

    def squared(difference):
        return weight * difference.square().sum(dim=(1, 2, 3))

    def table(model):
        columns = range(batch.labels.shape[1])
        return torch.stack([squared(denoised(model, k) - column(batch.x, k)) for k in columns], dim=1)

    objective, name = trainer.method.objective, options["objective"]
    if name in ("gft", "model-guidance"):
        cond = denoised(net, 0)
        uncond = denoised(net, 0, torch.full_like(batch.labels[:, 0], -1)).detach()
        if name == "gft":  # |beta D + (1-beta) sg(U) - x|^2
            error = objective.beta * cond + (1 - objective.beta) * uncond - batch.x
        else:  # |D - x - w sg(D - U)|^2
            error = cond - batch.x - objective.w * (cond.detach() - uncond)
        return squared(error).mean(), net
    if name == "denoising":
        _, u = net(x_noisy, sigma, batch.labels[:, 0], return_logvar=True)
        return objective(table(net)[:, 0], u.flatten(), batch.x[0].numel()).loss_N.mean(), net
    reference = table(other).detach() if trainer.method.needs_reference else None
    ratio = None
    if getattr(trainer.step.loss, "ratio", None):
        negatives = x_noisy[:, 1:] if x_noisy.ndim == 5 else x_noisy
        ratio = tiny.tiny_ratio(negatives, sigma, batch.labels[:, 1:])
    return objective(table(net), reference, ratio_NK=ratio).loss_N.mean(), net


@pytest.mark.parametrize("options", VARIANTS, ids=names)
def test_gradients_are_those_of_the_formula(tiny, trainer, options):
    """One evaluation at a time, through autograd, against the trainer's fused and shared ones."""
    check_gradients(tiny, options, trainer(options, micro_batch=20))


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_gradients_with_the_ratio_of_eq_141(tiny, trainer, micro_batch):
    """Its weights are of each negative's own noisy image, wherever the row is cut."""
    options = {"objective": "plus-minus", "eta": 0.7}
    run = trainer(options, micro_batch=micro_batch)
    run.use(Needs(samples=run.source.samples, ratio=tiny.tiny_ratio))
    check_gradients(tiny, options, run)


def test_the_exact_ratio_of_a_mixture_plugs_in():
    """Anything called as (x_noisy, sigma, labels) serves: here the mixture that the data are."""
    mixture = GaussianMixture.isotropic([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], [0.3, 0.4], [0, 1])
    torch.manual_seed(0)
    x, own = mixture.sample(6)
    labels = torch.cat([own[:, None], torch.randint(2, (6, 3))], dim=1)
    sigma = torch.rand(6) + 0.2
    net = Precond(1, 2, 2, model_channels=8, channel_mult=(1,), num_blocks=1, channels_per_head=8)
    net.unet.out_gain.data.fill_(1.0)
    weight = NoiseLevel(0.0, 0.5).weight(sigma)
    part = Rows(
        x.float().view(6, 2, 1, 1), labels, True, {"sigma": sigma, "weight": weight}, torch.arange(6), 0,
        torch.tensor(1.0), torch.arange(4), 4,
    )  # fmt: skip

    def exact(x_noisy, sigma, labels):
        return mixture.log_ratio(x_noisy.flatten(1)[:, None], sigma[:, None], labels).exp()

    family = get_family("edm2")
    loss, _ = LinearLoss(family, WeightedMCLR(0.8), exact).backward(net, part)
    x_noisy = family.inputs(net, part).x_noisy
    error = net(x_noisy, sigma, labels) - part.x[:, None]
    energy = weight[:, None] * error.square().sum(dim=(2, 3, 4))
    ratio = exact(x_noisy, sigma, labels[:, 1:])
    expected = 1.8 * energy[:, 0] - 0.8 * (ratio * energy[:, 1:]).mean(dim=1)
    assert ratio.max() > 1.2 > 0.8 > ratio.min()
    assert loss.item() == pytest.approx(expected.sum().item(), rel=1e-5)


def check_gradients(tiny, options, ours):
    loss = ours.step(0).loss
    expected, net = plain_loss(tiny, options, ours)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    largest = max(p.grad.abs().max() for p in net.parameters() if p.grad is not None)
    for (name, own), plain in zip(ours.net.named_parameters(), net.parameters(), strict=True):
        if own.requires_grad:
            torch.testing.assert_close(own.grad, plain.grad, rtol=1e-3, atol=1e-4 * largest.item(), msg=name)


@pytest.mark.parametrize("options", VARIANTS, ids=names)
@pytest.mark.parametrize("micro_batch", [0, 8])
def test_evaluations_a_step(tiny, trainer, options, micro_batch):
    """At most N(1+K) of the policy, one more an image for the sample of eq. 13; the reference's as many."""
    run = trainer(options, micro_batch=micro_batch)
    counts = {"policy": 0, "reference": 0}

    def count(net, who):
        def hook(module, arguments, result):
            output = result[0] if isinstance(result, tuple) else result
            counts[who] += output.shape[0] * output.shape[1]  # rows times columns

        net.register_forward_hook(hook)

    count(run.net, "policy")
    if run.method.needs_reference:
        count(run.step.loss.reference.net, "reference")
    run.train_until(tiny.BATCH)
    columns = {"kl-mclr": 5, "gft": 2, "model-guidance": 2, "denoising": 1}.get(options["objective"], 4)
    assert counts["policy"] == columns * tiny.BATCH
    assert counts["policy"] <= tiny.BATCH * (1 + 3) or options["objective"] == "kl-mclr"
    assert counts["reference"] == (counts["policy"] if run.method.needs_reference else 0)


@pytest.mark.parametrize(("objective", "start"), [("ccdpo", math.log(2)), ("cca", 2 * math.log(2))])
def test_a_reference_from_the_same_file_starts_at_the_policys_energies(tiny, trainer, objective, start):
    """So sigmoid's argument is exactly 0, in the policy's own precision and under its dropout masks too."""
    run = trainer({"objective": objective}, dropout=0.5)
    net = tiny.tiny_net()
    for module in (*run.net.modules(), *net.modules()):
        if hasattr(module, "dropout"):
            module.dropout = 0.5
    run.use(Needs(run.family.frozen(net)))
    assert run.step(0).loss == pytest.approx(start, rel=1e-6)


def test_the_reference_is_frozen(tiny, trainer):
    run = trainer({"objective": "ccdpo"})
    reference = run.step.loss.reference

    def weights():
        return [module.held.clone() for module in reference.net.modules() if hasattr(module, "held")]

    before = weights()
    run.train_until(3 * tiny.BATCH)
    assert all(map(torch.equal, before, weights()))
    assert all(p.is_meta for name, p in reference.net.named_parameters() if "gain" not in name)  # freed
    assert not any(p.requires_grad for p in reference.net.parameters())
    assert not reference.net.training


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "ccdpo", "beta": 0.0}, "beta must be above 0"),
        ({"objective": "cca", "lambda_coef": -1.0}, "lambda_ must be above 0"),
        ({"objective": "ddo", "alpha": 0.0}, "alpha must be above 0"),
        ({"objective": "gft", "beta": 1.5}, "at most 1"),
        ({"objective": "kl-mclr", "eta": -0.1}, "eta must be at least 0"),
        ({"objective": "weighted-mclr", "eta": math.nan}, "eta must be at least 0"),
        ({"objective": "model-guidance", "guidance_weight": 1.0}, "w must be"),
    ],
)
def test_settings_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        make_method(ObjectiveConfig(**options))


@pytest.mark.parametrize(
    ("option", "users"),
    [
        ("P_mean", set(METHODS)),
        ("num_negatives", METHODS.keys() - LABELLED),
        ("include_own", METHODS.keys() - LABELLED - {"plus-minus", "ddo"}),
        ("form", {"mclr"}),
        ("beta", COMPARED | {"gft"}),
        ("pairing", {"cca"}),
        ("eta", {"kl-mclr", "weighted-mclr", "plus-minus"}),
        ("guidance_weight", {"model-guidance"}),
        ("label_dropout", LABELLED | {"cca"}),
        ("reference", COMPARED | SAMPLED),
        ("negatives", SAMPLED),
        ("best_share", {"plus-minus"}),
        ("classifier", RATED),
    ],
)
def test_whose_an_option_is(option, users):
    assert {name for name in METHODS if option in options_of(name)} == users


def test_every_option_is_somebodys():
    every = {field.name for field in dataclasses.fields(ObjectiveConfig)}
    assert set().union(*map(options_of, METHODS)) == every


@pytest.mark.parametrize(
    ("options", "which"),
    [
        ({"objective": "mclr"}, columns.other_labels),
        ({"objective": "mclr", "form": 2}, columns.other_images),
        ({"objective": "cca", "pairing": "images"}, columns.other_images),
        ({"objective": "cca", "pairing": "labels"}, columns.other_labels),
    ],
)
def test_columns_by_option(options, which):
    assert make_method(ObjectiveConfig(**options)).columns is which


@pytest.mark.parametrize("given", [None, 0.0, 0.3])
@pytest.mark.parametrize(
    ("objective", "default"), [("gft", 0.1), ("model-guidance", 0.1), ("denoising", 0.0), ("cca", 0.0)]
)
def test_how_often_labels_are_dropped(objective, default, given):
    method = make_method(ObjectiveConfig(objective=objective, label_dropout=given))
    assert method.label_dropout == (default if given is None else given)
