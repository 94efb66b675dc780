"""A network made ready for all calls of a sampler: what needs noise levels and labels alone comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mclr_fast.ops.image_program import Activation, ImageProgram

from .layers import Block, MPConv

if TYPE_CHECKING:
    from .network import Precond, UNet

MOST_WEIGHTS = 300_000
"""Parameters of a network that is sampled image by image: its weights stay in a core's second cache."""

Call = Callable[[int, Tensor], Tensor]


@torch.no_grad()
def embeddings(unet: UNet, sigmas: Sequence[float], labels: Tensor | None) -> Tensor:
    """`UNet.embed` at all noise levels: labels [N,R] or [N,R,label_dim] -> [S,N R,E]; None -> [S,1,E].

    A level's part is made once for all labels, a label's once for all levels.
    """
    # Each level as it is alone, to the bit; filled on the device, since a graph cannot capture a copy to it.
    levels = [torch.full((1,), sigma, dtype=torch.float32, device=unet.out_gain.device) for sigma in sigmas]
    noise = torch.stack([unet.noise_embedding(sigma.log() / 4) for sigma in levels])
    label = unet.label_embedding(labels)
    if label is None:
        return unet.joint_embedding(noise, None)
    label = label.flatten(0, 1)[None].expand(len(sigmas), -1, -1)
    return unet.joint_embedding(noise.expand_as(label), label)


def fits_a_program(net: Precond) -> bool:
    """Whether a batch is sampled image by image: on the CPU, by a small network."""
    if net.unet.out_gain.device.type != "cpu":
        return False
    if net.training and net.dropout > 0:
        return False
    starts = any(isinstance(b, Block) and b.activates for b in net.unet.enc.values())
    weights = sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, MPConv))
    return starts and weights <= MOST_WEIGHTS and ImageProgram.available(net.dtype)


@torch.no_grad()
def program_call(net: Precond, emb: Tensor, num_images: int) -> Call:
    """The U-Net as `call(k, x)` for emb [S,B,E] or [S,1,E]: x [N,C+1,H,W] -> raw [B,C,H,W]."""
    program = _program(net)
    modulations = emb @ _emb_weights(net.unet).t()
    if emb.shape[1] == 1:
        modulations = modulations.expand(-1, num_images, -1)
    modulations = modulations.contiguous()
    return lambda k, x: program.run(x, modulations[k])


def _emb_weights(unet: UNet) -> Tensor:
    """Those of every block's `emb_linear`, one below the other, in the order of a forward pass."""
    blocks = [b for part in (unet.enc, unet.dec) for b in part.values() if isinstance(b, Block)]
    return torch.cat([block.emb_linear.effective(block.emb_gain, torch.float32) for block in blocks])


_held: WeakKeyDictionary[Precond, tuple[Tensor, ImageProgram]] = WeakKeyDictionary()


def _program(net: Precond) -> ImageProgram:
    """The network's program, made again when its weights are: held weights are known by their tensors."""
    mark = net.unet.out_conv.held
    if mark is None:
        return network_program(net)
    if net not in _held or _held[net][0] is not mark:
        _held[net] = mark, network_program(net)
    return _held[net][1]


@torch.no_grad()
def network_program(net: Precond) -> ImageProgram:
    """The U-Net's forward pass with its effective weights, as `UNet.forward` makes it."""
    unet = net.unet
    program = ImageProgram(net.img_resolution, net.img_resolution, net.img_channels + 1, net.dtype)
    x, skips, activated = program.input, [], None
    for module in unet.enc.values():
        if isinstance(module, Block):
            x, activated = _block(program, module, x)
        else:
            x = _convolve(program, module, x)
        skips.append(x)
    for name, module in unet.dec.items():
        skip = skips.pop() if "block" in name else None
        x, activated = _block(program, module, x, activated, skip, unet.concat_balance)
    return program.finish(_convolve(program, unet.out_conv, x, unet.out_gain))


def _convolve(program: ImageProgram, layer: MPConv, x: Activation, gain: Tensor | None = None) -> Activation:
    return program.convolve(x, layer.effective(gain, program.dtype))


def _block(
    program: ImageProgram,
    block: Block,
    x: Activation,
    activated: Activation | None = None,
    skip: Activation | None = None,
    concat_balance: float = 0.5,
) -> tuple[Activation, Activation | None]:
    """`Block.forward`'s steps, in its order."""
    if not block.decoder:
        x = program.downsample(x) if block.resample == "down" else x
        x = x if block.conv_skip is None else _convolve(program, block.conv_skip, x)
        x, y = program.pixel_norm_silu(x)
    elif skip is not None:
        x, y = program.mp_cat_silu(x, skip, concat_balance)
    elif block.resample == "up":
        x, y = program.upsample(x), program.upsample(activated)
    else:
        y = activated
    y = program.modulate_silu(_convolve(program, block.conv_res0, y))
    y = _convolve(program, block.conv_res1, y)
    if block.decoder and block.conv_skip is not None:
        x = _convolve(program, block.conv_skip, x)
    if block.num_heads == 0:
        return program.mp_sum_clip(x, y, block.res_balance, block.clip_act, silu=block.activates)
    x, _ = program.mp_sum_clip(x, y, block.res_balance)
    y = _convolve(
        program, block.attn_proj, program.attend(_convolve(program, block.attn_qkv, x), block.num_heads)
    )
    return program.mp_sum_clip(x, y, block.attn_balance, block.clip_act, silu=block.activates)
