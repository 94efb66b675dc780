"""The EDM2 denoiser: U-Net, preconditioning and uncertainty head (arXiv 2312.02696)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mclr_fast import ops
from mclr_fast.data.rng import DROPOUT_STREAM

from .inference import embeddings, fits_a_program, program_call
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

        last = len(widths) - 1
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
                activates = level == last and i == num_blocks - 1
                self.enc[f"{res}x{res}_block{i}"] = block(
                    width, width_out, res, decoder=False, activates=activates
                )
                width = width_out
                skips.append(width)

        self.dec = nn.ModuleDict()
        for level, width_out in reversed(list(enumerate(widths))):
            res = img_resolution >> level
            if level == last:
                self.dec[f"{res}x{res}_in0"] = block(
                    width, width, res, decoder=True, activates=True, attention=True
                )
                self.dec[f"{res}x{res}_in1"] = block(width, width, res, decoder=True, attention=False)
            else:
                self.dec[f"{res}x{res}_up"] = block(
                    width, width, res, decoder=True, resample="up", attention=False
                )
            for i in range(num_blocks + 1):
                self.dec[f"{res}x{res}_block{i}"] = block(
                    width + skips.pop(), width_out, res, decoder=True, activates=level > 0 and i == num_blocks
                )
                width = width_out
        self.out_conv = MPConv(width, img_channels, (3, 3))

    def embed(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """The blocks' embedding; the noise's once an image, a label's by its column of the weight.

        Shapes    c_noise: float32 [1] or [N]; labels: int64 [N,R] (-1 = the zero label vector), floating
                  [N,R,label_dim], or None for a net without labels -> [1,E], [N,E] or, with labels, [N*R,E].
        """
        label = self.label_embedding(labels)
        noise = self.noise_embedding(c_noise)
        if label is None:
            return self.joint_embedding(noise, None)
        return self.joint_embedding(noise[:, None].expand_as(label), label).flatten(0, 1)

    def noise_embedding(self, c_noise: Tensor) -> Tensor:
        """The noise level's part: [n] -> [n,E]."""
        return self.emb_noise(self.emb_fourier(c_noise))

    def label_embedding(self, labels: Tensor | None) -> Tensor | None:
        """The labels' part, [N,R] or [N,R,label_dim] -> [N,R,E]."""
        if labels is None:
            return None
        if labels.is_floating_point():
            return self.emb_label(labels * math.sqrt(labels.shape[-1]))
        columns = self.emb_label.effective(None, torch.float32).t()
        label = F.embedding(labels.clamp(min=0), columns) * (labels >= 0)[:, :, None]
        return label * math.sqrt(len(columns))

    def joint_embedding(self, noise: Tensor, label: Tensor | None) -> Tensor:
        """Both parts, of shapes that broadcast, as the blocks take them."""
        return ops.mp_silu(noise if label is None else ops.mp_sum(noise, label, self.label_balance))

    def forward(self, x: Tensor, emb: Tensor, dropout_key: DropoutKey | None = None) -> Tensor:
        """The raw output F.

        Shapes    x: [B,C+1,H,W], scaled, channels_last, its last channel ones; or [N,C+1,H,W], one image
                  for R embeddings; emb: float32 [B,E] or [1,E] -> [B,C,H,W].    Dtypes    x's.
        """
        layer = 0

        def key() -> tuple[int, int, Tensor] | None:
            nonlocal layer
            layer += 1
            if dropout_key is None:
                return None
            return dropout_key.seed, DROPOUT_STREAM + layer, dropout_key.position

        skips, activated = [], None
        for module in self.enc.values():
            if isinstance(module, Block):
                x, activated = module(x, emb, dropout_key=key())
            else:
                x, _ = module(x), key()
            skips.append(x)
        if activated is None:  # a last level without blocks
            activated = ops.mp_silu(x)
        for name, module in self.dec.items():
            skip = skips.pop() if "block" in name else None
            x, activated = module(
                x,
                emb,
                activated=activated,
                skip=skip,
                concat_balance=self.concat_balance,
                dropout_key=key(),
            )
        return self.out_conv(x, self.out_gain)


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
        if not channel_mult or img_resolution % 2 ** (len(channel_mult) - 1):
            raise ValueError(
                f"channel_mult {list(channel_mult)} halves images {len(channel_mult) - 1} times, which side "
                f"{img_resolution} cannot be: give fewer levels, or another img_resolution."
            )
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.sigma_data = sigma_data
        self.dtype = dtype
        self.dropout = dropout
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
        output: str = "denoised",
        dropout_key: DropoutKey | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Denoise x.

        Shapes    x: [N,C,H,W]; sigma: [N] or 0-dim; class_labels: int64 [N] (-1 = the zero label
                  vector), floating [N,label_dim], None (zero label vectors), or int64 [N,R]: N R
                  evaluations, R labels an image; x may then be [N,R,C,H,W], one image a label
                  -> D [N,C,H,W], or [N,R,C,H,W] for [N,R] labels; logvar [N,1,1,1] or [1,1,1,1].
        Dtypes    any floating x -> float32.
        Network   output="network" leaves the preconditioning to the caller: x is `ops.noisy_input`'s scaled
                  input, [N,C+1,H,W] or [N R,C+1,H,W] channels_last in the net's dtype, and the result the
                  raw output F in that dtype, shaped as D.
        Dropout   dropout_key's masks, in either mode; without a key torch's own, in training mode.
        Cost      what comes before the first modulation runs once an image for its R labels.
        Errors    ValueError for labels of another shape, or (on the CPU) outside [-1, label_dim).
        """
        if output not in ("denoised", "network"):
            raise ValueError(f"output must be 'denoised' or 'network', not {output!r}.")
        labels, columns = self._labels(class_labels, len(x), output)
        num_images, num_columns = (len(x), 1) if labels is None else labels.shape[:2]
        sigma = sigma.float().reshape(-1)
        if len(sigma) not in (1, num_images):
            raise ValueError(f"sigma has {len(sigma)} values for {num_images} images: give one or one each.")
        if x.ndim == 5 and not (columns and x.shape[1] == num_columns):
            raise ValueError(
                f"x of shape {list(x.shape)} holds one image a label: it needs int64 class_labels "
                f"[{x.shape[0]},{x.shape[1]}]."
            )
        c_noise = sigma.log() / 4
        emb = self.unet.embed(c_noise, labels)
        key = dropout_key
        if key is not None:
            key = key._replace(position=key.position.repeat_interleave(num_columns))
        if output == "network":
            result = self.unet(x, emb, key).unflatten(0, (num_images, num_columns))
        else:
            x = (x if x.ndim == 5 else x[:, None]).float()
            sigma = sigma.view(-1, 1, 1, 1, 1)
            total = sigma**2 + self.sigma_data**2
            scaled = (x * (1 / total.sqrt())).flatten(0, 1)
            raw = self.unet(ops.with_ones(scaled, self.dtype), emb, key)
            raw = raw.float().unflatten(0, (num_images, num_columns))
            result = self.sigma_data**2 / total * x + sigma * self.sigma_data / total.sqrt() * raw
        result = result if columns else result.flatten(0, 1)
        if not return_logvar:
            return result
        return result, self.logvar_linear(self.logvar_fourier(c_noise)).view(-1, 1, 1, 1)

    def prepare(
        self, sigmas: Sequence[float], labels: Tensor | None, num_images: int
    ) -> Callable[[int, Tensor], Tensor]:
        """A sampler's calls net(x, sigma, labels, output="network") as call(k, x), sigma being sigmas[k].

        Shapes    labels: as `forward` takes them; x: [N,C+1,H,W]
                  -> [N,C,H,W], or [N,R,C,H,W] for labels [N,R].
        Values    of the parameters, or the held weights, as they are now, without gradient. Where a batch is
                  sampled image by image (`inference.py`), sums are in another order than `forward`'s, and a
                  bfloat16 network rounds what convolutions multiply and the output, nothing else.
        """
        labels, columns = self._labels(labels, num_images, "network")
        emb = embeddings(self.unet, sigmas, labels)
        if fits_a_program(self):
            call = program_call(self, emb, num_images)
        else:
            call = lambda k, x: self.unet(x, emb[k])  # noqa: E731
        if not columns:
            return call
        return lambda k, x: call(k, x).unflatten(0, (num_images, -1))

    def contrast(self, x_noisy: Tensor, sigma: Tensor, labels_NR: Tensor) -> Tensor:
        """D of every image under each of its R labels: `forward` with labels [N,R]."""
        return self(x_noisy, sigma, labels_NR)

    def _labels(self, class_labels: Tensor | None, num_rows: int, output: str) -> tuple[Tensor | None, bool]:
        """Any accepted form of labels as int64 [N,R] or floating [N,1,label_dim] (None for an unlabelled
        net), and whether they asked for columns: integers [N,R] do, also with R = 1."""
        if self.label_dim == 0:
            columns = (
                class_labels is not None and class_labels.ndim == 2 and class_labels.dtype == torch.int64
            )
            if columns and class_labels.shape[1] > 1:
                raise ValueError("this net has no classes (label_dim 0), and gives the same under any label.")
            return None, columns
        if class_labels is None:
            return torch.full((num_rows, 1), -1, device=self.unet.out_gain.device), False
        if class_labels.is_floating_point():
            if class_labels.shape not in ((num_rows, self.label_dim), (1, self.label_dim)):
                raise ValueError(
                    f"floating class_labels must be [{num_rows},{self.label_dim}] for {num_rows} images, "
                    f"not {list(class_labels.shape)}; class indices must be int64."
                )
            return class_labels.float()[:, None].expand(num_rows, 1, -1), False
        labels = class_labels[:, None] if class_labels.ndim == 1 else class_labels
        fits = labels.ndim == 2 and (
            num_rows == len(labels) or (output == "network" and num_rows == labels.numel())
        )
        if not fits:
            raise ValueError(
                f"class_labels must be [{num_rows}] or [{num_rows},R] for {num_rows} images, "
                f"not {list(class_labels.shape)}."
            )
        if labels.device.type == "cpu" and labels.numel() > 0:
            low, high = labels.aminmax()
            if low < -1 or high >= self.label_dim:
                raise ValueError(
                    f"class_labels lie in [{low}, {high}]; this net knows classes 0 to "
                    f"{self.label_dim - 1}, and -1 for no label."
                )
        return labels, class_labels.ndim == 2


def force_weight_norm_(net: nn.Module) -> None:
    """Normalise every MPConv weight of `net` per output channel, in place. Source: EDM2, eq. 66.

    Run once after building or loading a net to train, then after every optimizer step.
    """
    ops.force_weight_norm_(normalized_weights(net))


def normalized_weights(net: nn.Module) -> list[nn.Parameter]:
    """The parameters that forced weight normalisation acts on: every MPConv weight."""
    return [module.weight for module in net.modules() if isinstance(module, MPConv)]


def published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters and buffers by name, whole, as `Precond.state_dict()` shows them: gains are 0-dim."""
    state = dict(tensors)
    _gains_to_scalars(None, state, "", None)
    return state


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
