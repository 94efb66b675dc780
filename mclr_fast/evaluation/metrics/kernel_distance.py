"""Kernel distance (KID): squared maximum mean discrepancy of features under a cubic kernel."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

NUM_SUBSETS, SUBSET_SIZE = 100, 1000
SEED = 2020  # torch-fidelity's


def kernel_distance(
    generated: ArrayLike | Tensor,
    real: ArrayLike | Tensor,
    *,
    num_subsets: int = NUM_SUBSETS,
    subset_size: int = SUBSET_SIZE,
) -> tuple[float, float]:
    """Mean and population std, over random subsets of both sets, of the unbiased estimate.

    Shapes    generated: [N,D], real: [M,D]; N, M >= subset_size.     Dtypes   float64.
    Source    Binkowski et al. (arXiv 1801.01401), kernel (x.y / D + 1)^3; torch-fidelity's subsets.
    """
    generated, real = (torch.as_tensor(f).to("cpu") for f in (generated, real))
    if min(len(generated), len(real)) < subset_size:
        raise ValueError(
            f"KID draws {subset_size} images of each set, and they are {len(generated)} and {len(real)}."
        )
    rng = np.random.RandomState(SEED)
    distances = []
    for _ in range(num_subsets):
        x, y = (f[rng.choice(len(f), subset_size, replace=False)].double() for f in (generated, real))
        distances.append(_squared_mmd(x, y))
    return float(np.mean(distances)), float(np.std(distances))


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate of two sets of as many points, [n,D] each."""
    n = len(x)
    within = sum((kernel.sum() - kernel.trace()) / (n * (n - 1)) for kernel in (_kernel(x, x), _kernel(y, y)))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
