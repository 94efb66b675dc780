"""Fine-tuning EDM2 bases: of any size, of every preset (edm2-img64-s and edm2-img512-l are the paper's)."""

from __future__ import annotations

from dataclasses import replace

from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.models.edm2 import PRESETS

# The paper's learning rate, N and K are unpublished: these are starting points, not its values.
NOTE = "not validated at this scale: the paper's learning rate, N and K are unpublished."
# The paper's gamma (Figures 4 to 6); EDM2's guidance is 1 + gamma.
GAMMAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0, 1.5, 2.0, 3.0)
# The paper does not say what guides. At 64x64 no network without classes is published: autoguidance's.
GUIDES = {
    "img64": "edm2-img64-xs-0134217-0.175",
    "img512": "edm2-img512-xs-uncond-2147483-0.085",
}


def edm2() -> RunConfig:
    """MCLR on an EDM2 base of any size; needs --data (an EDM2 zip) and --init (the base)."""
    return RunConfig(
        recipe="edm2",
        note=NOTE,
        protocol="paper",
        objective=ObjectiveConfig(objective="mclr", num_negatives=3, P_mean=-0.8, P_std=1.6),
        train=TrainConfig(
            duration=2**20,
            batch_size=2048,
            micro_batch=64,
            lr=1e-4,
            warmup_images=2**14,
            ema="plain",
            ema_beta=0.9,
            stop_factor=2.5,
            checkpoint_every=2**16,
            log_every=2048,
        ),
        eval=EvalConfig(
            num_steps=32,  # as EDM2 samples
            eval_every=2**17,
            num_samples=5_000,
            final_samples=50_000,
            cfg_scales=tuple(round(1 + gamma, 1) for gamma in GAMMAS),
            best_cfg_scales=(1.1, 1.2, 1.3, 1.5, 2.0),
            dial=(0.25, 0.5, 0.75, 1.25, 1.5),
            control="last",
            patience=3,
        ),
    )


def finetune(preset_name: str) -> RunConfig:
    """MCLR on NVIDIA's base of this size, with its reference and guide; needs --data and --init."""
    run, preset = edm2(), PRESETS[preset_name]
    resolution = preset_name.split("-")[1]
    return replace(
        run,
        recipe=preset_name,
        net=preset.net,
        objective=replace(run.objective, P_mean=preset.P_mean, P_std=preset.P_std),
        train=replace(run.train, batch_size=preset.batch_size, log_every=preset.batch_size),
        eval=replace(
            run.eval,
            ref=(f"edm2-{resolution}-ref",),
            vae="stabilityai/sd-vae-ft-mse" if resolution == "img512" else None,
            gnet=GUIDES[resolution],
        ),
    )


def search(preset_name: str) -> RunConfig:
    """Learning rate x N x K, which the paper leaves open: short runs, then the best with three seeds.

    The short runs are judged on 5,000 samples, the final ones' best checkpoints on 50,000 fresh ones.
    """
    run = finetune(preset_name)
    settings = [
        dict(lr=lr, batch_size=batch_size, num_negatives=num_negatives)
        for lr in (5e-5, 1e-4, 2e-4)
        for batch_size in (1024, 2048)
        for num_negatives in (1, 3)
    ]
    return replace(
        run,
        recipe=f"{preset_name}-search",
        eval=replace(
            run.eval,
            control="none",
            cfg_scales=(1.2, 1.4, 1.7, 2.0),
            best_cfg_scales=(),
            dial=(),
            final_samples=0,  # fresh samples judge the final runs anyway
        ),
        table={
            "grid": {"mclr": settings},
            "ablations": [],
            "tried": {"eval_every": 2**16, "cfg_scales": ()},
            "tried_train": {"duration": 2**18},
        },
        proof_seeds=(0, 1, 2),
        proof_samples=50_000,
    )
