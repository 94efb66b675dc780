"""The example with a network of diffusers runs, and MCLR does there what it says."""

import pytest
import torch

pytest.importorskip("diffusers", reason='needs diffusers: pip install -e ".[examples]"')


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("diffusers_unet")


def test_denoiser(example):
    """At sigma -> 0 the denoised image is the input; labels and noise level matter."""
    torch.manual_seed(0)
    net, x = example.make_net(), torch.randn(2, 1, 16, 16)
    one_hot = torch.eye(10)
    with torch.no_grad():
        torch.testing.assert_close(net(x, torch.full((2,), 1e-4), one_hot[:2]), x, rtol=0, atol=1e-3)
        denoised, logvar = net(x, torch.ones(2, 1, 1, 1), one_hot[:2], return_logvar=True)
        assert not torch.equal(denoised, net(x, torch.ones(2), one_hot[2:4]))
    assert denoised.shape == x.shape and logvar.shape == (2, 1, 1, 1)


@pytest.mark.slow
def test_mclr_widens_the_margin(example):
    pytest.importorskip("mlxtend")
    (own, wrong), (own_after, wrong_after) = example.main(base_steps=20, steps=5)
    assert wrong_after - own_after > wrong - own + 0.5
