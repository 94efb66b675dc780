"""A network prepared for a sampler's calls: the same outputs as its calls, from weights as they are now."""

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch

from mclr_fast import ops
from mclr_fast.models.edm2 import Precond, inference
from mclr_fast.models.edm2.weights import EffectiveWeights

SIGMAS = [20.0, 1.0, 0.01]
NETS = {
    "small": dict(img_resolution=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,)),
    "deep": dict(img_resolution=16, channel_mult=(1, 1, 2), num_blocks=2, attn_resolutions=(8,)),
    "wide": dict(img_resolution=8, channel_mult=(1, 3), num_blocks=1, attn_resolutions=(8, 4), clip_act=0.5),
}


def network(name="small", *, label_dim=4, channels=2, dtype=torch.float32, **options):
    torch.manual_seed(0)
    arguments = dict(model_channels=12, channels_per_head=6, logvar_channels=8) | NETS[name] | options
    net = Precond(img_channels=channels, label_dim=label_dim, dtype=dtype, **arguments).eval()
    with torch.no_grad():
        for parameter_name, parameter in net.named_parameters():
            if parameter_name.endswith("gain"):
                parameter.fill_(0.7)
    return net


def scaled(net, num_images):
    x = torch.randn(num_images, net.img_channels, net.img_resolution, net.img_resolution)
    return ops.with_ones(x, net.dtype)


def called(net, x, labels):
    with torch.no_grad():
        return [net(x, torch.tensor(sigma), labels, output="network") for sigma in SIGMAS]


def prepared(net, x, labels, num_images):
    call = net.prepare(SIGMAS, labels, num_images)
    return [call(k, x) for k in range(len(SIGMAS))]


def assert_equal(found, expected, tolerance=2e-6):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * b.abs().max().item())


def relative_error(found, expected):
    found, expected = torch.stack(found).double(), torch.stack(expected)
    return ((found - expected).norm() / expected.norm()).item()


@pytest.fixture
def program():
    """Skips where batches are not sampled image by image."""
    if not inference.fits_a_program(network()):
        pytest.skip("no fused ops here")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("held", [False, True])
def test_outputs_are_the_networks(program, name, held):
    net, labels = network(name), torch.tensor([0, 3, -1])
    x = scaled(net, 3)
    expected = called(net, x, labels)
    if not held:
        return assert_equal(prepared(net, x, labels, 3), expected)
    with EffectiveWeights(net).held():
        assert_equal(prepared(net, x, labels, 3), expected)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("held", [False, True])
def test_bfloat16_is_nearer_to_float64_than_torch(program, name, held):
    labels, net = torch.randint(4, (8,)), network(name, dtype=torch.bfloat16)
    x = scaled(net, 8)
    truth = called(network(name, dtype=torch.float64), x.double(), labels)
    with ops.using("reference"):
        eager = relative_error(called(net, x, labels), truth)
    with EffectiveWeights(net).held() if held else nullcontext():
        found = prepared(net, x, labels, 8)
    assert all(y.dtype == torch.bfloat16 for y in found)
    assert 0.001 < relative_error(found, truth) < eager


@pytest.mark.parametrize("channels", [1, 3, 17])
def test_any_number_of_channels(program, channels):
    net, labels = network(channels=channels), torch.tensor([1, 2])
    x = scaled(net, 2)
    assert_equal(prepared(net, x, labels, 2), called(net, x, labels))


def test_several_labels_of_an_image(program):
    net, labels = network(), torch.tensor([[0, -1], [2, -1], [1, 3]])
    x = scaled(net, 3)
    found = prepared(net, x, labels, 3)
    assert found[0].shape == (3, 2, 2, 8, 8)
    assert_equal(found, called(net, x, labels))


def test_one_hot_labels_and_networks_without(program):
    net, labels = network(), torch.eye(4)[[2, 0]]
    x = scaled(net, 2)
    assert_equal(prepared(net, x, labels, 2), called(net, x, labels))
    net = network(label_dim=0)
    assert_equal(prepared(net, x, None, 2), called(net, x, None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_is_the_same_in_any_batch_and_number_of_threads(program, dtype):
    net, threads = network(dtype=dtype), torch.get_num_threads()
    made = inference.network_program(net)
    x, emb = scaled(net, 5), torch.randn(10, made.emb_size)
    found = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(made.run(x, emb))
            found.append(torch.cat([made.run(x[i : i + 1], emb[2 * i : 2 * i + 2]) for i in range(5)]))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(y, found[0]) for y in found[1:])


def test_shapes_that_do_not_go_with_the_program(program):
    net = network()
    made = inference.network_program(net)
    with pytest.raises(ValueError, match="the program takes"):
        made.run(scaled(net, 1)[:, :1], torch.zeros(1, made.emb_size))
    with pytest.raises(ValueError, match="3 rows for 2 images"):
        made.run(scaled(net, 2), torch.zeros(3, made.emb_size))
    assert made.run(scaled(net, 0), torch.zeros(0, made.emb_size)).shape == (0, 2, 8, 8)


def test_weights_are_those_of_now(program):
    net, labels = network(), torch.tensor([0])
    x, weights = scaled(net, 1), EffectiveWeights(net)
    with weights.held():
        first = prepared(net, x, labels, 1)
        with torch.no_grad():
            net.unet.out_gain.mul_(2)
        assert_equal(prepared(net, x, labels, 1), first, 0)  # held
    with weights.held():
        assert_equal(prepared(net, x, labels, 1), [2 * y for y in first])


def test_a_program_goes_with_its_network(program):
    net, labels = network(), torch.tensor([0])
    with EffectiveWeights(net).held():
        prepared(net, scaled(net, 1), labels, 1)
    alive = weakref.ref(net)
    del net
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("options", [{"dtype": torch.float16}, {"num_blocks": 0}])
def test_other_networks_are_called_as_ever(options):
    net, labels = network(**options), torch.tensor([[0, -1], [3, 1]])
    assert not inference.fits_a_program(net)
    x = scaled(net, 2)
    with EffectiveWeights(net).held():
        assert_equal(prepared(net, x, labels, 2), called(net, x, labels), 0)


def test_large_networks_are_called_as_ever(monkeypatch):
    monkeypatch.setattr(inference, "MOST_WEIGHTS", 1000)
    assert not inference.fits_a_program(network())


def test_the_reference_is_plain_torch():
    with ops.using("reference"):
        assert not inference.fits_a_program(network())


def test_labels_are_checked():
    with pytest.raises(ValueError, match="knows classes 0 to 3"):
        network().prepare(SIGMAS, torch.tensor([4]), 1)
