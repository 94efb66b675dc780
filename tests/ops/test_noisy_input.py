import pytest
import torch

from mclr_fast.ops import noisy_input, random_normal


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 1, 1, 1), (3, 3, 5, 7)])
def test_formula(layout, shape):
    x, sigma, position = (
        layout(torch.randn(shape)),
        torch.rand(shape[0]) * 9,
        torch.arange(shape[0]),
    )
    found = noisy_input(x, sigma, 1, 2, position + 2**33)
    eps = random_normal(1, 2, position + 2**33, x.shape[1:].numel()).view(shape)
    expected = x.double() + sigma.double().view(-1, 1, 1, 1) * eps.double()
    assert found.dtype == torch.float32 and found.shape == x.shape
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)  # values below 2^5


def test_the_images_of_a_row_share_their_noise():
    x, sigma, position = torch.randn(2, 3, 1, 4, 4), torch.tensor([0.5, 4.0]), torch.tensor([8, 3])
    found = noisy_input(x, sigma, 1, 2, position)
    assert found.shape == x.shape
    for column in range(3):
        assert torch.equal(found[:, column], noisy_input(x[:, column], sigma, 1, 2, position))


def test_no_noise_and_other_keys():
    x, ones, position = torch.randn(2, 1, 4, 4), torch.ones(2), torch.tensor([0, 1])
    assert torch.equal(noisy_input(x, 0 * ones, 1, 2, position), x)
    found = noisy_input(x, ones, 1, 2, position)
    for other in [(2, 2, position), (1, 3, position), (1, 2, position + 2)]:
        assert not (noisy_input(x, ones, *other) == found).any()
