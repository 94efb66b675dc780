"""Every Triton kernel at a shape, with its formula and what its backward pass needs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from mclr_fast.ops.reference.double_pixels import double_pixels as doubled
from mclr_fast.ops.reference.gated_add import gated_add as gated_sum
from mclr_fast.ops.reference.magnitude_preserving import mp_cat, mp_silu, mp_sum, normalize
from mclr_fast.ops.reference.modulate_layer_norm import modulate_layer_norm as modulated_norm
from mclr_fast.ops.reference.philox import random_normal, random_uniform
from mclr_fast.ops.triton_kernels import (
    contrast_loss,
    double_pixels,
    gated_add,
    heun_update,
    modulate_layer_norm,
    modulate_silu,
    mp_cat_silu,
    mp_sum_clip,
    noisy_input,
    pixel_norm_silu,
    qkv_norm,
    weighted_sq_error,
)

R, HEADS = 4, 6
SIGMA_DATA, DROPOUT, SEED, STREAM = 0.5, 0.25, 11, 3


class Case(NamedTuple):
    """One op at a shape. backward(cotangents, values, *inputs) is None for an op without."""

    inputs: Sequence[torch.Tensor]
    forward: Callable
    backward: Callable | None
    formula: Callable
    read_again: Callable = lambda values, inputs: inputs
    """Which of its values and inputs the backward pass needs."""
    least_share: float = 0.5
    """Of the copy bandwidth; 0 where arithmetic is the bound."""


def activation(rows, channels, size, dtype):
    x = torch.randn(rows, channels, size, size, device="cuda", dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def images(rows, size):
    return torch.randn(rows, 3, size, size, device="cuda")


def levels(rows):
    return torch.randn(rows, device="cuda").exp()


def repeat(x):
    return x.repeat_interleave(R, dim=0)


def wide(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def scale_and_mark(x, scale, dtype):
    x = torch.cat([x * scale, torch.ones_like(x[:, :1])], dim=1)
    return x if x.dtype == torch.float64 else x.to(dtype)


def noisy_input_case(n, channels, size, dtype):
    n *= channels // 4
    position = torch.arange(n, device="cuda") + 2**33

    def forward(x, sigma):
        return noisy_input.forward(x, sigma, None, SEED, STREAM, position, SIGMA_DATA, dtype)

    def formula(x, sigma):
        eps = random_normal(SEED, STREAM, position, x[0].numel()).view(x.shape)
        level = sigma.view(-1, 1, 1, 1)
        x_noisy = x + level * eps
        return x_noisy, scale_and_mark(x_noisy, (level**2 + SIGMA_DATA**2).rsqrt(), dtype)

    return Case((images(n, size), levels(n)), forward, None, formula, least_share=0.0)


def pixel_norm_silu_case(n, channels, size, dtype):
    def formula(x):
        x = normalize(x, dim=1)
        return x, mp_silu(x)

    def backward(grads, values, x):
        return pixel_norm_silu.backward(*grads, x)

    return Case([activation(n * R, channels, size, dtype)], pixel_norm_silu.forward, backward, formula)


def double_pixels_case(n, channels, size, dtype, phases=False):
    def forward(x):
        return double_pixels.forward(x, phases)

    def backward(grads, values, x):
        return double_pixels.backward(*grads, phases)

    def formula(x):
        return doubled(x, phases)

    x = activation(n * R, channels * (1 + 3 * phases), size // 2 + phases, dtype)
    return Case([x], forward, backward, formula, read_again=lambda values, inputs: ())


def join_phases_case(n, channels, size, dtype):
    return double_pixels_case(n, channels, size, dtype, phases=True)


def modulate_silu_case(n, channels, size, dtype, dropout=0.0):
    """The first block's: R rows share an image's activation.

    In bfloat16 an H200 makes as many elements a second as with an activation a row: arithmetic is the bound.
    """
    position = repeat(torch.arange(n, device="cuda"))
    key = (dropout, SEED, STREAM, position if dropout else None)

    def formula(y, emb):
        out = mp_silu(repeat(y) * (1 + emb).to(y.dtype)[:, :, None, None])
        if dropout:
            keep = random_uniform(SEED, STREAM, position, out[0].numel()).view(out.shape) >= dropout
            out = out * keep / (1 - dropout)
        return out

    return Case(
        (activation(n, channels, size, dtype), torch.randn(n * R, channels, device="cuda")),
        lambda y, emb: modulate_silu.forward(y, emb, *key),
        lambda grads, values, y, emb: modulate_silu.backward(*grads, y, emb, *key),
        formula,
        least_share=0.0,
    )


def modulate_silu_own_case(n, channels, size, dtype):
    """Every other block's: each row has its own activation."""
    none = (0.0, SEED, STREAM, None)
    return Case(
        (activation(n * R, channels, size, dtype), torch.randn(n * R, channels, device="cuda")),
        lambda y, emb: modulate_silu.forward(y, emb, *none),
        lambda grads, values, y, emb: modulate_silu.backward(*grads, y, emb, *none),
        lambda y, emb: mp_silu(y * (1 + emb).to(y.dtype)[:, :, None, None]),
    )


def modulate_silu_dropout_case(n, channels, size, dtype):
    return modulate_silu_case(n, channels, size, dtype, DROPOUT)


def mp_sum_clip_case(n, channels, size, dtype):
    t, clip = 0.3, 256.0

    def formula(a, b):
        return mp_sum(repeat(a), b, t).clamp(-clip, clip)

    return Case(
        (activation(n, channels, size, dtype), activation(n * R, channels, size, dtype)),
        lambda a, b: mp_sum_clip.forward(a, b, t, clip),
        lambda grads, values, a, b: mp_sum_clip.backward(*grads, *values, t, clip, len(a), len(b)),
        formula,
        read_again=lambda values, inputs: values,
    )


def mp_sum_clip_silu_case(n, channels, size, dtype):
    t, clip = 0.3, 256.0

    def formula(a, b):
        out = mp_sum(a, b, t).clamp(-clip, clip)
        return out, mp_silu(out)

    return Case(
        (activation(n * R, channels, size, dtype), activation(n * R, channels, size, dtype)),
        lambda a, b: mp_sum_clip.forward_silu(a, b, t, clip),
        lambda grads, values, a, b: mp_sum_clip.backward_silu(*grads, values[0], t, clip, len(a), len(b)),
        formula,
        read_again=lambda values, inputs: values[:1],
    )


def mp_cat_silu_case(n, channels, size, dtype):
    t = 0.5

    def formula(a, b):
        cat = mp_cat(a, repeat(b), t)
        return cat, mp_silu(cat)

    return Case(
        (activation(n * R, channels, size, dtype), activation(n, channels, size, dtype)),
        lambda a, b: mp_cat_silu.forward(a, b, t),
        lambda grads, values, a, b: mp_cat_silu.backward(*grads, values[0], t, len(a), len(b), a.shape[1]),
        formula,
        read_again=lambda values, inputs: values[:1],
    )


def qkv_norm_case(n, channels, size, dtype):
    def formula(qkv):
        parts = normalize(qkv.flatten(2).unflatten(1, (HEADS, -1, 3)), dim=2)
        return tuple(parts[:, :, :, i].transpose(-1, -2) for i in range(3))

    return Case(
        [activation(n * R, 3 * 64 * HEADS, size // 2, dtype)],
        lambda qkv: qkv_norm.forward(qkv, HEADS),
        lambda grads, values, qkv: qkv_norm.backward(*grads, qkv, HEADS),
        formula,
        # Backward an H200 reaches 24% in float32, which no recipe uses on a GPU, and 60% in bfloat16.
        least_share=0.2 if dtype == torch.float32 else 0.5,
    )


def energies(pred, x, x_noisy, sigma, weight):
    pred, x, x_noisy = wide(pred), x[:, None], x_noisy[:, None]
    level = sigma.view(-1, 1, 1, 1, 1)
    total = level**2 + SIGMA_DATA**2
    pred = SIGMA_DATA**2 / total * x_noisy + level * SIGMA_DATA / total.sqrt() * pred
    return (pred - x).square().flatten(2).sum(2) * weight[:, None]


def evaluations(n, size, dtype):
    pred = activation(n * R, 3, size, dtype).unflatten(0, (n, R))
    return pred, images(n, size), images(n, size), levels(n), levels(n)


def weighted_sq_error_case(n, channels, size, dtype):
    return Case(
        evaluations(n * channels // 4, size, dtype),
        lambda *inputs: weighted_sq_error.forward(*inputs, SIGMA_DATA, "network"),
        lambda grads, values, *inputs: weighted_sq_error.backward(*grads, *inputs, SIGMA_DATA, "network"),
        energies,
    )


def contrast_loss_case(n, channels, size, dtype):
    """Its gradient comes with the loss: the formula returns it as a value too."""
    inputs = evaluations(n * channels // 4, size, dtype)
    coefficients = levels(inputs[0].shape[0] * R).view(-1, R)

    def formula(pred, *others):
        pred = pred.detach().requires_grad_()
        energy = energies(pred, *others)
        loss = (coefficients * energy).sum()
        return loss, energy, torch.autograd.grad(loss, pred)[0]

    return Case(
        inputs,
        lambda *inputs: contrast_loss.forward(*inputs, coefficients, SIGMA_DATA, "network"),
        None,
        formula,
    )


def heun_update_case(n, channels, size, dtype):
    n *= channels // 4
    predictions = [activation(n, 3, size, dtype) for _ in range(2)]

    def forward(pred, guide, x, x_hat, slope):
        return heun_update.forward(
            pred, guide, 2.0, x, 1.3, x_hat, 1.4, 0.8, slope, SIGMA_DATA, "denoised", dtype
        )

    def formula(pred, guide, x, x_hat, slope):
        d = (x - (2 * wide(pred) - wide(guide))) / 1.3
        x_next = x_hat + (0.8 - 1.4) * (slope + d) / 2
        return x_next, d, scale_and_mark(x_next, (0.8**2 + SIGMA_DATA**2) ** -0.5, dtype)

    return Case([*predictions, *(images(n, size) for _ in range(3))], forward, None, formula)


def tokens(n, channels, size, dtype):
    """A stream of as many elements as the activations have, in images of `size` tokens, and its vectors."""
    x = torch.randn(n * size // 8, size, 8 * channels, device="cuda", dtype=dtype)
    return x, [torch.randn(len(x), 8 * channels, device="cuda") for _ in range(2)]


def modulate_layer_norm_case(n, channels, size, dtype):
    x, vectors = tokens(n, channels, size, torch.float32)

    def formula(x, scale, shift):
        return modulated_norm(x, scale, shift, 1e-6, x.dtype if x.dtype == torch.float64 else dtype)

    return Case(
        (x, *vectors),
        lambda x, scale, shift: modulate_layer_norm.forward(x, scale, shift, 1e-6, dtype),
        lambda grads, values, x, scale, shift: modulate_layer_norm.backward(*grads, x, scale, 1e-6),
        formula,
        read_again=lambda values, inputs: inputs[:2],
    )


def gated_add_case(n, channels, size, dtype):
    """The gradient of x is the result's: the formula has none of it either."""
    stream, (gate, _) = tokens(n, channels, size, torch.float32)
    y = tokens(n, channels, size, dtype)[0]
    return Case(
        (y, gate),
        lambda y, gate: gated_add.forward(stream, y, gate),
        lambda grads, values, y, gate: gated_add.backward(*grads, y, gate),
        lambda y, gate: gated_sum(stream.to(gate.dtype), y, gate),
    )


CASES = [
    noisy_input_case,
    pixel_norm_silu_case,
    double_pixels_case,
    join_phases_case,
    modulate_layer_norm_case,
    gated_add_case,
    modulate_silu_case,
    modulate_silu_own_case,
    modulate_silu_dropout_case,
    mp_sum_clip_case,
    mp_sum_clip_silu_case,
    mp_cat_silu_case,
    qkv_norm_case,
    weighted_sq_error_case,
    contrast_loss_case,
    heun_update_case,
]
