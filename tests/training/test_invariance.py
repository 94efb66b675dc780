"""1 rank and 2 ranks, any micro-batch, fresh and resumed: the same losses (draws are keyed by position)."""

from pathlib import Path

import numpy as np
import pytest
import tiny_run
from run_log import assert_same_losses, column

from mclr_fast.config import ObjectiveConfig
from mclr_fast.methods.registry import METHODS, make_method

PROGRAM = Path(tiny_run.__file__)
STEPS = 4


def assert_steps(outdir, steps=STEPS):
    assert column(outdir, "images_seen").tolist() == [12 * (i + 1) for i in range(steps)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny):
    """reference(objective): the folder of one rank's run, everything at once, uninterrupted."""
    root, made = tmp_path_factory.mktemp("reference"), set()

    def get(objective):
        if objective not in made:
            tiny.train(root / objective, objective, 0, STEPS, 0)
            assert_steps(root / objective)
            made.add(objective)
        return root / objective

    return get


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, on_two_ranks):
    """Every objective on two ranks, in small parts, stopped by a signal in step 3 and resumed."""
    outdir = tmp_path_factory.mktemp("two")
    on_two_ranks(PROGRAM, outdir, ",".join(METHODS), 16, STEPS, 3)
    return outdir


@pytest.mark.parametrize("objective", METHODS)
@pytest.mark.parametrize(
    ("micro_batch", "steps", "stop_after"),
    [
        (20, STEPS, 2),  # whole rows, the last part smaller; stopped by a signal in step 2, then resumed
        (3, 1, 0),  # less than a row: cut by columns
    ],
)
def test_same_losses_in_parts(reference, tiny, tmp_path, objective, micro_batch, steps, stop_after):
    if not make_method(ObjectiveConfig(objective=objective)).separable:
        micro_batch = max(micro_batch, 4)  # a whole row
    tiny.train(tmp_path / "run", objective, micro_batch, steps, stop_after)
    assert_steps(tmp_path / "run", steps)
    assert_same_losses(tmp_path / "run", reference(objective))


@pytest.mark.parametrize("objective", METHODS)
def test_same_losses_on_two_ranks(reference, two_ranks, objective):
    assert_steps(two_ranks / objective)
    assert_same_losses(two_ranks / objective, reference(objective))
    norms = column(reference(objective), "gradient_norm")
    assert column(two_ranks / objective, "gradient_norm")[0] == pytest.approx(norms[0], rel=1e-4)


@pytest.mark.parametrize("objective", METHODS)
def test_losses_move(reference, objective):
    """The comparisons above would pass for losses that never change; these do."""
    values = column(reference(objective), "loss")
    assert np.ptp(values) > 1e-3 * np.abs(values).max()
