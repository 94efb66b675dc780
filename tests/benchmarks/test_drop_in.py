"""The drop-in's baseline computes what the drop-in does, from the same draws, at 2NK evaluations."""

import torch
from baselines.drop_in import LoopNet, naive_loss

from mclr_fast.integrations.nvlabs_edm2 import MCLRLoss

NOISE = (-0.5, 1.2)


def test_naive_loss_is_the_drop_ins():
    torch.manual_seed(0)
    net = LoopNet(8, 1, 4, model_channels=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=()).train()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(0.7)
    images, labels = torch.randn(4, 1, 8, 8), torch.eye(4)
    rows, found = [], []
    net.unet.out_conv.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    drop_in = MCLRLoss(*NOISE, num_negatives=3)
    for loss_fn in (drop_in, lambda net, images, labels: naive_loss(net, images, labels, NOISE, 3)):
        torch.manual_seed(1)
        loss = loss_fn(net=net, images=images, labels=labels)
        (grad,) = torch.autograd.grad(loss.sum(), net.unet.out_conv.weight)
        found.append((loss.detach(), grad))
    assert rows == [4 * (1 + 3), 2 * 4 * 3]
    for ours, naive in zip(*found, strict=True):
        limit = 1e-5 * naive.abs().max().item()
        torch.testing.assert_close(ours, naive, rtol=1e-4, atol=limit)
