"""Samples written in several goes: whatever a killed process left, the file is that of one go."""

import numpy as np
import pytest

from mclr_fast.data.sample_output import SampleArray, SampleZip
from mclr_fast.runtime.process.ranks import Ranks

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)
LABELS = [0, 1, 2, 0, 1]


@pytest.fixture(params=[SampleZip, SampleArray])
def files(request, tmp_path):
    """files(name): the samples of seeds 0 to 4, to be written to a file of that name."""

    def make(name):
        path = tmp_path / f"{name}{'.zip' if request.param is SampleZip else '.npz'}"
        return request.param(path, range(5), LABELS, {"steps": 2}, Ranks("cpu"))

    return make


def written(samples, batch=2):
    """One go, from what is missing to the end: the places that were missing."""
    with samples:
        missing = samples.begin()
        for first in range(0, len(missing), batch):
            places = missing[first : first + batch]
            samples.add(places, IMAGES[places])
        samples.finish()
    return missing


@pytest.mark.robust("processes")
@pytest.mark.parametrize("added", [b"", b"x", bytes(47), bytes(49)])
def test_samples_that_a_killed_process_half_wrote(files, tmp_path, added):
    """Whole images are kept, half of one is made again: the file is the same, byte for byte."""
    assert written(files("whole")) == [0, 1, 2, 3, 4]
    with files("cut") as samples:
        samples.begin()
        samples.add([0, 1], IMAGES[:2])
    (partial,) = tmp_path.glob(".cut.*.partial")
    kept = 2 + (len(added) // 48 if partial.name.startswith(".cut.npz") else 0)  # 48 bytes are an image
    with open(partial, "ab") as file:
        file.write(IMAGES[2].transpose(1, 2, 0).tobytes()[: len(added)] + added[48:])
    assert written(files("cut")) == list(range(kept, 5))
    whole, cut = sorted(tmp_path.glob("[wc]*"), reverse=True)
    assert whole.read_bytes() == cut.read_bytes()
    assert np.array_equal(files("cut").read(5), IMAGES)
    assert files("cut").begin() == []  # it is there
