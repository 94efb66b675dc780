"""VAR as a family: exact likelihoods of tokens, under all labels of an image at once."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mclr_fast.data import Codec, Dataset, rng
from mclr_fast.models.arguments import takes
from mclr_fast.models.family import Arguments, Coefficients, Facts, Family, coefficients_of
from mclr_fast.models.rows import Rows
from mclr_fast.sampling.autoregressive import KEY_NUMBERS, AutoregressiveSampler, drawn_at, gumbels_at

from .inference import cast_weights, generate, generate_smooth
from .network import VAR
from .scales import spans
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from mclr_fast.config import SamplerConfig

NUM_LOOKED_AT = 16  # stored images whose tokens are looked at
SAMPLER: Mapping[str, Any] = {"top_k": 0, "top_p": 0.0, "classes": "in turn"}
NOT_ARCHITECTURE = ("dtype", "drop_path_rate", "cond_drop_rate", "vqvae")


@dataclass(frozen=True)
class TokenInputs:
    """What all evaluations of some rows share.

    Attributes: tokens int64 [n,L] or [n,w,L]; inputs and kept, as `VAR.forward` takes them.
    """

    tokens: Tensor
    inputs: Tensor
    kept: Tensor | None = None


class TokenCodec:
    """Tokens as they are stored, or images through the VQVAE. See `mclr_fast.data.Codec`."""

    num_normals, mirrors, makes_images = 0, False, True

    def __init__(self, tokenizer: Tokenizer, length: int):
        self.tokenizer = tokenizer
        self.shape = (length,)
        self.decode = tokenizer.decode

    def encode(self, raw: Tensor, normals: Tensor | None = None) -> Tensor:
        """Tokens [m,L], or images uint8 [m,C,H,W] -> tokens int64 [m,L]."""
        if raw.ndim == 2:
            return raw.long()
        vqvae = self.tokenizer.vqvae(raw.device)
        return torch.cat(vqvae.encode_tokens(raw.float() / 255 * 2 - 1), dim=1)

    def teacher_inputs(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [m,L] -> what a transformer is given beside the label. ValueError for others."""
        return self.tokenizer.vqvae(tokens.device).teacher_inputs(tokens)

    def stored(self, x: Tensor) -> Tensor:
        """As data sets hold them, int16."""
        return x.short()


class Autoregressive(Family):
    """See `models.family.Family`: energies are -log p of an image's tokens.

    A network's arguments may name its VQVAE ("vqvae"), of which training needs the codebook and sampling all.
    """

    gives = frozenset({"energies"})
    sampler_defaults = SAMPLER
    unguided, guided = AutoregressiveSampler.unguided, "varcfg"
    image_arguments = ("patch_nums", "vocab_size", "z_channels", "num_classes")
    takes = takes(VAR, without=("dtype", "drop_path_rate"), beside={"vqvae": str})
    fixed_energies = True
    smooths = True

    def build(self, arguments: Arguments, *, dtype: torch.dtype, dropout: float = 0.0) -> VAR:
        """As `Family.build`; dropout is of whole branches (drop path)."""
        known = {name: value for name, value in arguments.items() if name != "vqvae"}
        net = VAR(**{**known, "dtype": dtype, "drop_path_rate": dropout})
        net.tokenizer = self._tokenizer(arguments)
        return net

    def facts(self, arguments: Arguments) -> Facts:
        """As `Family.facts`."""
        arguments = _with_defaults(arguments)
        length = spans(arguments["patch_nums"])[-1][1]
        return Facts((length,), arguments["num_classes"], torch.int64)

    def complete(self, arguments: Arguments) -> Arguments:
        """As `Family.complete`."""
        known = _with_defaults(arguments).items()
        return json.loads(json.dumps({name: v for name, v in known if name not in NOT_ARCHITECTURE}))

    def codec(self, arguments: Arguments, dataset: Dataset | None = None) -> Codec:
        """As `Family.codec`. ValueError for a wrong VQVAE, and for stored images of another size."""
        tokenizer, (length,) = self._tokenizer(arguments), self.facts(arguments).shape
        tokenizer.check()
        if dataset is None:
            return TokenCodec(tokenizer, length)
        if len(dataset.image_shape) == 1:
            _check_stored(dataset, tokenizer.sizes[0])
            return TokenCodec(tokenizer, dataset.image_shape[0])
        if tuple(dataset.image_shape) != (wanted := tokenizer.image_shape):
            raise ValueError(
                f"the images are {list(dataset.image_shape)}, and the network's of scales "
                f"{list(tokenizer.patch_nums)} are {list(wanted)}: prepare the data at that size."
            )
        return TokenCodec(tokenizer, length)

    def beside(self, arguments: Arguments) -> tuple[str, ...]:
        """As `Family.beside`: its VQVAE."""
        source = self._tokenizer(arguments).source
        return () if source is None else (source,)

    def inputs(self, net: VAR, rows: Rows) -> TokenInputs:
        """As `Family.inputs`: what is known of an image while each of its tokens is predicted.

        With dropout also which branches a row goes without, under all its labels and in the reference.
        """
        tokens = rows.x
        quantizer = net.tokenizer.quantizer(tokens.device)
        with torch.no_grad():
            inputs = quantizer.teacher_inputs(tokens.flatten(0, -2))
        kept = None
        if net.drop_path_rate > 0:
            kept = net.kept_branches(rng.branch_uniforms(rows.seed, rows.position, 2 * len(net.blocks)))
        return TokenInputs(tokens, inputs.unflatten(0, tokens.shape[:-1]), kept)

    def without_first(self, inputs: TokenInputs) -> TokenInputs:
        """As `Family.without_first`: what the row's columns share stays."""
        if inputs.tokens.ndim == 2:
            return inputs
        return TokenInputs(inputs.tokens[:, 1:], inputs.inputs[:, 1:], inputs.kept)

    def energies(self, net: VAR, inputs: TokenInputs, labels_NR: Tensor) -> Tensor:
        """As `Family.energies`: exact."""
        return net(labels_NR, inputs.inputs, inputs.tokens, kept=inputs.kept)

    def contrast(
        self, net: VAR, inputs: TokenInputs, labels_NR: Tensor, coefficients: Coefficients
    ) -> Tensor:
        """As `Family.contrast`; the head's gradient is made in its forward pass."""
        energy = net(labels_NR, inputs.inputs, inputs.tokens, coefficients=coefficients, kept=inputs.kept)
        (energy * coefficients_of(energy, coefficients)).sum().backward()
        return energy.detach()

    def own_loss(self, net: VAR, inputs: TokenInputs, labels_NR: Tensor) -> tuple[Tensor, Tensor]:
        """As `Family.own_loss`: the mean over tokens of their cross-entropy."""
        energy = self.energies(net, inputs, labels_NR)
        return energy[:, 0] / net.length, energy

    def shard_groups(self, net: VAR) -> list[nn.Module]:
        """As `Family.shard_groups`: the blocks."""
        return list(net.blocks)

    def sampler(
        self,
        net: VAR,
        facts: Facts,
        options: SamplerConfig,
        *,
        guidance: float | None = None,
        guide: nn.Module | None = None,
    ) -> AutoregressiveSampler:
        """As `Family.sampler`; a network guides itself. ValueError for another one that should."""
        if guide is not None:
            raise ValueError(
                "a VAR is guided by itself, without a label: leave out the network that guides it."
            )
        device = net.head.weight.device

        def tokens(labels: Tensor, uniforms: Tensor, *, guidance: float, **kept: float) -> Tensor:
            quantizer = net.tokenizer.quantizer(device)
            return generate(net, labels, quantizer, cfg=guidance, **kept, draw=drawn_at(uniforms))

        def features(labels: Tensor, keys: Tensor, *, guidance: float, **kept: float) -> Tensor:
            quantizer = net.tokenizer.quantizer(device)
            return generate_smooth(net, labels, quantizer, cfg=guidance, **kept, gumbels=gumbels_at(keys))

        @contextmanager
        def hold() -> Iterator[None]:
            quantizer = net.tokenizer.quantizer(device)  # kept: graphs read its weights
            with cast_weights(net):
                yield
            del quantizer

        made = (features, KEY_NUMBERS) if options.more_smooth else (tokens, net.length)
        return AutoregressiveSampler(
            *made,
            len(net.patch_nums),
            device,
            top_k=options.top_k or 0,
            top_p=options.top_p or 0.0,
            hold=hold,
            cuda_graphs=options.cuda_graphs == "on",
            guidance=self.unguided if guidance is None else guidance,
        )

    def _tokenizer(self, arguments: Arguments) -> Tokenizer:
        known = _with_defaults(arguments)
        sizes = (known["patch_nums"], known["vocab_size"], known["z_channels"])
        return Tokenizer(arguments.get("vqvae"), *sizes)


def _check_stored(dataset: Dataset, vocab_size: int) -> None:
    """ValueError for a token among the first that the vocabulary lacks: on a GPU it would end the process."""
    some = np.asarray(dataset.images(np.arange(min(len(dataset), NUM_LOOKED_AT))))
    if some.min() < 0 or some.max() >= vocab_size:
        wrong = some.min() if some.min() < 0 else some.max()
        raise ValueError(
            f"the data hold token {wrong}, and the network's are 0 to {vocab_size - 1}: they are of another "
            "VQVAE."
        )


def _with_defaults(arguments: Arguments) -> dict[str, Any]:
    parameters = inspect.signature(VAR).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty} | arguments
