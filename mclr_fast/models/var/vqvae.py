"""The published state_dict of VAR's VQVAE: its arguments by its names and shapes."""

from __future__ import annotations

import itertools
from typing import Any

from .state_dict import Shapes

WIDTHS = (1, 1, 2, 2, 4)  # multiples of the base width, by level
ENCODER_BLOCKS, DECODER_BLOCKS = 2, 3  # a level


def arguments_of(shapes: Shapes) -> dict[str, Any]:
    """What its shapes tell: codebook, latent and base widths, scales, and residual convolutions (Phi).

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
    expected = expected_shapes(width, z_channels, vocab_size, num_scales, num_phi)
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            theirs, known = shapes.get(name, "missing"), expected.get(name, "unknown")
            raise ValueError(f"its {name!r} is {theirs}, and {known} in VAR's VQVAE.")
    return dict(
        vocab_size=vocab_size, z_channels=z_channels, ch=width, num_scales=num_scales, num_phi=num_phi
    )


def expected_shapes(width: int, z_channels: int, vocab_size: int, num_scales: int, num_phi: int) -> Shapes:
    """Names and shapes of the VQVAE's state_dict."""
    widths = [width * multiple for multiple in WIDTHS]
    deepest = len(widths) - 1
    shapes = _conv("encoder.conv_in", width, 3, 3)
    current = width
    for level, level_width in enumerate(widths):
        place = f"encoder.down.{level}"
        for block in range(ENCODER_BLOCKS):
            shapes |= _block(f"{place}.block.{block}", current, level_width)
            current = level_width
            if level == deepest:
                shapes |= _attention(f"{place}.attn.{block}", current)
        if level < deepest:
            shapes |= _conv(f"{place}.downsample.conv", current, current, 3)
    shapes |= _middle("encoder", current) | _norm("encoder.norm_out", current)
    shapes |= _conv("encoder.conv_out", z_channels, current, 3)
    shapes |= _conv("decoder.conv_in", current, z_channels, 3) | _middle("decoder", current)
    for level in reversed(range(len(widths))):
        place = f"decoder.up.{level}"
        for block in range(DECODER_BLOCKS):
            shapes |= _block(f"{place}.block.{block}", current, widths[level])
            current = widths[level]
            if level == deepest:
                shapes |= _attention(f"{place}.attn.{block}", current)
        if level > 0:
            shapes |= _conv(f"{place}.upsample.conv", current, current, 3)
    shapes |= _norm("decoder.norm_out", current) | _conv("decoder.conv_out", 3, current, 3)
    shapes |= {
        "quantize.ema_vocab_hit_SV": [num_scales, vocab_size],
        "quantize.embedding.weight": [vocab_size, z_channels],
    }
    for i in range(num_phi):
        shapes |= _conv(f"quantize.quant_resi.qresi_ls.{i}", z_channels, z_channels, 3)
    return (
        shapes
        | _conv("quant_conv", z_channels, z_channels, 3)
        | _conv("post_quant_conv", z_channels, z_channels, 3)
    )


def _conv(name: str, num_out: int, num_in: int, side: int) -> Shapes:
    return {f"{name}.weight": [num_out, num_in, side, side], f"{name}.bias": [num_out]}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": [width], f"{name}.bias": [width]}


def _block(name: str, width_in: int, width_out: int) -> Shapes:
    shapes = _norm(f"{name}.norm1", width_in) | _conv(f"{name}.conv1", width_out, width_in, 3)
    shapes |= _norm(f"{name}.norm2", width_out) | _conv(f"{name}.conv2", width_out, width_out, 3)
    return shapes | (_conv(f"{name}.nin_shortcut", width_out, width_in, 1) if width_in != width_out else {})


def _attention(name: str, width: int) -> Shapes:
    shapes = _norm(f"{name}.norm", width) | _conv(f"{name}.qkv", 3 * width, width, 1)
    return shapes | _conv(f"{name}.proj_out", width, width, 1)


def _middle(name: str, width: int) -> Shapes:
    shapes = _block(f"{name}.mid.block_1", width, width) | _attention(f"{name}.mid.attn_1", width)
    return shapes | _block(f"{name}.mid.block_2", width, width)
