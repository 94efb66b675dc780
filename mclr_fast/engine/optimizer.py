"""Adam with weight averages and forced weight normalisation, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mclr_fast import ops

from .distributed import local
from .ema import ParameterEMA

EPS = 1e-8


class AdamNormEMA:
    """One step = Adam, then the averages of its result, then forced weight normalisation (EDM2).

    Each rank updates its part of what is sharded: by output channels, so every filter's norm is its own.
    """

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        ema: ParameterEMA,
        normalized: list[nn.Parameter],
        betas: tuple[float, float],
    ):
        """params: the trained ones by name; ema: tracks exactly these; normalized: MPConv weights."""
        self.params = dict(params)
        self.ema = ema
        forced = set(map(id, normalized))
        self.normalized = [id(p) in forced for p in self.params.values()]
        self.betas = betas
        self.num_steps = 0
        self.exp_avg = {name: torch.zeros_like(p) for name, p in self.params.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p) for name, p in self.params.items()}

    def step(self, lr: float, images_seen: int, batch_size: int) -> None:
        """Apply the gradients; images_seen counts the step being made. Clears the gradients."""
        self.num_steps += 1
        decays = self.ema.decays(images_seen, batch_size)
        averages = [_locals(average.values()) for average in self.ema.weights().values()]
        params = self.params.values()
        ops.adam_norm_ema_(
            _locals(params),
            _locals(p.grad for p in params),
            _locals(self.exp_avg.values()),
            _locals(self.exp_avg_sq.values()),
            list(zip(averages, decays, strict=True)),
            self.normalized,
            step=self.num_steps,
            lr=lr,
            betas=self.betas,
            eps=EPS,
        )
        for p in params:
            p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Moments by "exp_avg/name" and "exp_avg_sq/name", and num_steps, as tensors (no copies)."""
        state = {f"exp_avg/{name}": value for name, value in self.exp_avg.items()}
        state |= {f"exp_avg_sq/{name}": value for name, value in self.exp_avg_sq.items()}
        return state | {"num_steps": torch.tensor(self.num_steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy in what `state_dict` gave for the same parameters."""
        for name, value in self.state_dict().items():
            if name != "num_steps":
                value.copy_(state[name])
        self.num_steps = int(state["num_steps"])


def _locals(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [local(tensor) for tensor in tensors]
