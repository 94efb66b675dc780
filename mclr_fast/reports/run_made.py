"""What the report says of how a run was made and measured, and of what to do with its model."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from .run_data import BEST, RunData


def commands(run: RunData) -> Iterable[str]:
    """What to type to sample and to score the run's model."""
    folder = shlex.quote(str(run.outdir))
    yield f"python -m mclr_fast.sample {folder} --seeds 0-19 --grid"
    if run.best:
        yield f"python -m mclr_fast.evaluate {folder}"


def model(run: RunData) -> Iterable[tuple[str, str]]:
    """Where the kept model lies, what it was made of and under which licence."""
    if run.best:
        yield "Model", str(run.outdir / BEST)
    base = run.model.get("base") or {}
    if base:
        yield "Base", f"{base['model']} (SHA-256 {base['sha256']})"
    yield "Licence", str(run.model.get("licence") or "the base's and the data's; none is stored with it")


def measured(run: RunData) -> Iterable[tuple[str, str]]:
    """How the numbers came about: term and description."""
    summary, protocol = run.summary, run.summary.protocol
    seeds = [entry.seed for entry in summary.proof] or [summary.seed]
    yield "Run", f"recipe {summary.recipe}, seed {', '.join(map(str, seeds))}"
    yield "Images seen", f"{summary.images_seen:,}"
    yield "Time", _duration(summary.seconds)
    if protocol:
        first, last = protocol["seeds"]
        for name, about in protocol["protocols"].items():
            yield f"Protocol {name}", _judged_with(about)
        yield (
            "Samples",
            f"{protocol['samples']:,} a row, seeds {first:,} to {last:,}, classes {protocol['classes']}, the "
            "same for every row",
        )
        if sampling := ", ".join(_sampled(protocol)):
            yield "Sampling", sampling
    if summary.proof:
        yield "Checkpoint", "chosen by FD on other sampling seeds than the proof's table"
    elif run.best:
        yield (
            "Checkpoint",
            "chosen by FD on these same samples, which flatters it a little; "
            + ("the final rows are" if summary.final else "a proof run scores it")
            + " on seeds not used to choose",
        )
    for name, version in summary.versions.items():
        yield name, str(version)


def _sampled(protocol: dict[str, Any]) -> Iterable[str]:
    """The sampler's numbers, of those that it has."""
    if "num_steps" in protocol:
        yield f"{protocol['num_steps']} steps"
    sigmas = [str(protocol[key]) for key in ("sigma_min", "sigma_max") if key in protocol]
    if sigmas:
        yield f"sigma {' to '.join(sigmas)}"
    for key, word in (("top_k", "top-k"), ("top_p", "top-p")):
        if key in protocol:
            yield f"{word} {protocol[key] or 'off'}"


def _judged_with(about: dict[str, Any]) -> str:
    """A protocol's network, its neighbours and what it compares with."""
    network = about.get("extractor", "")
    reference = about.get("reference", {})
    count = f"{reference['num_images']:,} images of " if reference.get("num_images") else ""
    parts = [
        network,
        f"images resized: {about['resize']}" if about.get("resize", "none") != "none" else "",
        f"k = {about['k']} nearest neighbours" if "k" in about else "",
        f"reference: {count}{reference['source']}" if reference else "",
    ]
    return "; ".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
