"""Exit of a transformer's branch: back into the residual stream, gated by what the class gives."""

from torch import Tensor


def gated_add(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate y; x, y: [B,L,C], gate: [B,C]. Source: DiT, section 3.2."""
    return x + gate.unsqueeze(1) * y
