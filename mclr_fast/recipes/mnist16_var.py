"""The embedded runs of VAR: MNIST's digits as 30 tokens each, by the shipped VQVAE."""

from __future__ import annotations

from dataclasses import replace

from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig

# Small on purpose: one of 4 blocks, 96 wide, learns 3,000 digits by heart within 32 epochs.
NET = dict(
    vocab_size=128,
    z_channels=8,
    num_classes=10,
    depth=3,
    embed_dim=48,
    num_heads=3,
    patch_nums=[1, 2, 3, 4],
    vqvae="mnist16-vqvae",
)
# VAR's t: none is 0, and logits are (1 + t) with the label - t without at the last scale.
CFG_SCALES = (0.25, 0.5, 1.0, 1.5, 2.0)
COMPARED = [dict(lr=5e-5, beta=0.02), dict(lr=5e-5, beta=0.05), dict(lr=1e-4, beta=0.05)]
SAMPLER = dict(top_k=0, top_p=0.0)  # off: samples are of the likelihoods that are trained


def mnist16_var() -> RunConfig:
    """Fine-tune the shipped VAR with MCLR, with a control, curves and a report."""
    return RunConfig(
        recipe="mnist16-var",
        data="mnist16",
        init="mnist16-var-base",
        family="var",
        protocol="mnist16",
        objective=ObjectiveConfig(objective="mclr", num_negatives=3),
        train=TrainConfig(
            duration=32 * 80,
            batch_size=32,
            lr=5e-5,
            ema="plain",
            ema_beta=0.9,
            stop_factor=2.5,
            log_every=32 * 2,
        ),
        eval=EvalConfig(
            eval_every=32 * 10,
            num_samples=2000,
            control="last",
            cfg_scales=CFG_SCALES,
            best_cfg_scales=(0.25, 0.5),
            dial=(0.5, 0.75, 1.25, 1.5),
            **SAMPLER,
        ),
    )


def mnist16_var_table() -> RunConfig:
    """MCLR, CCA and CC-DPO, each at the best of a small grid, with three seeds, judged on fresh samples."""
    run = mnist16_var()
    return replace(
        run,
        recipe="mnist16-var-table",
        eval=replace(run.eval, control="none", best_cfg_scales=(), dial=()),
        table={
            "grid": {
                "mclr": [dict(lr=2e-5), dict(lr=5e-5), dict(lr=1e-4)],
                "cca": COMPARED,
                "ccdpo": COMPARED,
            },
            "ablations": [],
            "tried": {"num_samples": 1000, "eval_every": 2 * run.eval.eval_every, "cfg_scales": ()},
        },
        table_minutes=20.0,
        proof_seeds=(0, 1, 2),
    )


def mnist16_var_base() -> RunConfig:
    """Train the VAR that ships with the package, from scratch, on tokens of the shipped VQVAE."""
    return RunConfig(
        recipe="mnist16-var-base",
        data="mnist16",
        family="var",
        net=NET,
        protocol="mnist16",
        objective=ObjectiveConfig(objective="denoising", label_dropout=0.1),
        train=TrainConfig(
            duration=64 * 4000,
            batch_size=64,
            lr=2e-3,
            lr_schedule="edm2",
            warmup_images=64 * 100,
            ref_batches=500,
            ema="power",
            ema_stds=(0.1,),
            log_every=64 * 50,
        ),
        eval=EvalConfig(eval_every=64 * 500, num_samples=1000, **SAMPLER),
    )
