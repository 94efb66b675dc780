"""Blocks of VAR's transformer: layer norms that the class modulates, attention, feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Cache, SelfAttention, linear


class AdaLN(nn.Sequential):
    """The vectors that a condition gives: Linear(silu(cond)), in float32."""

    def __init__(self, embed_dim: int, num_vectors: int):
        super().__init__(nn.SiLU(), nn.Linear(embed_dim, num_vectors * embed_dim))
        self.num_vectors = num_vectors

    def forward(self, cond: Tensor) -> Tensor:
        """[B,C] -> [B,num_vectors,C]."""
        return super().forward(cond).unflatten(1, (self.num_vectors, -1))


class FFN(nn.Module):
    """Two layers with GELU, its tanh form, between them."""

    def __init__(self, embed_dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B,l,C] -> the same shape."""
        return linear(self.fc2, F.gelu(linear(self.fc1, x), approximate="tanh"))


class Block(nn.Module):
    """x += gamma1 attn(LN(x) (1 + scale1) + shift1); x += gamma2 ffn(LN(x) (1 + scale2) + shift2).

    The layer norms have no parameters of their own. Source: VAR (arXiv 2404.02905), section 4; AdaLN: DiT
    (arXiv 2212.09748), section 3.2.

    Args:
        hidden_dim: of the feed-forward layer.
        drop_path: how often a branch is left out in training, an image.
        shared_aln: whether the six vectors are the model's, to which the block adds its own.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        norm_eps: float,
        drop_path: float,
        l2_norm: bool,
        shared_aln: bool,
    ):
        super().__init__()
        self.norm_eps = norm_eps
        self.drop_path = drop_path
        self.shared_aln = shared_aln
        if shared_aln:
            self.ada_gss = nn.Parameter(torch.randn(1, 1, 6, embed_dim) / embed_dim**0.5)
        self.attn = SelfAttention(embed_dim, num_heads, l2_norm=l2_norm)
        self.ffn = FFN(embed_dim, hidden_dim)
        if not shared_aln:
            self.ada_lin = AdaLN(embed_dim, 6)

    def vectors(self, cond: Tensor) -> Tensor:
        """cond [B,C], or the shared vectors [B,6,C] -> [B,6,C]: gamma1, gamma2, scale1, scale2, shifts."""
        return cond + self.ada_gss[0] if self.shared_aln else self.ada_lin(cond)

    def forward(self, x: Tensor, cond: Tensor, mask: Tensor, dtype: torch.dtype, rows: int = 1) -> Tensor:
        """x float32 [B,l,C], cond as `vectors` takes it -> float32 [B,l,C]; branches are computed in `dtype`.

        rows: that many elements of the batch in turn are of one image, whose branches are left out together.
        """
        return self.compute(x, self.vectors(cond), dtype, mask=mask, rows=rows)

    def compute(
        self,
        x: Tensor,
        vectors: Tensor,
        dtype: torch.dtype,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        rows: int = 1,
    ) -> Tensor:
        """The block, its vectors made; mask and cache: as `SelfAttention`."""
        gamma1, gamma2, scale1, scale2, shift1, shift2 = vectors.unsqueeze(2).unbind(1)  # [B,1,C]
        y = self.attn(modulated(x, scale1, shift1, self.norm_eps).to(dtype), mask, cache)
        x = x + self._kept(x, rows) * gamma1 * y
        y = self.ffn(modulated(x, scale2, shift2, self.norm_eps).to(dtype))
        return x + self._kept(x, rows) * gamma2 * y

    def _kept(self, x: Tensor, rows: int) -> Tensor | float:
        """What a branch is multiplied by: 1, or [B,1,1], 0 or 1 / (1 - drop_path) in training."""
        if not self.training or self.drop_path == 0:
            return 1.0
        kept = torch.rand(len(x) // rows, 1, 1, device=x.device) >= self.drop_path
        return (kept / (1 - self.drop_path)).repeat_interleave(rows, dim=0)


class HeadNorm(nn.Module):
    """The norm before the head: LN(x) (1 + scale) + shift."""

    def __init__(self, embed_dim: int, norm_eps: float):
        super().__init__()
        self.norm_eps = norm_eps
        self.ada_lin = AdaLN(embed_dim, 2)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x float32 [B,l,C], cond [B,C] -> float32 [B,l,C]."""
        scale, shift = self.ada_lin(cond).unsqueeze(2).unbind(1)
        return modulated(x, scale, shift, self.norm_eps)


def modulated(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """LN(x) (1 + scale) + shift: x float32 [B,l,C], the others [B,1,C]."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)
