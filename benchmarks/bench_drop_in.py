"""MCLR inside NVIDIA's own training loop: the drop-in loss against Algorithm 1 written there, in one network.

Forward and backward; what follows them, optimizer and averages, is their loop's in both cases.
Run: pytest benchmarks/bench_drop_in.py --benchmark-only
"""

import torch
from baselines.drop_in import LoopNet, naive_loss
from interleave import interleave, record_times
from steps import SETTINGS

from mclr_fast.integrations.nvlabs_edm2 import MCLRLoss

ROUNDS = 5
NOISE = (-0.5, 1.2)
SETTING = next(setting for setting in SETTINGS if setting.row == "step-fp32-k3")  # their CPU code is float32


class LoopStep:
    """One accumulation round of their loop: loss, sum over the batch, backward."""

    def __init__(self, net, loss_fn, images, labels):
        self.net, self.loss_fn, self.images, self.labels = net, loss_fn, images, labels

    def __call__(self):
        self.net.zero_grad(set_to_none=True)
        loss = self.loss_fn(net=self.net, images=self.images, labels=self.labels)
        loss.sum().mul(1 / len(self.images)).backward()


def test_drop_in(benchmark, suite):
    setting = SETTING.shrunk() if suite.quick else SETTING
    torch.manual_seed(0)
    net = LoopNet(**setting.net).train()
    channels, resolution = setting.net["img_channels"], setting.net["img_resolution"]
    images = torch.randn(setting.num_images, channels, resolution, resolution) * 0.5
    labels = torch.eye(setting.net["label_dim"])[: setting.num_images]

    def naive(net, images, labels):
        return naive_loss(net, images, labels, NOISE, setting.num_negatives)

    ours = LoopStep(net, MCLRLoss(*NOISE, num_negatives=setting.num_negatives), images, labels)
    others = {"naive": LoopStep(net, naive, images, labels)}
    benchmark.extra_info.update(row="drop-in", dtype=str(setting.dtype), machine=suite.machine)
    benchmark.extra_info.update(num_negatives=setting.num_negatives, evaluations=setting.num_evaluations)
    times = interleave(benchmark, ours, others, rounds=suite.rounds(ROUNDS))
    if times is None:
        return
    record_times(benchmark, times)
    suite.record(benchmark, {"over_naive": times["naive"].ratios(times["ours"])})
