"""Fixtures shared by all tests."""

from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """`golden(stem)`: the arrays of tests/golden/<stem>.npz, recorded from reference programs."""
    return lambda stem: np.load(GOLDEN / f"{stem}.npz", allow_pickle=False)


def pytest_collection_modifyitems(items):
    """Tests marked gpu skip themselves where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
