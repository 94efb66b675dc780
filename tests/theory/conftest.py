"""The examples on coarse grids, and every study computed at most once a session."""

from functools import cache

import pytest
import torch

from mclr_fast.theory import examples


@pytest.fixture(scope="session")
def study():
    """`study(name)`: the Study of that name, as `python -m mclr_fast.theory` computes it."""
    from mclr_fast.theory.studies import STUDIES

    return cache(lambda name: STUDIES[name]())


@pytest.fixture(scope="session")
def line_classes():
    """`line_classes(num_cells)`: the three classes on the line, on a grid."""
    return cache(lambda num_cells: examples.on_grid(examples.line(), num_cells))


@pytest.fixture
def random_table():
    """`random_table(*shape)`: standard normals in float64, always the same."""
    return lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
