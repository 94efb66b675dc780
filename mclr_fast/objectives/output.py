"""What every objective returns."""

from typing import NamedTuple

from torch import Tensor


class ObjectiveOutput(NamedTuple):
    """loss_N: [N], already averaged over k, with gradient; terms: detached [N] tensors for the log."""

    loss_N: Tensor
    terms: dict[str, Tensor]
