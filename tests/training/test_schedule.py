"""Learning-rate schedules."""

import json

import numpy as np
import pytest

from mclr_fast.training.schedule import EDM2Schedule, HoldSchedule


def test_golden_edm2_schedule(golden):
    z = golden("edm2_schedule")
    batch_size = json.loads(str(z["config_json"]))["lr"]["batch_size"]
    for config, expected in zip(z["lr/configs"].tolist(), z["lr/values"], strict=True):
        schedule = EDM2Schedule(*config)
        values = [schedule(t, batch_size) for t in z["lr/cur_nimg"].tolist()]
        np.testing.assert_allclose(values, expected, rtol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 256])
def test_hold_warms_up_and_stays(batch_size):
    schedule = HoldSchedule(lr=1e-3, warmup_images=1000)
    values = [schedule(t, batch_size) for t in (0, 250, 1000, 10**9)]
    assert values == pytest.approx([0, 0.25e-3, 1e-3, 1e-3])


def test_hold_without_warmup_is_constant():
    schedule = HoldSchedule(lr=1e-3)
    assert {schedule(t, 32) for t in (0, 32, 10**9)} == {1e-3}
