"""Inception score."""

from itertools import pairwise

import torch
from numpy.typing import ArrayLike
from torch import Tensor


def inception_score(probs: ArrayLike | Tensor, splits: int) -> tuple[float, float]:
    """exp(mean over images of KL(p(y|x) || p(y))): its mean and population std over `splits` parts.

    Shapes    probs: [N, classes], softmax outputs; part i is rows i N // splits up to
              (i+1) N // splits, so shuffle images that come sorted.       Dtypes   float64.
    Source    Salimans et al. (arXiv 1606.03498), section 4; the KL is written as the entropy of the
              mean less the mean entropy.
    """
    p = torch.as_tensor(probs).to(torch.float64)
    if not 1 <= splits <= len(p):
        raise ValueError(f"splits={splits} must lie between 1 and the {len(p)} rows of probs.")
    bounds = [i * len(p) // splits for i in range(splits + 1)]
    entropy = torch.special.entr(p).sum(dim=1)
    log_scores = [
        torch.special.entr(p[a:b].mean(dim=0)).sum() - entropy[a:b].mean() for a, b in pairwise(bounds)
    ]
    scores = torch.stack(log_scores).exp()
    return scores.mean().item(), scores.std(correction=0).item()
