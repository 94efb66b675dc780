"""The account of a step: what each operation moves, what it must, and which kernels were its own."""

import json
from functools import partial
from types import SimpleNamespace

import account
import count_step
import floor
import gpu
import gpu_page
import profile_step
import pytest
import torch
from account import Calls

from mclr_fast import ops

CPU, CUDA = torch.autograd.DeviceType.CPU, torch.autograd.DeviceType.CUDA
SIZE = 2 * 3 * 4 * 4 * 4  # bytes of `image()`


def image():
    return torch.randn(2, 3, 4, 4)


def by_name(mode):
    return {call.name.removeprefix("aten.").partition(".")[0]: call for call in mode.calls}


def test_what_lies_between_two_products_need_not_be_stored():
    x, weight = image(), torch.randn(3, 3, 1, 1)
    mode = Calls()
    with mode, torch.no_grad():
        y = torch.nn.functional.conv2d(x, weight)
        y = (y + 1).exp()
        torch.nn.functional.conv2d(y, weight)
    first, add, exp, last = mode.calls
    assert [call.bytes for call in (add, exp)] == [2 * SIZE] * 2
    assert add.least_bytes == SIZE  # what the convolution wrote
    assert exp.least_bytes == SIZE  # what the next one reads
    assert first.bytes == first.least_bytes == last.bytes == 2 * SIZE + weight.nbytes
    assert first.flops == 2 * 2 * 3 * 3 * 16 and add.flops == 0


def test_what_is_left_after_the_step_and_what_was_there_before_count():
    x, state = image(), image()
    mode = Calls()
    with mode:
        kept = x * 2
        state.add_(kept)
        left = kept.exp()
    found = by_name(mode)
    assert found["mul"].least_bytes == SIZE  # x; its result is read by others only
    assert found["add_"].bytes == 3 * SIZE and found["add_"].least_bytes == 2 * SIZE  # in and out
    assert found["exp"].least_bytes == SIZE and left is not None


def test_memory_of_the_step_that_is_written_in_place_need_not_be_kept():
    mode = Calls()
    with mode:
        x = torch.empty(2, 3, 4, 4)
        x.copy_(image())
        x.add_(1)
        x.sum()
    found = by_name(mode)
    assert "empty" not in found
    assert found["copy_"].bytes == 2 * SIZE  # what it writes it does not read
    assert found["add_"].bytes == 2 * SIZE and found["add_"].least_bytes == 0
    assert found["sum"].least_bytes == 4


def test_views_move_nothing_and_broadcast_tensors_what_is_stored():
    mode = Calls()
    with mode:
        x = image()
        y = x.transpose(2, 3)[:1].detach()
        y * torch.ones(1).expand(3, 4, 4)
    found = by_name(mode)
    assert found.keys() == {"randn", "ones", "mul"}
    assert found["mul"].bytes == SIZE // 2 * 2 + 4


def test_lists_of_tensors_are_read_and_written():
    before = [image(), image()]
    mode = Calls()
    with mode:
        torch._foreach_copy_(before, [image(), image()])
        torch._foreach_mul_(before, 2.0)
    found = by_name(mode)
    assert found["_foreach_copy_"].bytes == 4 * SIZE and found["_foreach_copy_"].kept
    assert found["_foreach_mul_"].bytes == 4 * SIZE


def test_own_ops_move_what_the_floor_counts(fused_ops):
    y = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    emb = torch.randn(2, 8, requires_grad=True)
    mode = Calls()
    with ops.using("fused"), floor.BytesMoved() as moved, mode:
        (2 * ops.modulate_silu(y, emb)).sum().backward()
    own = [call for call in mode.calls if call.name.startswith("mclr_fast.")]
    assert len(own) == 2 and sum(call.bytes for call in own) == moved.total


def host(name, *children, kernels=()):
    launched = [SimpleNamespace(name=kernel, duration=ms * 1e3) for kernel, ms in kernels]
    return SimpleNamespace(
        name=name, device_type=CPU, kernels=launched, cpu_children=children, cpu_time_total=5e3
    )


def on_gpu(name, milliseconds, annotation=False):
    return SimpleNamespace(
        name=name, device_type=CUDA, device_time_total=milliseconds * 1e3, is_user_annotation=annotation
    )


def test_kernels_are_those_launched_inside_a_calls_mark():
    inner = host("cudnn", kernels=[("gemm", 2.0), ("Memcpy HtoD (Pageable -> Device)", 9.0)])
    events = [
        host("call 3", host("aten::convolution", inner, kernels=[("transpose", 0.5)])),
        host("call 7", host("aten::add", kernels=[("add", 0.25)])), host("call 8"),
        on_gpu("gemm", 2.0), on_gpu("gemm", 4.0), on_gpu("transpose", 0.5), on_gpu("add", 0.25),
        on_gpu("call 3", 9.0, annotation=True), on_gpu("adam_kernel", 1.0),
    ]  # fmt: skip
    device = gpu.Device("cpu")
    device.is_cuda = True
    calls = [account.Call("aten.convolution", True, 3, flops=4 * 10**9), account.Call("aten.add", False, 7)]
    calls[0].writes = [(account.Value(None), 10**6)]
    account.assign(calls, events, device)
    assert calls[0].kernels == [("transpose", 0.5), ("gemm", 2.0)]
    assert calls[1].kernels == [("add", 0.25)]
    others = account._others(calls, gpu.kernels(events, device))
    assert sorted(others) == [("adam_kernel", 1.0), ("gemm", 4.0)]

    rows = account.table(calls, others, 1e9, {"adam": 500_000})
    named = {row["name"]: row for row in rows}
    assert [row["milliseconds"] for row in rows] == [4.0, 2.5, 1.0, 0.25]
    convolution, adam = named["aten.convolution"], named["adam_kernel"]
    assert convolution["share_of_copy"] == pytest.approx(0.4)  # 1 MB in 2.5 ms of 1 GB/s
    assert convolution["TFLOPs"] == pytest.approx(1.6)
    assert convolution["kernels"] == [["gemm", 1, 2.0], ["transpose", 1, 0.5]]
    assert adam["share_of_copy"] == pytest.approx(0.5) and adam["least_GB"] == adam["GB"] == 5e-4
    told = account.text(rows, 1e9)
    assert "convolutions and products: 2.50 ms; 0.00 GB, at copy speed 1.00 ms" in told
    assert "all else: 5.25 ms" in told


def test_a_profile_of_a_step_has_it_all(tmp_path, capsys):
    out = tmp_path / "profile.json"
    profile_step.main([str(out), "--small", "--sizes", "4", "--graphs", "on", "off"])
    on, off = json.loads(out.read_text())
    assert "account" not in on and (on["graphs"], off["graphs"]) == ("on", "off")
    assert on["over_busy"] > 0 and on["kernels"]
    rows = off["account"]
    names = {row["name"] for row in rows}
    assert {"aten.convolution", "aten.convolution_backward", "aten.add.Tensor"} <= names
    assert all(row["milliseconds"] > 0 and row["GB"] >= row["least_GB"] >= 0 for row in rows)
    assert any(row["least_GB"] < row["GB"] for row in rows if not row["is_product"])
    assert "convolutions and products:" in capsys.readouterr().out
    page = gpu_page.bytes_table({"profile": [on, off]})
    assert "| `aten.convolution_backward` |" in page and "of the step at N=4" in page


def test_the_updates_bytes_are_its_states_in_and_out(tmp_path):
    setting = profile_step.Setting("profile", profile_step.NET, 4, 3, torch.float32).shrunk("cpu")
    net, _ = profile_step.build_nets(setting)
    step = profile_step.TrainerStep(setting, net, tmp_path)
    numel = sum(p.numel() for p in step.trainer.net.parameters() if p.requires_grad)
    averages = len(step.trainer.ema.weights())
    assert profile_step.optimizer_bytes(step) == 4 * numel * (3 + 4 + 2 * averages)


def test_a_steps_bytes_are_counted_without_a_gpu(tmp_path, capsys, monkeypatch):
    """By the ops that a GPU would run; twice the images move twice the bytes but for the weights'."""
    small = profile_step.Setting("", profile_step.NET, 4, 3, torch.float32).shrunk().net
    monkeypatch.setattr(count_step, "count", partial(count_step.count, net=small))
    out = tmp_path / "counted.json"
    count_step.main([str(out), "--sizes", "4", "8"])
    counted = json.loads(out.read_text())
    four, eight = ({line["name"]: line for line in row["operations"]} for row in counted)
    assert [row["N"] for row in counted] == [4, 8] and four.keys() == eight.keys()
    assert {"mclr_fast.mp_cat_silu_backward", "aten.convolution_backward"} <= four.keys()
    assert eight["mclr_fast.mp_cat_silu"]["GB"] == pytest.approx(2 * four["mclr_fast.mp_cat_silu"]["GB"])
    weights = "mclr_fast.weight_norm_scale"
    assert eight[weights] == four[weights] and four[weights]["calls"] == 1
    assert all(line["GB"] >= line["least_GB"] >= 0 for line in four.values())
    assert "N=8\n calls" in capsys.readouterr().out
    results = {"profile": [], "counted": counted} | stored_machine(copy_GBs=1e-3)
    page = gpu_page.bytes_table(results)
    moved = sum(line["GB"] for line in eight.values() if not line["is_product"])
    assert "of a step at N=8" in page and f"all else takes {moved * 1e6:.1f} ms" in page
    assert "were not counted" in gpu_page.bytes_table({"profile": []})


def stored_machine(copy_GBs):
    info = {"row": gpu_page.STEP, "num_images": 16, "machine": {"copy_GBs": copy_GBs}}
    return {"step": [{"extra_info": info}]}
