"""Improved precision and recall: the share of each set that lies on the other's manifold."""

from collections.abc import Iterator

import torch
from numpy.typing import ArrayLike
from torch import Tensor

_CHUNK_ELEMENTS = 2**25  # distances held at a time (256 MiB)
_BLOCK_ELEMENTS = 2**23  # of the columns' features, made float64 at a time (64 MiB)


def precision_recall(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, k: int) -> tuple[float, float]:
    """Share of generated images on the real manifold, and of real images on the generated one.

    Shapes    real: [N,D], generated: [M,D], features; on one device, which does the work.
    Cost      2 (N + M)^2 D float64 operations at most; never more than 2^25 distances are stored, and of
              the features no float64 copy but of some 2^24 elements.
    Source    Kynkaanniemi et al. (arXiv 1904.06991), eq. 1-2.
    """
    real, generated = torch.as_tensor(real), torch.as_tensor(generated)
    precision = on_manifold(generated, real, neighbour_radii(real, k))
    recall = on_manifold(real, generated, neighbour_radii(generated, k))
    return precision.double().mean().item(), recall.double().mean().item()


def neighbour_radii(points: Tensor, k: int) -> Tensor:
    """Distance of every point to its k-th nearest other point.   points: [N,D] -> [N], float64."""
    if not 1 <= k < len(points):
        raise ValueError(f"k={k} must lie between 1 and {len(points) - 1}, the other points.")
    # Each point is itself the first of its own neighbours.
    chunks = _distance_chunks(points, points)
    return torch.cat([chunk.kthvalue(k + 1, dim=1).values for chunk in chunks])


def on_manifold(queries: Tensor, points: Tensor, radii: Tensor) -> Tensor:
    """Whether a query lies within the radius of some point.

    Shapes    queries: [M,D], points: [N,D], radii: [N] -> bool [M].
    """
    chunks = _distance_chunks(queries, points)
    return torch.cat([(chunk <= radii).any(dim=1) for chunk in chunks])


def _distance_chunks(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    # A common origin amid the points keeps the matrix-product form of the distance accurate.
    blocks = columns.split(max(1, _BLOCK_ELEMENTS // columns.shape[1]))
    origin = sum(block.double().sum(dim=0) for block in blocks) / len(columns)
    for chunk in rows.split(max(1, _CHUNK_ELEMENTS // len(columns))):
        chunk = chunk.double() - origin
        distances = torch.empty(len(chunk), len(columns), dtype=torch.float64, device=chunk.device)
        for block, part in zip(blocks, distances.split([len(b) for b in blocks], dim=1), strict=True):
            part.copy_(torch.cdist(chunk, block.double() - origin))
        yield distances
