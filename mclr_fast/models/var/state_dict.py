"""The published state_dict of VAR's transformer: its arguments by its names and shapes."""

from __future__ import annotations

import itertools
import math
from typing import Any

Shapes = dict[str, list[int]]


def arguments_of(shapes: Shapes, tokens_per_scale: list[int]) -> dict[str, Any]:
    """Constructor arguments of the transformer whose state_dict has these shapes.

    Args: tokens_per_scale: how often each scale stands in `lvl_1L`.
    Errors    ValueError naming the first tensor that is missing, unknown or of another shape.
    """
    try:
        width, z_channels = shapes["word_embed.weight"]
        vocab_size = shapes["head.weight"][0]
        num_labels = shapes["class_emb.weight"][0]
        depth = next(i for i in itertools.count() if f"blocks.{i}.attn.mat_qkv.weight" not in shapes)
        l2_norm = "blocks.0.attn.scale_mul_1H11" in shapes
        num_heads = shapes["blocks.0.attn.scale_mul_1H11"][1] if l2_norm else width // 64
        mlp_width = shapes["blocks.0.ffn.fc1.weight"][0]
        shared = "shared_ada_lin.1.weight" in shapes
    except (LookupError, ValueError) as error:
        raise ValueError(f"its tensors are not VAR's ({error} is missing).") from None
    sides = [math.isqrt(count) for count in tokens_per_scale]
    if not depth or [side**2 for side in sides] != tokens_per_scale or not all(sides):
        raise ValueError(
            f"its scales have {tokens_per_scale} tokens and its depth is {depth}: VAR's are squares."
        )
    expected = expected_shapes(
        width, z_channels, vocab_size, num_labels, depth, num_heads, mlp_width, l2_norm, shared, sides
    )
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            raise ValueError(
                f"its {name!r} is {shapes.get(name, 'missing')}, and {expected.get(name, 'unknown')} in VAR."
            )
    return dict(
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


def expected_shapes(
    width: int,
    z_channels: int,
    vocab_size: int,
    num_labels: int,
    depth: int,
    num_heads: int,
    mlp_width: int,
    l2_norm: bool,
    shared: bool,
    sides: list[int],
) -> Shapes:
    """Names and shapes of VAR's state_dict; num_labels counts the unconditional one."""
    length = sum(side**2 for side in sides)
    shapes = {
        "pos_start": [1, sides[0] ** 2, width],
        "pos_1LC": [1, length, width],
        "lvl_1L": [1, length],
        "attn_bias_for_masking": [1, 1, length, length],
        "class_emb.weight": [num_labels, width],
        "lvl_embed.weight": [len(sides), width],
        **_linear("word_embed", width, z_channels),
        **_linear("head_nm.ada_lin.1", 2 * width, width),
        **_linear("head", vocab_size, width),
    }
    if shared:
        shapes |= _linear("shared_ada_lin.1", 6 * width, width)
    for i in range(depth):
        block = f"blocks.{i}"
        shapes |= {f"{block}.attn.{name}": [width] for name in ("q_bias", "v_bias", "zero_k_bias")}
        shapes[f"{block}.attn.mat_qkv.weight"] = [3 * width, width]
        shapes |= _linear(f"{block}.attn.proj", width, width)
        shapes |= _linear(f"{block}.ffn.fc1", mlp_width, width)
        shapes |= _linear(f"{block}.ffn.fc2", width, mlp_width)
        if l2_norm:
            shapes[f"{block}.attn.scale_mul_1H11"] = [1, num_heads, 1, 1]
        own = {f"{block}.ada_gss": [1, 1, 6, width]}
        shapes |= own if shared else _linear(f"{block}.ada_lin.1", 6 * width, width)
    return shapes


def _linear(name: str, num_out: int, num_in: int) -> Shapes:
    return {f"{name}.weight": [num_out, num_in], f"{name}.bias": [num_out]}
