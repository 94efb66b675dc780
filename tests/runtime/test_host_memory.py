"""Freed memory is kept: a step's allocations cost no page faults once the first has made them."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from mclr_fast.runtime.host_memory import keep_freed_memory

if {keep}:
    keep_freed_memory()

def touch():
    return [torch.ones(size << 20) for size in (2, 5, 9)]

touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep):
    command = [sys.executable, "-c", SCRIPT.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mallopt is Linux's alone")
def test_freed_memory_is_reused():
    assert faults(True) < 100 < 1000 < faults(False)
