"""Adam with weight averages and forced weight normalisation, and its state as named tensors."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from mclr_fast import ops
from mclr_fast.runtime.errors import RunError
from mclr_fast.runtime.process.ranks import local

from .averages import ParameterEMA, PlainEMA

EPS = 1e-8


class AdamWithAverages(ABC):
    """One step = Adam, then the averages of its result, then forced weight normalisation (EDM2).

    Subclasses say who computes it. The state is the same for all of them. Each rank updates its part of what
    is sharded: by output channels, so every filter's norm is its own.
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

    @abstractmethod
    def _prepared(self, lr: float, images_seen: int, batch_size: int, step: int) -> Callable[[], None]:
        """What applies the gradients as step `step`, counted from 1."""

    def prepare(self, lr: float, images_seen: int, batch_size: int) -> Callable[[], None]:
        """What makes the step of the gradients there are, if it is to be made: before it is known, on a GPU.

        images_seen counts the step being made. It clears the gradients.
        """
        update = self._prepared(lr, images_seen, batch_size, self.num_steps + 1)

        def step() -> None:
            self.num_steps += 1
            update()
            self._clear()

        return step

    def step(self, lr: float, images_seen: int, batch_size: int) -> None:
        """Prepare the step and make it."""
        self.prepare(lr, images_seen, batch_size)()

    def skip(self, images_seen: int, batch_size: int) -> None:
        """Drop the gradients: the weights stay, and count in their averages for as long as they do."""
        self.ema.update(images_seen, batch_size)
        self._clear()

    def _clear(self) -> None:
        for p in self.params.values():
            p.grad = None

    def finite(self) -> Tensor:
        """Whether every gradient is finite, of this rank's part, [] bool.

        Of normalised parameters one element a row is looked at: their backward leaves no row half finite.
        """
        grads = _locals(p.grad for p in self.params.values())
        looked_at = [
            grad.flatten(1)[:, 0] if normalized and grad.ndim > 1 else grad.flatten()
            for grad, normalized in zip(grads, self.normalized, strict=True)
        ]
        return torch.cat(looked_at).isfinite().all()

    def squared_norm(self) -> Tensor:
        """Sum of the squares of all gradients, of this rank's part, [] float64 on their device."""
        grads = [grad for grad in _locals(p.grad for p in self.params.values()) if grad.numel()]
        if not grads:  # a rank whose shards are all empty
            return torch.zeros((), dtype=torch.float64, device=next(iter(self.params.values())).device)
        return torch.stack(torch._foreach_norm(grads)).double().square().sum()

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


class AdamNormEMA(AdamWithAverages):
    """All of it in one pass: `ops.adam_norm_ema_`."""

    def _prepared(self, lr: float, images_seen: int, batch_size: int, step: int) -> Callable[[], None]:
        params = self.params.values()
        update = ops.prepare_adam_norm_ema_(
            _locals(params),
            _locals(p.grad for p in params),
            _locals(self.exp_avg.values()),
            _locals(self.exp_avg_sq.values()),
            [_locals(average.values()) for average in self.ema.weights().values()],
            self.normalized,
        )
        decays = self.ema.decays(images_seen, batch_size)
        return partial(update, decays, step, lr, self.betas, EPS)


class LibraryAdam(AdamWithAverages):
    """A library's Adam, on moments kept here; then the averages and the normalisation, a pass each."""

    @staticmethod
    @abstractmethod
    def make(params: list[nn.Parameter], betas: tuple[float, float]) -> torch.optim.Optimizer:
        """The library's own, without weight decay."""

    def __init__(self, params, ema, normalized, betas):
        """As `AdamWithAverages`."""
        super().__init__(params, ema, normalized, betas)
        self.own = [nn.Parameter(local(p)) for p in self.params.values()]
        self.adam = self.make(self.own, betas)
        moments = zip(_locals(self.exp_avg.values()), _locals(self.exp_avg_sq.values()), strict=True)
        for p, (first, second) in zip(self.own, moments, strict=True):
            step = torch.zeros((), device=p.device)
            self.adam.state[p] = {"exp_avg": first, "exp_avg_sq": second, "step": step}

    def _prepared(self, lr: float, images_seen: int, batch_size: int, step: int) -> Callable[[], None]:
        return partial(self._update, lr, images_seen, batch_size, step)

    def _update(self, lr: float, images_seen: int, batch_size: int, step: int) -> None:
        for group in self.adam.param_groups:
            # torch counts the steps before this one with each parameter, apex with the group.
            group |= {"lr": lr, "step": step - 1}
        steps = [self.adam.state[p]["step"] for p in self.own]
        torch._foreach_zero_(steps)
        torch._foreach_add_(steps, step - 1)
        for own, p in zip(self.own, self.params.values(), strict=True):
            # apex walks through memory: a gradient must lie as its parameter does.
            own.grad = local(p.grad).contiguous()
        self.adam.step()
        for own in self.own:
            own.grad = None
        self.ema.update(images_seen, batch_size)
        ops.force_weight_norm_(p for p, flag in zip(self.own, self.normalized, strict=True) if flag)


class TorchAdam(LibraryAdam):
    """torch.optim.Adam, fused."""

    @staticmethod
    def make(params: list[nn.Parameter], betas: tuple[float, float]) -> torch.optim.Optimizer:
        """As `LibraryAdam.make`."""
        return torch.optim.Adam(params, betas=betas, eps=EPS, fused=True)


class ApexAdam(LibraryAdam):
    """NVIDIA apex's FusedAdam. RunError where there is none."""

    @staticmethod
    def make(params: list[nn.Parameter], betas: tuple[float, float]) -> torch.optim.Optimizer:
        """As `LibraryAdam.make`."""
        return apex_fused_adam()(params, betas=betas, eps=EPS, adam_w_mode=False)  # AdamW by default


OPTIMIZERS: dict[str, type[AdamWithAverages]] = {
    "adam-norm-ema": AdamNormEMA,
    "torch-adam": TorchAdam,
    "apex": ApexAdam,
}
APEX = (
    "Build NVIDIA's from a clone of https://github.com/NVIDIA/apex, on a machine with CUDA: APEX_CPP_EXT=1 "
    "APEX_CUDA_EXT=1 pip install -v --no-build-isolation . ; or leave out --optimizer."
)


def apex_fused_adam() -> type[torch.optim.Optimizer]:
    """NVIDIA apex's FusedAdam. RunError when there is no apex, or it is the other package of that name."""
    if importlib.util.find_spec("apex") is None:
        raise RunError(f"--optimizer apex: NVIDIA apex is not installed. {APEX}")
    try:
        from apex.optimizers import FusedAdam
    except Exception as error:  # whatever the other package does when it is imported
        raise RunError(
            f"--optimizer apex: the installed package apex has no apex.optimizers.FusedAdam ({error}). The "
            f"apex on PyPI is a toolkit for web pages: pip uninstall apex. {APEX}"
        ) from None
    return FusedAdam


def check_optimizer(name: str, device: torch.device) -> None:
    """RunError unless the optimizer can make a step on this device."""
    p = nn.Parameter(torch.zeros(1, device=device))
    p.grad = torch.zeros_like(p)
    try:
        OPTIMIZERS[name]({"p": p}, PlainEMA({"p": p}, 0), [], (0.9, 0.99)).step(0.0, 1, 1)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise RunError(
            f"--optimizer {name} cannot make a step on {device}: {error}. Leave it out."
        ) from error


def _locals(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [local(tensor) for tensor in tensors]
