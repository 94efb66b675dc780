"""The seam: what training, sampling and evaluation need of a kind of model, and the families by name.

No other room knows a family's formulas: how inputs are noised, what a network is called with, how its weights
are kept. A new family is one class with these methods and one `register`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from mclr_fast.data import Codec, Dataset

from .classes import Classes
from .rows import Rows
from .step_weights import ParameterWeights, StepWeights

if TYPE_CHECKING:
    from mclr_fast.config import ObjectiveConfig, SamplerConfig
    from mclr_fast.sampling import Sampler
    from mclr_fast.sampling.noise_level import NoiseLevel

Arguments = dict[str, Any]
"""A config.json's "net": what a network is built with."""
Coefficients = Tensor | Callable[[Tensor, slice], Tensor]
"""d loss / d energy, [n,w]; or a function (energies of some rows, the rows) where energies decide them."""


@dataclass(frozen=True)
class Facts:
    """What may be known of a network without building it.

    Attributes:
        shape: of one sample as the network takes it, (C, H, W) or (L,).
        num_classes: the labels are 0 to num_classes - 1; label -1 is none.
        dtype: of a sample; tokens are int64.
    """

    shape: tuple[int, ...]
    num_classes: int
    dtype: torch.dtype = torch.float32


def coefficients_of(energy: Tensor, coefficients: Coefficients) -> Tensor:
    """The coefficients [n,w] at these energies."""
    return coefficients(energy.detach(), slice(None)) if callable(coefficients) else coefficients


class Law(Protocol):
    """What a family draws for each row of a step.

    Attributes: noise: ln sigma's law, where inputs are noised, for what is trained beside the network.
    """

    noise: NoiseLevel | None

    def __call__(self, seed: int, position: Tensor) -> dict[str, Tensor]:
        """(seed, position int64 [n]) -> tensors [n,...] by name, on the CPU: `Rows.law`."""
        ...


class NoLaw:
    """The law of families that draw nothing: those with exact likelihoods."""

    noise = None

    def __call__(self, seed: int, position: Tensor) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class Family(ABC):
    """A kind of model; stateless, one instance. Energies are float32 [n,w], low where an image is likely.

    Attributes:
        gives: "energies"; "denoiser" too where there is a D(x; sigma, c) (`denoiser.Denoisers`); "noise"
            where inputs are noised: then `inputs` has x_noisy and sigma.
        sampler_defaults: a sampler's numbers, by option, and "classes": "random" (by seed) or "in turn".
        image_arguments: the arguments that say which images and classes a network is for.
        takes: the arguments that a command line may set of a new network, name -> type; {} for none.
        unguided: the strength of guidance that is none; guided: what rows of others are called before it.
        fixed_energies: without dropout an image's energy is the same at every step, as nothing is drawn; so
            the reference's may be kept.
        smooths: whether its sampler has `more_smooth`.
    """

    gives: frozenset[str] = frozenset({"energies"})
    sampler_defaults: Mapping[str, Any] = {"classes": "in turn"}
    image_arguments: tuple[str, ...] = ()
    takes: Mapping[str, Any] = MappingProxyType({})
    unguided: float = 1.0
    guided: str = "cfg"
    fixed_energies: bool = False
    smooths: bool = False

    @abstractmethod
    def build(self, arguments: Arguments, *, dtype: torch.dtype, dropout: float = 0.0) -> nn.Module:
        """A network on the current default device; dtype: what it computes in (parameters are float32)."""

    @abstractmethod
    def facts(self, arguments: Arguments) -> Facts:
        """What may be known of it without building it."""

    @abstractmethod
    def codec(self, arguments: Arguments, dataset: Dataset | None = None) -> Codec:
        """Between the data set's images (None: what samples are) and x. Whether they fit, `facts` says."""

    @abstractmethod
    def inputs(self, net: nn.Module, rows: Rows) -> Any:
        """What all evaluations of these rows share, made once: the reference and ratios take it too."""

    @abstractmethod
    def energies(self, net: nn.Module, inputs: Any, labels_NR: Tensor) -> Tensor:
        """Energies of the rows under labels int64 [n,w] (-1: none), differentiable.

        It calls net(...), never a method of it: under FSDP2 that would skip what a call does.
        """

    def without_first(self, inputs: Any) -> Any:
        """The inputs of a row's columns after the first; families with fixed energies are asked for them."""
        return inputs

    @abstractmethod
    def sampler(
        self,
        net: nn.Module,
        facts: Facts,
        options: SamplerConfig,
        *,
        guidance: float | None = None,
        guide: nn.Module | None = None,
    ) -> Sampler:
        """The network made ready to sample; guidance None: none; guide None: itself, without a label."""

    def beside(self, arguments: Arguments) -> tuple[str, ...]:
        """Paths or published names of what a network is used with, such as its VQVAE."""
        return ()

    def calls_a_sample(self, options: SamplerConfig) -> int:
        """How many network calls of whole images the work of an unguided sample is."""
        return 1

    def law(self, arguments: Arguments, options: ObjectiveConfig) -> Law:
        """What is drawn for each row; nothing unless said."""
        return NoLaw()

    def complete(self, arguments: Arguments) -> Arguments:
        """The arguments that make an architecture, with defaults filled in, as JSON has them."""
        return json.loads(json.dumps(arguments))

    def dtype(self, net: nn.Module) -> torch.dtype:
        """What a network computes in."""
        return getattr(net, "dtype", torch.float32)

    def contrast(self, net: nn.Module, inputs: Any, labels_NR: Tensor, coefficients: Coefficients) -> Tensor:
        """Back-propagate the sum of coefficients times energies; returns the energies, without gradient.

        The step's scale is in the coefficients: so a gradient that the pass itself makes is the final one.
        """
        energy = self.energies(net, inputs, labels_NR)
        (energy * coefficients_of(energy, coefficients)).sum().backward()
        return energy.detach()

    def own_loss(self, net: nn.Module, inputs: Any, labels_NR: Tensor) -> tuple[Tensor, Tensor]:
        """What the base was trained with, under one label a row [n,1]: loss [n], and the energies [n,1]."""
        energy = self.energies(net, inputs, labels_NR)
        return energy[:, 0], energy

    def trainable(self, net: nn.Module, *, own_loss: bool) -> list[nn.Parameter]:
        """The parameters that training by energies, or by `own_loss`, reaches; DDP and FSDP2 need to know."""
        return list(net.parameters())

    def frozen(self, net: nn.Module) -> Frozen:
        """The reference that it is from now on: built anew from a file, on its device."""
        return Frozen(self, net)

    def step_weights(self, net: nn.Module) -> StepWeights:
        """The weights of a step: the parameters unless said."""
        return ParameterWeights(net)

    def shard_groups(self, net: nn.Module) -> list[nn.Module]:
        """The modules whose parameters FSDP2 gathers together; what is in none of them is one more group."""
        return []

    def normalized(self, net: nn.Module) -> list[nn.Parameter]:
        """The parameters that are normalised per output channel after every step."""
        return []

    def published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters and buffers by name, whole, as `state_dict()` shows them."""
        return dict(tensors)


class Frozen:
    """A network whose weights never change again. Attributes: net, in eval mode."""

    def __init__(self, family: Family, net: nn.Module):
        """net: on its device; it becomes this object's own."""
        self.family = family
        self.net = net.eval().requires_grad_(False)

    @torch.no_grad()
    def energies(self, inputs: Any, labels_NR: Tensor) -> Tensor:
        """As `Family.energies`, of the policy's own inputs."""
        return self.family.energies(self.net, inputs, labels_NR)


@dataclass(frozen=True)
class Model:
    """A network as config.json describes it, not built: a family and its arguments; said: all of the file."""

    family: Family
    arguments: Arguments
    said: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Model:
        """What a config.json says. ValueError for an unknown family."""
        return cls(get_family(description.get("family")), description["net"], description)

    @cached_property
    def facts(self) -> Facts:
        """As `Family.facts`."""
        return self.family.facts(self.arguments)

    @cached_property
    def classes(self) -> Classes:
        """Those it was trained with, and their names. ValueError where config.json has no such."""
        return Classes.of(self.said, self.facts.num_classes)

    @property
    def null_label(self) -> bool:
        """Whether it was trained without a label too (-1): then it can guide itself."""
        return bool(self.said.get("null_label"))

    @cached_property
    def sampler_defaults(self) -> dict[str, Any]:
        """How it is sampled unless said otherwise: config.json's "sampler", else the family's numbers.

        Errors    ValueError for an option that the family does not have, or a value of another type.
        """
        known, said = self.family.sampler_defaults, self.said.get("sampler", {})
        for name, value in said.items():
            kinds = (int, float) if isinstance(known.get(name), float) else type(known.get(name))
            if name not in known or not isinstance(value, kinds):
                raise ValueError(f'config.json: "sampler" has {name!r}: {value!r}; known: {dict(known)}.')
        return {**known, **said}

    def sampler_options(self, options: SamplerConfig) -> SamplerConfig:
        """The options, with its own numbers where they are None."""
        own = self.sampler_defaults
        unsaid = [option.name for option in fields(options) if getattr(options, option.name) is None]
        return replace(options, **{name: own[name] for name in unsaid if name in own})

    def sampler_of_run(self, options: SamplerConfig) -> dict[str, Any]:
        """config.json's "sampler" of models whose run samples them by these options."""
        options, own = self.sampler_options(options), self.sampler_defaults
        return {name: getattr(options, name, default) for name, default in own.items()}

    def build(self, *, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> nn.Module:
        """As `Family.build`."""
        return self.family.build(self.arguments, dtype=dtype, dropout=dropout)

    def codec(self, dataset: Dataset | None = None) -> Codec:
        """As `Family.codec`."""
        return self.family.codec(self.arguments, dataset)

    def law(self, options: ObjectiveConfig) -> Law:
        """As `Family.law`."""
        return self.family.law(self.arguments, options)

    def sampler(
        self,
        net: nn.Module,
        options: SamplerConfig,
        *,
        guidance: float | None = None,
        guide: nn.Module | None = None,
    ) -> Sampler:
        """As `Family.sampler`; options that are None are the model's."""
        options = self.sampler_options(options)
        return self.family.sampler(net, self.facts, options, guidance=guidance, guide=guide)


def _edm2() -> Family:
    from .edm2.family import EDM2

    return EDM2()


def _var() -> Family:
    from .var.family import Autoregressive

    return Autoregressive()


_makers: dict[str, Callable[[], Family]] = {"edm2": _edm2, "var": _var}
_families: dict[str, Family] = {}


def register(name: str, make: Callable[[], Family]) -> None:
    """Let config.json's "family" name this one; `make` is called at the first use."""
    _makers[name] = make
    _families.pop(name, None)


def families() -> list[str]:
    """The names that are known."""
    return sorted(_makers)


def get_family(name: str | None) -> Family:
    """The family of that name. ValueError for an unknown one."""
    if name not in _makers:
        raise ValueError(f"model family {name!r} is unknown; known: {', '.join(families())}.")
    if name not in _families:
        _families[name] = _makers[name]()
    return _families[name]
