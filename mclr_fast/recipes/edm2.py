"""One fine-tuning recipe for every EDM2 preset; edm2-img64-s and edm2-img512-l are the paper's."""

from __future__ import annotations

from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.models.edm2 import PRESETS

# The paper's learning rate, N and K are unpublished: these are starting points, not its values.
NOTE = "not validated at this scale: the paper's learning rate, N and K are unpublished."


def finetune(preset_name: str) -> RunConfig:
    """MCLR on an EDM2 base; needs --data (an EDM2 zip) and --init (the base)."""
    preset = PRESETS[preset_name]
    return RunConfig(
        recipe=preset_name,
        net=preset.net,
        note=NOTE,
        objective=ObjectiveConfig(
            objective="mclr", num_negatives=3, P_mean=preset.P_mean, P_std=preset.P_std
        ),
        train=TrainConfig(
            duration=2**20,
            batch_size=preset.batch_size,
            micro_batch=64,
            lr=1e-4,
            warmup_images=2**14,
            ema="plain",
            ema_beta=0.9,
            stop_factor=2.5,
            checkpoint_every=2**16,
            log_every=preset.batch_size,
        ),
        eval=EvalConfig(num_steps=32),  # as EDM2 samples
    )
