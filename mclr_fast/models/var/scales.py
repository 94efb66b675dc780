"""The pyramid of token maps: where each scale's tokens lie, which shared convolution follows it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def checked(sides: Sequence[int]) -> tuple[int, ...]:
    """The scales' sides. ValueError where they are no pyramid."""
    sides = tuple(sides)
    if not sides or any(not isinstance(side, int) or side < 1 for side in sides):
        raise ValueError(
            f"patch_nums {list(sides)} are no sides of token maps: give whole numbers from 1 on."
        )
    if any(later < side for side, later in pairwise(sides)):
        raise ValueError(f"patch_nums {list(sides)} do not rise: give the coarsest scale first.")
    return sides


def spans(sides: Sequence[int]) -> list[tuple[int, int]]:
    """Where each scale's tokens begin and end among all of an image's."""
    ends = np.cumsum([side**2 for side in sides]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def phi_index(scale: int, num_scales: int, num_phi: int) -> int:
    """Which of `num_phi` shared convolutions scale `scale` of `num_scales` uses: the nearest tick's.

    Ticks lie evenly between 1/(3n) and 1 - 1/(3n) where n is 4, and 1/(2n) and 1 - 1/(2n) else; the scale at
    scale / (num_scales - 1). In float64, the first of those equally near: of 10 scales two lie between two
    ticks in exact arithmetic, and published weights were trained with what float64 makes of that.
    """
    margin = 1 / 3 / num_phi if num_phi == 4 else 1 / 2 / num_phi
    ticks = np.linspace(margin, 1 - margin, num_phi)
    place = scale / (num_scales - 1) if num_scales > 1 else 0.0
    return int(np.argmin(np.abs(ticks - place)))


def ramp(scale: int, num_scales: int) -> float:
    """How much of the guidance a scale has: rising evenly from 0 at the first to 1 at the last."""
    return scale / (num_scales - 1) if num_scales > 1 else 0.0
