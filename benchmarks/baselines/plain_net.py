"""The EDM2 network in plain torch, as a user would have it: contiguous, one label an image, no sharing.

Written from the published formulas (arXiv 2312.02696) and kept apart from the package, so that it stays what
it is when the package's network changes. Two choices favour it over the published code: resampling is pooling
and nearest-neighbour interpolation, and attention is `scaled_dot_product_attention`.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def normalize(x: Tensor, dim: int | list[int] | None = None) -> Tensor:
    """x / (1e-4 + rms(x)), the norm in float32; default: per output channel. EDM2, eq. 47."""
    if dim is None:
        dim = list(range(1, x.ndim))
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    norm = 1e-4 + norm * math.sqrt(norm.numel() / x.numel())
    return x / norm.to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    return F.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    return a.lerp(b, t) / math.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    scale = math.sqrt((a.shape[1] + b.shape[1]) / ((1 - t) ** 2 + t**2))
    return torch.cat(
        [scale * (1 - t) / math.sqrt(a.shape[1]) * a, scale * t / math.sqrt(b.shape[1]) * b], dim=1
    )


class Conv(nn.Module):
    """Magnitude-preserving convolution or linear layer; the weight is normalised in every forward."""

    def __init__(self, in_channels: int, out_channels: int, *kernel: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *kernel))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        w = normalize(self.weight.float()) * (gain / math.sqrt(self.weight[0].numel()))
        w = w.to(x.dtype)
        return x @ w.t() if w.ndim == 2 else F.conv2d(x, w, padding=w.shape[-1] // 2)


class Fourier(nn.Module):
    def __init__(self, num_channels: int):
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(num_channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        return (x.float()[:, None] * self.freqs + self.phases).cos() * math.sqrt(2)


class Block(nn.Module):
    """EDM2, Figure 21."""

    def __init__(self, in_channels, out_channels, emb_channels, decoder, resample, attention, options):
        super().__init__()
        self.decoder, self.resample, self.options = decoder, resample, options
        self.num_heads = out_channels // options["channels_per_head"] if attention else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = Conv(in_channels if decoder else out_channels, out_channels, 3, 3)
        self.emb_linear = Conv(emb_channels, out_channels)
        self.conv_res1 = Conv(out_channels, out_channels, 3, 3)
        self.conv_skip = Conv(in_channels, out_channels, 1, 1) if in_channels != out_channels else None
        if self.num_heads:
            self.attn_qkv = Conv(out_channels, out_channels * 3, 1, 1)
            self.attn_proj = Conv(out_channels, out_channels, 1, 1)

    def resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return x

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All [B,heads,channels,pixels]."""
        q, k, v = (part.transpose(-1, -2) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        x = self.resampled(x)
        if not self.decoder:
            if self.conv_skip is not None:
                x = self.conv_skip(x)
            x = normalize(x, dim=1)
        y = self.conv_res0(mp_silu(x))
        c = self.emb_linear(emb, gain=self.emb_gain) + 1
        y = mp_silu(y * c[:, :, None, None].to(y.dtype))
        if self.training and self.options["dropout"] > 0:
            y = F.dropout(y, self.options["dropout"])
        y = self.conv_res1(y)
        if self.decoder and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, y, self.options["res_balance"])
        if self.num_heads:
            y = self.attn_qkv(x)
            y = y.reshape(y.shape[0], self.num_heads, -1, 3, y.shape[2] * y.shape[3])
            y = self.attention(*normalize(y, dim=2).unbind(3))
            x = mp_sum(x, self.attn_proj(y.reshape(x.shape)), self.options["attn_balance"])
        clip = self.options["clip_act"]
        return x if clip is None else x.clip(-clip, clip)


class UNet(nn.Module):
    def __init__(
        self, img_resolution, img_channels, label_dim, model_channels, channel_mult, num_blocks,
        attn_resolutions, options, block_type=Block,
    ):  # fmt: skip
        super().__init__()
        widths = [model_channels * mult for mult in channel_mult]
        emb_width = max(widths)
        self.options = options
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = Fourier(widths[0])
        self.emb_noise = Conv(widths[0], emb_width)
        if label_dim:
            self.emb_label = Conv(label_dim, emb_width)
        self.enc, self.dec, skips = nn.ModuleDict(), nn.ModuleDict(), []

        def block(width_in, width_out, decoder, resample, attention):
            return block_type(width_in, width_out, emb_width, decoder, resample, attention, options)

        width = img_channels + 1
        for level, width_out in enumerate(widths):
            res = img_resolution >> level
            if level == 0:
                self.enc[f"{res}x{res}_conv"] = Conv(width, width_out, 3, 3)
                width = width_out
            else:
                self.enc[f"{res}x{res}_down"] = block(width, width, False, "down", False)
            skips.append(width)
            for i in range(num_blocks):
                attention = res in attn_resolutions
                self.enc[f"{res}x{res}_block{i}"] = block(width, width_out, False, "keep", attention)
                width = width_out
                skips.append(width)
        for level, width_out in reversed(list(enumerate(widths))):
            res = img_resolution >> level
            if level == len(widths) - 1:
                self.dec[f"{res}x{res}_in0"] = block(width, width, True, "keep", True)
                self.dec[f"{res}x{res}_in1"] = block(width, width, True, "keep", False)
            else:
                self.dec[f"{res}x{res}_up"] = block(width, width, True, "up", False)
            for i in range(num_blocks + 1):
                attention = res in attn_resolutions
                width_in = width + skips.pop()
                self.dec[f"{res}x{res}_block{i}"] = block(width_in, width_out, True, "keep", attention)
                width = width_out
        self.out_conv = Conv(width, img_channels, 3, 3)

    def forward(self, x: Tensor, c_noise: Tensor, one_hot: Tensor | None) -> Tensor:
        emb = self.emb_noise(self.emb_fourier(c_noise))
        if one_hot is not None:
            label = self.emb_label(one_hot * math.sqrt(one_hot.shape[1]))
            emb = mp_sum(emb, label, self.options["label_balance"])
        emb = mp_silu(emb)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips = []
        for module in self.enc.values():
            x = module(x) if isinstance(module, Conv) else module(x, emb)
            skips.append(x)
        for name, module in self.dec.items():
            if "block" in name:
                x = mp_cat(x, skips.pop(), self.options["concat_balance"])
            x = module(x, emb)
        return self.out_conv(x, gain=self.out_gain)


class PlainNet(nn.Module):
    """The denoiser D(x; sigma, c) with the published parameter names; loads a published state_dict.

    x: float32 [B,C,H,W]; sigma: [B]; one_hot: float32 [B,label_dim] -> float32 [B,C,H,W]. `dtype` is what
    the U-Net computes in; `block_type` what it is made of.
    """

    block_type = Block

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        *,
        sigma_data: float = 0.5,
        logvar_channels: int = 128,
        model_channels: int = 192,
        channel_mult: tuple[int, ...] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attn_resolutions: tuple[int, ...] = (16, 8),
        dtype: torch.dtype = torch.float32,
        **options,
    ):
        super().__init__()
        self.sigma_data, self.dtype = sigma_data, dtype
        defaults = dict(
            label_balance=0.5, concat_balance=0.5, res_balance=0.3, attn_balance=0.3, channels_per_head=64,
            dropout=0.0, clip_act=256,
        )  # fmt: skip
        self.unet = UNet(
            img_resolution, img_channels, label_dim, model_channels, channel_mult, num_blocks,
            attn_resolutions, defaults | options, self.block_type,
        )  # fmt: skip
        self.logvar_fourier = Fourier(logvar_channels)
        self.logvar_linear = Conv(logvar_channels, 1)

    def forward(self, x: Tensor, sigma: Tensor, one_hot: Tensor | None) -> Tensor:
        sigma = sigma.reshape(-1, 1, 1, 1)
        c_skip = self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
        c_out = sigma * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()
        c_in = 1 / (self.sigma_data**2 + sigma**2).sqrt()
        c_noise = sigma.flatten().log() / 4
        raw = self.unet((c_in * x).to(self.dtype), c_noise, one_hot)
        return c_skip * x + c_out * raw.float()
