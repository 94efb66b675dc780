"""EDM2's training loss against arrays recorded from NVIDIA's implementation."""

import json

import pytest
import torch

from mclr_fast.models.edm2 import Precond, force_weight_norm_
from mclr_fast.objectives import Denoising, NoiseLevel
from mclr_fast.ops import weighted_sq_error

LOSS = 2e-6  # relative to the largest loss
GRADIENT_NORM = 5e-4  # relative


@pytest.fixture(scope="module")
def recorded(golden):
    file = golden("edm2_loss")
    arrays = {name: torch.from_numpy(file[name]) for name in file if name != "config_json"}
    return arrays | {"config": json.loads(str(file["config_json"]))}


@pytest.fixture(scope="module")
def noise_level(recorded):
    return NoiseLevel(**recorded["config"]["loss"])


def evaluate(recorded, mode):
    """The network, its energies, u(sigma) and the objective's loss, one per image."""
    net = Precond(**{k: v for k, v in recorded["config"]["net"]["ctor"].items() if k != "use_fp16"})
    prefix = "net/param/"
    net.load_state_dict({k.removeprefix(prefix): v for k, v in recorded.items() if k.startswith(prefix)})
    net.train(mode == "train")
    if mode == "train":
        force_weight_norm_(net)
    x, sigma = recorded["images"], recorded["sigma"].flatten()
    x_noisy = x + recorded["sigma"] * recorded["z_noise"]
    denoised, logvar = net(x_noisy, sigma, recorded["labels"], return_logvar=True)
    energy = weighted_sq_error(
        denoised[:, None], x, x_noisy, sigma, recorded["weight"].flatten(), output="denoised"
    )[:, 0]
    return net, energy, Denoising()(energy, logvar.flatten(), x[0].numel())


def test_sigma_and_weight_are_those_recorded(recorded, noise_level):
    sigma = noise_level.sigma(recorded["z_sigma"])
    torch.testing.assert_close(sigma, recorded["sigma"], rtol=5e-7, atol=0)
    weight = noise_level.weight(recorded["sigma"])
    torch.testing.assert_close(weight, recorded["weight"], rtol=5e-7, atol=0)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_losses_are_those_recorded(recorded, mode):
    _, energy, (loss, terms) = evaluate(recorded, mode)
    expected = recorded[f"{mode}/loss"].double().sum((1, 2, 3))
    assert loss.shape == (5,) and loss.dtype == torch.float32
    assert (loss.double() - expected).abs().max() <= LOSS * expected.abs().max()
    assert torch.equal(terms["positive"], energy) and not terms["positive"].requires_grad


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_gradient_norms_are_those_recorded(recorded, mode):
    net, _, output = evaluate(recorded, mode)
    output.loss_N.sum().backward()
    prefix = f"{mode}/gradnorm/"
    expected = {k.removeprefix(prefix): v for k, v in recorded.items() if k.startswith(prefix)}
    found = {name: p.grad.norm() for name, p in net.named_parameters()}
    assert found.keys() == expected.keys() and len(found) == 59
    for name, norm in expected.items():
        torch.testing.assert_close(found[name], norm, rtol=GRADIENT_NORM, atol=0)


def test_network_output_gives_the_same_energies(recorded):
    """Raw outputs F and denoised images D of one network are scored alike."""
    x, sigma = recorded["images"], recorded["sigma"]
    x_noisy = x + sigma * recorded["z_noise"]
    denoised, total = recorded["eval/denoised"], sigma**2 + 0.5**2
    raw = (denoised - 0.5**2 / total * x_noisy) / (sigma * 0.5 / total.sqrt())
    rest = (x, x_noisy, sigma.flatten(), recorded["weight"].flatten())
    found = weighted_sq_error(raw[:, None], *rest, output="network")
    expected = weighted_sq_error(denoised[:, None], *rest, output="denoised")
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)
