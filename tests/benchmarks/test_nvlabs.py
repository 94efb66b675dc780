"""NVIDIA's step, as it stands in, computes what the package computes, with NVIDIA's operations."""

import pytest
import torch
from baselines.algorithm1 import algorithm1_loss
from baselines.deduplicated import deduplicated_loss
from baselines.nvlabs import NVLabsStep, published_copy, tuples_loss
from baselines.plain_net import PlainNet
from baselines.training import ImageData, draw_batch

from mclr_fast import ops
from mclr_fast.models.edm2 import Precond

NET = dict(
    img_resolution=8, img_channels=2, label_dim=4, model_channels=8, channel_mult=(1, 2), num_blocks=1,
    attn_resolutions=(4,), channels_per_head=8, logvar_channels=8,
)  # fmt: skip
DATA = ImageData(4, (2, 8, 8))


@pytest.fixture
def plain():
    torch.manual_seed(0)
    net = PlainNet(**NET)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(0.7)
    return net


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return draw_batch(DATA, num_images=5, num_negatives=3)


def evaluated(net, batch):
    one_hot = torch.nn.functional.one_hot(batch.labels[:, 0], 4).float()
    return net(batch.x_noisy, batch.sigma, one_hot)


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-4), (torch.float16, 1e-2)])
def test_its_network_is_the_packages(plain, batch, dtype, limit):
    """Outputs and gradients, from weights that the package has normalised as NVIDIA's forward does."""
    ours = Precond(**NET)
    ours.load_state_dict(plain.state_dict(), strict=True)
    published = published_copy(plain, NET, dtype).train()
    ops.force_weight_norm_([p for n, p in ours.named_parameters() if p.ndim > 1])
    expected, found = ours(batch.x_noisy, batch.sigma, batch.labels[:, 0]), evaluated(published, batch)
    assert found.dtype == torch.float32
    assert (found - expected).norm() < limit * expected.norm()
    weight = torch.randn_like(found)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    grads = {name: p.grad.flatten() for name, p in published.named_parameters() if p.grad is not None}
    wanted = {name: p.grad.flatten() for name, p in ours.named_parameters() if p.grad is not None}
    assert grads.keys() == wanted.keys()
    found, expected = (torch.cat([of[name] for name in wanted]) for of in (grads, wanted))
    assert (found - expected).norm() < limit * expected.norm()


def test_its_forward_normalises_what_is_stored(plain, batch):
    published = published_copy(plain, NET).train()
    with torch.no_grad():
        published.unet.out_conv.weight.mul_(3)
    evaluated(published, batch)
    rms = published.unet.out_conv.weight.square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(rms, torch.ones_like(rms), rtol=0, atol=1e-3)


def test_its_u_net_is_float16_with_stored_scores_and_filters(plain, batch):
    published = published_copy(plain, NET)
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                seen.append((str(function), result.dtype))
            return result

    with Watch(), torch.no_grad():
        evaluated(published, batch)
    names = {name for name, _ in seen}
    assert ("aten._softmax.default", torch.float16) in seen
    assert not any("scaled_dot_product" in name or "pool" in name or "upsample" in name for name in names)
    convolutions = [dtype for name, dtype in seen if name == "aten.convolution.default"]
    assert convolutions and set(convolutions) == {torch.float16}


def test_both_losses_are_algorithm_1s(plain, batch):
    published = published_copy(plain, NET, torch.float32).eval()
    expected = algorithm1_loss(plain, batch, 4)
    for loss, rows in ((deduplicated_loss, 5 * 4), (tuples_loss, 2 * 5 * 3)):
        sizes = []
        hook = published.unet.out_conv.register_forward_hook(
            lambda _, args, __, s=sizes: s.append(len(args[0]))
        )
        torch.testing.assert_close(loss(published, batch, 4), expected, rtol=1e-4, atol=1e-3)
        hook.remove()
        assert sizes == [rows]


def test_a_step_moves_weights_and_both_averages(plain):
    step = NVLabsStep(published_copy(plain, NET, torch.float32), DATA, 4, 2)
    before = [p.detach().clone() for p in step.params]
    step()
    for averages in step.averages:  # beta is 0 at first
        assert all(torch.equal(a, p) for a, p in zip(averages, step.params, strict=True))
    step()
    assert any(not torch.equal(a, b) for a, b in zip(before, step.params, strict=True))
    slow, fast = ([(a - p).abs().sum() for a, p in zip(e, step.params, strict=True)] for e in step.averages)
    assert sum(slow) < sum(fast) != 0  # the shorter average lies nearer


def test_gradients_that_are_not_finite_become_zero(plain):
    net = published_copy(plain, NET, torch.float32)
    step = NVLabsStep(
        net, DATA, 4, 2, loss_function=lambda net, batch, _: evaluated(net, batch).sum() * torch.inf
    )
    before = [p.detach().clone() for p in step.params]
    step()
    assert all(p.isfinite().all() for p in step.params)
    assert torch.equal(step.params[0], before[0])  # out_gain, which nothing normalises
