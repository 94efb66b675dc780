"""EDM2 as a family: networks that take all labels of an image at once, and make their weights once a step."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mclr_fast import ops
from mclr_fast.data import Codec, Dataset, rng
from mclr_fast.models.arguments import takes
from mclr_fast.models.codecs import LatentCodec, PixelCodec, codec_for
from mclr_fast.models.denoiser import DenoiserLaw, Denoisers, NoisyInputs
from mclr_fast.models.family import Arguments, Facts, Frozen
from mclr_fast.models.rows import Rows
from mclr_fast.models.scalings import EDM
from mclr_fast.sampling import HeunSampler, Unconditional
from mclr_fast.sampling.noise_level import NoiseLevel

from .layers import Block, DropoutKey
from .network import Precond, force_weight_norm_, normalized_weights, published
from .weights import EffectiveWeights

if TYPE_CHECKING:
    from mclr_fast.config import ObjectiveConfig, SamplerConfig


class EDM2(Denoisers):
    """See `models.family.Family`. The ops compute EDM's scalings from sigma, in their kernels."""

    image_arguments = ("img_resolution", "img_channels", "label_dim")
    takes = takes(Precond, without=("dtype", "dropout"))
    scalings = EDM(NoiseLevel(0.0, 1.0))

    def build(self, arguments: Arguments, *, dtype: torch.dtype, dropout: float = 0.0) -> Precond:
        """As `Family.build`."""
        return Precond(**{**arguments, "dtype": dtype, "dropout": dropout})

    def facts(self, arguments: Arguments) -> Facts:
        """As `Family.facts`."""
        size = arguments["img_resolution"]
        return Facts((arguments["img_channels"], size, size), arguments["label_dim"])

    def complete(self, arguments: Arguments) -> Arguments:
        """As `Family.complete`."""
        parameters = inspect.signature(Precond).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
        known = {k: v for k, v in (defaults | arguments).items() if k not in ("dtype", "dropout")}
        return json.loads(json.dumps(known))

    def codec(self, arguments: Arguments, dataset: Dataset | None = None) -> Codec:
        """As `Family.codec`: pixels, grey or RGB, or a VAE's latents."""
        if dataset is not None:
            return codec_for(dataset.image_shape)
        shape = self.facts(arguments).shape
        return PixelCodec(shape) if shape[0] in (1, 3) else LatentCodec(shape)

    def law(self, arguments: Arguments, options: ObjectiveConfig) -> DenoiserLaw:
        """As `Family.law`: ln sigma is normal."""
        sigma_data = self.complete(arguments)["sigma_data"]
        return DenoiserLaw(EDM(NoiseLevel(options.P_mean, options.P_std, sigma_data)), scaled=False)

    def inputs(self, net: Precond, rows: Rows) -> NoisyInputs:
        """As `Family.inputs`; with dropout, the key of the masks of a row and all its columns."""
        x_noisy, net_input = ops.noisy_input(
            rows.x,
            rows.law["sigma"],
            rows.seed,
            rng.NOISE_STREAM,
            rows.position,
            sigma_data=net.sigma_data,
            dtype=net.dtype,
        )
        key = DropoutKey(rows.seed, rows.position) if net.dropout > 0 else None
        return NoisyInputs(rows.x, x_noisy, net_input, rows.law, key)

    def outputs(self, net: Precond, inputs: NoisyInputs, labels_NR: Tensor) -> Tensor:
        """As `Denoisers.outputs`; what precedes the label runs once an image."""
        return net(inputs.net_input, inputs.sigma, labels_NR, output="network", dropout_key=inputs.extra)

    def own_loss(self, net: Precond, inputs: NoisyInputs, labels_NR: Tensor) -> tuple[Tensor, Tensor]:
        """As `Family.own_loss`: e / exp(u) + u C H W. Source: EDM2 (arXiv 2312.02696), eq. 14, 15, 16, 21."""
        raw, logvar = net(
            inputs.net_input,
            inputs.sigma,
            labels_NR,
            return_logvar=True,
            output="network",
            dropout_key=inputs.extra,
        )
        energy, logvar = self.score(net, inputs, raw), logvar.flatten()
        return energy[:, 0] / logvar.exp() + logvar * inputs.x[0].numel(), energy

    def trainable(self, net: Precond, *, own_loss: bool) -> list[nn.Parameter]:
        """As `Family.trainable`: only the own loss reaches u(sigma)."""
        left_out = set() if own_loss else set(map(id, net.logvar_linear.parameters()))
        return [p for p in net.parameters() if id(p) not in left_out]

    def frozen(self, net: Precond) -> Frozen:
        """As `Family.frozen`; its effective weights are made once and stay, in place of the parameters."""
        force_weight_norm_(net)  # as the policy's weights are from its first step: so both start equal
        frozen = Frozen(self, net)
        EffectiveWeights(net).keep()
        return frozen

    def step_weights(self, net: Precond) -> EffectiveWeights:
        """As `Family.step_weights`."""
        return EffectiveWeights(net)

    def shard_groups(self, net: Precond) -> list[nn.Module]:
        """As `Family.shard_groups`: the blocks."""
        return [module for module in net.modules() if isinstance(module, Block)]

    def normalized(self, net: Precond) -> list[nn.Parameter]:
        """As `Family.normalized`: EDM2, eq. 66."""
        return normalized_weights(net)

    def published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Family.published`: gains are 0-dim."""
        return published(tensors)

    def sampler(
        self,
        net: Precond,
        facts: Facts,
        options: SamplerConfig,
        *,
        guidance: float | None = None,
        guide: Precond | None = None,
    ) -> HeunSampler:
        """As `Family.sampler`; the network itself is D, and the steps between its calls are one fused op."""
        guiding = Unconditional(net) if guide is None else guide
        device = net.unet.out_gain.device
        strength = HeunSampler.unguided if guidance is None else guidance
        nets = [net] if guide is None else [net, guide]

        @contextmanager
        def held() -> Iterator[None]:
            with ExitStack() as stack:
                for each in nets:
                    stack.enter_context(EffectiveWeights(each).held())
                yield

        return HeunSampler(net, facts.shape, device, options, guiding, strength, held, facts.num_classes)

    def _levels(self, net: Precond, law: dict[str, Tensor]) -> dict[str, Any]:
        return {"sigma": law["sigma"], "sigma_data": net.sigma_data}

    def _skip_and_out(self, net: Precond, law: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        scalings = EDM(NoiseLevel(0.0, 1.0, net.sigma_data))
        return scalings.c_skip(law["sigma"]), scalings.c_out(law["sigma"])
