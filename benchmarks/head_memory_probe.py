"""A head of VAR-d16's shape, and as a program its step's peak memory: a process's is its own only by itself.

Usage: head_memory_probe.py IMPLEMENTATION WAY DTYPE [--quick]; prints bytes, beside operands and results.
"""

import sys

import torch
from memory_probe import CLEAR, status

from mclr_fast import ops
from mclr_fast.ops.reference.linear_cross_entropy import linear_cross_entropy as reference

IMAGES, TOKENS, VOCABULARY, WIDTH = 4, 680, 4096, 1024


class Head:
    """Operands of a head's step, with MCLR's coefficients for K = 3. Parameters are float32, as VAR's are."""

    def __init__(self, dtype: torch.dtype, small: bool = False):
        tokens, vocabulary, width = (20, 64, 32) if small else (TOKENS, VOCABULARY, WIDTH)
        self.name = f"{IMAGES}x{tokens}x{width} {vocabulary}"
        self.hidden = torch.randn(IMAGES, tokens, width).to(dtype).requires_grad_()
        self.weight = (torch.randn(vocabulary, width) / width**0.5).requires_grad_()
        self.bias = torch.randn(vocabulary).requires_grad_()
        self.inputs = (self.hidden, self.weight, self.bias)
        self.targets = torch.randint(vocabulary, (IMAGES, tokens))
        self.coefficients = torch.tensor([1.0] + [-1 / 3] * 3)

    def back(self, loss: torch.Tensor) -> list[torch.Tensor]:
        """The loss and all gradients."""
        return [loss.detach(), *torch.autograd.grad(loss, self.inputs)]

    def step(self, known: bool) -> list[torch.Tensor]:
        """The public op's, with or without coefficients."""
        given = self.coefficients if known else None
        nll = ops.linear_cross_entropy(
            self.hidden, self.weight, self.targets, bias=self.bias, coefficients=given
        )
        return self.back(self.coefficients @ nll.sum(1))

    def reference_loss(self) -> torch.Tensor:
        """Logits, log_softmax and gather."""
        return self.coefficients @ reference(self.hidden, self.weight, self.targets, self.bias).sum(1)


def main(implementation: str, way: str, dtype: str, *flags: str) -> None:
    head = Head(getattr(torch, dtype), small="--quick" in flags)
    tiny = Head(head.hidden.dtype, small=True)
    with ops.using(implementation):
        tiny.step(way == "head-one-pass")  # libraries and threads are there
        CLEAR.write_text("5")  # the peak so far is forgotten
        before = status("VmRSS")
        results = head.step(way == "head-one-pass")
        peak = status("VmHWM")
    print(max(peak - before - sum(x.numel() * x.element_size() for x in results), 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
