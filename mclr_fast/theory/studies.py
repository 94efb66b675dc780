"""The checks of docs/theory.md: each returns the numbers it found and what its picture shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mclr_fast.objectives import CCA, CCDPO

from . import examples, likelihood, preference, scores
from .gaussian_mixture import GaussianMixture
from .likelihood import total_variation


class Study(NamedTuple):
    """numbers: what theory.json holds; shown: arrays and settings for the picture."""

    numbers: dict[str, float | list[float]]
    shown: dict[str, Any]


def three_forms() -> Study:
    """(10) = (11) = (12) for random energies; without the own class (11) and (12) part."""
    classes = examples.on_grid(examples.line(), 40)
    generator = torch.Generator().manual_seed(0)
    differences = []
    for eta in (0.3, 1.0, 5.0):
        energy = torch.randn(3, 40, generator=generator, dtype=torch.float64)
        forms = (likelihood.symmetric_form, likelihood.label_form, likelihood.image_form)
        ten, eleven, twelve = (form(classes, energy, eta) for form in forms)
        differences += [abs(ten - eleven), abs(twelve - eleven)]
    parted = [form(classes, energy, eta, include_own=False) for form in forms[1:]]
    return Study({"difference": max(differences), "without_own": abs(parted[0] - parted[1])}, {})


def theorem1() -> Study:
    """The maximiser of (11) is max(h/Z, delta), and (17) in the limit."""
    classes, eta = examples.on_grid(examples.line(), 300), 1.0
    h = likelihood.sum_of_difference(classes, eta)
    limit = likelihood.positive_part(h, classes.cell)
    floors = [10**-k for k in (1.5, 2, 3, 4, 5, 6)]
    generator = torch.Generator().manual_seed(0)
    differences, to_limit = [], []
    for floor in floors:
        start = torch.rand(h.shape, generator=generator, dtype=torch.float64)
        start = start / (start.sum(dim=1, keepdim=True) * classes.cell)
        start = floor + (1 - floor * classes.volume) * start
        fitted = likelihood.fit_mclr(classes, eta, floor, start)
        closed = likelihood.floored(h, floor, classes.cell)
        differences.append(total_variation(fitted, closed, classes.cell).max().item())
        to_limit.append(total_variation(fitted, limit, classes.cell).max().item())
        if floor == 1e-2:
            shown = {"fitted": fitted, "closed": closed, "floor": floor}
    numbers = {"total_variation": max(differences), "to_limit": to_limit[-1]}
    shown |= {"classes": classes, "h": h, "eta": eta, "floors": floors, "to_limit": to_limit}
    return Study(numbers, shown)


def own_class() -> Study:
    """Drawing c~ without the own class, M equal classes: eta acts as eta M / (M - 1)."""
    mixture, eta, floor = examples.equal_line(), 0.8, 1e-3
    classes = examples.on_grid(mixture, 300)
    start = torch.full_like(classes.density, 1 / classes.volume)
    fitted = likelihood.fit_mclr(classes, eta, floor, start, include_own=False)
    numbers = {}
    for name, strength in (("as_eta_m_over_m_minus_1", eta * 3 / 2), ("as_eta", eta)):
        closed = likelihood.floored(likelihood.sum_of_difference(classes, strength), floor, classes.cell)
        numbers[name] = total_variation(fitted, closed, classes.cell).max().item()
    joint = scores.noisy_joint(mixture, 0.5, 300, 200)
    fit = scores.fit_weighted(mixture, 0.5, joint, eta, include_own=False)
    exact = scores.class_and_marginal(mixture, 0.5, joint)
    guided = (scores.guided_score(*exact, strength) for strength in (eta, eta * 3 / 2))
    numbers["weighted_from_cfg"] = min(
        scores.relative_error(fit.score, truth, joint.mass).max().item() for truth in guided
    )
    return Study(numbers, {})


def error_models() -> Study:
    """From a base that leaks as (18), (13) recovers p(x|c); from one that leaks as (101), CC-DPO does."""
    eta, beta = 0.6, 2.0
    fine, coarse = (examples.on_grid(examples.line(), cells) for cells in (300, 64))
    mixed = (1 - eta) * fine.density + eta * fine.marginal
    powered = preference.leaking_geometrically(coarse, beta)
    by_mclr = likelihood.fit_kl_mclr(fine, eta, mixed)
    by_ccdpo = torch.stack([preference.fit_preference(CCDPO(beta), coarse, powered, c) for c in range(3)])
    shown = {"mclr": (fine, mixed, by_mclr), "ccdpo": (coarse, powered, by_ccdpo), "eta": eta, "beta": beta}
    numbers = {}
    for name, number in (("mclr", "corollary1"), ("ccdpo", "corollary2")):
        classes, base, fitted = shown[name]
        for when, density in (("before", base), ("after", fitted)):
            distance = total_variation(density, classes.density, classes.cell)
            numbers[f"{number}_{when}"] = distance.max().item()
    return Study(numbers, shown)


def gamma_powered() -> Study:
    """CC-DPO and CCA reach (20), CCA only with the lambda of (119), which differs between classes."""
    beta = 1.0
    classes = examples.on_grid(examples.line(), 64)
    base = 0.7 * classes.density + 0.3 * classes.marginal
    closed, _ = preference.gamma_powered(classes, base, beta)
    right = preference.right_lambda(classes, base, beta)

    def fit(objective: CCDPO | CCA, c: int, normalised: bool = True) -> tuple[Tensor, float, float]:
        density = preference.fit_preference(objective, classes, base, c, normalised=normalised)
        mass = density.sum().item() * classes.cell
        return density, mass, total_variation(density / mass, closed[c], classes.cell).item()

    everywhere = range(3)
    common = (classes.prior @ right).item()
    factors = [1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0]
    sweep = [fit(CCA(beta, factor * right[0].item()), 0) for factor in factors]
    ccdpo = [fit(CCDPO(beta), c) for c in everywhere]
    numbers = {
        "ccdpo": max(distance for *_, distance in ccdpo),
        "cca": max(fit(CCA(beta, right[c].item()), c)[2] for c in everywhere),
        "right_lambda": right.tolist(),
        "cca_quarter_lambda": sweep[1][2],
        "cca_four_lambda": sweep[5][2],
        "cca_common_lambda": [fit(CCA(beta, common), c)[2] for c in everywhere],
    }
    _, numbers["free_mass_four_lambda"], numbers["free_four_lambda"] = fit(
        CCA(beta, 4 * right[0].item()), 0, normalised=False
    )
    shown = {"classes": classes, "base": base, "closed": closed, "ccdpo": ccdpo[0][0], "factors": factors}
    shown["sweep"] = [(density, distance) for density, _, distance in sweep]
    return Study(numbers, shown)


def cfg() -> Study:
    """Weighted MCLR's minimiser is the CFG score, on the line and in the plane."""
    sigmas, etas = (0.1, 0.3, 1.0, 3.0), (0.5, 1.0, 2.0, 4.0)
    settings = (("line", examples.line(), (400, 240)), ("plane", examples.plane(), (160, 80)))
    numbers, shown = {}, {}
    for name, mixture, sizes in settings:
        errors, curvatures = [], []
        for sigma in sigmas:
            joint = scores.noisy_joint(mixture, sigma, *sizes)
            exact = scores.class_and_marginal(mixture, sigma, joint)
            for eta in etas:
                fit = scores.fit_weighted(mixture, sigma, joint, eta)
                truth = scores.guided_score(*exact, eta)
                errors.append(scores.relative_error(fit.score, truth, joint.mass).max().item())
                curvatures.append((fit.curvature[joint.mass > NOTICEABLE] - 1).abs().max().item())
                if (sigma, eta) in PICTURED:
                    shown[name, sigma, "conditional"] = exact[0].score
                    shown[name, sigma, eta] = (joint, fit.score, truth)
        numbers |= {f"{name}_error": max(errors), f"{name}_curvature": max(curvatures)}
    return Study(numbers, shown)


def variants() -> Study:
    """Corollary 3: (141) has the guided score of p+ and p- as its minimiser; (142) another one."""
    models, sigma, eta = examples.strong_and_weak(), 0.3, 1.5
    joint = scores.noisy_joint(models, sigma, 400, 240)
    exact = scores.plus_and_minus(models, sigma, joint)
    guided = scores.guided_score(*exact, eta)
    weighted, plain = (
        scores.fit_plus_minus(models, sigma, joint, eta, weighted=weighted) for weighted in (True, False)
    )
    inside = plain.curvature > 0
    mass = joint.mass[:1]
    numbers = {
        "weighted_error": scores.relative_error(weighted.score, guided, mass).item(),
        "unweighted_error": _error_inside(plain.score, scores.difference_score(*exact, eta), mass, inside),
        "unweighted_from_guided": _distance(plain.score, guided, mass * plain.curvature.clamp(min=0)),
        "no_minimiser": mass[~inside].sum().item(),
    }
    shown = {"joint": joint, "guided": guided, "weighted": weighted, "plain": plain}
    return Study(numbers, shown | {"sigma": sigma, "eta": eta})


def unweighted() -> Study:
    """(21) without the weight: the score of h_t where h_t > 0, no minimiser elsewhere."""
    etas = (0.5, 1.0, 4.0)
    sigmas = torch.logspace(-1, 1, 33, dtype=torch.float64).tolist()
    numbers: dict[str, Any] = {}
    shown: dict[str, Any] = {"etas": (*etas, math.inf), "sigmas": sigmas, "share": {}}
    mixture = examples.line()
    errors = []
    joints = [scores.noisy_joint(mixture, sigma, 400, 800) for sigma in sigmas]
    for eta in (*etas, math.inf):
        share, distance = [], []
        for sigma, joint in zip(sigmas, joints, strict=True):
            fit = scores.fit_unweighted(mixture, joint, eta)
            inside = fit.curvature > 0
            share.append((joint.mass * ~inside).sum(dim=1))
            if eta < math.inf:
                exact = scores.class_and_marginal(mixture, sigma, joint)
                noticed = inside & (joint.mass > NOTICEABLE)
                truth = scores.difference_score(*exact, eta)
                errors.append(_error_inside(fit.score, truth, joint.mass, noticed))
                guided = scores.guided_score(*exact, eta)
                distance.append(_distance(fit.score, guided, joint.mass * fit.curvature.clamp(min=0)))
        shown["share"][eta] = torch.stack(share)
        shown["distance", eta] = distance
    numbers["error"] = max(errors)
    at_one = min(range(len(sigmas)), key=lambda i: abs(sigmas[i] - 1))
    for eta in shown["etas"]:
        numbers[f"no_minimiser_{eta:g}"] = shown["share"][eta][at_one].tolist()
    numbers["no_minimiser_worst"] = [share.max().item() for share in shown["share"].values()]
    numbers["mclr_alone_least"] = shown["share"][math.inf].min().item()
    numbers["distance"] = [shown["distance", eta][at_one] for eta in etas]
    shown |= {"line": _guidance_map(mixture, 1.0), "plane": _plane_maps((0.2, 0.6, 1.8), 1.0)}
    return Study(numbers, shown)


def _guidance_map(mixture: GaussianMixture, eta: float, c: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Over (sigma, x_t), [S,J] each: sigma, x_t, `_share` under label c, that class's mass."""
    sigmas = torch.logspace(-1, 0.7, 80, dtype=torch.float64)
    joints = [scores.noisy_joint(mixture, sigma.item(), 400, 240, reach=5.0) for sigma in sigmas]
    shares = torch.stack([_share(scores.fit_unweighted(mixture, joint, eta), eta, c) for joint in joints])
    x = joints[0].points[:, 0].expand_as(shares)
    density = torch.stack([joint.mass[c] for joint in joints])
    return sigmas[:, None].expand_as(shares), x, shares, density


def _plane_maps(sigmas: tuple[float, ...], eta: float, c: int = 0) -> list[tuple[float, Any, Tensor, Tensor]]:
    """For each sigma: x_t [J,J,2], `_share` under label c [J,J], every class's mass [M,J,J]."""
    mixture, maps = examples.plane(), []
    for sigma in sigmas:
        joint = scores.noisy_joint(mixture, sigma, 160, 120, reach=3.5)
        share = _share(scores.fit_unweighted(mixture, joint, eta), eta, c)
        maps.append((sigma, joint.points, share, joint.mass))
    return maps


def _share(fit: scores.Fit, eta: float, c: int) -> Tensor:
    """`share_of_guidance` under label c, NaN where no minimiser exists."""
    curvature = fit.curvature[c]
    return scores.share_of_guidance(curvature, eta).where(curvature > 0, math.nan)


NOTICEABLE = 1e-12  # cells of less mass hold only what the cut at K left out
PICTURED = {(0.3, 0.5), (0.3, 2.0), (1.0, 2.0)}
STUDIES: dict[str, Callable[[], Study]] = {
    study.__name__: study
    for study in (three_forms, theorem1, own_class, error_models, gamma_powered, cfg, variants, unweighted)
}


def _error_inside(score: Tensor, truth: Tensor, mass: Tensor, inside: Tensor) -> float:
    """The largest relative error of a class over the cells `inside`."""
    score, truth = (values.where(inside[..., None], 0) for values in (score, truth))
    return scores.relative_error(score, truth, mass).max().item()


def _distance(score: Tensor, other: Tensor, mass: Tensor) -> float:
    """E |score - other| / E |other| over x_t of the given mass."""
    gap, size = ((mass * values.norm(dim=-1)).sum() for values in (score - other, other))
    return (gap / size).item()
