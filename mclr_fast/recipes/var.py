"""Fine-tuning VAR's 256x256 bases, of each published depth (var-d24 is the paper's)."""

from __future__ import annotations

from mclr_fast.config import EvalConfig, ObjectiveConfig, RunConfig, TrainConfig
from mclr_fast.models.var.presets import PRESETS

# The paper's learning rate, N and its top-k and top-p are unpublished: these are starting points.
NOTE = "not validated at this scale: the paper's learning rate, N, top-k and top-p for VAR are unpublished."
DEPTHS = ("var-d16", "var-d20", "var-d24", "var-d30")


def finetune(preset_name: str) -> RunConfig:
    """MCLR on a base of VAR's; needs --data (tokens, by prepare --tokens), --init (the base) and --ref.

    Approach 1, one negative an image. Rows under guidance are of VAR's t, 0 = none.
    """
    batch_size = 256
    return RunConfig(
        recipe=preset_name,
        note=NOTE,
        family="var",
        net=PRESETS[preset_name].net,
        protocol="paper",
        objective=ObjectiveConfig(objective="mclr", num_negatives=1),
        train=TrainConfig(
            duration=2**18,
            batch_size=batch_size,
            micro_batch=16,
            lr=1e-5,
            warmup_images=2**12,
            ema="plain",
            ema_beta=0.9,
            stop_factor=2.5,
            checkpoint_every=2**15,
            log_every=batch_size,
        ),
        eval=EvalConfig(
            top_k=900,  # VAR's own evaluation; DDO's release has both off
            top_p=0.96,
            eval_every=2**15,
            num_samples=5_000,
            final_samples=50_000,
            cfg_scales=(0.5, 1.0, 1.5, 2.0, 3.0),
            best_cfg_scales=(0.25, 0.5, 1.0),
            dial=(0.25, 0.5, 0.75, 1.25, 1.5),
            control="last",
            patience=3,
            sample_batch=50,
        ),
    )
