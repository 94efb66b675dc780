"""A GPU's memory and utilisation, as the log has them; nothing on a CPU."""

from __future__ import annotations

import torch

GIB = 2**30


class Gauges:
    """Reads a device. Nothing waits for its kernels: these are counts of the allocator and of the driver."""

    def __init__(self, device: torch.device):
        self._device = device
        self._tells_utilization = device.type == "cuda"

    def read(self) -> dict[str, float]:
        """By name: GiB in tensors now, GiB kept at most so far, percentage of the last second with a kernel.

        The percentage is left out where the driver's library is not installed or tells nothing.
        """
        if self._device.type != "cuda":
            return {}
        memory = {
            "gpu_memory_gib": torch.cuda.memory_allocated(self._device) / GIB,
            "gpu_memory_peak_gib": torch.cuda.max_memory_reserved(self._device) / GIB,
        }
        return memory | self._utilization()

    def _utilization(self) -> dict[str, float]:
        if not self._tells_utilization:
            return {}
        try:
            return {"gpu_utilization_percent": torch.cuda.utilization(self._device)}
        except Exception:  # without pynvml, or of a driver that does not know this GPU: no run ends of that
            self._tells_utilization = False
            return {}
