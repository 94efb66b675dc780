"""The strength dial ends at the two networks, and length of a normalised weight counts for nothing."""

import copy

import pytest
import torch

from mclr_fast.models import interpolate
from mclr_fast.models.edm2 import Precond, force_weight_norm_
from mclr_fast.models.edm2.network import normalized_weights

ARGUMENTS = dict(img_resolution=8, img_channels=1, label_dim=3, model_channels=8)
ARGUMENTS |= dict(channel_mult=[1, 2], num_blocks=1, logvar_channels=8)


@pytest.fixture
def nets():
    torch.manual_seed(0)
    base = Precond(**ARGUMENTS).eval()
    with torch.no_grad():
        base.unet.out_gain.fill_(0.5)
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return base, tuned


def output(net):
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return net(x, torch.full((4,), 0.7), torch.tensor([0, 1, 2, -1]))


@pytest.mark.parametrize("strength", [0, 1])
def test_its_ends_are_the_two_networks(nets, strength):
    before = [output(net) for net in nets]
    made = interpolate(*nets, strength)
    torch.testing.assert_close(output(made), before[strength], rtol=0, atol=2e-6)
    assert not torch.allclose(output(made), before[1 - strength], atol=1e-2)
    assert all(map(torch.equal, map(output, nets), before))  # neither is written to


def test_it_moves_on_from_the_base_through_the_tuned_network(nets):
    from_base = [(output(interpolate(*nets, s)) - output(nets[0])).norm() for s in (0, 0.25, 0.5, 1, 1.5)]
    assert from_base == sorted(from_base) and from_base[2] > 0.1 * from_base[3]


def test_gains_are_interpolated_as_they_are_and_beyond(nets):
    gains = [net.unet.out_gain.item() for net in nets]
    for strength in (0.25, 2):
        made = interpolate(*nets, strength)
        assert made.unet.out_gain.item() == pytest.approx(gains[0] + strength * (gains[1] - gains[0]))


def test_a_weights_length_counts_for_nothing(nets):
    """Averages are shorter than the weights that they are of, and the network is the same."""
    made = output(interpolate(*nets, 0.5))
    shorter = copy.deepcopy(nets[1])
    force_weight_norm_(shorter)
    with torch.no_grad():
        for weight in normalized_weights(shorter):
            weight *= 0.5
    torch.testing.assert_close(output(shorter), output(nets[1]), rtol=0, atol=1e-3)  # to the norm's epsilon
    torch.testing.assert_close(output(interpolate(nets[0], shorter, 0.5)), made, rtol=0, atol=1e-3)
    mean = copy.deepcopy(nets[0])
    with torch.no_grad():
        for weight, other in zip(mean.parameters(), shorter.parameters(), strict=True):
            weight.lerp_(other, 0.5)
    assert (output(mean) - made).abs().max() > 1e-2


def test_other_modules_weights_are_interpolated_as_they_are():
    base, tuned = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    made = interpolate(base, tuned, 1.5)
    torch.testing.assert_close(made.weight, base.weight.lerp(tuned.weight, 1.5))


def test_networks_that_do_not_belong_together_are_refused(nets):
    other = Precond(**ARGUMENTS | {"label_dim": 4})
    with pytest.raises(
        ValueError, match=r"two architectures: they differ first in 'unet\.emb_label\.weight'"
    ):
        interpolate(nets[0], other, 0.5)
    with pytest.raises(ValueError, match=r"not fine-tuned from this base: their '.*fourier.*' differ"):
        interpolate(nets[0], Precond(**ARGUMENTS), 0.5)  # its Fourier features are others


@pytest.mark.parametrize("strength", [-0.1, 2.01, float("nan")])
def test_a_strength_out_of_range_is_refused(nets, strength):
    with pytest.raises(ValueError, match=r"strength must be in \[0, 2\]"):
        interpolate(*nets, strength)


@pytest.mark.gpu
@pytest.mark.parametrize("devices", [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_on_a_gpu_it_lies_where_the_base_does(nets, devices):
    made = interpolate(*nets, 0.5).state_dict()
    moved = interpolate(*(net.to(device) for net, device in zip(nets, devices, strict=True)), 0.5)
    for name, tensor in moved.state_dict().items():
        assert tensor.device.type == devices[0]
        torch.testing.assert_close(tensor.cpu(), made[name])
