"""The pictures of docs/theory.md, each from one study."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mclr_fast.reports.figures.style import BASE, CONTROL, GUIDED, MUTED, REAL, TRAINED, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.0  # inches, at 180 dots each; readable at 800 pixels
Shown = dict[str, Any]


def save_figures(shown: dict[str, Shown], outdir: Path) -> list[Path]:
    """Draw what the studies show (name -> shown) as outdir/theory-<name>.png; the files' paths."""
    paths = []
    with styled(**{"lines.linewidth": 1.8}):
        for name, draw in DRAWN.items():
            paths.append(outdir / f"theory-{name.replace('_', '-')}.png")
            draw(shown[name]).savefig(paths[-1], dpi=180, metadata={"Software": None})
    return paths


def _theorem1(shown: Shown) -> Figure:
    fig, (left, right) = _panels(2, widths=(1.7, 1))
    classes, c = shown["classes"], 1
    x, h = classes.points, shown["h"][c]
    left.plot(x, classes.density[c], color=BASE, ls="--", label="data p(x|c)")
    left.plot(x, classes.marginal, color=MUTED, ls=":", label="all classes p(x)")
    left.fill_between(x, h, where=h < 0, color=REAL, alpha=0.35, lw=0, label="h(x|c) below 0")
    left.plot(x, shown["closed"][c], color=GUIDED, label="max(h/Z, δ), eq. 16")
    left.plot(x[::6], shown["fitted"][c][::6], "o", ms=4, color=TRAINED, label="maximiser of eq. 11")
    left.set(title=f"Class 1 at η = {shown['eta']:g}, δ = {shown['floor']:g}", xlabel="x", ylabel="Density")
    left.set_xlim(-4, 4)
    right.loglog(shown["floors"], shown["to_limit"], "o-", color=TRAINED)
    right.set(title="As δ → 0", xlabel="Floor δ", ylabel="Total variation to eq. 17")
    _legend(fig, left)
    return fig


def _error_models(shown: Shown) -> Figure:
    fig, axes = _panels(2, sharey=True)
    titles = (f"Corollary 1: mixture, η = {shown['eta']:g}", f"Corollary 2: product, β = {shown['beta']:g}")
    for ax, title, method, by in zip(axes, titles, ("mclr", "ccdpo"), ("eq. 13", "CC-DPO"), strict=True):
        classes, base, fitted = shown[method]
        c, every = 2, max(len(classes.points) // 60, 1)
        ax.plot(classes.points, base[c], color=MUTED, ls="--", label="leaking base")
        ax.plot(classes.points, classes.density[c], color=GUIDED, label="data p(x|c)")
        ax.plot(
            classes.points[::every], fitted[c][::every], "o", ms=4, color=TRAINED, label="after fine-tuning"
        )
        ax.set(title=title, xlabel=f"x (class 2, fine-tuned by {by})", xlim=(-3.5, 3.5))
    axes[0].set_ylabel("Density")
    _legend(fig, axes[0])
    return fig


def _gamma_powered(shown: Shown) -> Figure:
    fig, (left, right) = _panels(2, widths=(1.7, 1))
    x, factors = shown["classes"].points, shown["factors"]
    densities, distances = zip(*shown["sweep"], strict=True)
    left.plot(x, shown["base"][0], color=MUTED, ls="--", label="base")
    left.plot(x, shown["closed"][0], color=GUIDED, label="gamma-powered, eq. 20")
    left.plot(x, shown["ccdpo"], "o", ms=5, color=TRAINED, label="CC-DPO")
    left.plot(x, densities[factors.index(1.0)], "x", ms=5, color=BASE, label="CCA, right λ")
    left.plot(x, densities[factors.index(0.25)], color=CONTROL, lw=1.3, label="CCA, λ / 4")
    left.plot(x, densities[factors.index(4.0)], color=REAL, lw=1.3, label="CCA, 4 λ")
    left.set(title="Class 0", xlabel="x", ylabel="Density", ylim=(-0.02, 0.62))
    left.text(0.25, 0.56, "4 λ: surplus mass goes\nwhere no data are", ha="center", va="center", color=REAL)
    right.loglog(factors, distances, "o-", color=CONTROL)
    right.set_xticks(factors, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    right.minorticks_off()
    right.set(title="CCA's λ", xlabel="λ over the right λ", ylabel="Total variation to eq. 20")
    _legend(fig, left)
    return fig


def _cfg(shown: Shown) -> Figure:
    fig, (left, right) = _panels(2, widths=(1.1, 1), height=3.9)
    sigma, eta, c = 0.3, 2.0, 0
    for strength, color in ((0.5, CONTROL), (eta, TRAINED)):
        joint, fitted, truth = shown["line", sigma, strength]
        x = joint.points[:, 0]
        left.plot(x, truth[c, :, 0], color=color, label=f"CFG, η = {strength:g}")
        left.plot(x[::4], fitted[c, ::4, 0], "o", ms=4, color=color, mec="white", mew=0.5)
    left.plot(
        x, shown["line", sigma, "conditional"][c, :, 0], color=MUTED, ls="--", label="conditional score"
    )
    left.plot([], [], "o", ms=4, color=MUTED, label="dots, thin arrows: fitted weighted MCLR")
    left.plot([], [], color=GUIDED, lw=4, label="wide arrows: CFG")
    left.set(title=f"Line, class {c}, $\\sigma$ = {sigma:g}", xlabel="Noisy x", ylabel="Score")
    left.set(xlim=(-4, 4), ylim=(-12, 12))
    joint, fitted, truth = shown["plane", 1.0, eta]
    near = slice(29, 52, 2)
    x, y = (joint.points[near, near, d] for d in (0, 1))
    right.contourf(*joint.points.numpy().T, joint.mass[c].numpy().T, levels=8, cmap="Greys", alpha=0.5)
    for field, color, width in ((truth, GUIDED, 0.013), (fitted, TRAINED, 0.004)):
        right.quiver(x, y, *field[c, near, near].unbind(-1), color=color, width=width, scale=75)
    right.set(title=f"Plane, class {c}, $\\sigma$ = 1, η = {eta:g}", xlabel="Noisy x₁", ylabel="Noisy x₂")
    right.set(xlim=(-3.1, 3.1), ylim=(-3.1, 3.1), aspect="equal")
    _legend(fig, left, ncols=3)
    return fig


def _variants(shown: Shown) -> Figure:
    fig, (left, right) = _panels(2, widths=(1, 1.4))
    joint, plain = shown["joint"], shown["plain"]
    x = joint.points[:, 0]
    width = (x[1] - x[0]).item()
    left.plot(x, joint.mass[0] / width, color=GUIDED, label="p+ (strong)")
    left.plot(x, joint.mass[1] / width, color=MUTED, ls="--", label="p- (weak)")
    left.set(
        title=f"Two models, $\\sigma$ = {shown['sigma']:g}", xlabel="Noisy x", ylabel="Density", xlim=(-4, 4)
    )
    inside = plain.curvature[0] > 0
    nowhere = "eq. 142: no minimiser"
    right.fill_between(x, -30, 30, where=~inside, color=REAL, alpha=0.25, lw=0, label=nowhere)
    right.plot(x, shown["guided"][0, :, 0], color=BASE, label="guided score, eq. 140")
    right.plot(
        x[::3], shown["weighted"].score[0, ::3, 0], "o", ms=4, color=TRAINED, label="minimiser of eq. 141"
    )
    right.plot(
        x, plain.score[0, :, 0].where(inside, math.nan), color=CONTROL, lw=1.3, label="minimiser of eq. 142"
    )
    right.set(title=f"Their guided score, η = {shown['eta']:g}", xlabel="Noisy x", ylabel="Score")
    right.set(xlim=(-4, 4), ylim=(-30, 30))
    _legend(fig, left, right)
    return fig


def _unweighted(shown: Shown) -> Figure:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    shades = {"norm": LogNorm(1 / 8, 8), "cmap": "RdBu_r", "shading": "nearest", "rasterized": True}
    fig = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(1, 0.95))
    left, *curves = top.subplots(1, 3, width_ratios=(1.5, 1, 1))
    sigma, x, share, density = (values.numpy() for values in shown["line"])
    colored = left.pcolormesh(x, sigma, share, **shades)
    _no_minimiser(left, x, sigma, share)
    mass = density / density.sum(axis=1, keepdims=True)
    left.contour(
        x, sigma, mass.cumsum(axis=1), levels=(0.05, 0.95), colors=BASE, linestyles="--", linewidths=1
    )
    left.set(title="Line, class 1, η = 1", xlabel="Noisy x", ylabel="Noise level $\\sigma$", yscale="log")
    left.text(-3.2, 0.2, "no minimiser", ha="center", bbox={"fc": "white", "ec": "none", "pad": 2})
    sigmas = shown["sigmas"]
    for eta, color in zip(shown["etas"], (CONTROL, GUIDED, TRAINED, BASE), strict=True):
        label = "η = ∞ (MCLR alone)" if math.isinf(eta) else f"η = {eta:g}"
        curves[0].semilogx(sigmas, 100 * shown["share"][eta].amax(dim=1), color=color, label=label)
        if shown["distance", eta]:
            curves[1].semilogx(sigmas, shown["distance", eta], color=color)
    curves[0].set(title="No minimiser, %", xlabel="Noise level $\\sigma$", ylim=(0, 70))
    curves[1].set(title="Distance to CFG", xlabel="Noise level $\\sigma$", ylim=(0, 0.7))
    top.legend(*curves[0].get_legend_handles_labels(), loc="outside lower right", ncols=4)
    axes = bottom.subplots(1, 3, sharey=True)
    for ax, (level, points, share, masses) in zip(axes, shown["plane"], strict=True):
        x, y, share, masses = *points.numpy().T, share.numpy().T, masses.numpy().transpose(0, 2, 1)
        ax.pcolormesh(x, y, share, **shades)
        _no_minimiser(ax, x, y, share)
        for c, mass in enumerate(masses):
            ax.contour(x, y, mass / mass.max(), levels=(0.3,), colors=BASE if c == 0 else MUTED)
        ax.set(title=f"Plane, $\\sigma$ = {level:g}, η = 1", xlabel="Noisy x₁", aspect="equal")
    axes[0].set_ylabel("Noisy x₂")
    bar = bottom.colorbar(colored, ax=axes, shrink=0.9, ticks=(1 / 8, 1 / 2, 1, 2, 8))
    bar.ax.set_yticklabels(("1/8", "1/2", "1", "2", "8"))
    bar.minorticks_off()
    bar.set_label("Guidance over CFG's")
    return fig


def _no_minimiser(ax: Axes, x: Any, y: Any, share: Any) -> None:
    """Hatch where no minimiser exists, where `share` is NaN."""
    ax.contourf(x, y, np.isnan(share), levels=(0.5, 1.5), colors="#f0f0f0", hatches=["////"])
    ax.grid(visible=False)


def _panels(count: int, widths: tuple[float, ...] | None = None, height: float = 3.5, **options: Any):
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    return fig, fig.subplots(1, count, width_ratios=widths, **options)


def _legend(fig: Figure, *axes: Axes, ncols: int = 3) -> None:
    handles, labels = [], []
    for ax in axes:
        own = ax.get_legend_handles_labels()
        handles, labels = handles + own[0], labels + own[1]
    fig.legend(handles, labels, loc="outside lower center", ncols=ncols)


DRAWN: dict[str, Callable[[Shown], Figure]] = {
    "theorem1": _theorem1,
    "error_models": _error_models,
    "gamma_powered": _gamma_powered,
    "cfg": _cfg,
    "variants": _variants,
    "unweighted": _unweighted,
}
