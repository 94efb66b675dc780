import pytest
import torch

from mclr_fast import ops
from mclr_fast.ops import noisy_input, random_normal

SIGMA_DATA = 0.6


def keyed(num_images):
    return 1, 2, torch.arange(num_images) + 2**33


def scaled(x_noisy, sigma, c_in=None, ones=True):
    """c_in x_noisy and the channel of ones, in float64."""
    images = x_noisy.double().flatten(0, -4)
    c_in = (sigma.double() ** 2 + SIGMA_DATA**2) ** -0.5 if c_in is None else c_in.double()
    images = images * c_in.repeat_interleave(x_noisy.shape[1:-3].numel()).view(-1, 1, 1, 1)
    return torch.cat([images, torch.ones_like(images[:, :1])], dim=1) if ones else images


SHAPES = [
    (0, 3, 4, 4),
    (2, 3, 0, 4),
    (1, 1, 1, 1),
    (3, 3, 5, 7),
    (2, 1, 16, 16),
    (2, 2, 9, 11),
    (2, 4, 12, 8),
    (2, 8, 40, 20),
    (1, 17, 19, 21),
    (1, 1, 75, 61),  # more than a chunk of the kernel
    (1, 3, 49, 41),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formula(layout, shape, dtype):
    x, sigma = layout(torch.randn(shape)), torch.rand(shape[0]) * 9
    found, net_input = noisy_input(x, sigma, *keyed(shape[0]), sigma_data=SIGMA_DATA, dtype=dtype)
    eps = random_normal(*keyed(shape[0]), x.shape[1:].numel()).view(shape)
    expected = x.double() + sigma.double().view(-1, 1, 1, 1) * eps.double()
    assert found.dtype == torch.float32 and found.shape == x.shape and found.is_contiguous()
    torch.testing.assert_close(found.double(), expected, rtol=3e-7, atol=9e-6)  # 1e-6 sigma
    assert net_input.dtype == dtype and net_input.is_contiguous(memory_format=torch.channels_last)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(net_input.double(), scaled(found, sigma), rtol=2 * eps, atol=0)


def test_a_million_normals():
    """The fused numbers are the reference's to 1e-6 max(1, |number|)."""
    zero, one, position = torch.zeros(4, 1, 500, 501), torch.ones(4), torch.tensor([0, 7, 2**32 + 1, 2**40])
    found, _ = noisy_input(zero, one, 2**63 - 5, 3, position)
    expected = random_normal(2**63 - 5, 3, position, 500 * 501).view(found.shape)
    assert ((found - expected).abs() <= 1e-6 * expected.abs().clamp(min=1)).all()


@pytest.mark.parametrize("shape", [(2, 3, 1, 4, 4), (2, 2, 3, 5, 7), (1, 3, 2, 70, 70), (0, 2, 1, 2, 2)])
def test_the_images_of_a_row_share_their_noise(shape):
    x, sigma, (seed, stream, position) = torch.randn(shape), torch.rand(shape[0]) * 4, keyed(shape[0])
    found, net_input = noisy_input(x, sigma, seed, stream, position)
    assert found.shape == x.shape
    for column in range(shape[1]):
        alone, alone_input = noisy_input(x[:, column], sigma, seed, stream, position)
        assert torch.equal(found[:, column], alone)
        assert torch.equal(net_input[column :: shape[1]], alone_input)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (3, 3, 5, 7), (2, 1, 70, 70), (1, 3, 2, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_given_noise(shape, dtype):
    x, sigma = torch.randn(shape), torch.rand(shape[0]) * 9
    eps = torch.randn((*shape[-3:], shape[0])).movedim(-1, 0)  # strided
    found, net_input = noisy_input(x, sigma, eps=eps, sigma_data=SIGMA_DATA, dtype=dtype)
    noise = (sigma.double().view(-1, 1, 1, 1) * eps.double()).view(
        shape[:1] + (1,) * (len(shape) - 4) + shape[-3:]
    )
    torch.testing.assert_close(found.double(), x.double() + noise, rtol=1e-6, atol=2e-6)
    expected = scaled(found, sigma)
    torch.testing.assert_close(net_input.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(
    "shape", [*SHAPES, (2, 3, 1, 4, 4), (1, 3, 2, 70, 70), (2, 2, 17, 3, 5), (0, 2, 1, 2, 2)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("given", "ones"), [(True, False), (True, True), (False, False)])
def test_inputs_of_another_denoiser(shape, dtype, given, ones):
    """A c_in of its own, no channel of ones; the noise and x_noisy are the same as ever."""
    x, sigma = torch.randn(shape), torch.rand(shape[0]) * 9
    wider = torch.randn(shape[0], 2)
    c_in = wider[:, 1] if given else None  # strided
    eps = torch.randn((*shape[-3:], shape[0])).movedim(-1, 0)
    how = {"sigma_data": SIGMA_DATA, "dtype": dtype}
    for noise in ({"eps": eps}, dict(zip(("seed", "stream", "position"), keyed(shape[0]), strict=True))):
        found, net_input = noisy_input(x, sigma, c_in=c_in, ones=ones, **noise, **how)
        assert torch.equal(found, noisy_input(x, sigma, **noise, **how)[0])
        assert net_input.dtype == dtype and net_input.is_contiguous(memory_format=torch.channels_last)
        expected = scaled(found, sigma, c_in, ones)
        torch.testing.assert_close(net_input.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_c_in_of_any_dtype():
    x, sigma, c_in = torch.randn(3, 2, 5, 7), torch.rand(3), torch.randn(3).double()
    net_inputs = [noisy_input(x, sigma, *keyed(3), c_in=c)[1] for c in (c_in, c_in.float())]
    torch.testing.assert_close(*net_inputs, rtol=2e-7, atol=0)


def test_no_noise_and_other_keys():
    x, ones, position = torch.randn(2, 1, 4, 4), torch.ones(2), torch.tensor([0, 1])
    assert torch.equal(noisy_input(x, 0 * ones, 1, 2, position)[0], x)
    found, _ = noisy_input(x, ones, 1, 2, position)
    for other in [(2, 2, position), (1, 3, position), (1, 2, position + 2)]:
        assert not (noisy_input(x, ones, *other)[0] == found).any()


def test_half_precision_images_are_widened():
    x, sigma = torch.randn(2, 1, 4, 4).bfloat16(), torch.ones(2)
    found, _ = noisy_input(x, sigma, *keyed(2))
    assert found.dtype == torch.float32
    assert torch.equal(found, noisy_input(x.float(), sigma, *keyed(2))[0])


X, SIGMA, POSITION, EPS = torch.zeros(2, 1, 4, 4), torch.ones(2), torch.arange(2), torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("neither", {"x": X, "sigma": SIGMA}),
        ("both", {"x": X, "sigma": SIGMA, "position": POSITION, "eps": EPS}),
        ("^x must be", {"x": X[0], "sigma": SIGMA, "position": POSITION}),
        ("^sigma must be", {"x": X, "sigma": SIGMA[:1], "position": POSITION}),
        ("^position must be", {"x": X, "sigma": SIGMA, "position": POSITION[:1]}),
        ("^eps must be", {"x": X, "sigma": SIGMA, "eps": EPS[:1]}),
        ("^c_in must be", {"x": X, "sigma": SIGMA, "eps": EPS, "c_in": SIGMA[:1]}),
        ("^c_in must be", {"x": X, "sigma": SIGMA, "eps": EPS, "c_in": SIGMA.view(2, 1)}),
    ],
)
def test_errors(message, arguments):
    with pytest.raises(ValueError, match=message):
        noisy_input(**arguments)


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_channels", "ones"), [(1, True), (3, True), (1, False), (4, False)])
def test_large_results_are_those_of_their_parts(implementation, num_channels, ones, dtype):
    """Past 64 MB they are stored around the caches."""
    x, sigma, position = (
        torch.randn(17, num_channels, 1024, 1024 // num_channels),
        torch.rand(17),
        torch.arange(17),
    )
    how = {"dtype": dtype, "ones": ones}
    whole, whole_input = noisy_input(x, sigma, 1, 2, position, **how)
    for i in (0, 16):
        part, part_input = noisy_input(x[i : i + 1], sigma[i : i + 1], 1, 2, position[i : i + 1], **how)
        assert torch.equal(part[0], whole[i]) and torch.equal(part_input[0], whole_input[i])


@pytest.mark.parametrize("implementation", ["fused"], indirect=True)
def test_registration_and_compile(implementation):
    x, sigma, position = torch.randn(2, 3, 1, 4, 4), torch.rand(2), torch.arange(2)
    op = torch.ops.mclr_fast.noisy_input.default
    torch.library.opcheck(op, (x, sigma, None, 1, 2, position, 0.5, torch.bfloat16, None, True))
    torch.library.opcheck(op, (x[:, 0], sigma, x[:, 1], 0, 0, None, 0.5, torch.float32, None, True))
    torch.library.opcheck(op, (x, sigma, None, 1, 2, position, 0.5, torch.bfloat16, sigma, False))
    compiled = torch.compile(ops.noisy_input, fullgraph=True, backend="aot_eager")
    for given in ({}, {"c_in": sigma, "ones": False}):
        results = [function(x, sigma, 1, 2, position, **given) for function in (compiled, noisy_input)]
        for found, expected in zip(*results, strict=True):
            assert torch.equal(found, expected) and found.stride() == expected.stride()
