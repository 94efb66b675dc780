"""A GPU's convolutions of EDM2-S's training step one by one: as PyTorch runs them, and in other forms.

Run: python benchmarks/convolutions.py OUT.json [--sizes 16 64] [--only convolution] [--largest]

The forms: `benchmark`, cuDNN's benchmark mode; `turned`, the input's gradient as a forward convolution with
the weight turned by 180 degrees; `product`, a 1x1 convolution as a matrix product; `phases`, the convolution
of a doubled image as one of 2x2 windows with four times the outputs.
"""

import argparse
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import floor
import torch
from profile_step import NET
from steps import Setting, TrainerStep, build_nets
from torch import Tensor
from torch.nn import functional as F

from mclr_fast import ops
from mclr_fast.models.edm2.convolution import turned

REPEATS, TRIES = 5, 3
BACKWARD = torch.ops.aten.convolution_backward


def milliseconds(function) -> float:
    """Of one call: several at once, the best of a few tries."""
    function()
    return min(floor.timed_on_gpu(*[function] * REPEATS) for _ in range(TRIES)) / REPEATS * 1e3


def both_modes(function) -> dict[str, float]:
    """Milliseconds by cuDNN's heuristic and by its benchmark mode."""
    row = {}
    for name in ("heuristic", "benchmark"):
        torch.backends.cudnn.benchmark = name == "benchmark"
        row[name] = milliseconds(function)
    torch.backends.cudnn.benchmark = False
    return row


def gradient(grad: Tensor, x: Tensor, weight: Tensor, which: int) -> Tensor:
    """The input's (0) or the weight's (1) gradient."""
    padding = [weight.shape[-1] // 2] * 2
    mask = [which == 0, which == 1, False]
    return BACKWARD(grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, mask)[which]


def image(*shape: int) -> Tensor:
    x = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    return x.contiguous(memory_format=torch.channels_last)


def rows_of(x: Tensor) -> Tensor:
    """[B,C,H,W] channels_last as [BHW,C]."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def forms(batch: int, num_in: int, num_out: int, height: int, width: int, kernel: int) -> dict:
    """A convolution's three products, each in its forms."""
    x, weight = image(batch, num_in, height, width), image(num_out, num_in, kernel, kernel)
    grad = torch.empty_like(F.conv2d(x, weight, padding=kernel // 2)).normal_()
    row = {"fprop": both_modes(lambda: F.conv2d(x, weight, padding=kernel // 2))}
    row["dgrad"] = both_modes(lambda: gradient(grad, x, weight, 0))
    row["wgrad"] = both_modes(lambda: gradient(grad, x, weight, 1))
    other = turned(weight)
    padding = kernel - 1 - kernel // 2
    row["dgrad"]["turned"] = milliseconds(lambda: F.conv2d(grad, other, padding=padding))
    row["turning"] = milliseconds(lambda: turned(weight))
    expected, found = gradient(grad, x, weight, 0), F.conv2d(grad, other, padding=padding)
    row["turned_error"] = float((expected - found).abs().max() / expected.abs().max())
    if kernel == 1:
        flat = weight.flatten(1)
        row["fprop"]["product"] = milliseconds(lambda: rows_of(x) @ flat.t())
        row["dgrad"]["product"] = milliseconds(lambda: rows_of(grad) @ flat)
        row["wgrad"]["product"] = milliseconds(lambda: rows_of(grad).t() @ rows_of(x))
    row["TFLOP"] = 2 * batch * num_in * num_out * height * width * kernel**2 / 1e12
    return row


def doubled(batch: int, channels: int, side: int) -> dict:
    """conv3x3 of a doubled image [B,C,2s,2s], a 2x2 one of [B,C,s,s] with 4C outputs, and `double_pixels`.

    "double": of the image, before the one; "join": of the other's windows, after it; both passes of each.
    """
    small, weight = image(batch, channels, side, side), image(channels, channels, 3, 3)
    large, grad = image(batch, channels, 2 * side, 2 * side), image(batch, channels, 2 * side, 2 * side)
    phases = image(4 * channels, channels, 2, 2)
    grad_phases = image(batch, 4 * channels, side + 1, side + 1)
    args = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    row = {"direct": {}, "phases": {}}
    row["direct"]["fprop"] = both_modes(lambda: F.conv2d(large, weight, padding=1))
    row["direct"]["dgrad"] = both_modes(lambda: gradient(grad, large, weight, 0))
    row["direct"]["wgrad"] = both_modes(lambda: gradient(grad, large, weight, 1))
    row["phases"]["fprop"] = both_modes(lambda: F.conv2d(small, phases, padding=1))
    for which, name in enumerate(("dgrad", "wgrad")):
        mask = [which == 0, which == 1, False]
        row["phases"][name] = both_modes(lambda m=mask: BACKWARD(grad_phases, small, phases, *args, m))
    flipped = turned(phases)
    row["phases"]["dgrad"]["turned"] = milliseconds(lambda: F.conv2d(grad_phases, flipped))
    row["double"] = both_passes_of(ops.double_pixels, small, large)
    row["join"] = both_passes_of(partial(ops.double_pixels, phases=True), grad_phases, large)
    return row


def both_passes_of(op: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> dict[str, float]:
    """Milliseconds of an op of x and of its gradient."""
    x = x.detach().requires_grad_()
    out = op(x)
    backward = milliseconds(lambda: torch.autograd.grad(out, x, grad, retain_graph=True))
    return {"forward": milliseconds(lambda: op(x)), "backward": backward}


def attention(batch: int, heads: int, length: int, depth: int) -> dict:
    """scaled_dot_product_attention, forward and backward, of operands [B,H,L,d] and of views of [B,L,H,d]."""
    row = {}
    for name in ("BHLd", "BLHd"):
        shape = (batch, heads, length, depth) if name == "BHLd" else (batch, length, heads, depth)
        q, k, v, grad = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
        if name == "BLHd":
            q, k, v, grad = (t.transpose(1, 2) for t in (q, k, v, grad))
        q, k, v = (t.detach().requires_grad_() for t in (q, k, v))
        row[name] = both_passes(q, k, v, grad)
    return row


def both_passes(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> dict:
    """Milliseconds of attention and its backward pass, and how their results lie in memory."""

    def backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(out, (q, k, v), grad, retain_graph=True)

    out = F.scaled_dot_product_attention(q, k, v)
    row = {"out_strides": out.stride(), "grad_strides": [g.stride() for g in backward()]}
    row["forward"] = milliseconds(lambda: F.scaled_dot_product_attention(q, k, v))
    row["backward"] = milliseconds(backward)
    return row


def shapes_of_a_step(num_images: int) -> Counter:
    """(B, in, out, H, W, kernel) of the forward convolutions of a step, and how often each is."""
    setting = Setting("convolutions", NET, num_images, 3, torch.bfloat16, device="cuda")
    net, _ = build_nets(setting)
    with tempfile.TemporaryDirectory() as folder:
        step = TrainerStep(setting, net.cuda(), Path(folder), cuda_graphs="off")
        step()
        with floor.record() as calls:
            step()
    found = Counter()
    for call in calls:
        if call.op in floor.FORWARD_CONVOLUTION:
            x, weight = call.args[:2]
            found[(*x.shape[:2], weight.shape[0], *x.shape[2:], weight.shape[-1])] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--only", choices=["doubled", "attention", "convolution"])
    parser.add_argument("--largest", action="store_true", help="of the convolutions those of most FLOPs")
    args = parser.parse_args()
    rows = []

    def keep(row: dict) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")

    for num_images in args.sizes:
        for kind, measure, shapes in work(num_images):
            if args.only in (None, kind):
                for shape, calls in chosen(shapes(), args.largest):
                    keep({"N": num_images, kind: shape, "calls": calls, **measure(*shape)})
        torch.cuda.empty_cache()


def chosen(shapes: dict, largest: bool) -> list:
    """(shape, calls); the six of most FLOPs alone, or all."""
    found = sorted(shapes.items(), key=lambda item: -math.prod(item[0]) * item[0][-1])
    return found[:6] if largest else found


def work(num_images: int) -> list:
    """(kind, what measures a shape, its shapes and their number of calls in a step)."""
    batch = 4 * num_images
    return [
        ("doubled", doubled, lambda: dict.fromkeys([(batch, 768, 8), (batch, 576, 16), (batch, 384, 32)], 1)),
        ("attention", attention, lambda: {(batch, 9, 256, 64): 7, (batch, 12, 64, 64): 8}),
        ("convolution", forms, lambda: shapes_of_a_step(num_images)),
    ]


if __name__ == "__main__":
    main()
