"""`recording`: launches of every op at a real shape, gathered without a device or memory."""

import pytest
import torch

pytest.importorskip("triton")

from mclr_fast.ops.triton_kernels import (
    _common,
    contrast_loss,
    double_pixels,
    gated_add,
    heun_update,
    linear_cross_entropy,
    modulate_layer_norm,
    modulate_silu,
    mp_cat_silu,
    mp_sum_clip,
    noisy_input,
    pixel_norm_silu,
    qkv_norm,
    weighted_sq_error,
)

N, R, C, SIZE = 512, 4, 192, 64


def activation(rows, channels=C, size=SIZE):
    x = torch.empty(rows, channels, size, size, dtype=torch.bfloat16, device="meta")
    return x.contiguous(memory_format=torch.channels_last)


def numbers(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def run_noisy_input():
    position = numbers(N, dtype=torch.int64)
    image = numbers(N, 3, SIZE, SIZE)
    x_noisy, net_input = noisy_input.forward(image, numbers(N), None, 1, 2, position, 0.5, torch.bfloat16)
    assert x_noisy.shape == image.shape and net_input.shape == (N, 4, SIZE, SIZE)


def run_pixel_norm_silu():
    n, y = pixel_norm_silu.forward(activation(N))
    assert pixel_norm_silu.backward(n, y, activation(N)).shape == y.shape


def run_double_pixels():
    for phases in (False, True):
        large = double_pixels.forward(activation(N), phases)
        assert double_pixels.backward(large, phases).shape == activation(N).shape


def run_modulate_silu():
    key = (0.1, 1, 2, numbers(N * R, dtype=torch.int64))
    out = modulate_silu.forward(activation(N), numbers(N * R, C), *key)
    grad_y, grad_emb = modulate_silu.backward(out, activation(N), numbers(N * R, C), *key)
    assert out.shape[0] == N * R and grad_y.shape[0] == N and grad_emb.shape == (N * R, C)


def run_mp_sum_clip():
    out, silu = mp_sum_clip.forward_silu(activation(N), activation(N * R), 0.3, 256.0)
    grad_a, grad_b = mp_sum_clip.backward_silu(out, silu, out, 0.3, 256.0, N, N * R)
    assert grad_a.shape[0] == N and grad_b.shape == out.shape


def run_mp_cat_silu():
    cat, y = mp_cat_silu.forward(activation(N * R), activation(N), 0.5)
    grad_a, grad_b = mp_cat_silu.backward(cat, y, cat, 0.5, N * R, N, C)
    assert cat.shape[1] == 2 * C and grad_a.shape[0] == N * R and grad_b.shape[0] == N


def run_qkv_norm():
    qkv = activation(N, 3 * 384, 16)
    q, k, v = qkv_norm.forward(qkv, 6)
    assert q.shape == (N, 6, 256, 64)
    assert qkv_norm.backward(q, k, v, qkv, 6).shape == qkv.shape


def run_weighted_sq_error():
    pred, image = activation(N * R, 3).unflatten(0, (N, R)), numbers(N, 3, SIZE, SIZE)
    others = (image, image, numbers(N), numbers(N))
    energy = weighted_sq_error.forward(pred, *others, 0.5, "network")
    assert weighted_sq_error.backward(energy, pred, *others, 0.5, "network").stride() == pred.stride()


def run_contrast_loss():
    pred, image = activation(N * R, 4).unflatten(0, (N, R)), numbers(N, 4, SIZE, SIZE)
    loss, energy, grad = contrast_loss.forward(
        pred, image, image, numbers(N), numbers(N), numbers(N, R), 0.5, "network"
    )
    assert loss.shape == () and energy.shape == (N, R) and grad.stride() == pred.stride()


def run_heun_update():
    pred, image = activation(N, 3), numbers(N, 3, SIZE, SIZE)
    heun_update.forward(pred, pred, 1.5, image, 2.0, image, 2.0, 1.0, image, 0.5, "network", torch.bfloat16)


def run_linear_cross_entropy():
    logits, targets = numbers(N, 4096, dtype=torch.bfloat16), numbers(N, dtype=torch.int64)
    level, coefficients = (numbers(N), numbers(N), numbers(N)), numbers(N)
    assert len(linear_cross_entropy.forward(logits, targets, None, *level)) == 3
    assert linear_cross_entropy.forward(logits, targets, coefficients, *level)[3] is logits
    assert linear_cross_entropy.backward(coefficients, logits, targets, *level[1:]) is logits


def run_modulate_layer_norm():
    x, vector = numbers(N, 680, 1024), numbers(N, 1024)
    out = modulate_layer_norm.forward(x, vector, vector, 1e-6, torch.bfloat16)
    grad_x, grad_scale, grad_shift = modulate_layer_norm.backward(out, x, vector, 1e-6)
    assert grad_x.shape == x.shape and grad_scale.shape == grad_shift.shape == vector.shape


def run_gated_add():
    x, gate = numbers(N, 680, 1024), numbers(N, 1024)
    y = numbers(N, 680, 1024, dtype=torch.bfloat16)
    grad_y, grad_gate = gated_add.backward(gated_add.forward(x, y, gate), y, gate)
    assert grad_y.dtype == y.dtype and grad_y.shape == y.shape and grad_gate.shape == gate.shape


RUNS = [
    (run_noisy_input, 1),
    (run_pixel_norm_silu, 2),
    (run_double_pixels, 4),
    (run_modulate_silu, 3),
    (run_mp_sum_clip, 2),
    (run_mp_cat_silu, 2),
    (run_qkv_norm, 2),
    (run_weighted_sq_error, 3),
    (run_contrast_loss, 3),
    (run_heun_update, 1),
    (run_linear_cross_entropy, 3),
    (run_modulate_layer_norm, 3),
    (run_gated_add, 3),
]


@pytest.mark.parametrize(("run", "num_launches"), RUNS, ids=[run.__name__ for run, _ in RUNS])
def test_launches_are_recorded_not_run(run, num_launches):
    with _common.recording() as launches:
        run()
    assert len(launches) == num_launches
    for launch in launches:
        assert list(launch.arguments) == launch.kernel.arg_names
        assert launch.name == launch.kernel.__name__ and launch.name.endswith("_kernel")
        assert all(0 < n < 2**31 for n in launch.grid) and launch.num_warps in (4, 8)


def test_recording_nests_and_ends():
    with _common.recording() as outer:
        with _common.recording() as inner:
            run_qkv_norm()
        run_heun_update()
    assert len(inner) == 2 and len(outer) == 1
    assert _common._recorded is None


def test_empty_batches_launch_nothing():
    with _common.recording() as launches:
        pixel_norm_silu.forward(activation(0))
        mp_sum_clip.forward(activation(0), activation(0), 0.3, 1.0)
    assert not launches
