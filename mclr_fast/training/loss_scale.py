"""Loss scaling: what keeps half-precision gradients between vanishing and overflow."""

from __future__ import annotations

import torch

GROWTH_STEPS = 2000  # good steps in a row after which the scale doubles
# Where the embedded run stays; each step that begins too high is lost, and short runs have few.
START, LOWEST, HIGHEST = 2.0**8, 2.0**-10, 2.0**24


class LossScale:
    """What the loss is multiplied by before, and the gradients divided by after, the backward pass.

    In float16 it halves whenever a gradient is not finite, in which case that step must be skipped, and
    doubles after GROWTH_STEPS good ones: always a power of two, so scaling itself rounds nothing. In
    other dtypes it is 1 and stays.

    Attributes: value; skipped, steps skipped so far.
    """

    def __init__(self, dtype: torch.dtype):
        """dtype: what the network computes in."""
        self.moves = dtype == torch.float16
        self.value, self.lowest, self.highest = (START, LOWEST, HIGHEST) if self.moves else (1.0,) * 3
        self.good_steps = 0
        self.skipped = 0

    @property
    def at_lowest(self) -> bool:
        """Whether gradients that are not finite cannot be the scale's doing."""
        return self.value == self.lowest

    def observe(self, finite: bool) -> None:
        """Take in whether the step's gradients, summed over ranks, were finite."""
        self.good_steps = self.good_steps + 1 if finite else 0
        self.skipped += not finite
        if not finite:
            self.value = max(self.value / 2, self.lowest)
        elif self.good_steps % GROWTH_STEPS == 0:
            self.value = min(self.value * 2, self.highest)

    def line(self) -> dict[str, float]:
        """What a line of the log says of it."""
        return {"loss_scale": self.value, "skipped": self.skipped} if self.moves else {}

    def state(self) -> dict[str, float]:
        """What `load` takes."""
        return {"value": self.value, "good_steps": self.good_steps, "skipped": self.skipped}

    def load(self, state: dict[str, float]) -> None:
        """Go on from another's `state`."""
        self.value, self.good_steps, self.skipped = (state[k] for k in ("value", "good_steps", "skipped"))
