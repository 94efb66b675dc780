"""What the tests of `prepare` share."""

import numpy as np
import PIL.Image
import pytest
from preparing import NAMES

from mclr_fast.data import prepare as prepare_data


@pytest.fixture
def folder(tmp_path):
    """Ten images of several sizes, formats and modes in two class folders."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray(rng.integers(0, 256, (20 + 3 * i, 40 - i, 3), np.uint8))
        image.convert(["RGB", "L", "CMYK"][i % 3] if i % 5 else "RGB").save(path)
    return tmp_path / "train"


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(prepare_data, "CHUNK", 3)
