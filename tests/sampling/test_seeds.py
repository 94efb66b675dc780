"""Per-seed random streams."""

import numpy as np
import pytest
import torch

from mclr_fast.sampling import seeded_labels, seeded_noise


def assert_normals(actual, expected):
    torch.testing.assert_close(actual, torch.from_numpy(expected), atol=2e-6, rtol=0)


def test_golden_streams(golden):
    z = golden("edm2_sampler")
    noise, label_draw, _ = seeded_noise(z["stacked/seeds"], (3, 4, 4))
    assert_normals(noise, z["stacked/randn"])
    np.testing.assert_array_equal(label_draw(10), z["stacked/randint"][:, 0])

    noise, label_draw, randn_like = seeded_noise(z["stacked2/seeds"], (2, 3))
    assert_normals(noise, z["stacked2/randn_small"])
    assert_normals(randn_like(torch.empty(3, 4, 8, 8)), z["stacked2/randn"])
    np.testing.assert_array_equal(label_draw(1000), z["stacked2/randint_scalar"])
    assert_normals(randn_like(torch.empty(3, 1, 5, 5)), z["stacked2/randn_like"])


def test_golden_generation_draws(golden):
    z = golden("edm2_sampler")
    noise, label_draw, _ = seeded_noise(z["generate/seeds"], (3, 16, 16))
    assert_normals(noise, z["generate/noise"])
    np.testing.assert_array_equal(label_draw(10), z["generate/labels"].argmax(axis=1))


def draw(seeds):
    noise, label_draw, randn_like = seeded_noise(seeds, (3, 8, 8))
    return noise, label_draw(1000), randn_like(noise.double())


def test_a_sample_does_not_depend_on_its_batch():
    seeds = [5, 0, 17, 3, 2**32 + 1]
    together = draw(seeds)
    for batches in (np.array_split(seeds, 2), np.array_split(seeds, 5)):
        apart = map(torch.cat, zip(*map(draw, batches), strict=True))
        assert all(map(torch.equal, together, apart))


def test_seeds_wrap_at_32_bits():
    assert all(map(torch.equal, draw([7, -1]), draw([2**32 + 7, 2**32 - 1])))
    first, second = draw([7]), draw([2**31 + 7])
    assert not any(map(torch.equal, first[::2], second[::2]))


def test_churn_noise_follows_the_dtype():
    assert draw([1])[2].dtype == torch.float64


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="seeds is empty"):
        seeded_noise([], (3, 8, 8))
    _, _, randn_like = seeded_noise([1, 2], (3,))
    with pytest.raises(ValueError, match="3 samples, but there are 2 seeds"):
        randn_like(torch.empty(3, 3))


def test_shape_of_the_batch_or_of_one_sample():
    one, _, _ = seeded_noise([1, 2], (3, 4, 4))
    batch, _, _ = seeded_noise([1, 2], (2, 3, 4, 4))
    assert torch.equal(one, batch)
    with pytest.raises(ValueError, match="2 seeds"):
        seeded_noise([1, 2], (3, 3, 4, 4))


def test_classes_are_drawn_as_in_the_golden_run(golden):
    z = golden("edm2_sampler")
    labels = seeded_labels(z["generate/seeds"].tolist(), (3, 16, 16), 10)
    np.testing.assert_array_equal(labels, z["generate/labels"].argmax(axis=1))
    assert seeded_labels([], (3, 16, 16), 10).shape == (0,)
