"""What no GPU of a size can hold is refused, and the doors print what a step needs."""

import pytest

from mclr_fast import doctor, train
from mclr_fast.experiments.estimates import memory_table
from mclr_fast.experiments.estimates.memory_table import check_memory, usable
from mclr_fast.models import Model, describe
from mclr_fast.models.edm2 import PRESETS
from mclr_fast.recipes import get_recipe
from mclr_fast.runtime.errors import RunError
from mclr_fast.training.memory import StepMemory


def test_what_cannot_fit_is_refused():
    config = get_recipe("edm2-img512-xxl")
    step = StepMemory(config, Model.of(describe(config.net)))
    check_memory(step, 1, 80)
    with pytest.raises(RunError, match=r"needs 54\.\d GiB on each of 1 GPU.*--micro-batch 12\."):
        check_memory(step, 1, 40)
    with pytest.raises(RunError, match=r"none fits: shard over more GPUs \(--sharding shard\)"):
        check_memory(step, 1, 24)
    check_memory(step, 8, 44.5)  # sharded
    with pytest.raises(RunError, match="none fits: use a GPU with more"):
        check_memory(step, 8, 8)


def test_doors_print_it(monkeypatch, capsys):
    xxs = ["--recipe", "edm2-img512-xxs", "--dry-run"]
    assert train.main(xxs) == 1  # --data and --init are not named
    table = capsys.readouterr().out.partition("GiB a GPU, in bfloat16")[2].splitlines()
    assert [line.split()[:2] for line in table[2:5]] == [["1", "whole"], ["8", "whole"], ["64", "whole"]]
    assert train.main([*xxs, "--gpu-memory-gib", "4"]) == 1
    assert "the largest that fits is --micro-batch" in capsys.readouterr().err
    monkeypatch.setattr(doctor, "PRESETS", ["edm2-img512-xxs"])
    monkeypatch.setattr(memory_table, "NEGATIVES", (3,))
    assert doctor.main(["--memory", "--gpu-memory-gib", "10"]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[:4] == ["edm2-img512-xxs", "31M", "3", "64"]
    step = StepMemory(get_recipe(xxs[1]), Model.of(describe(PRESETS[xxs[1]].net)))
    assert int(row[6]) < step.largest(1, usable(12))
