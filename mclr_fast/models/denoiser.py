"""Families whose networks denoise: energies, contrast and sampling by `models/scalings.py`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mclr_fast import ops
from mclr_fast.data import rng
from mclr_fast.sampling import HeunSampler, Unconditional

from .family import Arguments, Coefficients, Facts, Family
from .rows import Rows
from .scalings import Scalings

if TYPE_CHECKING:
    from mclr_fast.config import ObjectiveConfig, SamplerConfig

# EDM2's own, and its classes. Source: EDM2 (arXiv 2312.02696), section 3, and its release.
EDM2_SAMPLER = {"num_steps": 32, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "classes": "random"}


@dataclass(frozen=True)
class NoisyInputs:
    """What the evaluations of some rows share.

    Shapes: x and x_noisy [n,C,H,W], or [n,w,C,H,W] where a row's images differ; net_input, which networks are
    called with, [n,...] or [n w,...]; law: tensors [n]. extra: what a family's networks take besides.
    """

    x: Tensor
    x_noisy: Tensor
    net_input: Tensor
    law: dict[str, Tensor]
    extra: Any = None

    @property
    def sigma(self) -> Tensor:
        """The noise level of each row, [n]."""
        return self.law["sigma"]


@dataclass(frozen=True)
class DenoiserLaw:
    """Noise levels and what they weigh, and with `scaled` the scalings at them. See `family.Law`."""

    scalings: Scalings
    scaled: bool = True

    @property
    def noise(self):
        """As `Law.noise`."""
        return self.scalings.noise

    def __call__(self, seed: int, position: Tensor) -> dict[str, Tensor]:
        """As `Law.__call__`: sigma, weight, and c_in, c_noise, c_skip, c_out."""
        sigma = self.scalings.sigma(seed, position)
        drawn = {"sigma": sigma, "weight": self.scalings.weight(sigma)}
        names = ("c_in", "c_noise", "c_skip", "c_out") if self.scaled else ()
        return drawn | {name: getattr(self.scalings, name)(sigma) for name in names}


class Denoisers(Family):
    """Networks F with net(c_in x [B,C,H,W], c_noise [B], labels int64 [B]) -> [B,C or more,H,W].

    Channels past the C-th (learnt variances) are left out. Label -1 is none.
    A family says `scalings`; one that shares work between a row's labels overrides `outputs`.
    """

    gives = frozenset({"energies", "denoiser", "noise"})
    sampler_defaults = EDM2_SAMPLER

    @property
    @abstractmethod
    def scalings(self) -> Scalings:
        """How D is made of F."""

    def calls_a_sample(self, options: SamplerConfig) -> int:
        """As `Family.calls_a_sample`: Heun's, whose last step has one."""
        return 2 * options.num_steps - 1

    def law(self, arguments: Arguments, options: ObjectiveConfig) -> DenoiserLaw:
        """As `Family.law`: the noise levels that the base was trained at."""
        return DenoiserLaw(self.scalings)

    def inputs(self, net: nn.Module, rows: Rows) -> NoisyInputs:
        """As `Family.inputs`; a row's columns share sigma and eps wherever they are cut."""
        x_noisy, net_input = ops.noisy_input(
            rows.x,
            rows.law["sigma"],
            rows.seed,
            rng.NOISE_STREAM,
            rows.position,
            c_in=rows.law["c_in"],
            ones=False,
            dtype=self.dtype(net),
        )
        return NoisyInputs(rows.x, x_noisy, net_input, rows.law)

    def outputs(self, net: nn.Module, inputs: NoisyInputs, labels_NR: Tensor) -> Tensor:
        """The raw outputs F of these evaluations, [n,w,C,H,W]."""
        num_rows, num_columns = labels_NR.shape
        shared = len(inputs.net_input) == num_rows
        x = inputs.net_input.repeat_interleave(num_columns, dim=0) if shared else inputs.net_input
        c_noise = inputs.law["c_noise"].repeat_interleave(num_columns)
        return self._called(net, x, c_noise, labels_NR.flatten()).unflatten(0, labels_NR.shape)

    def score(self, net: nn.Module, inputs: NoisyInputs, raw: Tensor) -> Tensor:
        """The energies of raw outputs [n,w,C,H,W], differentiable: w |D - x|^2, [n,w]."""
        law = inputs.law
        return ops.weighted_sq_error(
            raw, inputs.x, inputs.x_noisy, weight=law["weight"], **self._levels(net, law)
        )

    def backward(
        self,
        net: nn.Module,
        inputs: NoisyInputs,
        raw: Tensor,
        coefficients_NR: Tensor,
        target: Tensor | None = None,
    ) -> Tensor:
        """Back-propagate the sum of coefficients times energies of raw outputs in one pass; the energies.

        target: what D is compared with in place of x.
        """
        law, x = inputs.law, inputs.x if target is None else target
        loss, energy = ops.contrast_loss(
            raw,
            x,
            inputs.x_noisy,
            weight=law["weight"],
            coefficients_NR=coefficients_NR,
            **self._levels(net, law),
        )
        loss.backward()
        return energy

    def denoised(self, net: nn.Module, inputs: NoisyInputs, raw: Tensor) -> Tensor:
        """D of raw outputs, without gradient, float32 [n,w,C,H,W]."""
        c_skip, c_out = (value.view(-1, 1, 1, 1, 1) for value in self._skip_and_out(net, inputs.law))
        x_noisy = inputs.x_noisy if inputs.x_noisy.ndim == 5 else inputs.x_noisy[:, None]
        return c_skip * x_noisy + c_out * raw.detach().float()

    def energies(self, net: nn.Module, inputs: NoisyInputs, labels_NR: Tensor) -> Tensor:
        """As `Family.energies`."""
        return self.score(net, inputs, self.outputs(net, inputs, labels_NR))

    def contrast(
        self, net: nn.Module, inputs: NoisyInputs, labels_NR: Tensor, coefficients: Coefficients
    ) -> Tensor:
        """As `Family.contrast`; in one pass where the coefficients are known beforehand."""
        if callable(coefficients):
            return super().contrast(net, inputs, labels_NR, coefficients)
        return self.backward(net, inputs, self.outputs(net, inputs, labels_NR), coefficients)

    def sampler(
        self,
        net: nn.Module,
        facts: Facts,
        options: SamplerConfig,
        *,
        guidance: float | None = None,
        guide: nn.Module | None = None,
    ) -> HeunSampler:
        """As `Family.sampler`: EDM's, on D."""
        denoiser = Denoiser(self, net, facts)
        guiding = Unconditional(denoiser) if guide is None else Denoiser(self, guide, facts)
        device = next(net.parameters()).device
        strength = HeunSampler.unguided if guidance is None else guidance
        return HeunSampler(
            denoiser, facts.shape, device, options, guiding, strength, num_classes=facts.num_classes
        )

    def _called(self, net: nn.Module, x: Tensor, c_noise: Tensor, labels: Tensor) -> Tensor:
        return net(x, c_noise, labels)[:, : x.shape[1]]

    def _levels(self, net: nn.Module, law: dict[str, Tensor]) -> dict[str, Any]:
        """The scalings as the ops take them."""
        return {"sigma": None, "c_skip": law["c_skip"], "c_out": law["c_out"]}

    def _skip_and_out(self, net: nn.Module, law: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return law["c_skip"], law["c_out"]


@dataclass(frozen=True)
class Denoiser:
    """D(x; sigma, c) of one network, as samplers call it."""

    family: Denoisers
    net: nn.Module
    facts: Facts

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """x float32 [N,C,H,W], sigma [] or [N], labels int64 [N] or None -> float32 [N,C,H,W]."""
        scalings, sigma = self.family.scalings, sigma.expand(len(x))
        c_in, c_skip, c_out = (
            getattr(scalings, name)(sigma).view(-1, 1, 1, 1) for name in ("c_in", "c_skip", "c_out")
        )
        if labels is None:
            labels = torch.full((len(x),), -1, device=x.device)
        scaled = (c_in * x).to(self.family.dtype(self.net))
        raw = self.family._called(self.net, scaled, scalings.c_noise(sigma), labels)
        return c_skip * x + c_out * raw.float()
