"""The baselines are right: they compute what the package computes, from the same parameters."""

import pytest
import torch
from baselines.algorithm1 import Algorithm1Step, algorithm1_loss, copy_of
from baselines.deduplicated import DeduplicatedStep, deduplicated_loss
from baselines.plain_net import PlainNet
from baselines.training import ImageData, draw_batch

from mclr_fast import ops
from mclr_fast.models.edm2 import Precond

NET = dict(
    img_resolution=8, img_channels=2, label_dim=4, model_channels=8, channel_mult=(1, 2), num_blocks=1,
    attn_resolutions=(4,), channels_per_head=8, logvar_channels=8,
)  # fmt: skip


@pytest.fixture
def nets():
    """The package's network and the plain one, with the same parameters; labels matter to both."""
    torch.manual_seed(0)
    ours, plain = Precond(**NET), PlainNet(**NET)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(0.7)
    plain.load_state_dict(ours.state_dict(), strict=True)
    return ours, plain


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return draw_batch(ImageData(4, (2, 8, 8)), num_images=5, num_negatives=3)


def gradients(net):
    return {name: p.grad.reshape(-1) for name, p in net.named_parameters() if p.grad is not None}


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    for name, grad in found.items():
        torch.testing.assert_close(grad, expected[name], rtol=2e-4, atol=2e-4 * expected[name].abs().max())


def test_plain_net_is_the_packages_network(nets, batch):
    ours, plain = nets
    label = batch.labels[:, 0]
    one_hot = torch.nn.functional.one_hot(label, 4).float()
    found, expected = plain(batch.x_noisy, batch.sigma, one_hot), ours(batch.x_noisy, batch.sigma, label)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(found)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_same_gradients(gradients(plain), gradients(ours))


def test_plain_net_in_bfloat16_is_near(nets, batch):
    _, plain = nets
    one_hot = torch.nn.functional.one_hot(batch.labels[:, 0], 4).float()
    expected = plain(batch.x_noisy, batch.sigma, one_hot)
    found = copy_of(plain, torch.bfloat16)(batch.x_noisy, batch.sigma, one_hot)
    assert 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_algorithm1_is_the_deduplicated_loss(nets, batch):
    _, plain = nets
    losses, grads = [], []
    for loss_function in (algorithm1_loss, deduplicated_loss):
        plain.zero_grad(set_to_none=True)
        loss = loss_function(plain, batch, 4)
        loss.backward()
        losses.append(loss.detach())
        grads.append(gradients(plain))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    assert_same_gradients(*grads)


def test_deduplicated_is_the_packages_loss(nets, batch):
    ours, plain = nets
    num_images, num_columns = batch.labels.shape
    coefficients = torch.full((num_images, num_columns), -1 / (num_columns - 1))
    coefficients[:, 0] = 1
    with ops.using("reference"):
        loss, _ = ops.contrast_loss(
            ours(batch.x_noisy, batch.sigma, batch.labels), batch.x, batch.x_noisy, batch.sigma, batch.weight,
            coefficients, output="denoised",
        )  # fmt: skip
        (loss / num_images).backward()
    found = deduplicated_loss(plain, batch, 4)
    found.backward()
    torch.testing.assert_close(found, loss.detach() / num_images, rtol=1e-4, atol=1e-4)
    assert_same_gradients(gradients(plain), gradients(ours))


def test_wrong_labels_are_wrong():
    torch.manual_seed(0)
    batch = draw_batch(ImageData(4, (1, 2, 2)), num_images=32, num_negatives=7)
    assert bool((batch.labels[:, 1:] != batch.labels[:, :1]).all())


@pytest.mark.parametrize("step_class", [Algorithm1Step, DeduplicatedStep])
def test_a_step_moves_weights_and_averages_and_normalises(nets, step_class):
    _, plain = nets
    torch.manual_seed(2)
    step = step_class(plain, ImageData(4, (2, 8, 8)), 4, 2)
    before = [p.detach().clone() for p in step.params]
    step()
    step()
    assert all(not torch.equal(a, b) for a, b in zip(before, step.params, strict=True))
    for average, old, new in zip(step.ema, before, step.params, strict=True):
        assert 0 < (average - old).abs().sum() < (new - old).abs().sum() + average.numel() * 1e-2
    for weight in step.weights:
        rms = weight.square().flatten(1).mean(1).sqrt()
        torch.testing.assert_close(rms, torch.ones_like(rms), rtol=0, atol=1e-3)


def test_both_steps_are_the_same_step(nets):
    """One step of either leaves the same parameters and averages."""
    _, plain = nets
    results = []
    for step_class in (Algorithm1Step, DeduplicatedStep):
        step = step_class(copy_of(plain, torch.float32), ImageData(4, (2, 8, 8)), 4, 2)
        torch.manual_seed(3)
        step()
        results.append(step.params + step.ema)
    for a, b in zip(*results, strict=True):
        # Adam's first step is lr * sign(gradient): a gradient that is all rounding may take either sign.
        torch.testing.assert_close(a, b, rtol=0, atol=2.1e-4)
        assert (a - b).abs().mean() < 1e-5
