"""Tokens drawn from logits: which are kept, how one is drawn, and the sampler of networks that do so."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from mclr_fast import ops

from .sampler import CapturedSampler

Draw = Callable[[Tensor, int], Tensor]
"""(probabilities float32 [b,l,V], number of tokens drawn before) -> tokens int64 [b,l]."""
Gumbels = Callable[[Tensor, int], Tensor]
"""(kept logits float32 [b,l,V], number of tokens drawn before) -> Gumbel noise float32 [b,l,V]."""
KEY_NUMBERS = 2  # of a sample's stream, which key its Gumbel noise
KEY_BITS, TOKEN_BITS = 24, 14  # of each of them, and of a token's place
GUMBEL_STREAM = 1 << 17  # of Philox; runs' streams lie below


def kept(logits: Tensor, top_k: int = 0, top_p: float = 0.0) -> Tensor:
    """Logits [...,V], with -inf in place of those that are not to be drawn.

    top_k: those below the k-th largest go, ties with it stay; then top_p: of the rest, sorted upwards, those
    go whose probabilities add up to at most 1 - top_p, but for the largest. 0 switches either off.
    """
    if top_k > 0:
        least = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p > 0:
        upwards, order = logits.sort(dim=-1)
        dropped = upwards.softmax(-1).cumsum(-1) <= 1 - top_p
        dropped[..., -1:].fill_(False)  # set to a number, it would be copied from the host
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)
    return logits


def check_kept(top_k: int, top_p: float) -> None:
    """ValueError for a number that `kept` does not take."""
    if top_k < 0:
        raise ValueError(f"top_k must be at least 0 (0 = off), not {top_k}.")
    if not 0 <= top_p <= 1:
        raise ValueError(f"top_p must be in [0, 1] (0 = off), not {top_p}.")


def drawn_by(generator: torch.Generator | None) -> Draw:
    """One generator's multinomial draws, a scale's all at once: what VAR's own code draws; None: torch's."""

    def draw(probabilities: Tensor, _: int) -> Tensor:
        flat = probabilities.flatten(0, 1)
        return torch.multinomial(flat, 1, replacement=True, generator=generator).view(probabilities.shape[:2])

    return draw


def drawn_at(uniforms: Tensor) -> Draw:
    """Draws at uniforms in [0, 1), float32 [b,L]: the token in whose share of the probabilities each lies."""

    def draw(probabilities: Tensor, begin: int) -> Tensor:
        ends = probabilities.double().cumsum(-1)
        own = uniforms[:, begin : begin + probabilities.shape[1], None].double()
        return torch.searchsorted(ends, own * ends[..., -1:], right=True).squeeze(-1)

    return draw


def gumbels_by(generator: torch.Generator | None) -> Gumbels:
    """One generator's noise, after its draw of tokens, which VAR's own code makes too; None: torch's."""
    draw = drawn_by(generator)

    def gumbels(logits: Tensor, begin: int) -> Tensor:
        draw(logits.softmax(-1), begin)
        return -torch.empty_like(logits).exponential_(generator=generator).log()

    return gumbels


def gumbels_at(keys: Tensor) -> Gumbels:
    """Noise of a stream a sample, keyed by uniforms in [0, 1), float32 [b,2]; made where the logits are."""
    words = (keys.double() * 2**KEY_BITS).long()
    sample = words[:, :1] << KEY_BITS | words[:, 1:]

    def gumbels(logits: Tensor, begin: int) -> Tensor:
        tokens = torch.arange(begin, begin + logits.shape[1], device=logits.device)
        position = sample << TOKEN_BITS | tokens
        uniform = ops.random_uniform(0, GUMBEL_STREAM, position.flatten(), logits.shape[2])
        return -(-uniform.log()).log().view(logits.shape)

    return gumbels


class Generator(Protocol):
    """A network that makes images token by token."""

    def __call__(
        self, labels: Tensor, uniforms: Tensor, *, guidance: float, top_k: int, top_p: float
    ) -> Tensor:
        """Labels int64 [b], and each sample's own numbers, float32 [b,n] -> tokens int64 [b,L], or x."""
        ...


@dataclass(frozen=True)
class AutoregressiveSampler(CapturedSampler):
    """Images drawn token by token, with one set of options; a `sampler.Sampler`.

    Args:
        generate: the network; num_uniforms: that a sample's draws take; calls: of the network that an
            unguided image takes.
        device: where images are made.
        top_k, top_p: as `kept`.
        guidance: its strength, 0 = none.
        hold: a context in which what does not change between calls is made once, and stays where it is.
        cuda_graphs: whether, on a GPU, a call is one CUDA graph: the network may not wait for the host.
    """

    generate: Generator
    num_uniforms: int
    calls: int
    device: torch.device
    top_k: int = 0
    top_p: float = 0.0
    guidance: float = 0.0
    hold: Callable[[], AbstractContextManager[None]] = nullcontext
    cuda_graphs: bool = True

    unguided: ClassVar[float] = 0.0

    @property
    def nfe(self) -> int:
        """A call a scale, and as many without the label where it is guided."""
        return self.calls if self.guidance == self.unguided else 2 * self.calls

    @property
    def captures(self) -> bool:
        """As `CapturedSampler.captures`."""
        return self.cuda_graphs

    def start(self, seeds: Sequence[int]) -> Tensor:
        """As `Sampler.start`: uniforms in [0, 1), float32 [b,num_uniforms], drawn on the CPU."""
        generators = [torch.Generator().manual_seed(int(seed) % 2**32) for seed in seeds]
        return torch.stack([torch.rand(self.num_uniforms, generator=g) for g in generators]).to(self.device)

    def _sample(self, start: Tensor, labels: Tensor) -> Tensor:
        """As `CapturedSampler._sample`: `start` has all numbers that it takes."""
        options = {"guidance": self.guidance, "top_k": self.top_k, "top_p": self.top_p}
        return self.generate(labels, start, **options)
