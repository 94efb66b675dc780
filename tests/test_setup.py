"""Building csrc/: what a machine without compilers gets, and what is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("setuptools", minversion="77", reason="pip brings its own to build with")


def build(folder, **variables):
    """Run setup.py's build with programs found only where `variables` say."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(folder)]
    env = os.environ | {"MCLR_FAST_CUDA": "0"} | variables
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    report = folder / "mclr_fast/ops/lib/build.json"
    return run, json.loads(report.read_text()) if report.exists() else None


def test_without_a_compiler_the_build_says_so_and_succeeds(tmp_path):
    run, report = build(tmp_path, PATH="", CXX="")
    assert run.returncode == 0, run.stderr
    assert "no C++ compiler was found" in report["cpu"] and "MCLR_FAST_CUDA=0" in report["cuda"]
    assert [path.name for path in (tmp_path / "mclr_fast/ops/lib").iterdir()] == ["build.json"]


def test_a_compiler_that_fails_is_quoted(tmp_path):
    run, report = build(tmp_path, CXX="false")
    assert run.returncode == 0, run.stderr
    assert report["cpu"].startswith("false failed:")


@pytest.mark.parametrize(("wish", "message"), [("1", "nvcc was not found"), ("yes", "must be 0, 1 or unset")])
def test_cuda_by_request(tmp_path, wish, message):
    run, _ = build(tmp_path, PATH="", CXX="", MCLR_FAST_CUDA=wish)
    assert run.returncode != 0 and message in run.stderr
