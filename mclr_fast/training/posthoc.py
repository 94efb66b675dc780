"""Averages that were never kept, as combinations of those that were: EDM2's post-hoc synthesis.

Profiles are p(t) proportional to t^g on (0, T] (EDM2, eq. 121); times are in images, results float64.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .averages import std_to_exponent


def response_profile(t: ArrayLike, t_end: ArrayLike, std: ArrayLike) -> NDArray[np.float64]:
    """Weight that an average taken at `t_end` gives to each time of the grid `t`.

    Shapes    t: [G]; t_end, std: [P] -> [G,P], each column summing to 1.
    Source    EDM2 (arXiv 2312.02696), eq. 121.
    """
    ratio = np.asarray(t, dtype=np.float64)[:, None] / np.asarray(t_end, dtype=np.float64)
    profile = np.where(ratio <= 1, np.minimum(ratio, 1) ** std_to_exponent(std), 0)
    return profile / profile.sum(axis=0)


def profile_inner_product(
    t_a: ArrayLike, std_a: ArrayLike, t_b: ArrayLike, std_b: ArrayLike
) -> NDArray[np.float64]:
    """Integral of p_a(t) p_b(t), the normalised profiles of averages taken at t_a and t_b.

    Source    EDM2 (arXiv 2312.02696), eq. 151, algorithm 3.
    """
    t_a, t_b = np.asarray(t_a, dtype=np.float64), np.asarray(t_b, dtype=np.float64)
    g_a, g_b = std_to_exponent(std_a), std_to_exponent(std_b)
    t_min, t_max = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
    overlap = (t_min / t_max) ** np.where(t_a > t_b, g_a, g_b)
    return (g_a + 1) * (g_b + 1) * overlap / ((g_a + g_b + 1) * t_max)


def posthoc_coefficients(
    in_times: ArrayLike, in_stds: ArrayLike, out_times: ArrayLike, out_stds: ArrayLike
) -> NDArray[np.float64]:
    """Coefficients of stored averages in the least-squares synthesis of averages never kept.

    Shapes    in_times, in_stds: [I]; out_times, out_stds: [O] or scalar -> [I,O].
    Source    EDM2 (arXiv 2312.02696), algorithm 3: A X = B, A and B being profile inner products;
              then each column is scaled to sum 1.
    """
    t_in, std_in = (np.atleast_1d(np.asarray(a, np.float64)) for a in (in_times, in_stds))
    t_out, std_out = np.broadcast_arrays(np.atleast_1d(out_times), np.atleast_1d(out_stds))
    if np.any(t_in <= 0) or np.any(t_out <= 0):
        raise ValueError("a time is 0 or less: a snapshot taken before training is no average.")
    gram = profile_inner_product(t_in[:, None], std_in[:, None], t_in, std_in)
    target = profile_inner_product(t_in[:, None], std_in[:, None], t_out, std_out)
    coefficients = np.linalg.solve(gram, target)
    return coefficients / coefficients.sum(axis=0)


def posthoc_error(
    in_times: ArrayLike, in_stds: ArrayLike, out_time: float, out_std: float, coefficients: ArrayLike
) -> float:
    """|sum of coefficient times stored profile - wanted profile| / |wanted profile|, in the L2 norm.

    Shapes    in_times, in_stds, coefficients: [I].
    """
    t_in, std_in, c = (np.asarray(a, np.float64) for a in (in_times, in_stds, coefficients))
    gram = profile_inner_product(t_in[:, None], std_in[:, None], t_in, std_in)
    target = profile_inner_product(t_in, std_in, out_time, out_std)
    wanted = profile_inner_product(out_time, out_std, out_time, out_std)
    return float(np.sqrt(max(wanted - 2 * c @ target + c @ gram @ c, 0) / wanted))
