"""Self-attention of tokens that see their own and coarser scales, with or without a key-value cache."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_SCALE = math.log(100)  # of L2-normalised attention, its logarithm
INITIAL_SCALE = math.log(4)


@dataclass
class Cache:
    """Keys and values of the tokens so far, of one block: each [B,H,L,head]; end: how many there are."""

    keys: Tensor
    values: Tensor
    end: int = 0

    @classmethod
    def empty(cls, batch: int, length: int, attention: SelfAttention, like: Tensor) -> Cache:
        """Room for `length` tokens, on like's device, in its dtype."""
        shape = (batch, attention.num_heads, length, attention.head_width)
        return cls(like.new_empty(shape), like.new_empty(shape))

    def extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of all tokens, these the last."""
        begin, self.end = self.end, self.end + k.shape[2]
        self.keys[:, :, begin : self.end] = k
        self.values[:, :, begin : self.end] = v
        return self.keys[:, :, : self.end], self.values[:, :, : self.end]


class SelfAttention(nn.Module):
    """Keys have no bias. Source: VAR (arXiv 2404.02905), section 4.

    Args:
        embed_dim, num_heads: the width and into how many heads it is cut.
        l2_norm: whether queries and keys are normalised, with a learned scale a head; else the softmax's
            scale is 0.25 / sqrt(head width).
    """

    def __init__(self, embed_dim: int, num_heads: int, *, l2_norm: bool):
        super().__init__()
        self.num_heads = num_heads
        self.head_width = embed_dim // num_heads
        self.l2_norm = l2_norm
        if l2_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, num_heads, 1, 1), INITIAL_SCALE))
        self.scale = 1.0 if l2_norm else 0.25 / math.sqrt(self.head_width)
        self.q_bias = nn.Parameter(torch.zeros(embed_dim))
        self.v_bias = nn.Parameter(torch.zeros(embed_dim))
        self.register_buffer("zero_k_bias", torch.zeros(embed_dim))
        self.mat_qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """One attention.

        Shapes    x: [B,l,C], in the dtype that is computed in; mask: [1,1,l,l], 0 or -inf; cache: of the
                  tokens before these -> [B,l,C]. Without a mask all tokens are seen.
        """
        bias = torch.cat([self.q_bias, self.zero_k_bias, self.v_bias])
        qkv = F.linear(x, self.mat_qkv.weight.to(x.dtype), bias.to(x.dtype))
        q, k, v = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # [B,H,l,head]
        if self.l2_norm:
            scale = self.scale_mul_1H11.clamp(max=MAX_SCALE).exp()
            q = (F.normalize(q.float(), dim=-1) * scale).to(x.dtype)
            k = F.normalize(k.float(), dim=-1).to(x.dtype)
        if cache is not None:
            k, v = cache.extended(k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        return linear(self.proj, y.transpose(1, 2).flatten(2))


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in x's dtype, whatever its parameters have."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
