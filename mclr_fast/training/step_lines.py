"""What log.jsonl and trackers are told of a step."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mclr_fast.methods.minibatch import MinibatchSource
from mclr_fast.runtime.device.gauges import Gauges
from mclr_fast.runtime.logs import RunLog

from .step import StepResult


class StepLines:
    """Writes one arm's lines: loss, norm, rate, how long training waited for data, and the GPU's gauges."""

    def __init__(
        self, arm: str, log: RunLog, source: MinibatchSource, device: torch.device, images_seen: int
    ):
        """images_seen: where this process begins."""
        self.arm, self.log, self.source = arm, log, source
        self.gauges = Gauges(device)
        self._last = (images_seen, source.waited)  # at the line before
        self._line: dict[str, float | str] = {}

    def write(
        self, images_seen: int, result: StepResult, means: Mapping[str, float], **numbers: float
    ) -> None:
        """The line of the step that ended at `images_seen`.

        means: of its energies; numbers: what else to say.
        """
        line = {"arm": self.arm, "images_seen": images_seen, "loss": result.loss, **means}
        if result.finite and result.gradient_norm is not None:
            line["gradient_norm"] = result.gradient_norm
        self._line = line | numbers | self._waited(images_seen) | self.gauges.read()
        self.log.write(self._line)

    def words(self) -> list[str]:
        """What the last line said of waiting and of the GPU, in words."""
        line = self._line
        words = [f"{line['data_wait_ms']:.1f} ms a step waiting for data"] if line else []
        if "gpu_memory_peak_gib" in line:
            words.append(f"{line['gpu_memory_peak_gib']:.1f} GiB of the GPU")
        if "gpu_utilization_percent" in line:
            words.append(f"{line['gpu_utilization_percent']:.0f}% busy")
        return words

    def _waited(self, images_seen: int) -> dict[str, float]:
        """Seconds that this process has waited for data, and milliseconds a step since the line before."""
        images, waited = self._last
        self._last = images_seen, self.source.waited
        steps = (images_seen - images) / self.source.batch_size
        return {
            "data_seconds": self.source.waited,
            "data_wait_ms": 1e3 * (self.source.waited - waited) / steps,
        }
