"""What the log says of a GPU, by stand-ins of torch's counts."""

import pytest
import torch

from mclr_fast.runtime.device.gauges import GIB, Gauges


@pytest.fixture
def counts(monkeypatch):
    """A GPU of 3 GiB in tensors, 5 GiB at most kept, 97% busy; `asked`, the devices that were asked about."""
    asked = []

    def told(value):
        def tell(device):
            asked.append(str(device))
            return value

        return tell

    monkeypatch.setattr(torch.cuda, "memory_allocated", told(3 * GIB))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", told(5 * GIB))
    monkeypatch.setattr(torch.cuda, "utilization", told(97))
    return asked


def test_memory_and_utilisation_are_of_the_rank_s_own_gpu(counts):
    read = Gauges(torch.device("cuda:1")).read()
    assert read == {"gpu_memory_gib": 3, "gpu_memory_peak_gib": 5, "gpu_utilization_percent": 97}
    assert counts == ["cuda:1"] * 3


def test_a_cpu_has_none(counts):
    assert Gauges(torch.device("cpu")).read() == {} and counts == []


@pytest.mark.parametrize(
    "raised", [ModuleNotFoundError("pynvml is not installed"), RuntimeError("no driver")]
)
def test_utilisation_that_cannot_be_read_is_left_out_and_asked_for_once(counts, monkeypatch, raised):
    asked = []

    def fails(device):
        asked.append(device)
        raise raised

    monkeypatch.setattr(torch.cuda, "utilization", fails)
    gauges = Gauges(torch.device("cuda:0"))
    for _ in range(2):
        assert gauges.read() == {"gpu_memory_gib": 3, "gpu_memory_peak_gib": 5}
    assert len(asked) == 1
