"""The objectives on Fashion-MNIST: all of them on a GPU, three on two cores."""

from __future__ import annotations

from dataclasses import replace

from mclr_fast.config import RunConfig

from .fashion32 import GPU, NOISE, Size, fashion32
from .mnist16_table import ABLATIONS, GRID, Settings

# The grid of the digits, and the control as a method of its own; MCLR's K is 1, 3 or 7.
# What contrasts no labels is trained at the base's noise levels.
EVERY: dict[str, list[Settings]] = {
    "denoising": [dict(lr=5e-5, **NOISE), dict(lr=1e-4, **NOISE)],
    **{name: GRID[name] for name in ("mclr", "kl-mclr", "weighted-mclr", "ccdpo", "cca")},
    **{name: [settings | NOISE for settings in GRID[name]] for name in ("ddo", "gft")},
}
NEGATIVES = {**ABLATIONS[0], "values": [1, 3, 7]}
COMPARED: dict[str, list[Settings]] = {
    "mclr": [dict(lr=2e-4, dsm_weight=d) for d in (1.0, 2.0, 4.0)],
    "ccdpo": [dict(lr=2e-4, beta=beta) for beta in (0.003, 0.01, 0.05)],
    "cca": [dict(lr=2e-4, beta=beta) for beta in (0.003, 0.01, 0.05)],
}


def fashion32_table(size: Size) -> RunConfig:
    """Compare objectives on that base, each at the best of a grid, with three seeds and fresh samples.

    In slices with --table-minutes; needs --data, and on a GPU --init.
    """
    run = fashion32(size)
    whole = size is GPU
    return replace(
        run,
        recipe=f"{size.name}-table",
        eval=replace(run.eval, control="none", best_cfg_scales=(), dial=(), final_samples=0),
        table={
            "grid": EVERY if whole else COMPARED,
            "ablations": [NEGATIVES] if whole else [],
            "tried": {"num_samples": size.judged // 2, "cfg_scales": ()},
        },
        table_minutes=20.0,
        proof_seeds=(0, 1, 2),
        proof_samples=size.final,
    )
