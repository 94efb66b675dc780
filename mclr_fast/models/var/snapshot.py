"""VAR's files as constructor arguments: what the names and shapes of their tensors tell.

Whether they fit is seen on the network that those arguments make, on the meta device.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import nn

from .network import VAR
from .presets import PATCH_NUMS
from .vqvae import VQVAE

Shapes = dict[str, list[int]]
HEAD_WIDTH = 64  # of published models, where shapes do not show it
MAX_DEPTH = 1024  # blocks that are counted
TAKEN = (
    "a VQVAE's tensors tell how many scales it was trained with, and not their sides: of ten they are taken "
    "to be VAR's for 256x256 images, of others 1, 2, 3 and so on. Beside a transformer they are that one's."
)


def transformer_arguments(shapes: Shapes, tokens_per_scale: list[int]) -> dict[str, Any]:
    """Constructor arguments of the transformer whose state_dict has these shapes.

    Args: tokens_per_scale: how often each scale stands in `lvl_1L`.
    Errors    ValueError naming the first tensor that is missing, unknown or of another shape.
    """
    try:
        width, z_channels = shapes["word_embed.weight"]
        vocab_size = shapes["head.weight"][0]
        num_labels = shapes["class_emb.weight"][0]
        blocks = (i for i in itertools.count() if f"blocks.{i}.attn.mat_qkv.weight" not in shapes)
        depth = min(next(blocks), MAX_DEPTH)
        l2_norm = "blocks.0.attn.scale_mul_1H11" in shapes
        num_heads = shapes["blocks.0.attn.scale_mul_1H11"][1] if l2_norm else width // HEAD_WIDTH
        mlp_width = shapes["blocks.0.ffn.fc1.weight"][0]
        shared = "shared_ada_lin.1.weight" in shapes
    except (LookupError, ValueError) as error:
        raise ValueError(f"its tensors are not VAR's ({error} is missing).") from None
    sides = [math.isqrt(count) for count in tokens_per_scale]
    if not depth or [side**2 for side in sides] != tokens_per_scale or not all(sides):
        raise ValueError(
            f"its scales have {tokens_per_scale} tokens and its depth is {depth}: VAR's are squares."
        )
    arguments = dict(
        vocab_size=vocab_size,
        z_channels=z_channels,
        num_classes=num_labels - 1,
        depth=depth,
        embed_dim=width,
        num_heads=num_heads,
        mlp_ratio=mlp_width / width,
        attn_l2_norm=l2_norm,
        shared_aln=shared,
        patch_nums=sides,
    )
    _compare(shapes, VAR, arguments, "VAR")
    return arguments


def vqvae_arguments(shapes: Shapes) -> dict[str, Any]:
    """Constructor arguments of the VQVAE whose state_dict has these shapes.

    The sides of its scales are taken for granted (TAKEN), as the same weights serve any.

    Errors    ValueError naming the first tensor that is missing, unknown or of another shape.
    """
    try:
        width = shapes["encoder.conv_in.weight"][0]
        vocab_size, z_channels = shapes["quantize.embedding.weight"]
        num_scales = shapes["quantize.ema_vocab_hit_SV"][0]
    except (LookupError, ValueError) as error:
        raise ValueError(f"its tensors are not those of VAR's VQVAE ({error} is missing).") from None
    phi = "quantize.quant_resi.qresi_ls.{}.weight"
    num_phi = next(i for i in itertools.count() if phi.format(i) not in shapes)
    sides = list(PATCH_NUMS) if num_scales == len(PATCH_NUMS) else list(range(1, num_scales + 1))
    arguments = dict(
        vocab_size=vocab_size,
        z_channels=z_channels,
        ch=width,
        v_patch_nums=sides,
        share_quant_resi=num_phi,
    )
    _compare(shapes, VQVAE, arguments, "VAR's VQVAE")
    return arguments


def _compare(shapes: Shapes, network: type[nn.Module], arguments: dict[str, Any], whose: str) -> None:
    try:
        with torch.device("meta"):
            expected = {n: list(t.shape) for n, t in network(**arguments).state_dict().items()}
    except (TypeError, RuntimeError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"its tensors do not describe {whose}: {error}.") from None
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            theirs, known = shapes.get(name, "missing"), expected.get(name, "unknown")
            raise ValueError(f"its {name!r} is {theirs}, and {known} in {whose}.")
