"""Learning-rate schedules: `schedule(images_seen, batch_size) -> lr`.

`images_seen` counts the images of all steps before this one, so a warm-up's first step has lr 0.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class EDM2Schedule:
    """Linear warm-up, constant, then decay with the inverse square root of the step.

    ref_lr         the constant (alpha_ref)
    ref_batches    the step at which decay starts (t_ref); 0: no decay
    rampup_Mimg    length of the warm-up, in millions of images; 0: no warm-up

    Source    EDM2 (arXiv 2312.02696), eq. 67.
    """

    ref_lr: float
    ref_batches: float
    rampup_Mimg: float

    def __call__(self, images_seen: int, batch_size: int) -> float:
        """The learning rate of the step that follows `images_seen` images."""
        lr = self.ref_lr
        if self.ref_batches > 0:
            lr /= max(images_seen / (self.ref_batches * batch_size), 1) ** 0.5
        return lr * _warmup(images_seen, self.rampup_Mimg * 1e6)


@dataclass(frozen=True)
class HoldSchedule:
    """Linear warm-up over `warmup_images` images (0: none), then `lr` for good."""

    lr: float
    warmup_images: float = 0

    def __call__(self, images_seen: int, batch_size: int) -> float:
        """The learning rate of the step that follows `images_seen` images."""
        return self.lr * _warmup(images_seen, self.warmup_images)


def _warmup(images_seen: int, length: float) -> float:
    return min(images_seen / length, 1.0) if length > 0 else 1.0
