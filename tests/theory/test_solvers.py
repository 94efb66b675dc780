"""The minimisers against minima known in closed form, on problems that are not the paper's."""

import pytest
import torch

from mclr_fast.theory.solvers import minimise_density, minimise_smooth, stationary_point


def test_a_density_nearest_to_values_is_their_projection():
    """|p - v|^2 over p >= floor of mass 1 is solved by lifting v by one constant and cutting at the floor."""
    values = torch.tensor([[0.9, 0.1, -0.4, 0.6], [5.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    start = torch.full_like(values, 0.5)
    fitted = minimise_density(lambda p: (p - values).square().sum(1), start, cell=0.5, floor=0.05)
    expected = torch.tensor([[1.1, 0.2, 0.05, 0.65], [1.85, 0.05, 0.05, 0.05]], dtype=torch.float64)
    expected[0, [0, 1, 3]] = values[0, [0, 1, 3]] + (2 - 0.05 - 1.6) / 3
    torch.testing.assert_close(fitted, expected, rtol=0, atol=1e-9)


def test_where_the_loss_is_concave_the_floor_is_reached():
    """-sum w log p with a negative w is lowest with that cell at the floor, the rest shared by weight."""
    weights = torch.tensor([[0.6, 0.3, -0.5]], dtype=torch.float64)
    start = torch.tensor([[0.2, 0.2, 0.6]], dtype=torch.float64)
    fitted = minimise_density(lambda p: -(weights * p.log()).sum(1), start, cell=1.0, floor=0.1)
    torch.testing.assert_close(
        fitted, torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("floor", [0.0, 0.25, 1.0])
def test_a_floor_that_no_density_keeps_is_refused(floor):
    start = torch.full((1, 4), 0.25, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"1/\|K\| = 0\.25"):
        minimise_density(lambda p: p.sum(1), start, cell=1.0, floor=floor)


def test_a_quadratic_is_stationary_at_its_vertex_and_its_sign_is_told():
    curvature = torch.tensor([2.0, -3.0], dtype=torch.float64)
    vertex = torch.tensor([0.7, -1.2], dtype=torch.float64)
    point, found = stationary_point(
        lambda v: (curvature / 2 * (v - vertex) ** 2).sum(), torch.ones_like(vertex)
    )
    torch.testing.assert_close(point, vertex)
    torch.testing.assert_close(found, curvature)


def test_the_scale_moves_no_minimum(random_table):
    """An ill-conditioned convex function, minimised in the coordinates that even it out and in others."""
    weights, centre = 10.0 ** torch.arange(-4, 2, dtype=torch.float64), random_table(6)

    def loss(v):
        return (weights * ((v - centre).cosh() - 1)).sum()

    for scale in (weights.rsqrt(), torch.ones_like(weights)):
        found = minimise_smooth(loss, torch.zeros_like(centre), scale)
        torch.testing.assert_close(found, centre, rtol=0, atol=1e-4)
