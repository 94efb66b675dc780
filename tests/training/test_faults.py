"""A run that is killed, told to stop or robbed of its disk, and called again, ends as if nothing had been."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fault_run as program
import numpy as np
import pytest

PROGRAM = Path(program.__file__)


STEPS = range(1, program.STEPS + 1)
FIRST_CODES = {"sigterm": 143, "exception": 1, "disk-full": 1}  # the others are killed by signal 9


def suffer(folder, save_every, faults):
    """fault -> what fault_run.py says of it; "none" is the run that nothing happens to."""
    faults = ["none", *faults]
    command = [sys.executable, str(PROGRAM), str(folder), str(save_every), *faults]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(zip(faults, map(json.loads, done.stdout.splitlines()), strict=True))


def check(results, save_every):
    """All ended as the run that nothing happened to; one that lost its only state said so first."""
    whole = results.pop("none")
    assert whole["codes"] == [0]
    assert [seen for seen, _ in whole["losses"]] == [program.BATCH * step for step in STEPS]
    assert np.ptp([loss for _, loss in whole["losses"]]) > 0.01
    for fault, result in results.items():
        _, step, kind = fault.split(":")
        first = FIRST_CODES.get(kind, -9)
        lost = kind == "truncate" and int(step) == save_every
        codes = [first, 1, 0] if lost else [first, 0][: 1 + (first != 0)]
        assert result["codes"] == codes, f"{fault}: {result['said']}"
        assert result["losses"] == whole["losses"], fault
        assert result["weights"] == whole["weights"], fault
        assert ("no sound state is left to go on from" in result["said"]) == lost, fault
        assert ("is damaged" in result["said"]) == (kind == "truncate"), f"{fault}: {result['said']}"
        assert ("No space left on device" in result["said"]) == (kind == "disk-full"), fault


@pytest.mark.robust("states")
def test_a_fault_of_each_kind_leaves_no_trace(tmp_path):
    """A run whose only state is damaged stops; once that is removed it ends with the same losses."""
    faults = ["0:4:sigkill", "0:5:sigterm", "0:6:disk-full", "0:6:sigkill-written", "0:8:truncate"]
    check(suffer(tmp_path, 2, [*faults, "0:2:truncate"]), 2)


@pytest.mark.slow
def test_a_fault_in_any_step_leaves_no_trace(tmp_path):
    faults = [f"0:{step}:{('sigkill', 'sigterm')[step % 2]}" for step in STEPS]
    check(suffer(tmp_path, 2, [*faults, *(f"0:{step}:exception" for step in (1, 4, 12))]), 2)


@pytest.mark.slow
def test_a_fault_in_any_save_leaves_no_trace(tmp_path):
    faults = [f"0:{n}:{('sigkill-written', 'sigkill-marked')[n % 2]}" for n in STEPS]
    faults += [f"0:{n}:{kind}" for n in (1, 12) for kind in ("disk-full", "truncate")]
    check(suffer(tmp_path, 1, faults), 1)


@pytest.fixture(scope="module")
def called(tmp_path_factory, on_ranks):
    """called(name, ranks, fault, *options): call the run in folder `name`; what it came to, if it ended."""
    folder = tmp_path_factory.mktemp("called")
    program.write_files(folder)

    def call(name, ranks, fault="", *options, restarts=0):
        command = ["-m", "mclr_fast.train", *program.arguments(folder, folder / name, 2), *options]
        done = on_ranks(ranks, *command, restarts=restarts, MCLR_FAST_FAULT=fault)
        if restarts or not fault:
            assert done.returncode == 0, done.stderr[-4000:]
            return program.result(folder / name)
        assert done.returncode != 0
        return None

    return call


@pytest.mark.slow
def test_torchrun_restarts_what_one_of_two_ranks_broke(called):
    whole = called("whole", 2)
    # In step 6 the other rank begins a save alone. A rank killed in a step: benchmarks/test_multi_gpu.py.
    for fault in ("1:6:exception", "0:6:sigkill-written"):
        assert called(fault.replace(":", "-"), 2, fault, restarts=1) == whole, fault


@pytest.mark.slow
def test_one_rank_then_two_shards_then_one(called):
    whole = called("one", 1)
    called("changing", 1, "0:4:sigterm")
    called("changing", 2, "1:8:sigkill", "--sharding", "shard")
    result = called("changing", 1)
    expected, found = (np.array(run["losses"]) for run in (whole, result))
    np.testing.assert_array_equal(found[:, 0], expected[:, 0])
    np.testing.assert_array_equal(found[:5], expected[:5])  # saved by the one rank
    np.testing.assert_allclose(found, expected, rtol=1e-4)
