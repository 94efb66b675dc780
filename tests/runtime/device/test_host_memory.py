"""What malloc is told: never to return memory; and that a freed block then stays the process's."""

import platform
import subprocess
import sys

import pytest

from mclr_fast.runtime.device import host_memory
from mclr_fast.runtime.device.host_memory import HUGE_PAGE, keep_freed_memory

BLOCK = 5 * HUGE_PAGE + 4096  # an address that is no huge page's beginning

PROGRAM = """
import torch
from mclr_fast.runtime.device.host_memory import keep_freed_memory

if {keep}:
    keep_freed_memory()
block = torch.ones(64 << 20, dtype=torch.uint8)  # larger than what glibc keeps by itself
middle = block.data_ptr() + block.nbytes // 2
del block
ranges = (line.split()[0].split("-") for line in open("/proc/self/maps"))
print(any(int(first, 16) <= middle < int(last, 16) for first, last in ranges))
"""


class Libc:
    """Stands in for the C library: notes its calls, and gives out one block."""

    def __init__(self, block=BLOCK):
        self.calls, self.block = [], block
        for name in ("mallopt", "malloc", "free", "madvise"):
            setattr(self, name, self._function(name))

    def _function(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            return self.block if name == "malloc" else 1

        return call


@pytest.fixture
def told(monkeypatch):
    """told(libc): the calls that it gets; None: there is no C library to load."""

    def run(libc):
        def load(name):
            if libc is None:
                raise OSError("no C library")
            return libc

        monkeypatch.setattr(host_memory.ctypes, "CDLL", load)
        keep_freed_memory()
        return libc and libc.calls

    return run


def test_malloc_maps_no_block_by_itself_and_trims_nothing(told):
    """By mallopt, with malloc.h's numbers, before anything is allocated."""
    assert told(Libc())[:2] == [("mallopt", -4, 0), ("mallopt", -1, -1)]


def test_half_of_the_memory_is_marked_for_huge_pages_and_freed(told):
    (_, size), (_, first, length, advice), last = told(Libc())[2:]
    assert last == ("free", BLOCK) and advice == 14  # MADV_HUGEPAGE of sys/mman.h
    assert first == 6 * HUGE_PAGE and length % HUGE_PAGE == 0  # whole pages of the block
    assert BLOCK + size - HUGE_PAGE < first + length <= BLOCK + size


def test_a_block_that_is_refused_is_neither_marked_nor_freed(told):
    assert [name for name, *_ in told(Libc(block=None))] == ["mallopt", "mallopt", "malloc"]


def test_elsewhere_nothing_happens(told):
    other = Libc()
    del other.mallopt  # as on macOS
    assert told(other) == []
    assert told(None) is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize("keep", [True, False])
def test_a_freed_block_stays_mapped(keep):
    command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{keep}\n"
