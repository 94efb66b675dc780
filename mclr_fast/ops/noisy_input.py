"""Public op: noisy images and the network's scaled input."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import _choice, _library, _native
from ._layout import as_float32, empty_channels_last
from .reference.noisy_input import noisy_input as reference


def noisy_input(
    x: Tensor,
    sigma: Tensor,
    seed: int = 0,
    stream: int = 0,
    position: Tensor | None = None,
    *,
    eps: Tensor | None = None,
    sigma_data: float = 0.5,
    dtype: torch.dtype = torch.float32,
    c_in: Tensor | None = None,
    ones: bool = True,
) -> tuple[Tensor, Tensor]:
    """(x_noisy, net_input): x + sigma eps, and c_in x_noisy with the channel of ones behind it.

    Shapes    x: [N,C,H,W], or [N,R,C,H,W] (a row's images then share sigma, eps and c_in); sigma: [N];
              position: int64 [N], each sample's place in the run: eps ~ N(0, I) is Philox's, keyed by
              (seed, stream, position), the same on every backend; or eps: [N,C,H,W] itself;
              c_in: [N], or None: EDM's, 1 / sqrt(sigma^2 + sigma_data^2)
              -> x_noisy of x's shape, net_input [N or N R, C+1, H, W], or C channels where `ones` is False.
    Dtypes    x, sigma, eps, c_in and x_noisy float32; net_input `dtype`.       Gradient  none.
    Formats   x_noisy contiguous, net_input channels_last.
    Cost      reads x, writes both results; about 5 operations a number for Philox.
    Errors    ValueError unless exactly one of position and eps is given, or for shapes that do not fit.
    Source    Algorithms 1 and 2; c_in: EDM (arXiv 2206.00364), Table 1.
    """
    if (position is None) == (eps is None):
        raise ValueError(f"give position or eps: {'neither' if eps is None else 'both'} was given.")
    shape = x.shape
    if len(shape) not in (4, 5):
        raise ValueError(f"x must be [N,C,H,W] or [N,R,C,H,W], not {list(shape)}.")
    rows = shape[:1]
    for name, value in (("sigma", sigma), ("position", position), ("c_in", c_in)):
        if value is not None and value.shape != rows:
            raise ValueError(f"{name} must be [{shape[0]}], one a row of x, not {list(value.shape)}.")
    if eps is not None and eps.shape != (shape[0], *shape[-3:]):
        raise ValueError(f"eps must be {[shape[0], *shape[-3:]]} to go with x, not {list(eps.shape)}.")
    if position is not None and position.device != x.device:
        position = position.to(x.device)
    if dtype not in _choice.DTYPES.get(x.device.type, ()) or not _choice.fused("noisy_input", x):
        with torch.no_grad():
            return reference(x, sigma, eps, seed, stream, position, sigma_data, dtype, c_in, ones)
    x, sigma, eps, c_in = as_float32(x, sigma, eps, c_in)
    return _forward(x, sigma, eps, seed, stream, position, sigma_data, dtype, c_in, ones)


def _forward_cpu(x, sigma, eps, seed, stream, position, sigma_data, dtype, c_in, ones):
    x_noisy, net_input = _forward_fake(x, sigma, eps, seed, stream, position, sigma_data, dtype, c_in, ones)
    images, *columns, channels, height, width = x.shape
    _native.cpu().noisy_input_forward(
        _native.code(net_input),
        x.contiguous(),
        sigma.contiguous(),
        None if c_in is None else c_in.contiguous(),
        None if eps is None else eps.contiguous(),
        x_noisy,
        net_input,
        images,
        columns[0] if columns else 1,
        channels,
        height * width,
        ones,
        sigma_data,
        seed,
        stream,
        None if position is None else position.contiguous(),
    )
    return x_noisy, net_input


def _forward_fake(x, sigma, eps, seed, stream, position, sigma_data, dtype, c_in, ones):
    *rows, channels, height, width = x.shape
    shape = math.prod(rows), channels + ones, height, width
    net_input = empty_channels_last(x, shape, dtype)
    return torch.empty_like(x, memory_format=torch.contiguous_format), net_input


_forward = _library.define(
    "noisy_input(Tensor x, Tensor sigma, Tensor? eps, int seed, int stream, Tensor? position,"
    " float sigma_data, ScalarType dtype, Tensor? c_in, bool ones) -> (Tensor x_noisy, Tensor net_input)",
    cpu=_forward_cpu,
    fake=_forward_fake,
    cuda="triton_kernels.noisy_input:forward",
)

_library.without_gradient(_forward)
