"""MCLR on squared errors of a score: Theorem 3, Corollary 3, and eq. 21 without the weight."""

import math

import pytest
import torch

from mclr_fast.objectives import MCLR, PlusMinus, WeightedMCLR, pair_labels
from mclr_fast.theory import examples
from mclr_fast.theory import scores as S

ETAS = (0.5, 2.0, 8.0)
SIZES = {"line": (240, 120), "plane": (80, 40)}


@pytest.fixture(params=["line", "plane"])
def noisy(request):
    """`noisy(sigma)`: a mixture, the discretised joint under noise, p_t(.|c) and p_t in closed form."""

    def made(sigma):
        mixture = getattr(examples, request.param)()
        joint = S.noisy_joint(mixture, sigma, *SIZES[request.param])
        return mixture, joint, S.class_and_marginal(mixture, sigma, joint)

    return made


def worst(score, truth, mass, inside=None):
    """The largest relative error of a class, density weighted, over the cells `inside`."""
    if inside is not None:
        score, truth = (values.where(inside[..., None], 0) for values in (score, truth))
    return S.relative_error(score, truth, mass).max().item()


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_denoising_alone_gives_the_conditional_score(noisy, sigma):
    """Lemma 1, and a check of the joint: its mass and its mean of grad log p_0t are p_t and its score."""
    _, joint, (own, _) = noisy(sigma)
    assert worst(joint.first / joint.mass[..., None], own.score, joint.mass) < 1e-4
    density = own.log_p.exp()
    torch.testing.assert_close(joint.mass / joint.mass.sum(), density / density.sum(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_theorem_3(noisy, sigma, eta):
    """The minimiser of weighted MCLR is the CFG score, and a minimum everywhere: the curvature is 1."""
    mixture, joint, exact = noisy(sigma)
    fit = S.fit_weighted(mixture, sigma, joint, eta)
    assert worst(fit.score, S.guided_score(*exact, eta), joint.mass) < 1e-4
    assert worst(fit.score, exact[0].score, joint.mass) > 0.01  # the guidance is not negligible
    assert (fit.curvature[joint.mass > 1e-9] - 1).abs().max() < 1e-3


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_without_the_weight(noisy, sigma, eta):
    """Where h_t > 0 the stationary point is h_t's score; elsewhere the loss curves down: no minimiser."""
    mixture, joint, exact = noisy(sigma)
    fit = S.fit_unweighted(mixture, joint, eta)
    own, everyone = (density.log_p.exp() for density in exact)
    h = (1 + eta) * own - eta * everyone
    noticed = joint.mass > 1e-9
    assert bool(((fit.curvature > 0) == (h > 0))[noticed].all())
    assert 0 < (joint.mass * (h < 0)).sum() < 0.5 * joint.mass.sum()
    inside = noticed & (h > 0.01 * own)
    assert worst(fit.score, S.difference_score(*exact, eta), joint.mass, inside) < 1e-3
    assert worst(fit.score, S.guided_score(*exact, eta), joint.mass, inside) > 0.05  # not CFG
    share = S.share_of_guidance(fit.curvature, eta)[..., None]
    guidance = exact[0].score + share * eta * (exact[0].score - exact[1].score)
    assert worst(fit.score, guidance, joint.mass, inside) < 1e-3


def test_the_score_of_the_difference_is_its_gradient():
    """`difference_score` against finite differences of log h_t."""
    mixture, sigma, eta, step = examples.line(), 0.7, 1.0, 1e-5
    joint = S.noisy_joint(mixture, sigma, 10, 60)

    def log_h(shift):
        moved = joint._replace(points=joint.points + shift)
        own, everyone = (density.log_p.exp() for density in S.class_and_marginal(mixture, sigma, moved))
        return ((1 + eta) * own - eta * everyone).log()

    slope = (log_h(step) - log_h(-step)) / (2 * step)
    exact = S.difference_score(*S.class_and_marginal(mixture, sigma, joint), eta)[..., 0]
    positive = slope.isfinite()
    torch.testing.assert_close(exact[positive], slope[positive], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_mclr_alone_never_has_a_minimiser(noisy, sigma):
    """At eta = inf, the paper's own recipe, the curvature is p_t(x_t|c) - p_t(x_t): below 0 somewhere."""
    mixture, joint, (own, everyone) = noisy(sigma)
    fit = S.fit_unweighted(mixture, joint, math.inf)
    noticed = joint.mass > 1e-9
    assert bool(((fit.curvature > 0) == (own.log_p > everyone.log_p))[noticed].all())
    assert (joint.mass * (fit.curvature < 0)).flatten(1).sum(1).min() > 0.03


@pytest.mark.parametrize("eta", [0.5, 3.0])
def test_corollary_3(eta):
    """(141) has the guided score of p+ and p-; (142) the score of (1+eta) p+ - eta p-, where positive."""
    models, sigma = examples.strong_and_weak(), 0.4
    joint = S.noisy_joint(models, sigma, 240, 120)
    exact, mass = S.plus_and_minus(models, sigma, joint), joint.mass[:1]
    weighted = S.fit_plus_minus(models, sigma, joint, eta, weighted=True)
    assert worst(weighted.score, S.guided_score(*exact, eta), mass) < 1e-4
    plain = S.fit_plus_minus(models, sigma, joint, eta, weighted=False)
    inside = (plain.curvature > 0.01) & (mass > 1e-9)
    assert worst(plain.score, S.difference_score(*exact, eta), mass, inside) < 1e-3
    assert worst(plain.score, S.guided_score(*exact, eta), mass, inside) > 0.05


def test_without_the_own_class():
    """M equal classes: unweighted, eta acts as eta M / (M - 1); weighted, the minimiser is no CFG score."""
    mixture, sigma, eta = examples.equal_line(), 0.5, 0.8
    joint = S.noisy_joint(mixture, sigma, 240, 120)
    exact = S.class_and_marginal(mixture, sigma, joint)
    excluded = S.fit_unweighted(mixture, joint, eta, include_own=False)
    stronger = S.fit_unweighted(mixture, joint, eta * 3 / 2)
    torch.testing.assert_close(excluded.score, stronger.score, rtol=1e-6, atol=1e-6)
    weighted = S.fit_weighted(mixture, sigma, joint, eta, include_own=False)
    for strength in (eta, eta * 3 / 2):
        assert worst(weighted.score, S.guided_score(*exact, strength), joint.mass) > 0.1


@pytest.fixture(scope="module")
def tuples():
    """Prior, x_t, a coarse joint [c, x_0, x_t] of the line's classes, grad log p_0t, ratio a [c, x_t]."""
    mixture, sigma = examples.line(), 0.8
    clean, noisy = (torch.linspace(-5, 5, n, dtype=torch.float64)[:, None] for n in (24, 18))
    of_class = mixture.log_prob(clean, c=torch.arange(3)[:, None])
    joint = (of_class[..., None] - 0.5 * ((noisy[:, 0] - clean) / sigma) ** 2).exp()
    joint = joint / joint.sum(dim=(1, 2), keepdim=True)
    ratio = mixture.log_ratio(noisy, sigma, torch.arange(3)[:, None]).exp()
    return mixture.class_probs, noisy, joint, (clean - noisy[:, 0]) / sigma**2, ratio


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("images", [True, False])
def test_the_quadratic_is_the_sum_over_tuples(tuples, random_table, weighted, images):
    """(23) and its form with images (24), summed over all (c, c~, x_0, x_t), are what `fit_score` solves."""
    prior, noisy, joint, target, ratio = tuples
    objective = WeightedMCLR(1.5) if weighted else PlusMinus(1.5)
    c, d, i, j = (v.flatten() for v in torch.meshgrid(*map(torch.arange, (3, 3, 24, 18)), indexing="ij"))
    # A wrong label d on a sample of c; or, as a negative under c, a sample of d. x and y are drawn apart.
    label, of = (c, d) if images else (d, c)
    score = random_table(3, 18)
    positive = joint[c, i, j] * (target[i, j] - score[c, j]) ** 2
    negative = joint[of, i, j] * (target[i, j] - score[label, j]) ** 2
    a = ratio[label, j][:, None] if weighted else None
    losses = objective(torch.stack([positive, negative], dim=1), ratio_NK=a).loss_N
    summed = (prior[c] * prior[d]) @ losses

    mass, first, second = ((joint * target**power).sum(1) for power in (0, 1, 2))
    gathered = S.Joint(noisy, mass, first[..., None], second)
    negatives = gathered.mixed(examples.negatives_of(prior))
    by_label = S.expected_losses(
        objective, gathered, negatives, score[..., None], ratio if weighted else None
    ).sum(1)
    torch.testing.assert_close(prior @ by_label, summed)


def test_eq_21_is_denoising_plus_eta_times_mclr(random_table):
    """So MCLR(dsm_weight=1/eta) is (21) over eta, and its rows are those of (142)."""
    energies, eta = random_table(5, 2), 1.5
    loss = eta * MCLR(dsm_weight=1 / eta)(energies).loss_N
    torch.testing.assert_close(loss, energies[:, 0] + eta * MCLR()(energies).loss_N)
    torch.testing.assert_close(loss, PlusMinus(eta)(energies).loss_N)


@pytest.mark.parametrize(("include_own", "reaches_cfg"), [(True, True), (False, False)])
def test_theorem_3_from_samples(include_own, reaches_cfg):
    """As training does it: drawn images, noise and labels (`pair_labels`), a smooth function a class."""
    mixture, sigma, eta = examples.equal_line(), 0.6, 1.0
    generator = torch.Generator().manual_seed(0)
    centres = torch.linspace(-3.5, 3.5, 8, dtype=torch.float64)
    normal, right = 3 * torch.eye(8).double().expand(3, 8, 8).clone(), torch.zeros(3, 8).double()
    for _ in range(500):
        x, c = mixture.sample(200, generator)
        index = pair_labels(c, 4, include_own=include_own, generator=generator)
        labels = torch.cat([c[:, None], c[index]], dim=1)
        noisy = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        ratio = mixture.log_ratio(noisy[:, None], sigma, labels[:, 1:]).exp()
        weight = WeightedMCLR(eta).row_coefficients(ratio).double()
        features = (-0.5 * (noisy - centres) ** 2).exp()
        target = (x - noisy)[:, 0] / sigma**2
        for k in range(3):
            share = (weight * (labels == k)).sum(1)
            normal[k] += features.T @ (share[:, None] * features)
            right[k] += features.T @ (share * target)
    solution = torch.linalg.solve(normal, right)
    points = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None]
    fitted = (-0.5 * (points - centres) ** 2).exp() @ solution.T
    grid = S.Joint(points, *[torch.zeros(0)] * 3)
    own, everyone = S.class_and_marginal(mixture, sigma, grid)
    truth = S.guided_score(own, everyone, eta)
    error = S.relative_error(fitted.T[..., None], truth, own.log_p.exp())
    assert (error.max() < 0.1) if reaches_cfg else (error.min() > 0.2), error
