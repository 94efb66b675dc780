"""EDM's second-order Heun sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mclr_fast import ops

from .guidance import Denoiser, network_output, prepared_calls
from .sampler import CapturedSampler
from .seeds import seeded_noise

if TYPE_CHECKING:
    from mclr_fast.config import SamplerConfig


def sigma_steps(num_steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Noise levels from t_0 = sigma_max to t_(N-1) = sigma_min, even in t^(1/rho), then t_N = 0.

    Shapes    -> [num_steps + 1].                   Dtypes   float64, on the CPU.
    Source    EDM (arXiv 2206.00364), eq. 5.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps} cannot span sigma_max..sigma_min: use 2 or more.")
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    steps = torch.linspace(*ends, num_steps, dtype=torch.float64) ** rho
    return torch.cat([steps, steps.new_zeros(1)])


@torch.no_grad()
def edm_sampler(
    net: Denoiser,
    noise: Tensor,
    labels: Tensor | None = None,
    *,
    gnet: Denoiser | None = None,
    guidance: float = 1.0,
    num_steps: int = 32,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    randn_like: Callable[[Tensor], Tensor] | None = None,
    guidance_interval: tuple[float, float] | None = None,
) -> Tensor:
    """Solve the probability-flow ODE from `noise` to images, with optional churn (added noise).

    Shapes    noise: [N,C,H,W], standard normal; labels: as `net` takes them -> [N,C,H,W].
    Dtypes    the state is noise.dtype (float32 or float64); nets get float32 x and 0-dim sigma.
    Cost      2 num_steps - 1 calls of `net`, and as many of `gnet` unless guidance is 1; no sync.
    Guidance  the output becomes g + guidance (d - g), with d from `net` and g from `gnet`, both given the
              same labels; at 1 `gnet` is never called. The MCLR paper's gamma is guidance - 1. With
              guidance_interval (lo, hi) it acts at lo <= sigma <= hi alone (arXiv 2404.07724).
    Source    EDM (arXiv 2206.00364), algorithm 2, with its deterministic case S_churn = 0; guidance:
              EDM2 (arXiv 2312.02696), section 4, and autoguidance (arXiv 2406.02507).

    `randn_like` draws the churn noise (default torch.randn_like), once for each step whose t lies
    in [S_min, S_max]. Nets that offer `output="network"` (EDM2's) give their raw output, and what lies
    between two calls is one fused op. Of nets that offer `prepare`, what noise levels and labels alone decide
    is made before the first call; images differ in float32's last digits from those of other calls.
    """
    if guidance != 1 and gnet is None:
        raise ValueError(
            f"guidance={guidance} needs a guiding net: pass gnet (a weaker or unconditional net, "
            "or Unconditional(net)), or leave guidance at 1."
        )
    nets = [net] if guidance == 1 else [net, gnet]
    randn_like = randn_like or torch.randn_like
    # The time steps stay Python floats, so that no step waits for the device.
    steps = sigma_steps(num_steps, sigma_min, sigma_max, rho).tolist()
    hats = _churned(steps, S_churn, S_min, S_max)
    kinds = {network_output(n) for n in nets}
    raw = len(kinds) == 1 and None not in kinds
    sigma_data, dtype = kinds.pop() if raw else (0.5, torch.float32)  # no net gets the latter
    sigmas = _called_at(hats, steps)
    prepare = raw and labels is not None and all(hasattr(n, "prepare") for n in nets)
    evaluate = _evaluations(nets, sigmas, guidance_interval, labels, len(noise), raw, prepare)

    def step(x: Tensor, t: float, net_input: Tensor, x_hat: Tensor, t_hat: float, t_next: float, slope=None):
        outputs = evaluate(net_input if raw else x)
        return ops.heun_update(
            outputs[0],
            x,
            t,
            x_hat,
            t_hat,
            t_next,
            slope,
            guide=outputs[-1],
            guidance=guidance if len(outputs) > 1 else 1.0,
            sigma_data=sigma_data,
            output="network" if raw else "denoised",
            dtype=dtype,
        )

    x_next = noise * steps[0]
    net_input = _scaled(x_next, steps[0], sigma_data, dtype)
    for t_cur, t_hat, t_next in zip(steps[:-1], hats, steps[1:], strict=True):
        x_hat = x_next
        if t_hat > t_cur:
            x_hat = x_next + math.sqrt(t_hat**2 - t_cur**2) * S_noise * randn_like(x_next)
            net_input = _scaled(x_hat, t_hat, sigma_data, dtype)

        # Euler step, then the trapezoidal correction except on the last step.
        x_next, slope, net_input = step(x_hat, t_hat, net_input, x_hat, t_hat, t_next)
        if t_next > 0:
            x_next, _, net_input = step(x_next, t_next, net_input, x_hat, t_hat, t_next, slope)
    return x_next


def _churned(steps: Sequence[float], S_churn: float, S_min: float, S_max: float) -> list[float]:
    """Each step's level with the noise that churn adds: its own where none is added."""
    gamma = min(S_churn / (len(steps) - 1), math.sqrt(2) - 1)
    return [t * (1 + gamma) if gamma > 0 and S_min <= t <= S_max else t for t in steps[:-1]]


def _called_at(hats: Sequence[float], steps: Sequence[float]) -> list[float]:
    """The noise levels of all calls in their order: each step's own, then the next, but for 0."""
    return [t for pair in zip(hats, steps[1:], strict=True) for t in pair][:-1]


def _evaluations(
    nets: Sequence[Denoiser],
    sigmas: Sequence[float],
    interval: tuple[float, float] | None,
    labels: Tensor | None,
    num_images: int,
    raw: bool,
    prepare: bool,
) -> Callable[[Tensor], Sequence[Tensor]]:
    """The nets' outputs at the next of `sigmas`: of the guide too, if there is one and it acts there.

    They are raw, of a scaled input, or else denoised images of x.
    """
    guided = [len(nets) > 1 and _lies_in(sigma, interval) for sigma in sigmas]
    turn = iter(range(len(sigmas)))
    if prepare:
        prepared = prepared_calls(nets, sigmas, guided, labels, num_images)
        return lambda net_input: prepared(next(turn), net_input)

    def evaluate(x: Tensor) -> list[Tensor]:
        k = next(turn)
        sigma = torch.full((), sigmas[k], dtype=torch.float32, device=x.device)
        called = nets if guided[k] else nets[:1]
        if raw:
            return [n(x, sigma, labels, output="network") for n in called]
        return [n(x.float(), sigma, labels) for n in called]

    return evaluate


def _lies_in(sigma: float, interval: tuple[float, float] | None) -> bool:
    return interval is None or interval[0] <= sigma <= interval[1]


def _scaled(x: Tensor, sigma: float, sigma_data: float, dtype: torch.dtype) -> Tensor:
    """The network's input at (x, sigma): c_in x and a channel of ones. Source: EDM, Table 1."""
    return ops.with_ones(x / math.hypot(sigma, sigma_data), dtype)


@dataclass(frozen=True)
class HeunSampler(CapturedSampler):
    """`edm_sampler` of one denoiser with one set of options; a `sampler.Sampler`.

    Args:
        net: the denoiser; guide: what guides it (None: needed for guidance 1 alone).
        shape: of one sample, (C, H, W); device: where the samples are made.
        options: the Heun steps and noise levels.
        guidance: EDM2's strength, 1 = none.
        hold: a context in which the nets make what does not change between calls once.
        num_classes: of which a seed's class is drawn, before the noise that churn adds.
    """

    net: Denoiser
    shape: tuple[int, ...]
    device: torch.device
    options: SamplerConfig
    guide: Denoiser | None = None
    guidance: float = 1.0
    hold: Callable[[], AbstractContextManager[None]] = nullcontext
    num_classes: int = 0

    unguided: ClassVar[float] = 1.0

    @property
    def nfe(self) -> int:
        """2 num_steps - 1, and as many of the guide as lie in the guidance interval."""
        calls = 2 * self.options.num_steps - 1
        if self.guidance == 1:
            return calls
        steps, hats = self._levels()
        return calls + sum(_lies_in(t, self.options.guidance_interval) for t in _called_at(hats, steps))

    @property
    def captures(self) -> bool:
        """As `CapturedSampler.captures`."""
        return self.options.cuda_graphs == "on"

    def start(self, seeds: Sequence[int]) -> Tensor:
        """As `Sampler.start`: standard normal, drawn on the CPU.

        Shapes    [b,C,H,W]; with churn [b,1+n,C,H,W], also the noise that n of the steps add.
        """
        noise, label_draw, randn_like = seeded_noise(seeds, self.shape)
        if num_added := self._num_added():
            label_draw(max(self.num_classes, 1))  # EDM2 draws it between the two
            noise = torch.stack([noise, *(randn_like(noise) for _ in range(num_added))], dim=1)
        return noise.to(self.device)

    @torch.no_grad()
    def _sample(self, start: Tensor, labels: Tensor) -> Tensor:
        """As `CapturedSampler._sample`, float32 [b,C,H,W]; `start` has all noise that it takes."""
        options = self.options
        noise, *added = start.unbind(1) if self._num_added() else (start,)
        added = iter(added)
        return edm_sampler(
            self.net,
            noise,
            labels,
            gnet=self.guide,
            guidance=self.guidance,
            num_steps=options.num_steps,
            sigma_min=options.sigma_min,
            sigma_max=options.sigma_max,
            rho=options.rho,
            S_churn=options.S_churn,
            S_min=options.S_min,
            S_max=options.S_max,
            S_noise=options.S_noise,
            randn_like=lambda x: next(added),
            guidance_interval=options.guidance_interval,
        )

    def _levels(self) -> tuple[list[float], list[float]]:
        """The steps' noise levels, 0 the last; and each one's with what churn adds to it."""
        o = self.options
        steps = sigma_steps(o.num_steps, o.sigma_min, o.sigma_max, o.rho).tolist()
        return steps, _churned(steps, o.S_churn, o.S_min, o.S_max)

    def _num_added(self) -> int:
        """How many steps add noise."""
        return sum(hat > t for t, hat in zip(*self._levels(), strict=False))
