"""One random stream per sample: a sample depends on its seed, never on how seeds are batched."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def seeded_noise(
    seeds: Iterable[int], shape: Sequence[int], *, device: torch.device | str = "cpu"
) -> tuple[Tensor, Callable[[int], Tensor], Callable[[Tensor], Tensor]]:
    """Start noise for `seeds`, and the two draws that may follow it from the same streams.

    Shapes    shape: one sample's, [C,H,W], or the batch's, [N,C,H,W] -> noise [N,C,H,W].
    Dtypes    float32.
    Returns   noise; label_draw(label_dim) -> int64 [N], one uniform class per sample;
              randn_like(x [N,...]) -> x's shape and dtype, for churn noise.

    Sample i's generator is seeded with seeds[i] mod 2^32 and lives on `device`: CUDA streams differ
    from CPU ones. The draws are those of EDM2's generator when made in its order: noise, labels,
    churn.
    """
    generators = [torch.Generator(device).manual_seed(int(seed) % 2**32) for seed in seeds]
    if not generators:
        raise ValueError("seeds is empty: give at least one seed.")
    if len(shape) == 4:
        if shape[0] != len(generators):
            raise ValueError(
                f"shape {list(shape)} is of {shape[0]} samples, but there are {len(generators)} seeds."
            )
        shape = shape[1:]

    def randn(sample_shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        options = {"dtype": dtype, "device": device}
        return torch.stack([torch.randn(sample_shape, generator=g, **options) for g in generators])

    def label_draw(label_dim: int) -> Tensor:
        draws = [torch.randint(label_dim, (), generator=g, device=device) for g in generators]
        return torch.stack(draws)

    def randn_like(x: Tensor) -> Tensor:
        if x.shape[0] != len(generators):
            raise ValueError(f"x has {x.shape[0]} samples, but there are {len(generators)} seeds.")
        return randn(x.shape[1:], x.dtype)

    return randn(shape, torch.float32), label_draw, randn_like


def seeded_labels(seeds: Sequence[int], shape: Sequence[int], label_dim: int) -> Tensor:
    """The class that `seeded_noise`'s streams give each seed, after a sample's noise: int64 [n].

    shape: one sample's. Noise is drawn for it, some 0.1 ms a seed, and not kept.
    """
    draws = [seeded_noise([seed], shape)[1](label_dim) for seed in seeds]
    return torch.cat(draws) if draws else torch.empty(0, dtype=torch.int64)
