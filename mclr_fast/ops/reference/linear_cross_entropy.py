"""-log p of each token under a language head, with all logits stored."""

import torch
from torch import Tensor
from torch.nn import functional


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None
) -> Tensor:
    """-log softmax(hidden weight^T + bias)[target]; logits in hidden's dtype, else float32 or wider."""
    logits = functional.linear(
        hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
    )
    log_p = logits.to(torch.promote_types(hidden.dtype, torch.float32)).log_softmax(-1)
    return -log_p.gather(-1, targets[..., None])[..., 0]
