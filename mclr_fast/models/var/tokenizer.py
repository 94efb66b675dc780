"""The VQVAE that goes with a transformer: found, checked, read when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mclr_fast.models.storage import files, published

from .presets import VQVAE_ARGUMENTS as PUBLISHED
from .quantizer import Quantizer
from .vqvae import VQVAE

NONE = (
    "the model does not say which VQVAE its tokens are of: put VAR's vae_ch160v4096z32.pth beside its .pth, "
    'or name one in its config.json, under "net", as "vqvae" (a folder of ours, a .pth, or a published name).'
)


class Tokenizer:
    """A transformer's VQVAE by its source: checked by its description, read at the first use, kept by device.

    Args:
        source: a folder of ours, a .pth (VAR's training checkpoints hold one too), or a published name; None:
            VAR's own, where the sizes are its.
        patch_nums, vocab_size, z_channels: the transformer's.
    """

    def __init__(self, source: str | None, patch_nums: Sequence[int], vocab_size: int, z_channels: int):
        own = (vocab_size, z_channels) == (PUBLISHED["vocab_size"], PUBLISHED["z_channels"])
        self.source = source or (published.VQVAE if own else None)
        self.patch_nums = tuple(patch_nums)
        self.sizes = (vocab_size, z_channels)

    def check(self) -> None:
        """ValueError, before anything large is read, for no VQVAE or one that does not go with it.

        Nothing is downloaded for that.
        """
        if published.to_download(self.source) is None:
            self._described()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images; the published ones' while it is to be downloaded. As `check`."""
        there = published.to_download(self.source) is None
        return self._on_meta(self._described()[0] if there else PUBLISHED).image_shape

    def quantizer(self, device: torch.device) -> Quantizer:
        """What makes a transformer's inputs of tokens; on the meta device one without weights."""
        if device.type == "meta":
            with device:
                return Quantizer(*self.sizes, self.patch_nums)
        return self.vqvae(device).quantizer

    def vqvae(self, device: torch.device) -> VQVAE:
        """The whole of it, at the transformer's scales, in eval mode, without gradients. As `check`."""
        return _opened(self.source, self.patch_nums, self.sizes, device)

    def decode(self, x: Tensor) -> Tensor:
        """Tokens int64 [b,L], or features float32 [b,Cv,P,P] -> images uint8 [b,C,H,W].

        That is [0, 1] times 255, truncated, as VAR's scripts do.
        """
        vqvae = self.vqvae(x.device)
        with torch.no_grad():
            images = vqvae.decode_features(x) if x.is_floating_point() else vqvae.decode_tokens(x)
        return (images.add(1).mul(0.5) * 255).to(torch.uint8)

    def read(self) -> VQVAE:
        """It, read now, on the CPU."""
        arguments, state = self._described()
        vqvae = self._on_meta(arguments)
        state = {name: tensor.float() for name, tensor in state().items()}
        files.check_state(vqvae.state_dict(), state, self.source)
        vqvae.load_state_dict(state, assign=True)
        return vqvae.eval().requires_grad_(False)

    def _on_meta(self, arguments: dict[str, Any]) -> VQVAE:
        """A VQVAE of these arguments at the transformer's scales, without weights."""
        with torch.device("meta"):
            return VQVAE(**arguments | {"v_patch_nums": self.patch_nums})

    def _described(self) -> tuple[dict[str, Any], Callable[[], dict[str, Tensor]]]:
        """(constructor arguments, what reads the tensors) of a VQVAE that goes with the transformer."""
        if self.source is None:
            raise ValueError(NONE)
        config, read = files.find_vqvae(self.source)
        arguments, sides = config["net"], list(self.patch_nums)
        said, from_shapes = list(arguments["v_patch_nums"]), config.get("format") == "var-vqvae-pth"
        wrong = f"the VQVAE at {self.source} does not go with the transformer: "
        if len(said) != len(sides) or (said != sides and not from_shapes):
            raise ValueError(f"{wrong}its scales are {said}, the transformer's {sides}.")
        own = (arguments["vocab_size"], arguments["z_channels"])
        if own != self.sizes:
            raise ValueError(
                f"{wrong}it has {own[0]} tokens of {own[1]} channels, the transformer {self.sizes[0]} of "
                f"{self.sizes[1]}."
            )
        return arguments, read


@lru_cache(maxsize=4)
def _opened(
    source: str | None, patch_nums: tuple[int, ...], sizes: tuple[int, int], device: torch.device
) -> VQVAE:
    return Tokenizer(source, patch_nums, *sizes).read().to(device)
