"""x + sigma eps and the network's scaled input, eps drawn by Philox, in one pass."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import (
    NOT_SPECIALIZED,
    box_muller,
    empty_channels_last,
    interleave_pixels,
    launch,
    pixel_block,
    random_words,
    seed_words,
)


@triton.jit
def _standard_normal(
    key, position, first_pixel, channel, num_pixels, PIXELS: tl.constexpr, ALIGNED: tl.constexpr
):
    """eps of a tile [PIXELS, channels]; ALIGNED where four pixels share a Philox block."""
    if ALIGNED:
        quad = first_pixel // 4 + tl.arange(0, PIXELS // 4)[:, None]
        block = channel * (num_pixels // 4) + quad
        w0, w1, w2, w3 = random_words(key[0], key[1], key[2], position, block)
        z0, z1 = box_muller(w0, w1)
        z2, z3 = box_muller(w2, w3)
        return interleave_pixels(z0, z1, z2, z3)
    else:
        element = channel * num_pixels + first_pixel + tl.arange(0, PIXELS)[:, None]
        w0, w1, w2, w3 = random_words(key[0], key[1], key[2], position, element // 4)
        early = element % 4 < 2
        first, second = box_muller(tl.where(early, w0, w2), tl.where(early, w1, w3))
        return tl.where(element % 2 == 0, first, second)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _noisy_input_kernel(
    x,
    sigma,
    c_in,
    eps,
    position,
    x_noisy,
    net_input,
    seed_low,
    seed_high,
    stream,
    sigma_data,
    num_pixels,
    C: tl.constexpr,
    R: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ALIGNED: tl.constexpr,
    INPUT_CHANNELS: tl.constexpr,
):
    num_blocks = tl.cdiv(num_pixels, PIXELS)
    n = (tl.program_id(0) // num_blocks).to(tl.int64)
    first_pixel = tl.program_id(0) % num_blocks * PIXELS
    pixel = first_pixel + tl.arange(0, PIXELS)[:, None]
    channel = tl.arange(0, CHANNELS)[None, :]
    inside = (pixel < num_pixels) & (channel < C)
    element = channel * num_pixels + pixel

    if eps is None:
        key = (seed_low, seed_high, stream)
        at = tl.load(position + n)
        noise = _standard_normal(key, at, first_pixel, channel, num_pixels, PIXELS, ALIGNED)
    else:
        noise = tl.load(eps + n * C * num_pixels + element, mask=inside, other=0.0)

    level = tl.load(sigma + n)
    noise = level * noise
    scale = 1 / tl.sqrt(level * level + sigma_data * sigma_data) if c_in is None else tl.load(c_in + n)
    for r in range(R):
        row = n * R + r
        offset = row * C * num_pixels + element
        noisy = tl.load(x + offset, mask=inside, other=0.0) + noise
        tl.store(x_noisy + offset, noisy, mask=inside)
        out = net_input + row * INPUT_CHANNELS * num_pixels + pixel * INPUT_CHANNELS
        scaled = tl.where(channel < C, scale * noisy, 1.0).to(net_input.dtype.element_ty)
        tl.store(out + channel, scaled, mask=(pixel < num_pixels) & (channel < INPUT_CHANNELS))
        if CHANNELS < INPUT_CHANNELS:
            ones = tl.full((PIXELS, 1), 1.0, tl.float32).to(net_input.dtype.element_ty)
            tl.store(out + C, ones, mask=pixel < num_pixels)


def forward(
    x: Tensor,
    sigma: Tensor,
    eps: Tensor | None,
    seed: int,
    stream: int,
    position: Tensor | None,
    sigma_data: float,
    dtype: torch.dtype,
    c_in: Tensor | None = None,
    ones: bool = True,
) -> tuple[Tensor, Tensor]:
    """x_noisy = x + sigma eps, and c_in x_noisy, with a channel of ones behind it unless `ones` is False.

    Shapes    x: [N,C,H,W] or [N,R,C,H,W]; sigma: [N]; eps: [N,C,H,W] or None, then Philox draws it at
              `position` int64 [N]; c_in: [N], or None for EDM's
              -> (x's shape, [N or N R, C+1 or C, H, W] channels_last).
    Dtypes    x, sigma, eps, c_in and x_noisy float32; the input `dtype`.      Gradient  none.
    Cost      reads x once, writes both results once.
    Source    Algorithms 1 and 2; c_in: EDM (arXiv 2206.00364), Table 1.
    """
    num_images, (channels, height, width) = len(x), x.shape[-3:]
    columns = x.shape[1] if x.ndim == 5 else 1
    num_pixels = height * width
    x = x.contiguous()
    x_noisy = torch.empty_like(x)
    net_input = empty_channels_last((num_images * columns, channels + ones, height, width), x, dtype)
    lanes = triton.next_power_of_2(channels)
    pixels = pixel_block(num_pixels, lanes, x.element_size())
    launch(
        _noisy_input_kernel,
        num_images * triton.cdiv(num_pixels, pixels),
        x,
        sigma.contiguous(),
        None if c_in is None else c_in.contiguous(),
        None if eps is None else eps.contiguous(),
        None if eps is not None else position.contiguous(),
        x_noisy,
        net_input,
        *seed_words(seed),
        stream,
        float(sigma_data),
        num_pixels,
        C=channels,
        R=columns,
        PIXELS=pixels,
        CHANNELS=lanes,
        ALIGNED=num_pixels % 4 == 0,
        INPUT_CHANNELS=channels + ones,
    )
    return x_noisy, net_input
