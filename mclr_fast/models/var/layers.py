"""Blocks of VAR's transformer: layer norms that the class modulates, attention, feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mclr_fast import ops

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
        shared_aln: whether the six vectors are the model's, to which the block adds its own.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        norm_eps: float,
        l2_norm: bool,
        shared_aln: bool,
    ):
        super().__init__()
        self.norm_eps = norm_eps
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

    def forward(
        self, x: Tensor, cond: Tensor, mask: Tensor, dtype: torch.dtype, kept: Tensor | None = None
    ) -> Tensor:
        """x float32 [B,l,C], cond as `vectors` takes it -> float32 [B,l,C]; branches are computed in `dtype`.

        kept: [B,2], what the branches are multiplied by: 0 leaves one out.
        """
        vectors = self.vectors(cond)
        if kept is not None:
            vectors = torch.cat([vectors[:, :2] * kept.unsqueeze(2), vectors[:, 2:]], dim=1)
        return self.compute(x, vectors, dtype, mask=mask)

    def compute(
        self,
        x: Tensor,
        vectors: Tensor,
        dtype: torch.dtype,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The block, its vectors made; mask and cache: as `SelfAttention`."""
        gamma1, gamma2, scale1, scale2, shift1, shift2 = vectors.movedim(1, 0).contiguous().unbind()  # [B,C]
        y = self.attn(ops.modulate_layer_norm(x, scale1, shift1, self.norm_eps, dtype), mask, cache)
        x = ops.gated_add(x, y, gamma1)
        y = self.ffn(ops.modulate_layer_norm(x, scale2, shift2, self.norm_eps, dtype))
        return ops.gated_add(x, y, gamma2)


class HeadNorm(nn.Module):
    """The norm before the head: LN(x) (1 + scale) + shift."""

    def __init__(self, embed_dim: int, norm_eps: float):
        super().__init__()
        self.norm_eps = norm_eps
        self.ada_lin = AdaLN(embed_dim, 2)

    def forward(self, x: Tensor, cond: Tensor, dtype: torch.dtype) -> Tensor:
        """x float32 [B,l,C], cond [B,C] -> [B,l,C] of `dtype`."""
        scale, shift = self.ada_lin(cond).unbind(1)
        return ops.modulate_layer_norm(x, scale, shift, self.norm_eps, dtype)
