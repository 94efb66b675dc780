"""The embedded runs: MNIST's digits at 16x16, from nothing to a fine-tuned model on a laptop."""

from __future__ import annotations

from dataclasses import replace

from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig

NET = dict(
    img_resolution=16,
    img_channels=1,
    label_dim=10,
    model_channels=8,
    channel_mult=[1, 2, 2],
    num_blocks=1,
    attn_resolutions=[],
    channels_per_head=8,
    logvar_channels=32,
)
NOISE = dict(P_mean=-0.5, P_std=1.2)
SAMPLER = dict(num_steps=12, sigma_max=40.0)


def mnist16() -> RunConfig:
    """Fine-tune the shipped base with MCLR, with a control, curves and a report."""
    return RunConfig(
        recipe="mnist16",
        data="mnist16",
        init="mnist16-base",
        protocol="mnist16",
        objective=ObjectiveConfig(objective="mclr", num_negatives=3, **NOISE),
        train=TrainConfig(
            duration=32 * 80,
            batch_size=32,
            lr=1e-4,
            ema="plain",
            ema_beta=0.9,
            stop_factor=2.5,
            log_every=32 * 2,
        ),
        eval=EvalConfig(
            eval_every=32 * 10,
            num_samples=2000,
            control="last",
            cfg_scales=(1.1, 1.25, 1.5, 2.0, 3.0),
            best_cfg_scales=(1.1, 1.25, 1.5),
            dial=(0.25, 0.5, 0.75, 1.25, 1.5),
            **SAMPLER,
        ),
    )


def mnist16_autoguidance() -> RunConfig:
    """Autoguidance as training: towards the base's samples, away from those of an earlier snapshot.

    Which snapshot --negatives-model says. Source: eq. 142.
    """
    return _plus_minus("mnist16-autoguidance", positives="base")


def mnist16_cfgrl() -> RunConfig:
    """CFGRL as training: towards the base's samples that a classifier finds best, away from all (eq. 142)."""
    return _plus_minus("mnist16-cfgrl", positives="best")


def _plus_minus(recipe: str, positives: str) -> RunConfig:
    run = mnist16()
    objective = replace(run.objective, objective="plus-minus", positives=positives)
    return replace(run, recipe=recipe, objective=objective)


def mnist16_base() -> RunConfig:
    """Train the base that ships with the package, from scratch."""
    return RunConfig(
        recipe="mnist16-base",
        data="mnist16",
        net=NET,
        protocol="mnist16",
        objective=ObjectiveConfig(objective="denoising", label_dropout=0.1, **NOISE),
        train=TrainConfig(
            duration=64 * 24_000,
            batch_size=64,
            lr=0.01,
            lr_schedule="edm2",
            warmup_images=10_000,
            ref_batches=500,
            ema="power",
            ema_stds=(0.1,),
            log_every=64 * 100,
        ),
        eval=EvalConfig(eval_every=64 * 1000, num_samples=1000, **SAMPLER),
    )


def mnist16_proof() -> RunConfig:
    """The default run with three seeds, each judged on 2,000 samples that chose nothing."""
    run = mnist16()
    return replace(
        run,
        recipe="mnist16-proof",
        eval=replace(run.eval, control="all", cfg_scales=(), best_cfg_scales=(), dial=()),
        proof_seeds=(0, 1, 2),
        proof_samples=2000,
    )
