"""Encoder and decoder of VAR's VQVAE: the convolutional networks of VQGAN (arXiv 2012.09841)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

CH_MULT = (1, 1, 2, 2, 4)  # of published models: multiples of the base width, by level
ENCODER_BLOCKS, DECODER_BLOCKS = 2, 3  # a level
NORM_GROUPS, NORM_EPS = 32, 1e-6


def norm(width: int) -> nn.GroupNorm:
    """The group norm that all of it uses."""
    return nn.GroupNorm(NORM_GROUPS, width, eps=NORM_EPS)


class ResBlock(nn.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x)))))); x through a 1x1 convolution where the width changes."""

    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.norm1 = norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2 = norm(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B,Cin,H,W] -> [B,Cout,H,W]."""
        y = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class AttnBlock(nn.Module):
    """x and what its places see of each other, by one head as wide as they are."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> the same shape."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        y = F.scaled_dot_product_attention(q, k, v)  # [B,1,HW,C], of scale C^-0.5
        return x + self.proj_out(y.squeeze(1).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Half the side: a row and a column of zeros at the end, then a convolution of stride 2."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,H/2,W/2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the side: nearest neighbours, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,C,2H,2W]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """Block, attention, block, at the deepest level."""

    def __init__(self, width: int):
        super().__init__()
        self.block_1 = ResBlock(width, width)
        self.attn_1 = AttnBlock(width)
        self.block_2 = ResBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> the same shape."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """The blocks at one resolution, each followed by attention at the deepest."""

    def __init__(self, width_in: int, width_out: int, num_blocks: int, *, attends: bool):
        super().__init__()
        widths = [width_in] + [width_out] * (num_blocks - 1)
        self.block = nn.ModuleList(ResBlock(width, width_out) for width in widths)
        self.attn = nn.ModuleList(AttnBlock(width_out) for _ in range(num_blocks * attends))
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B,Cin,H,W] -> [B,Cout,H',W'], smaller or larger where it leads to another level."""
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return self.upsample(self.downsample(x))


class Encoder(nn.Module):
    """Images to features, of half the side for every level after the first."""

    def __init__(self, ch: int, z_channels: int, ch_mult: Sequence[int] = CH_MULT, img_channels: int = 3):
        super().__init__()
        widths, deepest = [ch * multiple for multiple in ch_mult], len(ch_mult) - 1
        self.conv_in = nn.Conv2d(img_channels, ch, 3, padding=1)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            before = widths[max(level - 1, 0)]
            self.down.append(Level(before, width, ENCODER_BLOCKS, attends=level == deepest))
            if level < deepest:
                self.down[level].downsample = Downsample(width)
        self.mid = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> [B,z_channels,h,w]."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Features to images; `up` is indexed by level like the encoder's `down`, and run from the deepest."""

    def __init__(self, ch: int, z_channels: int, ch_mult: Sequence[int] = CH_MULT, img_channels: int = 3):
        super().__init__()
        widths, deepest = [ch * multiple for multiple in ch_mult], len(ch_mult) - 1
        self.conv_in = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList()
        for level, width in enumerate(widths):
            before = widths[min(level + 1, deepest)]
            self.up.append(Level(before, width, DECODER_BLOCKS, attends=level == deepest))
            if level > 0:
                self.up[level].upsample = Upsample(width)
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], img_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """[B,z_channels,h,w] -> [B,C,H,W]."""
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))
