"""What is brought to a device: beside what it computes, and used once it is there."""

import contextlib
import threading
from types import SimpleNamespace

import pytest
import torch

from mclr_fast.runtime.device.staging import CudaStaging, HostStaging, staging


class Stream:
    """A CUDA stream that writes down what it is given, and its threads' current one."""

    current = threading.local()
    log: list[tuple]

    def __init__(self, name):
        self.name = name

    def record_event(self):
        self.log.append((self.name, "records"))
        return f"event of {self.name}"

    def wait_event(self, event):
        self.log.append((self.name, "waits for", event))

    def wait_stream(self, other):
        self.log.append((self.name, "waits for", other.name))


@pytest.fixture
def streams(monkeypatch):
    """torch.cuda's streams; the log of them."""
    computing, Stream.log = Stream("computing"), []

    @contextlib.contextmanager
    def stream(chosen):
        Stream.current.value = chosen
        yield
        del Stream.current.value

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("copying"))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device=None: getattr(Stream.current, "value", computing)
    )
    return Stream.log


def tensor(name):
    return SimpleNamespace(record_stream=lambda stream: Stream.log.append((name, "used on", stream.name)))


def test_copies_pass_by_and_the_computing_stream_waits_for_their_arrival(streams):
    device = torch.device("cuda", 0)
    stage = staging(device)
    assert isinstance(stage, CudaStaging)
    assert streams == [("copying", "waits for", "computing")]  # what was there before

    def make():
        streams.append((torch.cuda.current_stream().name, "makes"))
        return "rows"

    streams.clear()
    found = []
    thread = threading.Thread(target=lambda: found.append(stage.bring(make)))
    thread.start()
    thread.join()
    assert streams == [("copying", "makes"), ("copying", "records")]  # and waits for nothing

    streams.clear()
    assert stage.take(found[0], [tensor("x"), tensor("labels")]) == "rows"
    assert streams == [
        ("computing", "waits for", "event of copying"),
        ("x", "used on", "computing"),
        ("labels", "used on", "computing"),
    ]

    streams.clear()
    stage.follow()
    assert streams == [("copying", "waits for", "computing")]


def test_on_a_cpu_values_are_there_at_once():
    stage = staging(torch.device("cpu"))
    assert isinstance(stage, HostStaging)
    stage.follow()
    assert stage.take(stage.bring(lambda: 5), ()) == 5


@pytest.mark.gpu
def test_a_copy_does_not_wait_for_the_training_and_arrives_whole():
    device = torch.device("cuda", 0)
    stage, pinned = staging(device), torch.arange(1 << 20).pin_memory()
    busy = torch.randn(4096, 4096, device=device)
    busy = busy @ busy / 64
    stage.bring(lambda: pinned.to(device, non_blocking=True) + 1)  # kernels and memory are there from now on
    torch.cuda.synchronize()
    for _ in range(30):
        busy = busy @ busy / 64
    still_busy = torch.cuda.Event()
    still_busy.record()
    staged = stage.bring(lambda: pinned.to(device, non_blocking=True) + 1)
    staged.arrived.synchronize()
    assert not still_busy.query()  # it has overtaken
    value = stage.take(staged, [staged.value])
    assert torch.equal(value.cpu(), pinned + 1)


@pytest.mark.gpu
def test_memory_is_not_used_again_before_the_training_is_done_with_it():
    device = torch.device("cuda", 0)
    stage, busy = staging(device), torch.randn(4096, 4096, device=device)
    sums = []
    for number in range(20):
        staged = stage.bring(lambda n=number: torch.full((1 << 20,), float(n), device=device))
        x = stage.take(staged, [staged.value])
        busy = busy @ busy / 64
        sums.append(x.mean())
        del staged, x
    assert torch.stack(sums).tolist() == list(range(20))
