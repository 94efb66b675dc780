"""DINOv2 (ViT-L/14): the feature extractor of FD-DINOv2, as EDM2 measures it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 224  # pixels, what images are resized to
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on [0, 1]
OFFSET = 0.1  # added to the grid's side where the published network scales its position embedding
HEAD_WIDTH = 64  # of every published network
Resize = Literal["torch", "pil"]


class DINOv2(nn.Module):
    """The vision transformer without registers, with the published names of its tensors.

    Args: as the published `dinov2_vitl14` has them, which the defaults are.
    Source    DINOv2 (arXiv 2304.07193); EDM2 (arXiv 2312.02696) takes the final layer norm's class token.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        patch_size: int = 14,
        img_size: int = 518,
    ):
        super().__init__()
        self.embed_dim, self.patch_size, self.grid = embed_dim, patch_size, img_size // patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, embed_dim))
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))  # of pretraining; the file has it
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)}
        )
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> DINOv2:
        """The network, in eval mode, that this state_dict is of. ValueError when it is of none."""
        try:
            (_, _, width), (_, tokens, _) = state["cls_token"].shape, state["pos_embed"].shape
            patch = state["patch_embed.proj.weight"].shape[-1]
            depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
            side = round((tokens - 1) ** 0.5) * patch
            heads = max(1, width // HEAD_WIDTH)
            net = cls(embed_dim=width, depth=depth, num_heads=heads, patch_size=patch, img_size=side)
            net.load_state_dict(state)
        except (LookupError, ValueError, RuntimeError) as error:
            first = " ".join(str(error).split())[:200]
            raise ValueError(f"it does not hold a DINOv2 network without registers ({first})") from None
        return net.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N,3,H,W], sides multiples of the patch -> class token [N,D]."""
        return self.norm(self.tokens(x)[:, 0])

    def tokens(self, x: Tensor) -> Tensor:
        """All tokens before the final norm, [N,1+T,D]: the class token, then patches row by row."""
        patches = self.patch_embed["proj"](x)
        height, width = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1)
        tokens = tokens + self.position_embedding(height, width)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def position_embedding(self, height: int, width: int) -> Tensor:
        """That of a grid of height x width patches, [1,1+height*width,D].

        The published network interpolates by the scale (height + 0.1) / 37, not to the size `height`: at
        16 x 16 its last row lies 0.22 of the table's cells earlier. Bicubic, a = -0.75, no antialias.
        """
        if height == width == self.grid:
            return self.pos_embed
        table = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        scale = ((height + OFFSET) / self.grid, (width + OFFSET) / self.grid)
        resized = F.interpolate(table, scale_factor=scale, mode="bicubic", antialias=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)

    @torch.no_grad()
    def features(self, images: Tensor, resize: Resize = "torch") -> Tensor:
        """uint8 RGB [N,3,H,W], any size, on any device -> float32 [N,D] on the network's.

        resize "torch": bicubic with antialias in float32, neither rounded nor clamped, EDM2's; "pil":
        Pillow's on uint8, rounded and clamped after each pass, dgm-eval's.
        """
        return self(self.preprocess(images, resize))

    def preprocess(self, images: Tensor, resize: Resize = "torch") -> Tensor:
        """Straight to 224 x 224 without a crop, then normalised: float32 [N,3,224,224]."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"DINOv2 takes uint8 images [N,3,H,W], not {images.dtype} {list(images.shape)}.")
        if resize not in ("torch", "pil"):
            raise ValueError(f"resize must be torch or pil, not {resize!r}.")
        if images.shape[-2:] == (SIZE, SIZE):
            pixels = images.to(self.mean.device).float()
        elif resize == "torch":
            pixels = images.to(self.mean.device).float()
            pixels = F.interpolate(pixels, (SIZE, SIZE), mode="bicubic", antialias=True, align_corners=False)
        else:
            pixels = torch.stack([_pil_resized(image) for image in images.cpu()]).to(self.mean.device).float()
        return (pixels / 255 - self.mean) / self.std


class Block(nn.Module):
    """x += ls1 attn(LN1 x), x += ls2 mlp(LN2 x), with exact GELU."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, num_heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """[N,T,D] -> [N,T,D]."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Self-attention; the rows of qkv are q, k, v, each head by head."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N,T,D] -> [N,T,D]."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """A gain for every channel."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[...,D] -> [...,D]."""
        return x * self.gamma


class MLP(nn.Module):
    """Two linear layers, four times as wide between."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[...,D] -> [...,D]."""
        return self.fc2(F.gelu(self.fc1(x)))


def _pil_resized(image: Tensor) -> Tensor:
    """uint8 [3,H,W] -> uint8 [3,224,224]."""
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)
