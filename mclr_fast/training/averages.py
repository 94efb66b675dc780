"""Weight averages kept during training."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mclr_fast.runtime.process.ranks import local


class ParameterEMA(ABC):
    """Exponential moving averages of a module's parameters; subclasses say how fast they decay.

    The averages are float32 tensors that start as copies of the parameters; buffers are not
    averaged. The live parameters are held by reference: build the EMA once the module is on its
    device and sharded.
    """

    def __init__(self, module: nn.Module | Mapping[str, Tensor], labels: Sequence[str]) -> None:
        """One average per label, of a module's parameters or of a name -> tensor mapping."""
        live = dict(module.named_parameters() if isinstance(module, nn.Module) else module)
        self._live = list(live.values())
        self._weights = {
            label: {name: p.detach().to(torch.float32, copy=True) for name, p in live.items()}
            for label in labels
        }

    @abstractmethod
    def decays(self, images_seen: int, batch_size: int) -> Sequence[float]:
        """beta of each average, in order, for the step of `batch_size` ending at `images_seen`."""

    @torch.no_grad()
    def update(self, images_seen: int, batch_size: int) -> None:
        """ema <- beta ema + (1 - beta) parameter; `images_seen` counts the step just made."""
        if not 0 < batch_size <= images_seen:
            raise ValueError(
                f"images_seen={images_seen} must include the {batch_size} images of the step just "
                "made: update the EMA after counting them."
            )
        live = [local(p).detach().float() for p in self._live]
        betas = self.decays(images_seen, batch_size)
        for average, beta in zip(self._weights.values(), betas, strict=True):
            torch._foreach_lerp_([local(tensor) for tensor in average.values()], live, 1 - beta)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Label -> parameter name -> average: the tensors themselves, which `update` changes."""
        return {label: dict(average) for label, average in self._weights.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """All averages as one flat mapping, "label/parameter name" -> tensor (not a copy)."""
        return {
            f"{label}/{name}": tensor
            for label, average in self._weights.items()
            for name, tensor in average.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy in what `state_dict` gave; names and shapes must be the same."""
        own = self.state_dict()
        if differing := sorted(own.keys() ^ state.keys()):
            raise ValueError(
                f"EMA state differs in {len(differing)} names, first {differing[0]!r}: it must be "
                "of the same model and the same averages."
            )
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise ValueError(
                    f"EMA state has {name!r} of shape {list(state[name].shape)}, "
                    f"the model {list(tensor.shape)}."
                )
            tensor.copy_(state[name])


class PowerFunctionEMA(ParameterEMA):
    """Averages with power-function profiles, one per relative width in `stds`.

    The first step (images_seen = batch_size) has beta 0. Labels are the widths with three decimals
    ("0.050"), as in EDM2's file names.

    Source    EDM2 (arXiv 2312.02696), eq. 121, 127.
    """

    def __init__(self, module: nn.Module | Mapping[str, Tensor], stds: Sequence[float] = (0.05, 0.1)) -> None:
        """`stds` are relative to the training time and lie in (0, 0.2886]."""
        labels = [f"{std:.3f}" for std in stds]
        if len(set(labels)) != len(labels):
            raise ValueError(f"stds {list(stds)} are not distinct to three decimals: {labels}.")
        std_to_exponent(stds)  # an impossible width fails here, not after the first step
        super().__init__(module, labels)
        self.stds = tuple(stds)

    def decays(self, images_seen: int, batch_size: int) -> list[float]:
        """(1 - dt/t)^(g+1) for each std."""
        return power_function_beta(self.stds, images_seen, batch_size).tolist()


class PlainEMA(ParameterEMA):
    """One average with the same decay `beta` in every step; its label is "plain"."""

    def __init__(self, module: nn.Module | Mapping[str, Tensor], beta: float) -> None:
        """`beta` is the share of the old average kept per step, in [0, 1]."""
        if not 0 <= beta <= 1:
            raise ValueError(f"beta={beta} is not a decay: it must lie in [0, 1].")
        super().__init__(module, ["plain"])
        self.beta = beta

    def decays(self, images_seen: int, batch_size: int) -> list[float]:
        """The constant."""
        return [self.beta]


class HalfLifeEMA(ParameterEMA):
    """One average whose half-life, in images, is min(halflife_images, rampup_ratio images_seen).

    Its label is "halflife".

    Source    EDM (arXiv 2206.00364), its training setup.
    """

    def __init__(
        self, module: nn.Module | Mapping[str, Tensor], halflife_images: float, rampup_ratio: float
    ) -> None:
        """Both numbers are above 0; `rampup_ratio` = inf means no ramp-up."""
        if not (halflife_images > 0 and rampup_ratio > 0):
            raise ValueError(f"{halflife_images=} and {rampup_ratio=} must both be above 0.")
        super().__init__(module, ["halflife"])
        self.halflife_images = halflife_images
        self.rampup_ratio = rampup_ratio

    def decays(self, images_seen: int, batch_size: int) -> list[float]:
        """0.5^(batch / half-life)."""
        halflife = min(self.halflife_images, self.rampup_ratio * images_seen)
        return [0.5 ** (batch_size / halflife)]


# Power-function profiles, p(t) proportional to t^g on (0, T] (EDM2, eq. 121); all
# arguments broadcast, results are float64.


def exponent_to_std(exponent: ArrayLike) -> NDArray[np.float64]:
    """Relative standard deviation (std / T) of the profile with this exponent (EDM2, eq. 123)."""
    g = np.asarray(exponent, dtype=np.float64)
    return np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3)))


def std_to_exponent(std: ArrayLike) -> NDArray[np.float64]:
    """Exponent g >= 0 of the profile with this relative standard deviation.

    The largest real root of g^3 + 7 g^2 + (16 - std^-2) g + (12 - std^-2).

    Source    EDM2 (arXiv 2312.02696), eq. 126, algorithm 2.
    """
    stds = np.asarray(std, dtype=np.float64)
    if not np.all((stds > 0) & (stds <= 12**-0.5)):
        raise ValueError(f"std={std}: a power-function EMA's width lies in (0, 0.2886].")
    exponents = [np.roots([1, 7, 16 - s**-2, 12 - s**-2]).real.max() for s in stds.flat]
    return np.reshape(exponents, stds.shape)[()]


def power_function_beta(std: ArrayLike, t_next: ArrayLike, t_delta: ArrayLike) -> NDArray[np.float64]:
    """Decay beta = (1 - t_delta / t_next)^(g+1) of the step of `t_delta` images ending at `t_next`.

    Source    EDM2 (arXiv 2312.02696), eq. 127.
    """
    return (1 - np.divide(t_delta, t_next)) ** (std_to_exponent(std) + 1)
