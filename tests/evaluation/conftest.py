"""Images to judge, and the extractors' stand-ins."""

import extractor_stand_ins as stand_ins
import numpy as np
import pytest
from zips import write_zip


@pytest.fixture
def zips(tmp_path):
    """real.zip and made.zip in tmp_path: 40 and 36 images of 32x32."""
    write_zip(tmp_path / "real.zip", stand_ins.fields(40, 0), np.arange(40) % 4)
    write_zip(tmp_path / "made.zip", stand_ins.fields(36, 1) // 2, np.arange(36) % 4)
    return tmp_path / "real.zip", tmp_path / "made.zip"


@pytest.fixture(scope="session")
def fields():
    """`fields(num_images, seed, size=32, channels=3)`: random images."""
    return stand_ins.fields


@pytest.fixture(scope="session")
def see():
    """What is put in Inception's place."""
    return stand_ins.see
