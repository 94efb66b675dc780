"""x + sigma eps, with eps drawn by Philox."""

from torch import Tensor

from .philox import random_normal


def noisy_input(x: Tensor, sigma: Tensor, seed: int, stream: int, position: Tensor) -> Tensor:
    """The noisy images of a step.

    Shapes    x: [N,C,H,W] or [N,R,C,H,W] (a row's images then share sigma and eps); sigma: [N];
              position: int64 [N], each sample's place in the run -> x's shape.
    Dtypes    float32.
    Source    Algorithms 1 and 2, with eps ~ N(0, I) keyed by (seed, stream, position).
    """
    num_elements = x.shape[-3:].numel()
    eps = random_normal(seed, stream, position, num_elements).view(len(x), *x.shape[-3:])
    noise = sigma.view(-1, 1, 1, 1) * eps
    return x + (noise if x.ndim == 4 else noise[:, None])
