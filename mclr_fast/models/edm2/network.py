"""The EDM2 denoiser: U-Net, preconditioning and uncertainty head (arXiv 2312.02696)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mclr_fast import ops

from .layers import Block, DropoutKey, MPConv, MPFourier


class UNet(nn.Module):
    """EDM2's U-Net. Constructor arguments as `Precond`; names of modules as published."""

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        model_channels: int,
        channel_mult: Sequence[int],
        channel_mult_noise: float | None,
        channel_mult_emb: float | None,
        num_blocks: int,
        attn_resolutions: Sequence[int],
        label_balance: float,
        concat_balance: float,
        **block_kwargs,
    ):
        super().__init__()
        widths = [model_channels * mult for mult in channel_mult]
        noise_width = int(model_channels * channel_mult_noise) if channel_mult_noise else widths[0]
        emb_width = int(model_channels * channel_mult_emb) if channel_mult_emb else max(widths)
        self.label_balance = label_balance
        self.concat_balance = concat_balance
        self.out_gain = nn.Parameter(torch.zeros(1))
        self.emb_fourier = MPFourier(noise_width)
        self.emb_noise = MPConv(noise_width, emb_width, ())
        self.emb_label = MPConv(label_dim, emb_width, ()) if label_dim else None

        def block(width_in: int, width_out: int, resolution: int, **kwargs) -> Block:
            kwargs.setdefault("attention", resolution in attn_resolutions)
            return Block(width_in, width_out, emb_width, **kwargs, **block_kwargs)

        self.enc = nn.ModuleDict()
        skips = []
        width = img_channels + 1
        for level, width_out in enumerate(widths):
            res = img_resolution >> level
            if level == 0:
                self.enc[f"{res}x{res}_conv"] = MPConv(width, width_out, (3, 3))
                width = width_out
            else:
                self.enc[f"{res}x{res}_down"] = block(
                    width, width, res, decoder=False, resample="down", attention=False
                )
            skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{res}x{res}_block{i}"] = block(width, width_out, res, decoder=False)
                width = width_out
                skips.append(width)

        self.dec = nn.ModuleDict()
        for level, width_out in reversed(list(enumerate(widths))):
            res = img_resolution >> level
            if level == len(widths) - 1:
                self.dec[f"{res}x{res}_in0"] = block(width, width, res, decoder=True, attention=True)
                self.dec[f"{res}x{res}_in1"] = block(width, width, res, decoder=True, attention=False)
            else:
                self.dec[f"{res}x{res}_up"] = block(
                    width, width, res, decoder=True, resample="up", attention=False
                )
            for i in range(num_blocks + 1):
                self.dec[f"{res}x{res}_block{i}"] = block(width + skips.pop(), width_out, res, decoder=True)
                width = width_out
        self.out_conv = MPConv(width, img_channels, (3, 3))

    def embed(self, c_noise: Tensor, one_hot: Tensor | None) -> Tensor:
        """The blocks' embedding.

        Shapes    c_noise: float32 [1] or [N]; one_hot: float32 [N,R,label_dim], or None for a net
                  without labels -> [1,E], [N,E] or, with labels, [N*R,E].
        """
        emb = self.emb_noise(self.emb_fourier(c_noise))
        if one_hot is not None:
            label = self.emb_label(one_hot * math.sqrt(one_hot.shape[-1]))
            emb = ops.mp_sum(emb[:, None].expand_as(label), label, self.label_balance).flatten(0, 1)
        return ops.mp_silu(emb)

    def forward(self, x: Tensor, emb: Tensor, dropout_key: DropoutKey | None = None) -> Tensor:
        """x: [B,C,H,W] -> [B,C,H,W], in x's dtype; emb: float32 [B,E] or [1,E]."""
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        layer = 0

        def key() -> tuple[int, int, Tensor] | None:
            nonlocal layer
            layer += 1
            if dropout_key is None:
                return None
            return dropout_key.seed, DROPOUT_STREAM + layer, dropout_key.position

        skips = []
        for module in self.enc.values():
            x = module(x, emb, dropout_key=key()) if isinstance(module, Block) else module(x)
            skips.append(x)
        for name, module in self.dec.items():
            skip = skips.pop() if "block" in name else None
            x = module(x, emb, skip, self.concat_balance, key())
        return self.out_conv(x, self.out_gain)


DROPOUT_STREAM = 1 << 16  # Philox streams above this are dropout masks, one a block.


class Precond(nn.Module):
    """The denoiser D(x; sigma, c).

    Args:
        img_resolution, img_channels: image size; label_dim: number of classes, 0 = unconditional.
        sigma_data: assumed standard deviation of the data.
        logvar_channels: width of the uncertainty head u(sigma).
        model_channels, channel_mult, num_blocks: width, its multiple per level, blocks per level.
        channel_mult_noise, channel_mult_emb: widths of noise features and embedding; None = the first
            and the widest level's.
        attn_resolutions, channels_per_head: where attention is and how wide its heads are.
        label_balance, concat_balance, res_balance, attn_balance: EDM2's t of each magnitude-preserving
            sum or concatenation; resample_filter: only (1, 1), the published one.
        dropout, clip_act: of the blocks; dtype: what the U-Net computes in (norms, embeddings and
            preconditioning stay float32).

    The forward pass never writes a parameter: `force_weight_norm_` is the trainer's post-step.
    Source: EDM2 (arXiv 2312.02696), Table 6 and Figure 21; preconditioning: EDM, Table 1.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        *,
        sigma_data: float = 0.5,
        logvar_channels: int = 128,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: float | None = None,
        channel_mult_emb: float | None = None,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        resample_filter: Sequence[int] = (1, 1),
        channels_per_head: int = 64,
        dropout: float = 0.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float | None = 256,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        if tuple(resample_filter) != (1, 1):
            raise ValueError(f"resample_filter must be (1, 1), not {tuple(resample_filter)}.")
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.sigma_data = sigma_data
        self.dtype = dtype
        self.dropout_key: DropoutKey | None = None
        self.unet = UNet(
            img_resolution,
            img_channels,
            label_dim,
            model_channels,
            channel_mult,
            channel_mult_noise,
            channel_mult_emb,
            num_blocks,
            attn_resolutions,
            label_balance,
            concat_balance,
            channels_per_head=channels_per_head,
            dropout=dropout,
            res_balance=res_balance,
            attn_balance=attn_balance,
            clip_act=clip_act,
        )
        self.logvar_fourier = MPFourier(logvar_channels)
        self.logvar_linear = MPConv(logvar_channels, 1, ())
        self.register_state_dict_post_hook(_gains_to_scalars)
        self.register_load_state_dict_pre_hook(_gains_from_scalars)

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None = None,
        *,
        return_logvar: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Denoise x.

        Shapes    x: [N,C,H,W]; sigma: [N] or 0-dim; class_labels: int64 [N] (-1 = the zero label
                  vector), floating [N,label_dim], None (zero label vectors), or int64 [N,R]: N R
                  evaluations, R labels an image; x may then be [N,R,C,H,W], one image a label
                  -> D [N,C,H,W], or [N,R,C,H,W] for [N,R] labels; logvar [N,1,1,1] or [1,1,1,1].
        Dtypes    any floating x -> float32.
        Errors    ValueError for labels of another shape, or (on the CPU) outside [-1, label_dim).
        """
        x = x.float()
        sigma = sigma.float().reshape(-1)
        one_hot = self._one_hot(class_labels, len(x))
        num_images, num_columns = len(x), 1 if one_hot is None else one_hot.shape[1]
        # Integer labels [N,R] ask for columns, also with R = 1; any other form for one result an image.
        columns = one_hot is not None and class_labels is not None and class_labels.ndim == 2
        columns = columns and not class_labels.is_floating_point()
        if len(sigma) not in (1, num_images):
            raise ValueError(f"sigma has {len(sigma)} values for {num_images} images: give one or one each.")
        if x.ndim == 5 and not (columns and x.shape[1] == num_columns):
            raise ValueError(
                f"x of shape {list(x.shape)} holds one image a label: it needs int64 class_labels "
                f"[{x.shape[0]},{x.shape[1]}]."
            )
        x = (x if x.ndim == 5 else x[:, None].expand(-1, num_columns, -1, -1, -1)).flatten(0, 1)
        sigma_B = sigma.repeat_interleave(num_columns) if len(sigma) > 1 else sigma
        sigma_B = sigma_B.view(-1, 1, 1, 1)

        total = sigma_B**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        c_out = sigma_B * self.sigma_data / total.sqrt()
        c_noise = sigma.log() / 4
        emb = self.unet.embed(c_noise, one_hot)
        key = self.dropout_key
        if key is not None:
            key = key._replace(position=key.position.repeat_interleave(num_columns))
        raw = self.unet((x * (1 / total.sqrt())).to(self.dtype), emb, key)
        denoised = c_skip * x + c_out * raw.float()
        if columns:
            denoised = denoised.unflatten(0, (num_images, num_columns))
        if not return_logvar:
            return denoised
        return denoised, self.logvar_linear(self.logvar_fourier(c_noise)).view(-1, 1, 1, 1)

    def contrast(self, x_noisy: Tensor, sigma: Tensor, labels_NR: Tensor) -> Tensor:
        """D of every image under each of its R labels: `forward` with labels [N,R]."""
        return self(x_noisy, sigma, labels_NR)

    def _one_hot(self, class_labels: Tensor | None, num_images: int) -> Tensor | None:
        """Label vectors [N,R,label_dim] of any accepted form of labels; None for an unlabelled net."""
        if self.label_dim == 0:
            return None
        weight = self.unet.emb_label.weight
        if class_labels is None:
            return weight.new_zeros(num_images, 1, self.label_dim)
        if class_labels.is_floating_point():
            if class_labels.shape not in ((num_images, self.label_dim), (1, self.label_dim)):
                raise ValueError(
                    f"floating class_labels must be [{num_images},{self.label_dim}] for {num_images} images, "
                    f"not {list(class_labels.shape)}; class indices must be int64."
                )
            return class_labels.float()[:, None].expand(num_images, 1, -1)
        labels = class_labels[:, None] if class_labels.ndim == 1 else class_labels
        if labels.ndim != 2 or len(labels) != num_images:
            raise ValueError(
                f"class_labels must be [{num_images}] or [{num_images},R] for {num_images} images, "
                f"not {list(class_labels.shape)}."
            )
        if labels.device.type == "cpu" and labels.numel() > 0:
            low, high = labels.aminmax()
            if low < -1 or high >= self.label_dim:
                raise ValueError(
                    f"class_labels lie in [{low}, {high}]; this net knows classes 0 to "
                    f"{self.label_dim - 1}, and -1 for no label."
                )
        classes = torch.arange(self.label_dim, device=labels.device)
        return (labels[:, :, None] == classes).float()


def force_weight_norm_(net: nn.Module) -> None:
    """Normalise every MPConv weight of `net` per output channel, in place. Source: EDM2, eq. 66.

    Run once after building or loading a net to train, then after every optimizer step.
    """
    ops.force_weight_norm_(normalized_weights(net))


def normalized_weights(net: nn.Module) -> list[nn.Parameter]:
    """The parameters that forced weight normalisation acts on: every MPConv weight."""
    return [module.weight for module in net.modules() if isinstance(module, MPConv)]


def _is_gain(name: str) -> bool:
    return name.endswith((".out_gain", ".emb_gain"))


def _gains_to_scalars(_module, state_dict: dict, prefix: str, _metadata) -> None:
    """Gains are held as [1], since FSDP2 refuses 0-dim parameters, and published 0-dim."""
    for name in state_dict:
        if name.startswith(prefix) and _is_gain(name):
            state_dict[name] = state_dict[name].reshape(())


def _gains_from_scalars(_module, state_dict: dict, prefix: str, *_unused) -> None:
    for name in state_dict:
        if name.startswith(prefix) and _is_gain(name):
            state_dict[name] = state_dict[name].reshape(1)
