"""Every objective on the embedded digits: the paper's Table 1, its Figure 4 and its ablations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mclr_fast.config import RunConfig

from .mnist16 import mnist16

Settings = dict[str, Any]

# At most four settings an objective, all chosen before any was run but around the default's learning rate.
GRID: dict[str, list[Settings]] = {
    "mclr": [dict(lr=5e-5), dict(lr=1e-4), dict(lr=2e-4)],
    "kl-mclr": [dict(lr=1e-4, eta=1.0), dict(lr=1e-4, eta=4.0)],
    "weighted-mclr": [
        dict(lr=1e-4, eta=0.5),
        dict(lr=3e-4, eta=0.5),
        dict(lr=1e-4, eta=1.0),
        dict(lr=3e-4, eta=1.0),
    ],
    "ccdpo": [dict(lr=1e-4, beta=0.01), dict(lr=1e-4, beta=0.05), dict(lr=2e-4, beta=0.02)],
    "cca": [dict(lr=1e-4, beta=0.01), dict(lr=1e-4, beta=0.05), dict(lr=2e-4, beta=0.02)],
    "ddo": [dict(lr=1e-4, beta=0.005), dict(lr=1e-4, beta=0.05), dict(lr=1e-4, beta=0.2)],
    "gft": [dict(lr=1e-4, beta=0.8), dict(lr=3e-4, beta=0.8), dict(lr=3e-4, beta=0.65)],
    "model-guidance": [
        dict(lr=1e-4, guidance_weight=0.2),
        dict(lr=3e-4, guidance_weight=0.2),
        dict(lr=3e-4, guidance_weight=0.35),
    ],
}
ABLATION = ("figure", "objective", "option", "values", "chooses")
# Those that choose belong to the grid: K, beta and lambda are tuned like the learning rate.
ABLATIONS = [
    dict(zip(ABLATION, row, strict=True))
    for row in (
        ("Approach 1 and 2", "mclr", "num_negatives", [1, 3, 7, 15], True),
        ("Figure 20", "mclr", "dsm_weight", [0.0, 0.1, 0.5, 1.0], False),
        ("Figure 21", "ccdpo", "beta", [0.005, 0.01, 0.02, 0.05], True),
        ("Figure 22", "cca", "lambda_coef", [0.25, 0.5, 1.0, 2.0], True),
    )
]


def mnist16_table() -> RunConfig:
    """Every objective at the best of its grid, and ablations: an hour of 2 cores, or --table-minutes 20."""
    run = mnist16()
    return replace(
        run,
        recipe="mnist16-table",
        eval=replace(run.eval, control="none", best_cfg_scales=(), dial=()),
        table={
            "grid": GRID,
            "ablations": ABLATIONS,
            "tried": {"num_samples": 1000, "eval_every": 2 * run.eval.eval_every, "cfg_scales": ()},
        },
        table_minutes=20.0,
        proof_seeds=(0, 1, 2),
    )
