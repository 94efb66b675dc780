"""Fixtures shared by all tests."""

from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """`golden(stem)`: the arrays of tests/golden/<stem>.npz, recorded from reference programs."""
    return lambda stem: np.load(GOLDEN / f"{stem}.npz", allow_pickle=False)
