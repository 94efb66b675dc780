"""A sampler's step: D from the network's output, Euler or Heun update, the next scaled input."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._common import empty_channels_last, launch, own_format, pixel_block


@triton.jit
def _heun_update_kernel(
    pred,
    guide,
    x,
    x_hat,
    slope,
    x_next,
    d,
    net_input,
    guidance,
    c_skip,
    c_out,
    inverse_sigma,
    step,
    c_in,
    num_pixels,
    C: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    num_blocks = tl.cdiv(num_pixels, PIXELS)
    n = (tl.program_id(0) // num_blocks).to(tl.int64)
    pixel = tl.program_id(0) % num_blocks * PIXELS + tl.arange(0, PIXELS)[:, None]
    channel = tl.arange(0, CHANNELS)[None, :]
    inside = (pixel < num_pixels) & (channel < C)
    size = C * num_pixels
    place = n * size + channel * num_pixels + pixel
    in_pred = n * size + pixel * C + channel if CHANNELS_LAST else place

    p = tl.load(pred + in_pred, mask=inside, other=0.0).to(tl.float32)
    if guide is not None:
        unguided = tl.load(guide + in_pred, mask=inside, other=0.0).to(tl.float32)
        p = unguided + guidance * (p - unguided)
    here = tl.load(x + place, mask=inside, other=0.0)
    direction = (here - (c_skip * here + c_out * p)) * inverse_sigma
    tl.store(d + place, direction, mask=inside)
    if slope is not None:
        direction = 0.5 * (tl.load(slope + place, mask=inside, other=0.0) + direction)
    result = tl.load(x_hat + place, mask=inside, other=0.0) + step * direction
    tl.store(x_next + place, result, mask=inside)

    out = net_input + n * (C + 1) * num_pixels + pixel * (C + 1)
    scaled = tl.where(channel < C, c_in * result, 1.0).to(net_input.dtype.element_ty)
    tl.store(out + channel, scaled, mask=(pixel < num_pixels) & (channel < C + 1))
    if CHANNELS < C + 1:
        ones = tl.full((PIXELS, 1), 1.0, tl.float32).to(net_input.dtype.element_ty)
        tl.store(out + C, ones, mask=pixel < num_pixels)


def forward(
    pred: Tensor,
    guide: Tensor | None,
    guidance: float,
    x: Tensor,
    sigma: float,
    x_hat: Tensor,
    sigma_hat: float,
    sigma_next: float,
    slope: Tensor | None,
    sigma_data: float,
    output: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """(x_next, d, the network's input at sigma_next).

    Shapes    pred, guide: [N,C,H,W], any format; guide None for guidance 1; x, x_hat, slope: float32
              [N,C,H,W]; slope None for Euler's step -> x_next and d: float32, contiguous; the input:
              `dtype` [N,C+1,H,W] channels_last.
    Gradient  none.             Cost      reads each operand once, writes each result once.
    Source    EDM (arXiv 2206.00364), Algorithm 2 and Table 1.
    """
    num_images, channels, height, width = pred.shape
    num_pixels = height * width
    memory_format = own_format(pred)
    pred = pred.contiguous(memory_format=memory_format)
    guide = None if guide is None else guide.to(pred.dtype).contiguous(memory_format=memory_format)
    x, x_hat = x.contiguous(), x_hat.contiguous()
    x_next, d = torch.empty_like(x), torch.empty_like(x)
    net_input = empty_channels_last((num_images, channels + 1, height, width), x, dtype)
    c_skip, c_out = 0.0, 1.0
    if output == "network":
        c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
        c_out = sigma * sigma_data / math.hypot(sigma, sigma_data)
    lanes = triton.next_power_of_2(channels)
    pixels = pixel_block(num_pixels, lanes, x.element_size())
    launch(
        _heun_update_kernel,
        num_images * triton.cdiv(num_pixels, pixels),
        pred,
        guide,
        x,
        x_hat,
        None if slope is None else slope.contiguous(),
        x_next,
        d,
        net_input,
        float(guidance),
        c_skip,
        c_out,
        1 / sigma,
        float(sigma_next - sigma_hat),
        1 / math.hypot(sigma_next, sigma_data),
        num_pixels,
        C=channels,
        CHANNELS_LAST=not pred.is_contiguous(),
        PIXELS=pixels,
        CHANNELS=lanes,
    )
    return x_next, d, net_input
