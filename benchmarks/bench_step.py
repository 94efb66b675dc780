"""Forward and backward of the contrastive step: N(1+K) evaluations against the 2NK of Algorithm 1.

Run: pytest benchmarks/ --benchmark-only
"""

import pytest
import torch
from baselines.algorithm1 import algorithm1_loss

from mclr_fast import models, ops
from mclr_fast.objectives import MCLR, NoiseLevel, pair_labels

N = 32


def inputs(num_negatives):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 1, 16, 16, generator=generator)
    labels = torch.arange(N) % 10
    index = pair_labels(labels, num_negatives, generator=generator)
    noise = NoiseLevel(P_mean=-0.5, P_std=1.2)
    sigma = noise.sigma(torch.randn(N, generator=generator))
    x_noisy = x + sigma.view(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    return x, x_noisy, sigma, noise.weight(sigma), torch.cat([labels[:, None], labels[index]], dim=1)


def evaluate(net, x, x_noisy, sigma, weight, labels_NR):
    coefficients = MCLR().coefficients(labels_NR.shape[1]).expand(labels_NR.shape)
    denoised = net(x_noisy, sigma, labels_NR)
    return ops.contrast_loss(denoised, x, x_noisy, sigma, weight, coefficients, output="denoised")


def contrastive_loss(*arguments):
    return evaluate(*arguments)[0]


STEPS = {"contrastive": contrastive_loss, "algorithm1": algorithm1_loss}


@pytest.mark.parametrize("num_negatives", [3, 7])
@pytest.mark.parametrize("step", STEPS)
def test_step(benchmark, step, num_negatives):
    net = models.load("mnist16-base")
    arguments = inputs(num_negatives)
    loss, energies = evaluate(net, *arguments)
    rounding = 1e-6 * energies.sum().item()  # the loss is a small difference of large energies
    torch.testing.assert_close(algorithm1_loss(net, *arguments), loss, rtol=0, atol=rounding)

    def forward_backward():
        net.zero_grad()
        STEPS[step](net, *arguments).backward()

    benchmark.extra_info["evaluations"] = N * (
        1 + num_negatives if step == "contrastive" else 2 * num_negatives
    )
    benchmark.pedantic(forward_backward, rounds=9, warmup_rounds=2)
