"""The ops' benchmarks run after the training steps', with an allocator that keeps what was freed."""

import machine
import pytest


@pytest.fixture(scope="session", autouse=True)
def _keep_freed_memory():
    machine.keep_freed_memory()
