"""The VQVAE that goes with a transformer: found, checked, read when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from mclr_fast.models import files

from .quantizer import Quantizer
from .vqvae import VQVAE

NONE = (
    "the model does not say which VQVAE its tokens are of: put VAR's vae_ch160v4096z32.pth beside its .pth, "
    'or name one in its config.json, under "net", as "vqvae" (a folder of ours, a .pth, or a published name).'
)


def open_vqvae(source: str | None, patch_nums: Sequence[int]) -> VQVAE:
    """The VQVAE at a source, at the transformer's scales, in eval mode, without gradients, on the CPU.

    Args: source: a folder of ours, a .pth (VAR's training checkpoints hold one too), or a published name.
    Errors    ValueError for None, for what is no VQVAE, or for one of other scales.
    """
    if source is None:
        raise ValueError(NONE)
    config, state = files.read_vqvae(source)
    arguments, sides = config["net"], list(patch_nums)
    said, from_shapes = list(arguments["v_patch_nums"]), config.get("format") == "var-vqvae-pth"
    if len(said) != len(sides) or (said != sides and not from_shapes):
        raise ValueError(
            f"the VQVAE at {source} does not go with the transformer: its scales are {said}, the "
            f"transformer's {sides}."
        )
    with torch.device("meta"):
        vqvae = VQVAE(**arguments | {"v_patch_nums": sides})
    files.check_state(vqvae.state_dict(), state, source)
    vqvae.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return vqvae.eval().requires_grad_(False)


class Tokenizer:
    """A VQVAE by its source: read at the first use, kept by device."""

    def __init__(self, source: str | None, patch_nums: Sequence[int], vocab_size: int, z_channels: int):
        self.source = source
        self.patch_nums = tuple(patch_nums)
        self.sizes = (vocab_size, z_channels)

    def quantizer(self, device: torch.device) -> Quantizer:
        """What makes a transformer's inputs of tokens; on the meta device one without weights."""
        if device.type == "meta":
            with device:
                return Quantizer(*self.sizes, self.patch_nums)
        return self.vqvae(device).quantizer

    def vqvae(self, device: torch.device) -> VQVAE:
        """The whole of it. ValueError where it does not go with the transformer."""
        vqvae = _opened(self.source, self.patch_nums, device)
        own = (vqvae.quantizer.vocab_size, vqvae.quantizer.z_channels)
        if own != self.sizes:
            raise ValueError(
                f"the VQVAE at {self.source} does not go with the transformer: it has {own[0]} tokens of "
                f"{own[1]} channels, the transformer {self.sizes[0]} of {self.sizes[1]}."
            )
        return vqvae

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [b,L] -> images uint8 [b,3,H,W]: [0, 1] times 255, truncated, as VAR's scripts do."""
        images = self.vqvae(tokens.device).decode_tokens(tokens)
        return (images.add(1).mul(0.5) * 255).to(torch.uint8)


@lru_cache(maxsize=4)
def _opened(source: str | None, patch_nums: tuple[int, ...], device: torch.device) -> VQVAE:
    return open_vqvae(source, patch_nums).to(device)
