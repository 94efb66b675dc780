"""Public op: a sampler's step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._layout import empty_channels_last
from .reference.heun_update import heun_update as reference


def heun_update(
    pred: Tensor,
    x: Tensor,
    sigma: float,
    x_hat: Tensor,
    sigma_hat: float,
    sigma_next: float,
    slope: Tensor | None = None,
    *,
    guide: Tensor | None = None,
    guidance: float = 1.0,
    sigma_data: float = 0.5,
    output: str = "network",
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    """(x_next, d, net_input): one Euler or Heun step from x_hat at sigma_hat to sigma_next.

    d = (x - D) / sigma with D at (x, sigma) from the network's raw output (output="network") or D itself
    (output="denoised"); x_next = x_hat + (sigma_next - sigma_hat) d, Euler's step, or with the mean of
    `slope` and d, Heun's; net_input = c_in(sigma_next) x_next with the channel of ones behind it.

    Shapes    pred, guide, x, x_hat, slope: [N,C,H,W]; sigmas: Python floats -> [N,C,H,W] twice and
              [N,C+1,H,W].
    Guidance  pred becomes guide + guidance (pred - guide); at 1 the guide is not read.
    Dtypes    pred and guide the network's; x, x_hat, slope and so x_next and d float32 (float64 runs on
              the reference); net_input `dtype`.                           Gradient  none.
    Formats   pred contiguous or channels_last; x_next and d contiguous, net_input channels_last.
    Cost      reads each operand once, writes each result once; memory bound.
    Errors    ValueError for shapes that do not fit, sigma that is not positive, guidance without a guide.
    Source    EDM (arXiv 2206.00364), algorithm 2 and Table 1; guidance: EDM2 (arXiv 2312.02696), section 4.
    """
    shape = x.shape
    for name, value in (("pred", pred), ("x_hat", x_hat), ("slope", slope), ("guide", guide)):
        if value is not None and value.shape != shape:
            raise ValueError(f"{name} must be {list(shape)} as x is, not {list(value.shape)}.")
    if len(shape) != 4:
        raise ValueError(f"x must be [N,C,H,W], not {list(shape)}.")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, not {sigma}.")
    if output not in ("network", "denoised"):
        raise ValueError(f"output must be 'network' or 'denoised', not {output!r}.")
    if guidance == 1:
        guide = None
    elif guide is None:
        raise ValueError(f"guidance={guidance} needs a guide, the guiding network's output.")
    arguments = x, sigma, x_hat, sigma_hat, sigma_next, slope, sigma_data, output, dtype
    dtypes = _choice.DTYPES.get(x.device.type, ())
    if x.dtype != torch.float32 or dtype not in dtypes or not _choice.fused("heun_update", pred):
        with torch.no_grad():
            return reference(pred, guide, guidance, *arguments)
    guide = None if guide is None else guide.to(pred.dtype)
    return _forward(pred, guide, float(guidance), *arguments)


def _forward_cpu(
    pred, guide, guidance, x, sigma, x_hat, sigma_hat, sigma_next, slope, sigma_data, output, dtype
):
    results = _forward_fake(
        pred, guide, guidance, x, sigma, x_hat, sigma_hat, sigma_next, slope, sigma_data, output, dtype
    )
    images, channels, height, width = x.shape
    planes = pred.is_contiguous() or not pred.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.contiguous_format if planes else torch.channels_last
    # d = from_x x - from_p p, with 1 - c_skip in full precision.
    from_x, from_p = 1 / sigma, 1 / sigma
    if output == "network":
        total = sigma**2 + sigma_data**2
        from_x, from_p = sigma / total, sigma_data / math.sqrt(total)
    _native.cpu().heun_update_forward(
        _native.code(pred),
        _native.code(results[2]),
        pred.contiguous(memory_format=memory_format),
        None if guide is None else guide.contiguous(memory_format=memory_format),
        guidance,
        x.contiguous(),
        x_hat.contiguous(),
        None if slope is None else slope.contiguous(),
        *results,
        images,
        channels,
        height * width,
        not planes,
        from_x,
        from_p,
        float(sigma_next - sigma_hat),
        1 / math.hypot(sigma_next, sigma_data),
    )
    return results


def _forward_fake(
    pred, guide, guidance, x, sigma, x_hat, sigma_hat, sigma_next, slope, sigma_data, output, dtype
):
    images, channels, height, width = x.shape
    x_next = torch.empty_like(x, memory_format=torch.contiguous_format)
    net_input = empty_channels_last(x, (images, channels + 1, height, width), dtype)
    return x_next, torch.empty_like(x_next), net_input


_forward = _library.define(
    "heun_update(Tensor pred, Tensor? guide, float guidance, Tensor x, float sigma, Tensor x_hat,"
    " float sigma_hat, float sigma_next, Tensor? slope, float sigma_data, str output, ScalarType dtype)"
    " -> (Tensor x_next, Tensor d, Tensor net_input)",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.heun_update:forward",
)

_library.without_gradient(_forward)
