"""EDM2 networks for images of any side, by the word that says how large."""

from __future__ import annotations

import difflib
from typing import Any

from .presets import PRESETS

# What a word means, for images of any side; levels follow from the side, below.
OWN: dict[str, dict[str, Any]] = {
    "tiny": dict(
        model_channels=16, num_blocks=1, attn_resolutions=[], channels_per_head=16, logvar_channels=32
    ),
    "small": dict(model_channels=64, num_blocks=2, attn_resolutions=[16, 8]),
    "medium": dict(model_channels=128, num_blocks=2, attn_resolutions=[16, 8]),
}
SIZES = (*OWN, *PRESETS)
WIDEST = 2  # levels, in the first one's channels
LOWEST, LOWEST_OF_SMALL, SMALL = 7, 4, 16  # pixels: a level's least side, and of images up to SMALL
MOST_LEVELS = 6


def network_of(size: str, shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
    """Constructor arguments of `Precond` for samples of this shape, (C, side, side).

    Levels halve the side while it is even and at least 7 pixels remain (4 of images of at most 16); the k-th
    is k times as wide as the first, up to 2 (EDM2's presets: four levels, up to 4).
    Errors    ValueError for a size that is none, a side that a preset's levels do not halve, no square.
    """
    channels, height, width = shape
    if size not in SIZES:
        nearest = difflib.get_close_matches(size, SIZES, n=3, cutoff=0.4)
        raise ValueError(
            f"--size {size} is none; {'nearest' if nearest else 'known'}: {', '.join(nearest or SIZES)}."
        )
    if height != width:
        raise ValueError(
            f"the images are {height}x{width}, and the network's are square: python -m mclr_fast.prepare "
            "crops them."
        )
    image = dict(img_resolution=width, img_channels=channels, label_dim=num_classes)
    if size not in OWN:
        if width % 8:
            raise ValueError(
                f"--size {size} halves images three times, which {width}x{width} pixels cannot be: prepare "
                f"them at --resolution {max(width // 8, 1) * 8}, or choose --size {', '.join(OWN)}."
            )
        return image | {"model_channels": PRESETS[size].net["model_channels"]}
    mult = [min(level + 1, WIDEST) for level in range(num_levels(width))]
    return image | OWN[size] | {"channel_mult": mult}


def num_levels(side: int) -> int:
    """How many sizes of feature maps a network for images of that side has, itself included."""
    lowest = LOWEST_OF_SMALL if side <= SMALL else LOWEST
    levels = 1
    while levels < MOST_LEVELS and side % 2 == 0 and side // 2 >= lowest:
        side //= 2
        levels += 1
    return levels
