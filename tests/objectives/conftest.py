"""Tables that the objectives' tests share."""

import pytest
import torch

NUM_IMAGES = 5


@pytest.fixture(params=[1, 3], ids=["K=1", "K=3"])
def num_negatives(request):
    return request.param


@pytest.fixture
def tables(num_negatives):
    """energy_NR (with gradient), reference_NR and ratio_NK, float64, R = 1+K."""
    generator = torch.Generator().manual_seed(num_negatives)

    def rand(num_columns):
        return torch.rand(NUM_IMAGES, num_columns, dtype=torch.float64, generator=generator) * 8

    energy, reference = rand(1 + num_negatives), rand(1 + num_negatives)
    return energy.requires_grad_(), reference, rand(num_negatives)


@pytest.fixture
def gradient():
    """`gradient(loss_N, energy)`: the gradient of the sum."""
    return lambda loss_N, energy: torch.autograd.grad(loss_N.sum(), energy)[0]


@pytest.fixture
def assert_rows():
    """`assert_rows(output, rows)`: the losses are `rows`, one number an image; terms carry no graph."""

    def check(output, rows):
        assert output.loss_N.tolist() == pytest.approx(rows, rel=1e-12)
        assert output.loss_N.shape == (NUM_IMAGES,)
        for value in output.terms.values():
            assert value.shape == (NUM_IMAGES,) and not value.requires_grad

    return check
