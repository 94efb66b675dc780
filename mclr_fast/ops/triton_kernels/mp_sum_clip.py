"""Block exit: residual sum, clipping, and the next block's mp_silu where one follows."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import channels_last, empty_channels_last, launch, mp_silu, mp_silu_derivative


@triton.jit
def _tile(size, BLOCK: tl.constexpr):
    """Image and the tile's offsets in an image, of this program."""
    num_blocks = tl.cdiv(size, BLOCK)
    n = (tl.program_id(0) // num_blocks).to(tl.int64)
    return n, tl.program_id(0) % num_blocks * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _mp_sum_clip_forward_kernel(
    a,
    b,
    out,
    silu,
    weight_a,
    weight_b,
    clip,
    size,
    R: tl.constexpr,
    A_SHARED: tl.constexpr,
    B_SHARED: tl.constexpr,
    HAS_CLIP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n, offset = _tile(size, BLOCK)
    inside = offset < size
    if A_SHARED:
        part_a = weight_a * tl.load(a + n * size + offset, mask=inside, other=0.0).to(tl.float32)
    if B_SHARED:
        part_b = weight_b * tl.load(b + n * size + offset, mask=inside, other=0.0).to(tl.float32)
    for r in range(R):
        place = (n * R + r) * size + offset
        if not A_SHARED:
            part_a = weight_a * tl.load(a + place, mask=inside, other=0.0).to(tl.float32)
        if not B_SHARED:
            part_b = weight_b * tl.load(b + place, mask=inside, other=0.0).to(tl.float32)
        value = part_a + part_b
        if HAS_CLIP:
            # tl.clamp would turn a NaN into a number and hide it.
            value = tl.where(value > clip, clip, tl.where(value < -clip, -clip, value))
        tl.store(out + place, value.to(out.dtype.element_ty), mask=inside)
        if silu is not None:
            tl.store(silu + place, mp_silu(value).to(silu.dtype.element_ty), mask=inside)


@triton.jit
def _mp_sum_clip_backward_kernel(
    grad,
    grad_silu,
    out,
    grad_a,
    grad_b,
    weight_a,
    weight_b,
    clip,
    size,
    R: tl.constexpr,
    A_SHARED: tl.constexpr,
    B_SHARED: tl.constexpr,
    HAS_CLIP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n, offset = _tile(size, BLOCK)
    inside = offset < size
    total = tl.zeros((BLOCK,), tl.float32)
    for r in range(R):
        place = (n * R + r) * size + offset
        slope = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        if HAS_CLIP or grad_silu is not None:
            value = tl.load(out + place, mask=inside, other=0.0).to(tl.float32)
        if grad_silu is not None:
            after = tl.load(grad_silu + place, mask=inside, other=0.0).to(tl.float32)
            slope += after * mp_silu_derivative(value)
        if HAS_CLIP:
            slope = tl.where(tl.abs(value) < clip, slope, 0.0)
        if A_SHARED or B_SHARED:
            total += slope
        if not A_SHARED:
            tl.store(grad_a + place, (weight_a * slope).to(grad_a.dtype.element_ty), mask=inside)
        if not B_SHARED:
            tl.store(grad_b + place, (weight_b * slope).to(grad_b.dtype.element_ty), mask=inside)
    if A_SHARED:
        tl.store(grad_a + n * size + offset, (weight_a * total).to(grad_a.dtype.element_ty), mask=inside)
    if B_SHARED:
        tl.store(grad_b + n * size + offset, (weight_b * total).to(grad_b.dtype.element_ty), mask=inside)


def _launch(kernel, like: Tensor, num_a: int, num_b: int, t: float, clip: float, *tensors: Tensor) -> None:
    num_rows, size = max(num_a, num_b), math.prod(like.shape[1:])
    num_images = min(num_a, num_b)
    norm = math.hypot(1 - t, t)
    block = min(4096 // like.element_size(), triton.next_power_of_2(size))
    launch(
        kernel,
        num_images * triton.cdiv(size, block),
        *tensors,
        (1 - t) / norm,
        t / norm,
        float(clip),
        size,
        R=num_rows // max(num_images, 1),
        A_SHARED=num_a < num_rows,
        B_SHARED=num_b < num_rows,
        HAS_CLIP=clip < math.inf,
        BLOCK=block,
    )


def _forward(a: Tensor, b: Tensor, t: float, clip: float, with_silu: bool) -> tuple[Tensor, Tensor | None]:
    a, b = channels_last(a), channels_last(b)
    out = empty_channels_last((max(len(a), len(b)), *a.shape[1:]), a)
    silu = torch.empty_like(out) if with_silu else None
    _launch(_mp_sum_clip_forward_kernel, a, len(a), len(b), t, clip, a, b, out, silu)
    return out, silu


def _backward(
    grad: Tensor, grad_silu: Tensor | None, out: Tensor, t: float, clip: float, num_a: int, num_b: int
) -> tuple[Tensor, Tensor]:
    grad, out = channels_last(grad), channels_last(out)
    grad_silu = None if grad_silu is None else channels_last(grad_silu)
    grad_a, grad_b = (empty_channels_last((num, *out.shape[1:]), out) for num in (num_a, num_b))
    tensors = (grad, grad_silu, out, grad_a, grad_b)
    _launch(_mp_sum_clip_backward_kernel, out, num_a, num_b, t, clip, *tensors)
    return grad_a, grad_b


def forward(a: Tensor, b: Tensor, t: float, clip: float) -> Tensor:
    """((1-t) a + t b) / sqrt((1-t)^2 + t^2), clamped to [-clip, clip]; clip may be infinite.

    Shapes    a, b: [B,C,H,W]; one of them may have N rows, each shared by B/N -> [B,C,H,W] channels_last.
    Dtypes    any -> same.                   Cost      reads each operand once, writes 1.
    Source    EDM2, eq. 88 and Figure 21.
    """
    return _forward(a, b, t, clip, with_silu=False)[0]


def backward(
    grad: Tensor, out: Tensor, t: float, clip: float, num_a: int, num_b: int
) -> tuple[Tensor, Tensor]:
    """(grad_a, grad_b), a shared operand's summed over its rows. Reads `out` only if there is a clip."""
    return _backward(grad, None, out, t, clip, num_a, num_b)


def forward_silu(a: Tensor, b: Tensor, t: float, clip: float) -> tuple[Tensor, Tensor]:
    """(out, mp_silu(out)) with `out` as `forward` gives it, in the same pass."""
    return _forward(a, b, t, clip, with_silu=True)


def backward_silu(
    grad: Tensor, grad_silu: Tensor, out: Tensor, t: float, clip: float, num_a: int, num_b: int
) -> tuple[Tensor, Tensor]:
    """(grad_a, grad_b) of `forward_silu`. Reads 3, writes each gradient once."""
    return _backward(grad, grad_silu, out, t, clip, num_a, num_b)
