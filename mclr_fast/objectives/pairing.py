"""Contrastive tuples from a minibatch (section E.2); Approach 1 is Approach 2 with K = 1."""

from __future__ import annotations

import torch
from torch import Tensor


class OneClassError(ValueError):
    """A minibatch whose images have no negatives, since all are of one class."""


def pair_labels(
    labels: Tensor,
    num_negatives: int,
    *,
    include_own: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Positions of K negatives for every image of the minibatch.

    Shapes    labels: int64 [N] -> index int64 [N,K]; labels[index] are the wrong labels, and the
              images at index are those of Algorithm 2.
    Draws     uniform with replacement among positions j with labels[j] != labels[i] (Algorithm 1);
              among all positions with include_own, so that c~ ~ p(c) as Theorems 1 and 3 assume.
    Errors    ValueError when num_negatives < 1; OneClassError when no image has a negative.
    Source    section E.2; Algorithms 1 and 2.
    """
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, not {num_negatives}.")
    allowed = labels[:, None] != labels
    if include_own:
        allowed = torch.ones_like(allowed)
    if not bool(allowed.any(dim=1).all()):
        num_distinct = len(labels.unique())
        raise OneClassError(
            f"labels has {num_distinct} distinct class in this minibatch of {len(labels)}; MCLR "
            "needs at least 2: raise the batch size or shuffle the data."
        )
    return torch.multinomial(allowed.float(), num_negatives, replacement=True, generator=generator)
