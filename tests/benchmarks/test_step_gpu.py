"""The GPU's rows on a CPU, in small: every part runs, says what it measured or why not, and is kept."""

import json
from dataclasses import replace
from types import SimpleNamespace

import autotune
import bench_step_gpu
import floor
import gpu
import pytest
import report
import torch
from recording import Recording
from steps import GPU_SETTINGS
from suite import Suite

from mclr_fast.training import trainer

SETTING = replace(next(s for s in GPU_SETTINGS if s.row == "step-gpu-s64-k3").shrunk(), device="cpu")


class Benchmark:
    """pytest-benchmark's fixture: runs the rounds; stats, None as with --benchmark-disable."""

    def __init__(self, stats="some"):
        self.extra_info, self.stats, self.name, self.fullname = (
            {},
            stats,
            "test_step[a]",
            "a.py::test_step[a]",
        )

    def pedantic(self, function, *, setup, rounds, warmup_rounds, iterations):
        for _ in range(rounds + warmup_rounds):
            setup()
            function()


@pytest.fixture
def measured(tmp_path):
    """A row of these parts, and what is written of it."""

    def measure(*parts, setting=SETTING):
        suite, benchmark = Suite(quick=True, rows=tmp_path / "rows.jsonl"), Benchmark()
        bench_step_gpu.measure(setting, suite, benchmark, tmp_path, parts)
        lines = [json.loads(line) for line in suite.rows.read_text().splitlines()]
        assert lines[-1] == suite.records[0]
        return lines[-1]["extra_info"], lines

    return measure


@pytest.fixture
def stated(monkeypatch):
    """Contenders run and say how long they took, and a GB takes a second to copy."""

    def say(contender, seconds):
        call = contender.__call__

        def timed(self, *arguments):
            call(self, *arguments)
            return seconds

        monkeypatch.setattr(contender, "__call__", timed)

    say(bench_step_gpu.TrainerStep, 4.0)
    say(floor.Floor, 2.0)
    monkeypatch.setattr(gpu.Device, "copy_bandwidth", lambda self: 1e9)


def test_floor_and_busy(stated, measured):
    info, lines = measured("floor")
    assert info["milliseconds"] == {"ours": 4000.0, "floor": 2000.0} and info["busy_ms"] > 0
    assert info["over_busy"] == pytest.approx(4000 / info["busy_ms"])
    assert info["over_floor"] == 2 and info["fused_GB"] > 0
    assert info["floor_and_bytes"] == pytest.approx((2 + info["fused_GB"]) / 2)
    assert info["over_floor_and_bytes"] == pytest.approx(4 / (2 + info["fused_GB"]))
    assert "over_busy" in lines[0]["extra_info"] and "over_floor" not in lines[0]["extra_info"]
    assert info["machine"]["copy_GBs"] > 0 and info["floor_GFLOP"] > 0
    assert not info["failed"] and not info["not_run"]


def test_the_step_is_its_graphs_and_the_floor_an_eager_steps(measured, monkeypatch):
    devices = []

    def device(_):
        devices.append(Recording())
        return devices[-1]

    monkeypatch.setattr(trainer, "capturer", device)
    info, _ = measured("floor")
    (recording,) = devices
    assert recording.captured and recording.replays >= 2 * bench_step_gpu.CALLS
    assert info["floor_calls"] > 50 and info["fused_GB"] > 0


def test_what_others_do(measured):
    info, lines = measured("nvlabs", "plain", "compile")
    times = info["milliseconds"]
    assert times.keys() == {
        "ours", "nvlabs", "nvlabs_2nk", "deduplicated", "naive", "naive_same_dtype", "compiled",
    }  # fmt: skip
    for key in ("over_nvlabs", "over_nvlabs_2nk", "over_naive", "over_naive_same_dtype", "over_compile"):
        low, high = info["ranges"][key]
        assert 0 < low <= info[key] <= high
    assert info["precision"] > 0 and info["deduplication"] > 0 and info["fusion"] > 0
    assert len(lines) == 1 + 3 + 1  # alone, each part, and the end
    assert {line.key for line in report.lines_of([lines[-1]])} >= {"over_nvlabs", "over_compile", "over_busy"}


def test_what_is_not_run_says_why(measured):
    setting = replace(SETTING, no_naive="too long", no_compile="longer", autotune=False)
    info, lines = measured("plain", "compile", "autotune", setting=setting)
    assert info["not_run"] == {"over_naive": "too long", "over_compile": "longer"}
    assert "fusion" in info and "over_naive" not in info
    assert "longer" in report.text_table(lines[-1:])


def test_what_does_not_fit_is_left_out_and_the_others_are_timed(measured, monkeypatch):
    class TooLarge(bench_step_gpu.NVLabsStep):
        def __call__(self):
            if self.loss_function is bench_step_gpu.tuples_loss:
                raise torch.OutOfMemoryError("out of memory")
            super().__call__()

    monkeypatch.setattr(bench_step_gpu, "NVLabsStep", TooLarge)
    info, _ = measured("nvlabs")
    assert info["not_run"] == {"over_nvlabs_2nk": "nvlabs_2nk: out of memory"}
    assert info["over_nvlabs"] > 0


def test_a_part_that_fails_takes_no_other_with_it(stated, measured, monkeypatch, tmp_path):
    def broken(row):
        raise RuntimeError("no such kernel\nmore")

    monkeypatch.setitem(bench_step_gpu.PARTS, "nvlabs", broken)
    with pytest.raises(AssertionError, match="no such kernel"):
        measured("nvlabs", "floor")
    info = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[-1])["extra_info"]
    assert info["failed"] == {"nvlabs": "RuntimeError: no such kernel"}
    assert info["over_floor"] == 2


def test_nothing_is_timed_where_benchmarks_are_disabled(tmp_path):
    suite, benchmark = Suite(quick=True), Benchmark(stats=None)
    bench_step_gpu.measure(SETTING, suite, benchmark, tmp_path, bench_step_gpu.PARTS)
    assert suite.records == []


def test_autotuning_that_takes_too_long_is_ended_and_said():
    small = ("--device", "cpu", "--shrunk", "--rounds", "2")
    found = autotune.elsewhere(SETTING.row, *small, "--mode", "max-autotune", limit=0.05)
    assert found == {"why": "did not finish in 0.05 s"}


@pytest.mark.slow
def test_an_autotuned_step_is_timed_elsewhere(measured):
    info, _ = measured("autotune")
    assert info["over_autotune"] > 0 and info["milliseconds"]["autotuned"] > 0
    assert info["not_run"] == {}


def test_a_failing_process_says_its_last_line():
    found = autotune.elsewhere("no-such-row", "--device", "cpu")
    assert found["why"].startswith("StopIteration")


@pytest.mark.parametrize("num_images", [4, 16, 64])
def test_rows_of_16_64_and_256_evaluations(num_images):
    rows = [s for s in GPU_SETTINGS if s.row.startswith("step-gpu-s64-k3")]
    (setting,) = (s for s in rows if s.num_images == num_images)
    assert setting.num_evaluations == 4 * num_images and not setting.no_compile
    assert setting.autotune == (num_images == 16)


def test_kernels_leave_out_copies_from_the_host_and_marks():
    def event(name, milliseconds, annotation=False, where=torch.autograd.DeviceType.CUDA):
        return SimpleNamespace(
            name=name, device_time_total=milliseconds * 1e3, is_user_annotation=annotation, device_type=where
        )

    events = [
        event("gemm", 2.0), event("gemm", 3.0), event("Memcpy HtoD (Pinned -> Device)", 9.0),
        event("Memcpy DtoD (Device -> Device)", 0.5), event("Optimizer.step#Adam.step", 7.0, annotation=True),
        event("aten::mm", 9.0, where=torch.autograd.DeviceType.CPU),
    ]  # fmt: skip
    device = gpu.Device("cpu")
    device.is_cuda = True
    found = gpu.kernels(events, device)
    assert found == [("gemm", [2.0, 3.0]), ("Memcpy DtoD (Device -> Device)", [0.5])]
