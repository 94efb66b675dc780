"""A 3x3 convolution whose input's gradient is made in the way that is fastest on the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LARGE = 2**19  # pixels of a batch


def convolution(x: Tensor, weight: Tensor) -> Tensor:
    """x [B,I,H,W] convolved with [O,I,k,k], k odd, zeros around it -> [B,O,H,W].

    cuDNN's heuristics choose an older GPU's kernel for the gradient of large inputs that are wider than the
    result: of EDM2-S's on an H200 4.4 ms in place of 2.5 (`benchmarks/convolutions.py`, N=64).
    """
    wide = weight.shape[1] > weight.shape[0] and x.shape[0] * x.shape[2] * x.shape[3] >= LARGE
    if x.is_cuda and x.dtype != torch.float32 and wide and weight.shape[-1] > 1:
        return _TurnedGradient.apply(x, weight)
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


def turned(weight: Tensor) -> Tensor:
    """[O,I,k,k] turned by 180 degrees, its inputs for its outputs: [I,O,k,k], channels_last."""
    return weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


class _TurnedGradient(torch.autograd.Function):
    """The input's gradient as a forward convolution of the result's, by the weight turned by 180 degrees."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        padding = weight.shape[-1] // 2
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = F.conv2d(grad, turned(weight), padding=padding)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.nn.grad.conv2d_weight(x, weight.shape, grad, padding=padding)
        return grad_x, grad_weight
