"""VAR's presets: constructor arguments and what the bases were trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PATCH_NUMS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # of 256x256 images
PATCH_NUMS_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)


@dataclass(frozen=True)
class Preset:
    """One published model.

    Attributes: net: constructor arguments of `VAR`; drop_path_rate: while the base was trained.
    """

    net: dict[str, Any]
    drop_path_rate: float


def _preset(depth: int, patch_nums: tuple[int, ...] = PATCH_NUMS, *, shared_aln: bool = False) -> Preset:
    return Preset(
        net=dict(
            vocab_size=4096,
            z_channels=32,
            num_classes=1000,
            depth=depth,
            embed_dim=64 * depth,
            num_heads=depth,
            attn_l2_norm=True,
            shared_aln=shared_aln,
            patch_nums=list(patch_nums),
        ),
        drop_path_rate=0.1 * depth / 24,
    )


PRESETS: dict[str, Preset] = {
    "var-d16": _preset(16),
    "var-d20": _preset(20),
    "var-d24": _preset(24),
    "var-d30": _preset(30),
    "var-d36-s": _preset(36, PATCH_NUMS_512, shared_aln=True),
}
VQVAE_ARGUMENTS: dict[str, Any] = dict(vocab_size=4096, z_channels=32, ch=160)
