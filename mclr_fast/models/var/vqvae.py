"""VAR's multi-scale VQVAE: tokens of images, images of tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .autoencoder import CH_MULT, NORM_GROUPS, Decoder, Encoder
from .presets import PATCH_NUMS
from .quantizer import Quantizer


class VQVAE(nn.Module):
    """Encoder, multi-scale quantiser, decoder, by their published names. Source: VAR (arXiv 2404.02905).

    Args:
        vocab_size, z_channels: entries of the codebook, and their channels.
        ch: width of the convolutional networks, a multiple of 32.
        v_patch_nums: side of each scale's token map.
        quant_resi, share_quant_resi: as `Quantizer`.
        ch_mult: multiples of the width by level, each half as large as the one before: images have 2^(levels
            - 1) times the last scale's side, 16 times in published models.
        img_channels: of the images, 3 in published models.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 4096,
        z_channels: int = 32,
        ch: int = 160,
        v_patch_nums: Sequence[int] = PATCH_NUMS,
        quant_resi: float = 0.5,
        share_quant_resi: int = 4,
        ch_mult: Sequence[int] = CH_MULT,
        img_channels: int = 3,
    ):
        super().__init__()
        if ch < 1 or ch % NORM_GROUPS:
            raise ValueError(f"ch = {ch} is no multiple of {NORM_GROUPS}, of which its norms make groups.")
        if not ch_mult or min(ch_mult) < 1:
            raise ValueError(
                f"ch_mult = {list(ch_mult)} is no list of multiples: give whole numbers from 1 on."
            )
        self.encoder = Encoder(ch, z_channels, ch_mult, img_channels)
        self.decoder = Decoder(ch, z_channels, ch_mult, img_channels)
        self.quantize = Quantizer(vocab_size, z_channels, v_patch_nums, quant_resi, share_quant_resi)
        side = 2 ** (len(ch_mult) - 1) * self.quantize.patch_nums[-1]
        self.image_shape = (img_channels, side, side)
        self.quant_conv = nn.Conv2d(z_channels, z_channels, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(z_channels, z_channels, 3, padding=1)

    @property
    def quantizer(self) -> Quantizer:
        """What `VAR.generate` takes."""
        return self.quantize

    @torch.no_grad()
    def encode_tokens(self, images: Tensor) -> list[Tensor]:
        """Images float32 [B,C,H,W] in [-1, 1] -> the tokens of each scale, int64 [B, p_k^2].

        Errors    ValueError for images of another size.
        """
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"the images are {list(images.shape[1:])}, but the VQVAE's scales of "
                f"{list(self.quantize.patch_nums)} are of images {list(self.image_shape)}."
            )
        return self.quantize.encode(self.encode_features(images))

    def encode_features(self, images: Tensor) -> Tensor:
        """Images [B,C,H,W] in [-1, 1] -> what is made tokens of, [B,Cv,P,P]."""
        return self.quant_conv(self.encoder(images))

    @torch.no_grad()
    def decode_tokens(self, tokens: Sequence[Tensor]) -> Tensor:
        """The tokens of each scale, or [B,L] -> images float32 [B,C,H,W] in [-1, 1]."""
        whole = tokens if isinstance(tokens, Tensor) else torch.cat(list(tokens), dim=1)
        self.quantize.check(whole)
        return self.decode_features(self.quantize.decode(self.quantize.split(whole)))

    def decode_features(self, fhat: Tensor) -> Tensor:
        """What tokens stand for, [B,Cv,P,P] -> images float32 [B,C,H,W], clamped to [-1, 1]."""
        return self.decoder(self.post_quant_conv(fhat)).clamp(-1, 1)

    @torch.no_grad()
    def teacher_inputs(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [B,L] -> what a transformer is given beside the label, [B, L - p_0^2, z_channels]."""
        self.quantize.check(tokens)
        return self.quantize.teacher_inputs(tokens)
