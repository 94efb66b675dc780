"""Nets that prepare their calls: as often as needed, with both labels at once where a net guides itself."""

from contextlib import nullcontext

import pytest
import torch

from mclr_fast.config import HeunConfig, SamplerConfig
from mclr_fast.models.edm2 import Precond
from mclr_fast.sampling import HeunSampler, Unconditional, edm_sampler

OPTIONS = {"num_steps": 4, "sigma_min": 0.01, "sigma_max": 20.0}


class Net:
    """A stand-in with raw outputs; notes what it is prepared for, and every prepared call."""

    sigma_data, dtype = 0.5, torch.float32

    def __init__(self, slope=0.1):
        self.slope, self.prepared, self.calls = slope, [], []

    def __call__(self, x, sigma, labels, output="denoised"):
        assert output == "network"
        weight = self.slope * (labels + 2) / (1 + sigma)
        shape = [*labels.shape, *[1] * 3]
        x = x[:, None] if labels.ndim == 2 else x
        return weight.view(shape) * (x[:, :, :1] if labels.ndim == 2 else x[:, :1])

    def prepare(self, sigmas, labels, num_images):
        assert len(labels) == num_images
        self.prepared.append(tuple(labels.shape))

        def call(k, x):
            self.calls.append((k, tuple(labels.shape)))
            return self(x, torch.tensor(sigmas[k]), labels, output="network")

        return call


class Plain:
    """The same without `prepare`."""

    sigma_data, dtype = 0.5, torch.float32

    def __init__(self, net):
        self.net = net

    def __call__(self, *arguments, **options):
        return self.net(*arguments, **options)


@pytest.fixture
def start():
    torch.manual_seed(0)
    return torch.randn(3, 1, 4, 4), torch.tensor([0, 1, 2])


@pytest.mark.parametrize("churn", [0.0, 8.0])
def test_calls_are_made_in_the_order_of_the_noise_levels(start, churn):
    net, options = Net(), OPTIONS | {"S_churn": churn, "randn_like": torch.ones_like}
    found = edm_sampler(net, *start, **options)
    assert net.prepared == [(3,)] and [k for k, _ in net.calls] == list(range(7))
    torch.testing.assert_close(found, edm_sampler(Plain(net), *start, **options))


@pytest.mark.parametrize("interval", [None, (0.1, 5.0), (50.0, 60.0)])
def test_a_net_that_guides_itself_is_called_once(start, interval):
    net, options = Net(), OPTIONS | {"guidance": 1.7, "guidance_interval": interval}
    found = edm_sampler(net, *start, gnet=Unconditional(net), **options)
    assert [k for k, _ in net.calls] == list(range(7))
    guided = sum(shape == (3, 2) for _, shape in net.calls)
    assert guided == {None: 7, (0.1, 5.0): 4, (50.0, 60.0): 0}[interval]
    plain = Plain(net)
    torch.testing.assert_close(found, edm_sampler(plain, *start, gnet=Unconditional(plain), **options))


@pytest.mark.parametrize("unconditional", [False, True])
def test_another_guide_is_prepared_for_itself(start, unconditional):
    net, guide, options = Net(), Net(slope=0.02), OPTIONS | {"guidance": 1.7}
    gnet, plain = (
        (Unconditional(guide), Unconditional(Plain(guide))) if unconditional else (guide, Plain(guide))
    )
    found = edm_sampler(net, *start, gnet=gnet, **options)
    assert [k for k, _ in net.calls] == [k for k, _ in guide.calls] == list(range(7))
    torch.testing.assert_close(found, edm_sampler(Plain(net), *start, gnet=plain, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_self_guidance_of_a_network_is_that_of_two_calls(start, dtype):
    noise, labels = start
    net = Precond(
        4, 1, 3, model_channels=8, channel_mult=(1, 2), num_blocks=1, channels_per_head=8, dtype=dtype
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("gain"):
                parameter.fill_(0.5)
    plain, options = Plain(net), OPTIONS | {"guidance": 1.5}
    found = edm_sampler(net, noise, labels, gnet=Unconditional(net), **options)
    expected = edm_sampler(plain, noise, labels, gnet=Unconditional(plain), **options)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    assert (found - expected).norm() < tolerance * expected.norm()


def test_a_held_sampler_is_captured_whole_and_a_last_batch_is_padded(start):
    shapes = []

    class Device:
        def warm_up(self, function, inputs):
            return function(*inputs)

        def capture(self, function, inputs):
            shapes.append([tuple(value.shape) for value in inputs])
            return lambda: function(*inputs)

    sampler = HeunSampler(Net(), (1, 4, 4), torch.device("cpu"), SamplerConfig(**OPTIONS), hold=nullcontext)
    (noise, labels), expected = start, sampler(*start)
    with sampler.held():
        sampler._graphs[-1]._device = Device()
        for rows in (3, 3, 2, 3):
            assert torch.equal(sampler(noise[:rows], labels[:rows]), expected[:rows])
        assert shapes == [[(3, 1, 4, 4), (3,)]]
    assert not sampler._graphs  # what they read is held no longer
    without = HeunSampler(
        Net(),
        (1, 4, 4),
        torch.device("cpu"),
        HeunConfig(**OPTIONS, rho=7.0, cuda_graphs="off"),
        hold=nullcontext,
    )
    with without.held():
        assert not without._graphs and torch.equal(without(*start), expected)
