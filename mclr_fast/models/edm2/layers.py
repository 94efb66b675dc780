"""Layers of the EDM2 network: magnitude-preserving convolution, Fourier features, the block."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mclr_fast import ops

from .attention import attention
from .convolution import convolution
from .resample import conv_of_doubled


class DropoutKey(NamedTuple):
    """What keys the dropout masks: the run's seed and each evaluation's sample position, int64 [B]."""

    seed: int
    position: Tensor


class MPConv(nn.Module):
    """Magnitude-preserving convolution, or linear layer for `kernel=()`. Source: EDM2, eq. 47."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, ...]):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *kernel))
        self.held: Tensor | None = None  # the effective weight, while `EffectiveWeights` holds it

    def effective(self, gain: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The weight that the layer computes with: normalised, scaled, cast, channels_last."""
        if self.held is not None:
            return self.held
        return ops.weight_norm_scale([self.weight], [gain], [dtype])[0]

    def forward(self, x: Tensor, gain: Tensor | None = None, *, doubled: bool = False) -> Tensor:
        """x: [B, in, H, W] or [B, in]; gain: [1] or None = 1 -> [B, out, ...], in x's dtype.

        doubled: of x with twice the height and width, by a 3x3 kernel.
        """
        weight = self.effective(gain, x.dtype)
        if weight.ndim == 2:
            return x @ weight.t()
        if doubled:
            return conv_of_doubled(x, weight)
        return convolution(x, weight)


class MPFourier(nn.Module):
    """Fixed random Fourier features of a scalar, [B] -> [B, num_channels]. Source: EDM2, eq. 75."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.register_buffer("freqs", 2 * torch.pi * torch.randn(num_channels))
        self.register_buffer("phases", 2 * torch.pi * torch.rand(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B] -> float32 [B, num_channels]."""
        return ops.mp_fourier(x, self.freqs, self.phases)


class Block(nn.Module):
    """Encoder or decoder block. Source: EDM2, Figure 21.

    Args:
        in_channels, out_channels, emb_channels: widths of input, output and embedding.
        decoder: False = encoder (pixel norm at the entry, conv_skip before it).
        resample: "keep", "up" (nearest neighbour) or "down" (2x2 mean).
        activates: whether the next block starts with mp_silu of this one's output.
        attention: cosine self-attention at the exit, if the width gives at least one head.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        *,
        decoder: bool,
        resample: str = "keep",
        activates: bool = False,
        attention: bool = False,
        channels_per_head: int = 64,
        dropout: float = 0.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float | None = 256,
    ):
        super().__init__()
        self.decoder = decoder
        self.resample = resample
        self.activates = activates
        self.num_heads = out_channels // channels_per_head if attention else 0
        self.dropout = dropout
        self.res_balance = res_balance
        self.attn_balance = attn_balance
        self.clip_act = clip_act
        self.emb_gain = nn.Parameter(torch.zeros(1))
        self.conv_res0 = MPConv(in_channels if decoder else out_channels, out_channels, (3, 3))
        self.emb_linear = MPConv(emb_channels, out_channels, ())
        self.conv_res1 = MPConv(out_channels, out_channels, (3, 3))
        if in_channels != out_channels:
            self.conv_skip = MPConv(in_channels, out_channels, (1, 1))
        else:
            self.conv_skip = None
        if self.num_heads > 0:
            self.attn_qkv = MPConv(out_channels, 3 * out_channels, (1, 1))
            self.attn_proj = MPConv(out_channels, out_channels, (1, 1))

    def forward(
        self,
        x: Tensor,
        emb: Tensor,
        *,
        activated: Tensor | None = None,
        skip: Tensor | None = None,
        concat_balance: float = 0.5,
        dropout_key: tuple[int, int, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One block.

        Shapes    x: [B,Cin,H,W], or [N,Cin,H,W] with B = N R, shared by the R labels of an image; emb:
                  float32 [B,E] or [1,E]; activated: mp_silu(x), which a decoder block without a skip
                  starts from; skip: [B,Cskip,H,W] or [N,Cskip,H,W], concatenated first (then conv_res0
                  and conv_skip see Cin + Cskip channels) -> [B,Cout,H',W'], and mp_silu of it if
                  `activates`. What comes before the embedding runs once for the rows that x has.
        """
        if not self.decoder:
            x, y = self._enter_encoder(x)
        elif skip is not None:
            x, y = ops.mp_cat_silu(x, skip, concat_balance)
        else:
            x, y = (ops.double_pixels(x) if self.resample == "up" else x), activated
        y = self.conv_res0(y, doubled=self.resample == "up")
        dropout = self.dropout if self.training or dropout_key is not None else 0.0
        y = ops.modulate_silu(y, self.emb_linear(emb, self.emb_gain), dropout, dropout_key)
        y = self.conv_res1(y)

        if self.decoder and self.conv_skip is not None:
            x = self.conv_skip(x)
        if self.num_heads > 0:
            x = ops.mp_sum_clip(x, y, self.res_balance)
            return self._leave(x, self._attend(x), self.attn_balance)
        return self._leave(x, y, self.res_balance)

    def _enter_encoder(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.resample == "down":
            x = ops.halve_pixels(x)
        if self.conv_skip is not None:
            x = self.conv_skip(x)
        return ops.pixel_norm_silu(x)

    def _leave(self, x: Tensor, y: Tensor, balance: float) -> tuple[Tensor, Tensor | None]:
        if self.activates:
            return ops.mp_sum_clip_silu(x, y, balance, self.clip_act)
        return ops.mp_sum_clip(x, y, balance, self.clip_act), None

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = ops.qkv_norm(self.attn_qkv(x), self.num_heads)
        y = attention(q, k, v)
        y = y.transpose(1, 2).reshape(len(x), *x.shape[2:], x.shape[1])  # [B,H,W,C]: channels_last as it lies
        return self.attn_proj(y.permute(0, 3, 1, 2))
