"""NVIDIA's EDM2 presets: constructor arguments and training values (EDM2, Table 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MI = 2**20


@dataclass(frozen=True)
class Preset:
    """One published training preset.

    Attributes:
        net: constructor arguments of `Precond`.
        duration, batch_size: images in all and images a step.
        ref_lr, ref_batches: alpha_ref and t_ref (in batches) of the learning rate, EDM2 eq. 67.
        P_mean, P_std: of ln sigma.
        dropout: while the base was trained.
    """

    net: dict[str, Any]
    duration: int
    batch_size: int
    ref_lr: float
    ref_batches: float
    dropout: float
    P_mean: float
    P_std: float


def _preset(resolution: str, channels: int, duration_Mi: int, lr: float, dropout: float) -> Preset:
    latents = resolution == "img512"
    return Preset(
        net=dict(
            img_resolution=64,
            img_channels=4 if latents else 3,
            label_dim=1000,
            model_channels=channels,
        ),
        duration=duration_Mi * MI,
        batch_size=2048,
        ref_lr=lr,
        ref_batches=70000 if latents else 35000,
        dropout=dropout,
        P_mean=-0.4 if latents else -0.8,
        P_std=1.0 if latents else 1.6,
    )


PRESETS: dict[str, Preset] = {
    f"edm2-{resolution}-{size}": _preset(resolution, channels, duration, lr, dropout)
    for resolution, size, channels, duration, lr, dropout in [
        ("img512", "xxs", 64, 2048, 0.017, 0.0),
        ("img512", "xs", 128, 2048, 0.012, 0.0),
        ("img512", "s", 192, 2048, 0.010, 0.0),
        ("img512", "m", 256, 2048, 0.009, 0.1),
        ("img512", "l", 320, 1792, 0.008, 0.1),
        ("img512", "xl", 384, 1280, 0.007, 0.1),
        ("img512", "xxl", 448, 896, 0.0065, 0.1),
        ("img64", "xs", 128, 1024, 0.012, 0.0),
        ("img64", "s", 192, 1024, 0.010, 0.0),
        ("img64", "m", 256, 2048, 0.009, 0.1),
        ("img64", "l", 320, 1024, 0.008, 0.1),
        ("img64", "xl", 384, 640, 0.007, 0.1),
    ]
}
