"""Every distinct shape at which the GPU ops run in a training step of two EDM2 presets and of two VAR.

The networks' own code is not imported here (ops know no models); a test holds this table to it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

MULTIPLES = (1, 2, 3, 4)  # of the width, level by level
BLOCKS = 3  # a level
HEAD = 64  # channels of an attention head
CLIP, BALANCE = 256.0, 0.3
IMAGES, COLUMNS = 8, 4  # a micro-batch: images and labels of each
VOCABULARY, TOKENS = 4096, 32  # of VAR's head; tokens an evaluation that make a chunk of logits
LENGTH, NORM_EPS = 680, 1e-6  # of VAR's residual stream: tokens of an image


class Network(NamedTuple):
    """A network of EDM2's shape: name, width, channels and size of its images, where attention is.

    embed_dim, length: of the VAR that is audited beside it.
    """

    name: str
    width: int
    image_channels: int
    resolution: int = 64
    attention: tuple[int, ...] = (16, 8)
    embed_dim: int = 1024  # VAR-d16's
    length: int = LENGTH


NETWORKS = (Network("EDM2-S/64", 192, 3), Network("EDM2-L/512", 320, 4, embed_dim=2304))  # VAR-d36's


class Spec(NamedTuple):
    """A tensor to be made: `channels_last` orders its last three dimensions as the network does."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    read: bool = True  # by the op at all

    @property
    def num_bytes(self) -> int:
        """Size in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def make(self, device: str) -> Tensor:
        """The tensor: positive random numbers, or nothing on "meta"."""
        if self.dtype is torch.int64:
            return torch.arange(math.prod(self.shape), device=device).view(self.shape)
        if not self.channels_last:
            return _filled(torch.empty(self.shape, dtype=self.dtype, device=device))
        *rest, channels, height, width = self.shape
        lying = torch.empty((*rest, height, width, channels), dtype=self.dtype, device=device)
        return _filled(lying).movedim(-1, -3)


def _filled(x: Tensor) -> Tensor:
    return x if x.is_meta else x.uniform_(0.1, 1)


class Call(NamedTuple):
    """One call of a function of `triton_kernels/<op>.py`."""

    op: str
    function: str
    arguments: tuple[Any, ...]

    @property
    def shapes(self) -> str:
        """The first tensors' shapes, as text, and whether there is dropout."""
        specs = [a for a in self.arguments if isinstance(a, Spec)]
        found = ["x".join(map(str, s.shape)) for s in specs if len(s.shape) > 1][:2]
        dropout = self.op == "modulate_silu" and any(s.dtype is torch.int64 for s in specs)
        return " ".join(found + ["dropout"] * dropout)

    def make(self, device: str) -> list[Any]:
        """The arguments."""
        return [a.make(device) if isinstance(a, Spec) else a for a in self.arguments]

    def least_bytes(self, results: tuple[Tensor, ...]) -> int:
        """The op's lower bound: each operand read once, each result written once."""
        read = sum(a.num_bytes for a in self.arguments if isinstance(a, Spec) and a.read)
        return read + sum(x.numel() * x.element_size() for x in results)


class BlockShape(NamedTuple):
    """What a block's ops see: rows of its entry, channels, size; skip: (channels, rows) concatenated.

    doubled, halved: whether it begins with an image of half the size, or of twice it.
    """

    decoder: bool
    rows: int
    channels_in: int
    channels: int
    resolution: int
    attention: bool
    activates: bool
    skip: tuple[int, int] | None = None
    doubled: bool = False
    halved: bool = False


def blocks(net: Network, images: int, columns: int) -> list[BlockShape]:
    """The blocks in order. The input convolution and the first block's entry run once an image."""
    widths = [net.width * m for m in MULTIPLES]
    found, skips, rows, width = [], [(net.width, images)], images, net.width
    batch = images * columns
    for level, next_width in enumerate(widths):
        size = net.resolution >> level
        names = ["down"] * (level > 0) + ["block"] * BLOCKS
        for name in names:
            out = width if name == "down" else next_width
            last = level == len(widths) - 1 and name == "block" and len(skips) == BLOCKS * 4 + 3
            attention = name == "block" and size in net.attention
            down = name == "down"
            found.append(BlockShape(False, rows, width, out, size, attention, last, halved=down))
            rows, width = batch, out
            skips.append((out, batch))
    for level, next_width in reversed(list(enumerate(widths))):
        size = net.resolution >> level
        if level == len(widths) - 1:
            found.append(BlockShape(True, batch, width, width, size, True, True))
            found.append(BlockShape(True, batch, width, width, size, False, False))
        else:
            found.append(BlockShape(True, batch, width, width, size, False, False, doubled=True))
        for i in range(BLOCKS + 1):
            activates = i == BLOCKS and level > 0  # the next block starts from it, upsampled
            skip = skips.pop()
            attention = size in net.attention
            found.append(BlockShape(True, batch, width, next_width, size, attention, activates, skip))
            width = next_width
    return found


def calls(
    net: Network, images: int = IMAGES, columns: int = COLUMNS, dtype: torch.dtype = torch.bfloat16
) -> list[Call]:
    """The Triton ops' distinct calls in a step of training and of sampling, forward and backward."""
    batch = images * columns

    def activation(rows: int, channels: int, size: int, read: bool = True) -> Spec:
        return Spec((rows, channels, size, size), dtype, True, read)

    found: dict[Call, None] = {}

    def add(op: str, function: str, *arguments: Any) -> None:
        found[Call(op, function, arguments)] = None

    def mp_sum_clip(a: Spec, b: Spec, clip: float, silu: bool) -> None:
        name, num_gradients = ("_silu", 2) if silu else ("", 1)
        add("mp_sum_clip", f"forward{name}", a, b, BALANCE, clip)
        out = b._replace(read=silu or clip < math.inf)
        add(
            "mp_sum_clip", f"backward{name}", *[b] * num_gradients, out, BALANCE, clip, a.shape[0], b.shape[0]
        )

    for block in blocks(net, images, columns):
        _, rows, channels_in, channels, size, attention, activates, skip, doubled, halved = block
        entry = activation(rows, channels, size)
        inner = activation(batch, channels, size)
        if not block.decoder:
            add("pixel_norm_silu", "forward", entry)
            add("pixel_norm_silu", "backward", entry, entry, entry)
        elif skip:
            a, b = activation(rows, channels_in, size), activation(skip[1], skip[0], size)
            cat = activation(batch, channels_in + skip[0], size)
            add("mp_cat_silu", "forward", a, b, 0.5)
            add("mp_cat_silu", "backward", cat, cat, cat, 0.5, rows, skip[1], channels_in)
        if halved:
            add("double_pixels", "halve", activation(rows, channels, 2 * size))
            add("double_pixels", "halve_backward", entry)
        if doubled:
            windows = activation(rows, 4 * channels, size // 2 + 1)
            add("double_pixels", "forward", activation(rows, channels, size // 2), False)
            add("double_pixels", "forward", windows, True)
            add("double_pixels", "backward", entry, False)
            add("double_pixels", "backward", entry, True)
        emb = Spec((batch, channels))
        add("modulate_silu", "forward", entry, emb, 0.0, 1, 2, None)
        add("modulate_silu", "backward", inner, entry, emb, 0.0, 1, 2, None)
        if attention:
            qkv, heads = activation(batch, 3 * channels, size), channels // HEAD
            one = Spec((batch, heads, size * size, HEAD), dtype)
            add("qkv_norm", "forward", qkv, heads)
            add("qkv_norm", "backward", one, one, one, qkv, heads)
            mp_sum_clip(entry, inner, math.inf, False)
        mp_sum_clip(inner if attention else entry, inner, CLIP, activates)

    image = (net.image_channels, net.resolution, net.resolution)
    x, network_input = Spec((images, *image)), Spec((batch, *image), dtype, True)
    sigma, pred = Spec((images,)), Spec((images, columns, *image), dtype, True)
    table, position = Spec((images, columns)), Spec((images,), torch.int64)
    # Dropout, which fine-tuning leaves out unless asked for, at one shape.
    first, wide = activation(images, net.width, net.resolution), activation(batch, net.width, net.resolution)
    emb, everyone = Spec((batch, net.width)), Spec((batch,), torch.int64)
    add("modulate_silu", "forward", first, emb, 0.1, 1, 2, everyone)
    add("modulate_silu", "backward", wide, first, emb, 0.1, 1, 2, everyone)
    add("noisy_input", "forward", x, sigma, None, 1, 2, position, 0.5, dtype)
    level = (sigma, sigma, 0.5, "network")
    add("weighted_sq_error", "forward", pred, x, x, *level)
    add("weighted_sq_error", "backward", table, pred, x, x, *level)
    add("contrast_loss", "forward", pred, x, x, sigma, sigma, table, 0.5, "network")
    # As denoisers with scalings of their own call them.
    add("noisy_input", "forward", x, sigma, None, 1, 2, position, 0.5, dtype, sigma, False)
    scalings = (None, sigma, 0.5, "network", sigma, sigma)
    add("weighted_sq_error", "forward", pred, x, x, *scalings)
    add("weighted_sq_error", "backward", table, pred, x, x, *scalings)
    add("contrast_loss", "forward", pred, x, x, None, sigma, table, 0.5, "network", sigma, sigma)
    y = Spec(network_input.shape)
    heun = (y, 2.0, y, 2.0, 1.0)
    guide = network_input
    add("heun_update", "forward", guide, guide, 2.0, *heun, y, 0.5, "network", dtype)
    add("heun_update", "forward", guide, None, 1.0, *heun, None, 0.5, "network", dtype)
    tokens = (TOKENS * batch,)
    logits, targets = Spec((*tokens, VOCABULARY), dtype), Spec(tokens, torch.int64)
    given, made = Spec(tokens), Spec(tokens, read=False)
    for coefficients in (None, given):
        add("linear_cross_entropy", "forward", logits, targets, coefficients, made, made, made)
    add("linear_cross_entropy", "backward", given, logits, targets, given, given)
    stream, vector = Spec((batch, net.length, net.embed_dim)), Spec((batch, net.embed_dim))
    branch = stream._replace(dtype=dtype)
    for out in (dtype, torch.float32):  # the head's logits, where they are wanted, are of float32
        add("modulate_layer_norm", "forward", stream, vector, vector, NORM_EPS, out)
    add("modulate_layer_norm", "backward", branch, stream, vector, NORM_EPS)
    add("gated_add", "forward", stream, branch, vector)
    add("gated_add", "backward", stream, branch, vector)
    return list(found)


def weights(net: Network) -> list[tuple[int, ...]]:
    """Shapes of all magnitude-preserving weights but the uncertainty head's."""
    emb = net.width * max(MULTIPLES)
    found = [(emb, net.width), (emb, 1000), (net.width, net.image_channels + 1, 3, 3)]
    for block in blocks(net, 1, 1):
        channels = block.channels
        width = block.channels_in + (block.skip[0] if block.skip else 0)
        found += [(channels, width if block.decoder else channels, 3, 3), (channels, emb)]
        found += [(channels, channels, 3, 3)]
        if width != channels:
            found.append((channels, width, 1, 1))
        if block.attention:
            found += [(3 * channels, channels, 1, 1), (channels, channels, 1, 1)]
    return [*found, (net.image_channels, net.width, 3, 3)]
