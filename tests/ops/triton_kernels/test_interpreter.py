"""The other files of this folder, in a process whose Triton interprets kernels on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mclr_fast.ops.audit import count_bytes


@pytest.mark.skipif(bool(count_bytes.missing()), reason=count_bytes.missing())
def test_kernels_under_the_interpreter():
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    done = subprocess.run(
        command, env=kept | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-5000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
