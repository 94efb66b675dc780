"""New images scale by scale: keys and values are kept, and what the labels alone decide is made first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mclr_fast.sampling.autoregressive import Draw, Gumbels, check_kept, drawn_by, gumbels_by, kept

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
    Errors    ValueError for a quantizer of other scales, or numbers out of range; for labels that are no
              classes, on the CPU.

    generator: of the draws; None is torch's own. draw: another way of drawing, in its place.
    """
    draw = drawn_by(generator) if draw is None else draw
    tokens = []

    def chosen(logits: Tensor, k: int) -> Tensor:
        begin, _ = net.spans[k]
        tokens.append(draw(kept(logits, top_k, top_p).softmax(-1), begin))
        return quantizer.embedding(tokens[-1])

    _features(net, labels, quantizer, cfg, top_k, top_p, chosen)
    return torch.cat(tokens, dim=1)


@torch.no_grad()
def generate_smooth(
    net: VAR,
    labels: Tensor,
    quantizer: Quantizer,
    *,
    cfg: float = 0.0,
    top_k: int = 0,
    top_p: float = 0.0,
    generator: torch.Generator | None = None,
    gumbels: Gumbels | None = None,
) -> Tensor:
    """Features of new images whose tokens are mixtures of codebook entries: VAR's `more_smooth`.

    A scale's mixtures are softmax(((1+r) logits + Gumbel noise) / max(0.27 (1 - 0.95 r), 0.005)), with r
    rising evenly from 0 at the first scale to 1 at the last.

    Shapes    labels: as `generate` -> float32 [B,Cv,P,P], what the VQVAE decodes.
    Cost      as `generate`; noise for every entry of the vocabulary at every token.
    gumbels: another way of drawing, in the generator's place. The rest as `generate`.
    """
    gumbels = gumbels_by(generator) if gumbels is None else gumbels

    def chosen(logits: Tensor, k: int) -> Tensor:
        r, (begin, _) = ramp(k, len(net.spans)), net.spans[k]
        logits = kept(logits, top_k, top_p)
        mixture = ((1 + r) * logits + gumbels(logits, begin)) / max(0.27 * (1 - 0.95 * r), 0.005)
        return mixture.softmax(-1) @ quantizer.embedding.weight

    return _features(net, labels, quantizer, cfg, top_k, top_p, chosen)


def _features(
    net: VAR,
    labels: Tensor,
    quantizer: Quantizer,
    cfg: float,
    top_k: int,
    top_p: float,
    chosen: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """The features [B,Cv,P,P] that all scales add up to.

    chosen: a scale's logits [B,l,V], and which scale -> the entries that are its tokens, [B,l,Cv].
    """
    if not math.isfinite(cfg):
        raise ValueError(f"cfg must be finite (0 = no guidance), not {cfg}.")
    check_kept(top_k, top_p)
    check_quantizer(net, quantizer)
    if labels.device.type == "cpu":  # elsewhere it would wait for the device
        net.check_labels(labels)
    guided = cfg != 0
    calls = _Calls(net, torch.cat([labels, torch.full_like(labels, -1)]) if guided else labels)
    fhat, inputs = None, None
    with cast_weights(net):
        for k in range(len(net.spans)):
            logits = calls(k, inputs)
            if guided:
                t = cfg * ramp(k, len(net.spans))
                conditional, unconditional = logits.chunk(2)
                logits = (1 + t) * conditional - t * unconditional
            features = quantizer.features_of(chosen(logits, k), k)
            fhat = features if fhat is None else fhat + features
            if k + 1 < len(net.spans):
                inputs = quantizer.next_input(fhat, k)
                inputs = torch.cat([inputs, inputs]) if guided else inputs
    return fhat


@contextmanager
def cast_weights(net: VAR) -> Iterator[None]:
    """Inside, the blocks' layers have weights in the dtype that they compute in, cast once for all calls."""
    layers = [each for b in net.blocks for each in (b.attn.mat_qkv, b.attn.proj, b.ffn.fc1, b.ffn.fc2)]
    own = [dict(layer._parameters) for layer in layers]
    for layer, parameters in zip(layers, own, strict=True):
        cast = {name: p if p is None else p.detach().to(net.dtype) for name, p in parameters.items()}
        layer._parameters.update({n: p if p is None else nn.Parameter(p, False) for n, p in cast.items()})
    try:
        yield
    finally:
        for layer, parameters in zip(layers, own, strict=True):
            layer._parameters.update(parameters)


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
        return net.head(net.head_nm(x, self.cond, torch.float32))


def check_quantizer(net: VAR, quantizer: Quantizer) -> None:
    """ValueError unless the VQVAE is one whose tokens the transformer knows."""
    for name in ("patch_nums", "vocab_size", "z_channels"):
        own, other = getattr(net, name), getattr(quantizer, name)
        if own != other:
            raise ValueError(
                f"the VQVAE does not go with the transformer: its {name} is {other}, the transformer's {own}."
            )
