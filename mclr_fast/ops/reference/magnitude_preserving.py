"""EDM2's magnitude-preserving primitives (arXiv 2312.02696), as formulas."""

import math

import torch
from torch import Tensor

EPS = 1e-4


def normalize(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """x / (1e-4 + rms(x)), the norm in float32 or wider.

    Shapes    x: any -> same; rms over `dim` (default: all dimensions but the first).
    Dtypes    any floating -> same.
    Source    EDM2, eq. 47 and 66 (weights), pixel norm (activations, dim=1).
    """
    if dim is None:
        dim = tuple(range(1, x.ndim))
    norm_dtype = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=norm_dtype)
    scale = EPS + norm * math.sqrt(norm.numel() / max(x.numel(), 1))
    return x / scale.to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596. Source: EDM2, eq. 81."""
    return torch.nn.functional.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """((1-t) a + t b) / sqrt((1-t)^2 + t^2). Source: EDM2, eq. 88."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """Concatenation along channels that keeps both parts' share of the magnitude.

    Shapes    a: [B,Na,...], b: [B,Nb,...] -> [B,Na+Nb,...].
    Source    EDM2, eq. 103.
    """
    num_a, num_b = a.shape[1], b.shape[1]
    scale = math.sqrt((num_a + num_b) / ((1 - t) ** 2 + t**2))
    scale_a, scale_b = scale * (1 - t) / math.sqrt(num_a), scale * t / math.sqrt(num_b)
    return torch.cat([a * scale_a, b * scale_b], dim=1)


def mp_fourier(x: Tensor, freqs: Tensor, phases: Tensor) -> Tensor:
    """sqrt(2) cos(x freqs + phases) in float32; x: [B] -> [B, len(freqs)]. Source: EDM2, eq. 75."""
    angle = x.float().ger(freqs.float()) + phases.float()
    return angle.cos() * math.sqrt(2)
