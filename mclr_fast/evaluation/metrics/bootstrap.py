"""Confidence interval for a difference of Frechet distances."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .frechet import feature_statistics, frechet_distance


def bootstrap_frechet_difference(
    features_a: ArrayLike | Tensor,
    features_b: ArrayLike | Tensor,
    mu_ref: ArrayLike | Tensor,
    sigma_ref: ArrayLike | Tensor,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """FD(a) - FD(b) against one reference, with the ends of its 95% percentile interval.

    Shapes    features_a, features_b: [N,D]; mu_ref: [D]; sigma_ref: [D,D].    Dtypes   float64.
    Cost      num_resamples times two covariances and two D x D decompositions: for small D.
    Source    Efron and Tibshirani (1993), chapter 13.

    The bootstrap is paired: row i of both sets was sampled from the same seed, and one draw of row
    indices resamples both. The reference is taken as exact. Resampling repeats rows, which adds to
    FD's small-sample bias: unless D is small against N, the interval leans towards the set with the
    larger covariance being worse still.
    """
    a, b = (torch.as_tensor(f).to("cpu", torch.float64) for f in (features_a, features_b))
    if a.shape != b.shape:
        raise ValueError(
            f"features_a {list(a.shape)} and features_b {list(b.shape)} must pair up row by row: "
            "sample both from the same seeds."
        )

    def difference(rows: Tensor | slice) -> float:
        fd_a, fd_b = (frechet_distance(*feature_statistics(f[rows]), mu_ref, sigma_ref) for f in (a, b))
        return fd_a - fd_b

    rng = np.random.default_rng(seed)
    draws = (torch.from_numpy(rng.integers(len(a), size=len(a))) for _ in range(num_resamples))
    low, high = np.percentile([difference(rows) for rows in draws], [2.5, 97.5])
    return difference(slice(None)), float(low), float(high)
