"""Feature maps to tokens, scale by scale, and back: VAR's multi-scale residual quantiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .scales import checked, phi_index, spans


class Quantizer(nn.Module):
    """The codebook and the convolutions that follow it. Source: VAR (arXiv 2404.02905), algorithms 1 and 2.

    Args:
        vocab_size, z_channels: entries of the codebook, and their channels.
        v_patch_nums: side of each scale's token map, coarsest first.
        quant_resi: how much of a convolution's output counts beside its input.
        share_quant_resi: how many convolutions the scales share.
    """

    def __init__(
        self,
        vocab_size: int,
        z_channels: int,
        v_patch_nums: Sequence[int],
        quant_resi: float = 0.5,
        share_quant_resi: int = 4,
    ):
        super().__init__()
        self.patch_nums = checked(v_patch_nums)
        self.spans = spans(self.patch_nums)
        self.length = self.spans[-1][1]
        self.residual = quant_resi
        num_scales = len(self.patch_nums)
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(num_scales, vocab_size))  # training's; unused
        self.phi_index = [phi_index(k, num_scales, share_quant_resi) for k in range(num_scales)]
        convolutions = [nn.Conv2d(z_channels, z_channels, 3, padding=1) for _ in range(share_quant_resi)]
        self.quant_resi = nn.ModuleDict({"qresi_ls": nn.ModuleList(convolutions)})
        self.embedding = nn.Embedding(vocab_size, z_channels)

    @property
    def vocab_size(self) -> int:
        """Entries of the codebook."""
        return self.embedding.num_embeddings

    @property
    def z_channels(self) -> int:
        """Channels of an entry."""
        return self.embedding.embedding_dim

    @torch.no_grad()
    def encode(self, f: Tensor) -> list[Tensor]:
        """Features float32 [B,Cv,P,P] -> the tokens of each scale, int64 [B, p_k^2].

        A scale's are the entries nearest to what coarser ones left, averaged over each token's area.
        """
        rest, tokens = f, []
        for k, side in enumerate(self.patch_nums):
            z = rest if k == len(self.patch_nums) - 1 else F.interpolate(rest, (side, side), mode="area")
            tokens.append(self._nearest(z.flatten(2).transpose(1, 2)))
            rest = rest - self.features(tokens[-1], k)
        return tokens

    def features(self, tokens: Tensor, scale: int) -> Tensor:
        """What a scale's tokens [B, p_k^2] add to the features: [B,Cv,P,P]."""
        return self.features_of(self.embedding(tokens), scale)

    def features_of(self, entries: Tensor, scale: int) -> Tensor:
        """The same of the codebook's entries, or mixtures of them, [B, p_k^2, Cv]."""
        side, full = self.patch_nums[scale], self.patch_nums[-1]
        h = entries.transpose(1, 2).unflatten(2, (side, side))
        if scale < len(self.patch_nums) - 1:
            h = F.interpolate(h, (full, full), mode="bicubic")
        conv = self.quant_resi["qresi_ls"][self.phi_index[scale]]
        return h * (1 - self.residual) + conv(h) * self.residual

    def decode(self, tokens: Sequence[Tensor]) -> Tensor:
        """The tokens of each scale -> the features that they stand for, [B,Cv,P,P]."""
        return sum(self.features(each, k) for k, each in enumerate(tokens))

    def next_input(self, fhat: Tensor, scale: int) -> Tensor:
        """The features after `scale` as the next one's input [B, p^2, Cv]: the mean of each token's area."""
        side = self.patch_nums[scale + 1]
        return F.interpolate(fhat, (side, side), mode="area").flatten(2).transpose(1, 2)

    def teacher_inputs(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [B,L] -> what a transformer is given beside the label, [B, L - p_0^2, Cv]."""
        fhat, inputs = 0, []
        for k, each in enumerate(self.split(tokens)[:-1]):
            fhat = fhat + self.features(each, k)
            inputs.append(self.next_input(fhat, k))
        if not inputs:
            return self.embedding.weight.new_zeros(len(tokens), 0, self.z_channels)
        return torch.cat(inputs, dim=1)

    def split(self, tokens: Tensor) -> list[Tensor]:
        """[B,L] -> the tokens of each scale."""
        return [tokens[..., begin:end] for begin, end in self.spans]

    def check(self, tokens: Tensor) -> None:
        """ValueError unless these are tokens of whole images, [...,L], in the codebook."""
        if tokens.shape[-1] != self.length:
            raise ValueError(
                f"an image has {tokens.shape[-1]} tokens, but scales of {list(self.patch_nums)} have "
                f"{self.length}: the tokens are of another VQVAE or of images of another size."
            )
        check_range(tokens, self.vocab_size, "tokens", "the codebook's entries")

    def _nearest(self, z: Tensor) -> Tensor:
        """[B,n,Cv] -> int64 [B,n], the entry at the least squared distance."""
        codebook = self.embedding.weight
        distance = z.square().sum(-1, keepdim=True) + codebook.square().sum(-1) - 2 * z @ codebook.t()
        return distance.argmin(-1)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *arguments: object) -> None:
        """How often entries were hit is counted a scale: of a file with other scales it is not kept."""
        name = f"{prefix}ema_vocab_hit_SV"
        hits = state_dict.get(name)
        own = self.ema_vocab_hit_SV
        if hits is not None and hits.ndim == 2 and hits.shape[1] == own.shape[1] and len(hits) != len(own):
            state_dict[name] = torch.zeros_like(own)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def check_range(values: Tensor, end: int, what: str, of: str, begin: int = 0) -> None:
    """ValueError, with the first of them, unless int64 values lie in [begin, end)."""
    if values.is_floating_point():
        raise ValueError(f"{what} must be int64, not {values.dtype}.")
    outside = values[(values < begin) | (values >= end)]  # SYNC: before anything is indexed by them
    if len(outside):
        raise ValueError(f"{what} have {int(outside[0])}, and {of} are {begin} to {end - 1}.")
