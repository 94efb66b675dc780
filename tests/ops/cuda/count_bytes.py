"""Bytes that the CUDA kernels move, counted under the host shim, over each op's lower bound.

Prints JSON, [op, function, bytes counted, lower bound], for `mclr_fast.ops.audit`.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import driver

SHAPES = [(4, 64, 3, 3), (16, 64), (2, 160, 3, 3), (1, 1024, 3, 3)]  # a warp, a block, a large block a row


def main():
    """Build, run, count, print."""
    with tempfile.TemporaryDirectory() as folder:
        kernels = driver.host_kernels(shutil.which("g++"), Path(folder, "kernels.so"))
        weights = [torch.randn(shape) for shape in SHAPES]
        outs = [w.movedim(1, -1).bfloat16().contiguous() for w in weights]
        grads = [torch.empty_like(w) for w in weights]
        no_gains, numel = [None] * len(weights), sum(w.numel() for w in weights)
        rows = []

        def count(op, function, least, *arguments, **options):
            kernels.reset()
            getattr(kernels, {"adam_norm_ema_": "adam"}.get(op, function))(*arguments, **options)
            rows.append([op, function, sum(kernels.counts[:2]), least])

        count("weight_norm_scale", "forward", 6 * numel, weights, no_gains, outs)
        workspace = torch.empty(1)
        backward = (outs, weights, no_gains, grads, no_gains, workspace)
        count("weight_norm_scale", "backward", 10 * numel, *backward)
        states = [[torch.rand_like(w) for w in weights] for _ in range(6)]
        averages = [(states[4], 0.9), (states[5], 0.99)]
        step = dict(step=1, lr=0.01, betas=(0.9, 0.99), eps=1e-8)
        normalized = [True] * len(weights)
        count("adam_norm_ema_", "step", 11 * 4 * numel, *states[:4], averages, normalized, **step)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
