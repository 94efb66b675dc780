"""The training step on a GPU, at NVIDIA's presets: against its own kernels, its floor, and what others do.

A row is measured in parts, each with the package's step again, and written (--rows FILE) after every one:
what comes later, compilers above all, may run out of time. --parts chooses among them.
Run: pytest benchmarks/bench_step_gpu.py --benchmark-only [--rows rows.jsonl] [--parts floor,nvlabs]
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import autotune
import floor
import pytest
import torch
from baselines.algorithm1 import Algorithm1Step, copy_of
from baselines.deduplicated import DeduplicatedStep
from baselines.nvlabs import NVLabsStep, published_copy, tuples_loss
from baselines.training import draw_batch
from bench_step import NETWORK_ERROR, checked_floor, record_step, relative_error
from gpu import Device, busy_seconds
from interleave import Times, in_turn, interleave, record_times
from steps import GPU_SETTINGS, Setting, TrainerStep, build_nets, image_data

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CALLS = 3  # steps a round: the last one is waited for
Steps = dict[str, Callable[[], Callable[[], object]]]  # what makes each contender


@torch.no_grad()
def check_networks(ours, plain, data, dtype):
    """The plain network, in float32 and in `dtype`, is the package's."""
    batch = draw_batch(data, 4, 2, device=next(plain.parameters()).device)
    expected = ours(batch.x_noisy, batch.sigma, batch.labels).flatten(0, 1)
    x_noisy, sigma = (v.repeat_interleave(3, dim=0) for v in (batch.x_noisy, batch.sigma))
    one_hot = torch.nn.functional.one_hot(batch.labels.flatten(), data.num_classes).float()
    for net in (copy_of(plain, dtype), plain):
        assert relative_error(net(x_noisy, sigma, one_hot), expected) < NETWORK_ERROR[dtype]


class Row:
    """One setting's benchmark, a part after another.

    Attributes: info, the benchmark's extra_info; failed, errors of parts; not_run, why a ratio is missing.
    """

    def __init__(self, setting: Setting, suite, benchmark, folder: Path):
        self.setting, self.suite, self.benchmark = setting, suite, benchmark
        self.device = Device(setting.device)
        self.rounds = suite.rounds(setting.rounds)
        self.info = benchmark.extra_info
        self.failed = self.info.setdefault("failed", {})
        self.not_run = self.info.setdefault("not_run", {})
        self.data = image_data(setting.net)
        self.sizes = (self.data, setting.num_images, setting.num_negatives)
        self.device.empty()
        self.net, self.plain = build_nets(setting)
        check_networks(self.net.eval(), self.plain, self.data, setting.dtype)
        with self.tried("floor"):
            self.calls, self.num_bytes = self._recorded(folder / "eager")
        self.device.empty()
        self.ours = TrainerStep(setting, self.net, folder / "ours")
        self.ours(3)  # warm-up, capture, replay
        self.device.empty()
        self.info["reserved_GiB"] = self.device.reserved_GiB()  # graphs' memory too; and the plain network's
        self.bandwidth = self.device.copy_bandwidth()
        machine = self.device.facts() | {"copy_GBs": self.bandwidth / 1e9}
        self.info.update(row=setting.row, dtype=str(setting.dtype), num_negatives=setting.num_negatives)
        self.info.update(machine=machine, evaluations=setting.num_evaluations, num_images=setting.num_images)
        self.info["peak_GiB"] = self.device.peak_GiB(self.ours)

    def _recorded(self, folder: Path) -> tuple[list[floor.Call], int]:
        """The floor's calls and the fused ops' bytes, of a step without graphs: seen one by one."""
        net, _ = build_nets(self.setting)
        eager = TrainerStep(self.setting, net, folder, cuda_graphs="off")
        eager()
        return record_step(eager)

    @contextmanager
    def tried(self, part: str):
        """An error inside is noted, and fails the row when all else is done."""
        try:
            yield
        except Exception as error:
            self.failed[part] = f"{type(error).__name__}: {error}".splitlines()[0][:200]

    def alone(self) -> bool:
        """The step by itself: its wall time over its kernels'. Whether anything is to be timed at all."""
        times = interleave(
            self.benchmark, self.ours, {}, rounds=self.rounds, calls=CALLS, finish=self.device.finish
        )
        if times is None:
            return False
        record_times(self.benchmark, times)
        busy = busy_seconds(self.ours, self.device, CALLS)
        self.info["busy_ms"] = busy * 1e3
        self.record({"over_busy": [seconds / busy for seconds in times["ours"].seconds]})
        return True

    def record(self, ratios: dict[str, list[float]]) -> None:
        self.suite.record(self.benchmark, ratios)

    def timed(self, makers: Steps, ratios: dict[str, tuple[str, str]]) -> dict[str, Times]:
        """Time the contenders beside the package's step; what does not fit the device's memory is left out.

        ratios: {key: (this contender's time, over this one's)}.
        """
        contenders = {"ours": self.ours}
        for name, make in makers.items():
            try:
                step = make()
                step()
                self.device.finish()
                contenders[name] = step
            except torch.OutOfMemoryError:
                self.not_run |= {
                    key: f"{name}: out of memory" for key, pair in ratios.items() if name in pair
                }
            step = None
            self.device.empty()
        times = in_turn(contenders, rounds=self.rounds, calls=CALLS, finish=self.device.finish)
        for name in times.keys() - {"ours"}:
            self.info["milliseconds"][name] = times[name].median * 1e3
            self.info["spread"][name] = times[name].spread
        timed = {key: pair for key, pair in ratios.items() if times.keys() >= set(pair)}
        self.record({key: times[a].ratios(times[b]) for key, (a, b) in timed.items()})
        return times


def floor_part(row: Row) -> None:
    """The step's convolutions, products and attention alone, and its fused ops' bytes at copy speed."""

    def make():
        replay, saved = checked_floor(row.calls, row.setting)
        row.info.update(floor_GFLOP=replay.flops / 1e9, floor_calls=len(replay.replays))
        row.info.update(convolution_flops_saved_by_sharing=saved, fused_GB=row.num_bytes / 1e9)
        return replay

    times = row.timed({"floor": make}, {"over_floor": ("ours", "floor")})
    if "floor" in times:
        copying = row.num_bytes / row.bandwidth
        with_bytes = Times(tuple(seconds + copying for seconds in times["floor"].seconds))
        row.record(
            {
                "floor_and_bytes": with_bytes.ratios(times["floor"]),
                "over_floor_and_bytes": times["ours"].ratios(with_bytes),
            }
        )


def nvlabs_part(row: Row) -> None:
    """NVIDIA's network and loop in float16, at N(1+K) and at 2NK evaluations."""

    def make(**loss):
        return NVLabsStep(published_copy(row.plain, row.setting.net), *row.sizes, **loss)

    row.timed(
        {"nvlabs": make, "nvlabs_2nk": partial(make, loss_function=tuples_loss)},
        {"over_nvlabs": ("nvlabs", "ours"), "over_nvlabs_2nk": ("nvlabs_2nk", "ours")},
    )


def plain_part(row: Row) -> None:
    """Plain PyTorch: N(1+K) evaluations, and Algorithm 1 in the same dtype and in float32."""

    def make(step, dtype):
        return lambda: step(copy_of(row.plain, dtype), *row.sizes)

    dtype = row.setting.dtype
    makers = {"deduplicated": make(DeduplicatedStep, dtype)}
    if row.setting.no_naive:
        row.not_run |= {"over_naive": row.setting.no_naive}
    else:
        makers["naive_same_dtype"] = make(Algorithm1Step, dtype)
        makers["naive"] = make(Algorithm1Step, torch.float32)
    row.timed(
        makers,
        {
            "over_naive": ("naive", "ours"),
            "over_naive_same_dtype": ("naive_same_dtype", "ours"),
            "precision": ("naive", "naive_same_dtype"),
            "deduplication": ("naive_same_dtype", "deduplicated"),
            "fusion": ("deduplicated", "ours"),
        },
    )


def compile_part(row: Row) -> None:
    """N(1+K) evaluations under torch.compile, its default mode."""
    if row.setting.no_compile:
        row.not_run |= {"over_compile": row.setting.no_compile}
        return row.record({})

    def make():
        step = DeduplicatedStep(copy_of(row.plain, row.setting.dtype), *row.sizes, backend=row.suite.backend)
        row.info["compile_seconds"] = step.compile_seconds
        return step

    row.timed({"compiled": make}, {"over_compile": ("compiled", "ours")})


def autotune_part(row: Row) -> None:
    """The same with all that torch.compile has, CUDA graphs included, in a process with limited time."""
    if not row.setting.autotune:
        return
    options = ["--device", row.setting.device, "--rounds", str(row.rounds)]
    if row.suite.quick:
        options += ["--shrunk", "--backend", row.suite.backend, "--mode", ""]
    found = autotune.elsewhere(row.setting.row, *options)
    if "why" in found:
        row.not_run |= {"over_autotune": found["why"]}
        return row.record({})
    row.info["autotune_seconds"] = found["compile_seconds"]
    own = row.timed({}, {})["ours"]
    compiled = Times(tuple(found["seconds"]))
    row.info["milliseconds"]["autotuned"] = compiled.median * 1e3
    row.info["spread"]["autotuned"] = compiled.spread
    row.record({"over_autotune": compiled.ratios(own)})


PARTS = {
    "floor": floor_part,
    "nvlabs": nvlabs_part,
    "plain": plain_part,
    "compile": compile_part,
    "autotune": autotune_part,
}


def measure(setting: Setting, suite, benchmark, folder: Path, parts) -> None:
    row = Row(setting, suite, benchmark, folder)
    if not row.alone():
        return
    for name in parts:
        if name not in row.failed:
            with row.tried(name):
                PARTS[name](row)
        row.device.empty()
    row.record({})
    assert not row.failed, row.failed


@pytest.mark.parametrize("setting", GPU_SETTINGS, ids=lambda setting: setting.row)
def test_step(benchmark, suite, tmp_path, setting):
    setting = setting.shrunk() if suite.quick else setting
    measure(setting, suite, benchmark, tmp_path, suite.parts or PARTS)
