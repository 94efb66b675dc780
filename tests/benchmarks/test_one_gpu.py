"""The one command for a GPU's minutes: stages in turn, whatever becomes of the others."""

import os
import re
import subprocess
from pathlib import Path

import bench_step_gpu
import gpu_page
import pytest
from steps import GPU_SETTINGS

SCRIPT = Path(gpu_page.__file__).with_name("one_gpu.sh")
STUB = """#!/usr/bin/env bash
[[ $1 == -c ]] && exit {finds}
echo "$@" >> {asked}
case "$*" in
    *"-m gpu"*) exit 1 ;;
    *profile_step.py*) echo '[]' > "$2" ;;
    *--benchmark-only*) echo '{{}}' >> "$(sed 's/.*--rows \\([^ ]*\\).*/\\1/' <<< "$*")" ;;
esac
"""


@pytest.fixture
def run(tmp_path):
    """run(minutes, finds): the script with a Python that notes what it is asked -> its end, the calls."""

    def run(minutes, finds=0):
        asked, stub = tmp_path / "asked", tmp_path / "python"
        asked.touch()
        stub.write_text(STUB.format(finds=finds, asked=asked))
        stub.chmod(0o755)
        done = subprocess.run(
            [SCRIPT, tmp_path / "out", str(minutes)],
            env=os.environ | {"PYTHON": str(stub)},
            capture_output=True,
            text=True,
        )
        return done, asked.read_text().splitlines()

    return run


def test_without_a_gpu_one_line_says_so(run):
    done, asked = run(15, finds=1)
    assert done.returncode == 2 and not asked
    assert done.stderr == "one_gpu.sh: a GPU is needed, and torch finds none.\n"


def test_a_stage_that_fails_stops_no_other_and_the_page_is_made_of_what_there_is(run, tmp_path):
    done, asked = run(15)
    names = re.findall(r"^([\w-]+): exit code (\d+)", done.stdout, re.MULTILINE)
    assert [name for name, _ in names] == [
        "step-n64", "tests", "step-n16", "step-n4", "profile", "convolutions", "sampler",
    ]  # fmt: skip
    assert done.returncode == 1 and {name for name, code in names if code != "0"} == {"tests"}
    out = tmp_path / "out"
    assert asked[-1] == f"benchmarks/gpu_page.py --rows {out}/rows.jsonl --profile {out}/profile.json"
    assert {path.stem for path in out.glob("*.log")} == {name for name, _ in names}


def test_what_there_is_no_time_for_is_said(run):
    done, asked = run(0)
    assert done.stdout.count("no time left") == 7 and done.returncode == 1 and not asked


def test_rows_and_parts_are_the_benchmarks_own(run):
    """Every row of EDM2-S at K = 3 is measured by one call, in parts that there are."""
    found = []
    for line in run(15)[1]:
        if match := re.search(r"bench_step_gpu.py .* -k (.*) --parts (\S+)", line):
            wanted, *unwanted = match[1].split(" and not ")
            rows = [s.row for s in GPU_SETTINGS if wanted in s.row and not any(u in s.row for u in unwanted)]
            assert set(match[2].split(",")) <= bench_step_gpu.PARTS.keys()
            found += rows
    assert sorted(found) == sorted(s.row for s in GPU_SETTINGS if s.row.startswith(gpu_page.STEP))
