"""MCLR: the formula on the table, and Algorithm 1 as the paper writes it."""

import pytest
import torch

from mclr_fast.models.edm2 import Precond
from mclr_fast.objectives import MCLR, NoiseLevel, pair_labels
from mclr_fast.ops import contrast_loss


@pytest.mark.parametrize("num_negatives", [1, 2, 5])
@pytest.mark.parametrize("dsm_weight", [0.0, 0.25])
def test_formula(num_negatives, dsm_weight):
    """Eq. 22 and 150; with the DSM weight eq. 160: beta e_0 + mean_k (e_0 - e_k)."""
    energy = torch.rand(4, 1 + num_negatives, dtype=torch.float64, requires_grad=True)
    loss, terms = MCLR(dsm_weight)(energy)
    for row, found in zip(energy, loss, strict=True):
        margin = sum(row[0] - e for e in row[1:]) / num_negatives
        torch.testing.assert_close(found, dsm_weight * row[0] + margin, rtol=0, atol=1e-14)
    assert torch.equal(terms["positive"], energy[:, 0])
    torch.testing.assert_close(terms["negative"], energy[:, 1:].mean(1))
    assert not any(value.requires_grad for value in terms.values())


@pytest.mark.parametrize("num_negatives", [1, 2, 5])
@pytest.mark.parametrize("dsm_weight", [0.0, 0.25])
def test_coefficients_are_the_gradient(num_negatives, dsm_weight):
    objective = MCLR(dsm_weight)
    energy = torch.rand(4, 1 + num_negatives, requires_grad=True)
    (grad,) = torch.autograd.grad(objective(energy).loss_N.sum(), energy)
    coefficients = objective.coefficients(1 + num_negatives)
    assert coefficients.dtype == torch.float32 and coefficients.shape == (1 + num_negatives,)
    torch.testing.assert_close(grad, coefficients.expand_as(grad), rtol=1.2e-7, atol=0)


def test_form_is_a_matter_of_the_tuples():
    energy = torch.rand(4, 3)
    assert torch.equal(MCLR(form=2)(energy).loss_N, MCLR(form=1)(energy).loss_N)
    with pytest.raises(ValueError, match=r"form must be 1 \(eq\. 22\) or 2 \(eq\. 12\), not 3"):
        MCLR(form=3)


def test_needs_a_negative():
    with pytest.raises(ValueError, match=r"at least 1 negative a row; R = 1 leaves none"):
        MCLR().coefficients(1)


@pytest.mark.parametrize("num_negatives", [1, 3])
def test_algorithm_1_as_written(num_negatives):
    """A loop over the N K tuples, two evaluations each, gives the loss and gradient of N (1+K)."""
    torch.manual_seed(0)
    net = Precond(8, 1, 4, model_channels=8, channel_mult=(1, 2), num_blocks=1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "gain" in name:
                parameter.normal_()
    num_images, noise = 3, NoiseLevel(P_mean=-0.4, P_std=1.0)
    x, labels = torch.randn(num_images, 1, 8, 8), torch.tensor([0, 3, 2])
    sigma = noise.sigma(torch.randn(num_images))
    x_noisy = x + sigma.view(-1, 1, 1, 1) * torch.randn_like(x)
    negatives = labels[pair_labels(labels, num_negatives)]

    evaluations = []
    net.unet.out_conv.register_forward_hook(lambda _, args, __: evaluations.append(len(args[0])))

    def gradients(loss):
        names, parameters = zip(*net.named_parameters(), strict=True)
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return {name: g for name, g in zip(names, grads, strict=True) if g is not None}

    def energy(i, label):
        denoised = net(x_noisy[i : i + 1], sigma[i : i + 1], label.view(1))
        return noise.weight(sigma[i]) * (denoised - x[i : i + 1]).square().sum()

    written = 0
    for i in range(num_images):
        for k in range(num_negatives):
            written = written + energy(i, labels[i]) - energy(i, negatives[i, k])
    written = written / num_negatives  # the objective averages over k
    truths = gradients(written)
    assert sum(evaluations) == 2 * num_images * num_negatives

    evaluations.clear()
    labels_NR = torch.cat([labels[:, None], negatives], dim=1)
    denoised = net.contrast(x_noisy, sigma, labels_NR)
    coefficients = MCLR().coefficients(1 + num_negatives).expand(labels_NR.shape)
    loss, energy_NR = contrast_loss(
        denoised, x, x_noisy, sigma, noise.weight(sigma), coefficients, output="denoised"
    )
    found = gradients(loss)
    assert sum(evaluations) == num_images * (1 + num_negatives)

    limit = 1e-6 * energy_NR.sum().item()  # the loss is a difference of energies
    torch.testing.assert_close(loss, written, rtol=0, atol=limit)
    torch.testing.assert_close(MCLR()(energy_NR).loss_N.sum(), loss.detach(), rtol=0, atol=limit)
    assert found.keys() == truths.keys()
    gains = max(abs(truth.item()) for truth in truths.values() if truth.numel() == 1)
    for name, truth in truths.items():
        # So are the gradients; a gain's is one sum, which may cancel: judge them by the largest.
        limit = 5e-5 * (gains if truth.numel() == 1 else truth.abs().max().item())
        torch.testing.assert_close(found[name], truth, rtol=0, atol=limit)


def test_a_table_without_negatives_is_refused():
    with pytest.raises(ValueError, match="at least 1 negative"):
        MCLR()(torch.ones(2, 1))
