"""Cosine attention's operands: split the joint projection into q, k and v, each pixel-normalised."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import channels_last, launch, pixel_block, pixel_norm_backward, pixel_norm_scale


@triton.jit
def _split_8(x):
    """The eight tiles [P, G] of a [P, G, 8]."""
    even, odd = tl.split(tl.reshape(x, (x.shape[0], x.shape[1], 2, 2, 2)))
    e04, e26 = tl.split(even)
    e15, e37 = tl.split(odd)
    e0, e4 = tl.split(e04)
    e2, e6 = tl.split(e26)
    e1, e5 = tl.split(e15)
    e3, e7 = tl.split(e37)
    return e0, e1, e2, e3, e4, e5, e6, e7


@triton.jit
def _join_8(e0, e1, e2, e3, e4, e5, e6, e7):
    """A [P, G, 8] of its eight tiles [P, G]."""
    even = tl.join(tl.join(e0, e4), tl.join(e2, e6))
    odd = tl.join(tl.join(e1, e5), tl.join(e3, e7))
    return tl.reshape(tl.join(even, odd), (e0.shape[0], e0.shape[1], 8))


@triton.jit
def _apart(x, y, z):
    """q, k, v of eight channels from the 24 numbers q k v q k v ... that x, y, z hold, eight each."""
    x0, x1, x2, x3, x4, x5, x6, x7 = _split_8(x)
    y0, y1, y2, y3, y4, y5, y6, y7 = _split_8(y)
    z0, z1, z2, z3, z4, z5, z6, z7 = _split_8(z)
    q = _join_8(x0, x3, x6, y1, y4, y7, z2, z5)
    k = _join_8(x1, x4, x7, y2, y5, z0, z3, z6)
    v = _join_8(x2, x5, y0, y3, y6, z1, z4, z7)
    return q, k, v


@triton.jit
def _together(q, k, v):
    """The inverse of `_apart`."""
    q0, q1, q2, q3, q4, q5, q6, q7 = _split_8(q)
    k0, k1, k2, k3, k4, k5, k6, k7 = _split_8(k)
    v0, v1, v2, v3, v4, v5, v6, v7 = _split_8(v)
    x = _join_8(q0, k0, v0, q1, k1, v1, q2, k2)
    y = _join_8(v2, q3, k3, v3, q4, k4, v4, q5)
    z = _join_8(k5, v5, q6, k6, v6, q7, k7, v7)
    return x, y, z


@triton.jit
def _tile(
    num_pixels,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Offsets of this program's tile [pixels, groups, channels of a group] in qkv and in q, and its mask.

    A group's channels times three lie together in qkv, q, k and v taking turns. A thread reads those of
    eight channels in three pieces of eight and takes them apart in its registers: strided accesses are
    left to heads whose channels are no multiple of eight (groups of one).
    """
    head = tl.program_id(0) % HEADS
    part = tl.program_id(0) // HEADS
    pixel_blocks = tl.cdiv(num_pixels, PIXELS)
    n = (part // pixel_blocks).to(tl.int64)
    pixel = part % pixel_blocks * PIXELS + tl.arange(0, PIXELS)[:, None, None]
    group = tl.arange(0, GROUPS)[None, :, None]
    lane = tl.arange(0, GROUP)[None, None, :]
    row = n * num_pixels * HEADS + pixel * HEADS + head
    in_qkv = row * (3 * D) + group * (3 * GROUP) + lane
    in_q = (n * HEADS + head) * num_pixels * D + pixel * D + group * GROUP + lane
    return in_qkv, in_q, (pixel < num_pixels) & (group * GROUP < D)


@triton.jit
def _load(qkv, in_qkv, inside, GROUP: tl.constexpr):
    q = tl.load(qkv + in_qkv, mask=inside, other=0.0)
    k = tl.load(qkv + in_qkv + GROUP, mask=inside, other=0.0)
    v = tl.load(qkv + in_qkv + 2 * GROUP, mask=inside, other=0.0)
    if GROUP == 8:
        q, k, v = _apart(q, k, v)
    return q.to(tl.float32), k.to(tl.float32), v.to(tl.float32)


@triton.jit
def _sum_channels(x):
    return tl.sum(tl.sum(x, axis=2, keep_dims=True), axis=1, keep_dims=True)


@triton.jit
def _normalize(x, D: tl.constexpr):
    _, inverse = pixel_norm_scale(_sum_channels(x * x), D)
    return x * inverse


@triton.jit
def _normalize_backward(grad, x, D: tl.constexpr):
    rms, inverse = pixel_norm_scale(_sum_channels(x * x), D)
    return pixel_norm_backward(grad, x, rms, inverse, _sum_channels(grad * x), D)


@triton.jit
def _qkv_norm_forward_kernel(
    qkv,
    q,
    k,
    v,
    num_pixels,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUP: tl.constexpr,
):
    in_qkv, in_q, inside = _tile(num_pixels, HEADS, D, PIXELS, GROUPS, GROUP)
    value_q, value_k, value_v = _load(qkv, in_qkv, inside, GROUP)
    tl.store(q + in_q, _normalize(value_q, D).to(q.dtype.element_ty), mask=inside)
    tl.store(k + in_q, _normalize(value_k, D).to(k.dtype.element_ty), mask=inside)
    tl.store(v + in_q, _normalize(value_v, D).to(v.dtype.element_ty), mask=inside)


@triton.jit
def _qkv_norm_backward_kernel(
    grad_q,
    grad_k,
    grad_v,
    qkv,
    grad_qkv,
    num_pixels,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    PIXELS: tl.constexpr,
    GROUPS: tl.constexpr,
    GROUP: tl.constexpr,
):
    in_qkv, in_q, inside = _tile(num_pixels, HEADS, D, PIXELS, GROUPS, GROUP)
    value_q, value_k, value_v = _load(qkv, in_qkv, inside, GROUP)
    x = tl.load(grad_q + in_q, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(grad_k + in_q, mask=inside, other=0.0).to(tl.float32)
    z = tl.load(grad_v + in_q, mask=inside, other=0.0).to(tl.float32)
    x = _normalize_backward(x, value_q, D).to(grad_qkv.dtype.element_ty)
    y = _normalize_backward(y, value_k, D).to(grad_qkv.dtype.element_ty)
    z = _normalize_backward(z, value_v, D).to(grad_qkv.dtype.element_ty)
    if GROUP == 8:
        x, y, z = _together(x, y, z)
    tl.store(grad_qkv + in_qkv, x, mask=inside)
    tl.store(grad_qkv + in_qkv + GROUP, y, mask=inside)
    tl.store(grad_qkv + in_qkv + 2 * GROUP, z, mask=inside)


def _launch(kernel, qkv: Tensor, num_heads: int, *tensors: Tensor) -> None:
    num_images, channels, height, width = qkv.shape
    num_pixels, depth = height * width, channels // 3 // num_heads
    group = 8 if depth % 8 == 0 else 1
    groups = triton.next_power_of_2(depth // group)
    pixels = pixel_block(num_pixels, 2 * groups * group, qkv.element_size())
    launch(
        kernel,
        num_images * num_heads * triton.cdiv(num_pixels, pixels),
        *tensors,
        num_pixels,
        HEADS=num_heads,
        D=depth,
        PIXELS=pixels,
        GROUPS=groups,
        GROUP=group,
    )


def forward(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v, each divided by (1e-4 + rms over its channels).

    Shapes    qkv: [B, 3C, H, W], channel = head 3d + c 3 + {0: q, 1: k, 2: v}, d = C / heads
              -> three of [B, heads, HW, d], contiguous.
    Dtypes    any -> same.      Cost      reads 1, writes 1.      Source    EDM2, Figure 21.
    """
    qkv = channels_last(qkv)
    num_images, channels, height, width = qkv.shape
    shape = (num_images, num_heads, height * width, channels // 3 // num_heads)
    q, k, v = (qkv.new_empty(shape) for _ in range(3))
    _launch(_qkv_norm_forward_kernel, qkv, num_heads, qkv, q, k, v)
    return q, k, v


def backward(grad_q: Tensor, grad_k: Tensor, grad_v: Tensor, qkv: Tensor, num_heads: int) -> Tensor:
    """grad_qkv, channels_last; the norms are computed again. Reads 2, writes 1."""
    qkv = channels_last(qkv)
    grad_qkv = torch.empty_like(qkv)
    grads = (grad.contiguous() for grad in (grad_q, grad_k, grad_v))
    _launch(_qkv_norm_backward_kernel, qkv, num_heads, *grads, qkv, grad_qkv)
    return grad_qkv
