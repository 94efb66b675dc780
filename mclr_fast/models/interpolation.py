"""The strength dial: networks between a base and what it was fine-tuned to, and beyond."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from .edm2.network import normalized_weights


def interpolate(base: nn.Module, tuned: nn.Module, strength: float) -> nn.Module:
    """A network of weights base + strength (tuned - base): 0 is the base, 1 the fine-tuned one, up to 2.

    Of a weight that the network normalises (EDM2's) the effective one is interpolated, which is of length 1:
    two that differ in length alone are the same to the network, so length must not say which counts for more.
    What is between them the network normalises like any weight; so that the ends are the two networks
    themselves, it is given a length between theirs. Gains, which are not normalised, are interpolated as they
    are. Buffers are the base's.

    Cost      no network calls; one more set of weights, float32.
    Errors    ValueError for a strength outside [0, 2], networks of two architectures, or whose buffers
              (EDM2's Fourier features, which training leaves alone) differ: one was not made of the other.
    """
    if not (math.isfinite(strength) and 0 <= strength <= 2):
        raise ValueError(f"strength must be in [0, 2] (0 = the base, 1 = fine-tuned), not {strength}.")
    _check_alike(base, tuned)
    made = copy.deepcopy(base)
    normalized = {id(weight) for weight in normalized_weights(made)}
    others = dict(tuned.named_parameters())
    with torch.no_grad():
        for name, weight in made.named_parameters():
            other = others[name].to(weight)
            if id(weight) in normalized:
                own, its = _length(weight), _length(other)
                weight.copy_(
                    (weight / own).lerp(other / its, strength) * own ** (1 - strength) * its**strength
                )
            else:
                weight.lerp_(other, strength)
    return made


def _length(weight: Tensor) -> Tensor:
    """Of each output channel."""
    length = torch.linalg.vector_norm(weight.flatten(1), dim=1).clamp(min=1e-12)
    return length.view(-1, *[1] * (weight.ndim - 1))


def _check_alike(base: nn.Module, tuned: nn.Module) -> None:
    shapes = [{name: tuple(t.shape) for name, t in net.state_dict().items()} for net in (base, tuned)]
    differing = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
    if differing:
        raise ValueError(
            "the base and the fine-tuned network are of two architectures: they differ first in "
            f"{differing[0][0]!r}."
        )
    own = dict(tuned.named_buffers())
    for name, buffer in base.named_buffers():
        # Published files are float16; what was trained from them may hold either.
        if buffer.is_floating_point() and not torch.allclose(
            buffer.cpu(), own[name].cpu().to(buffer.dtype), rtol=2e-3, atol=1e-3
        ):
            raise ValueError(f"the network was not fine-tuned from this base: their {name!r} differ.")
