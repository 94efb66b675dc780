"""New images scale by scale: keys and values are kept, and what the labels alone decide is made first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mclr_fast.sampling.autoregressive import Draw, check_kept, drawn_by, kept

from .attention import Cache
from .scales import ramp

if TYPE_CHECKING:
    from .network import VAR
    from .quantizer import Quantizer


@torch.no_grad()
def generate(
    net: VAR,
    labels: Tensor,
    quantizer: Quantizer,
    *,
    cfg: float = 0.0,
    top_k: int = 0,
    top_p: float = 0.0,
    generator: torch.Generator | None = None,
    draw: Draw | None = None,
) -> Tensor:
    """Tokens of new images.

    Shapes    labels: int64 [B]; below 0, or num_classes, is none -> int64 [B,L].
    Guidance  logits are (1+t) with the label - t without, t rising evenly from 0 at the first scale to cfg at
              the last; at cfg 0 the network is called for the labels alone.
    Cost      a call a scale: ten of B images, or of 2B with guidance. Keys and values of all tokens are kept.
    Errors    ValueError for labels that are no classes, a quantizer of other scales, or numbers out of range.

    generator: of the draws; None is torch's own. draw: another way of drawing, in its place.
    """
    if not math.isfinite(cfg):
        raise ValueError(f"cfg must be finite (0 = no guidance), not {cfg}.")
    check_kept(top_k, top_p)
    check_quantizer(net, quantizer)
    net.check_labels(labels)
    draw = drawn_by(generator) if draw is None else draw
    guided = cfg != 0
    calls = _Calls(net, torch.cat([labels, torch.full_like(labels, -1)]) if guided else labels)
    fhat, inputs, tokens = None, None, []
    for k, (begin, _) in enumerate(net.spans):
        logits = calls(k, inputs)
        if guided:
            t = cfg * ramp(k, len(net.spans))
            conditional, unconditional = logits.chunk(2)
            logits = (1 + t) * conditional - t * unconditional
        tokens.append(draw(kept(logits, top_k, top_p).softmax(-1), begin))
        if k + 1 < len(net.spans):
            features = quantizer.features(tokens[-1], k)
            fhat = features if fhat is None else fhat + features
            inputs = quantizer.next_input(fhat, k)
            inputs = torch.cat([inputs, inputs]) if guided else inputs
    return torch.cat(tokens, dim=1)


class _Calls:
    """The calls of one batch, one a scale in their order."""

    def __init__(self, net: VAR, labels: Tensor):
        self.net = net
        self.cond = net.condition(labels)
        given = net.shared_ada_lin(self.cond) if net.shared_aln else self.cond
        self.positions = net.positions()
        like = self.cond.to(net.dtype)
        self.blocks = [
            (block, block.vectors(given), Cache.empty(len(labels), net.length, block.attn, like))
            for block in net.blocks
        ]

    def __call__(self, scale: int, inputs: Tensor | None) -> Tensor:
        """A scale's inputs [B,l,Cv] (None: of the first) -> logits float32 [B,l,V]."""
        net, (begin, end) = self.net, self.net.spans[scale]
        embedded = self.cond[:, None] + net.pos_start if inputs is None else net.word_embed(inputs)
        x = embedded + self.positions[:, begin:end]
        for block, vectors, cache in self.blocks:
            x = block.compute(x, vectors, net.dtype, cache=cache)
        return net.head(net.head_nm(x, self.cond))


def check_quantizer(net: VAR, quantizer: Quantizer) -> None:
    """ValueError unless the VQVAE is one whose tokens the transformer knows."""
    for name in ("patch_nums", "vocab_size", "z_channels"):
        own, other = getattr(net, name), getattr(quantizer, name)
        if own != other:
            raise ValueError(
                f"the VQVAE does not go with the transformer: its {name} is {other}, the transformer's {own}."
            )
