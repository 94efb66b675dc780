"""What a step's gradients are on their way to the parameters."""

import torch
from torch import nn

from mclr_fast.models.edm2 import Precond
from mclr_fast.models.edm2.weights import EffectiveWeights
from mclr_fast.models.step_weights import ParameterWeights
from mclr_fast.training.placement import GradientSums

NET = dict(
    img_resolution=8, img_channels=1, label_dim=3, model_channels=8, channel_mult=[1, 2], num_blocks=1,
    logvar_channels=8, attn_resolutions=[],
)  # fmt: skip


def test_a_plain_networks_gradients_are_scaled():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[1].bias.requires_grad_(False)
    weights = ParameterWeights(net)
    net[0](torch.randn(5, 3)).sum().backward()  # the second layer is not reached
    before = net[0].weight.grad.clone()
    grads = weights.take()
    assert net[0].weight.grad is None and [grad is None for grad in grads] == [False, False, True]
    assert [grad.shape for grad in weights.like_gradients] == [(4, 3), (4,), (2, 4)]
    grads[2] = torch.zeros(2, 4)
    weights.backward(grads, 0.25)
    torch.testing.assert_close(net[0].weight.grad, 0.25 * before)
    assert net[1].weight.grad.eq(0).all() and net[1].bias.grad is None


def test_many_micro_batches_are_added_up_in_float32():
    """In bfloat16 a sum of ones stays at 256."""
    torch.manual_seed(0)
    found = []
    for count, size in ((300, 1.0), (1, 300.0)):
        net = Precond(**NET, dtype=torch.bfloat16)
        net.load_state_dict(found[0][0].state_dict() if found else net.state_dict())
        with torch.no_grad():
            net.unet.out_gain.fill_(1.0)
        weights = EffectiveWeights(net)
        sums = GradientSums(weights.like_gradients, torch.device("cpu"))
        with weights.held():
            for _ in range(count):
                for layer in weights._layers:
                    layer.held.grad = torch.full_like(layer.held, size)
                sums.add_(weights.take())
        weights.backward(sums.parts)
        found.append((net, net.unet.out_conv.weight.grad))
    assert found[1][1].abs().max() > 1
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-2)
