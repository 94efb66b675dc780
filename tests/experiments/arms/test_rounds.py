"""Rounds in which the average becomes the reference: resumed wherever they were stopped."""

import numpy as np
import pytest
from run_log import column
from states import same

from mclr_fast.models import load
from mclr_fast.runtime.errors import Interrupted


def losses(outdir):
    return column(outdir, "loss").tolist()


def final(files, outdir, arm):
    return load(files / outdir / "checkpoints" / f"final-{arm}").state_dict()


def test_rounds_resume_wherever_they_were_stopped(tiny_run, files):
    """The average becomes the reference every 24 images; a run stopped anywhere ends with the same bits."""
    tiny_run("whole", "ddo", refresh_every=24).execute()
    expected = losses(files / "whole")
    for number in (1, 2):
        assert (files / "whole" / "samples" / f"reference-{number}.zip").exists()
    references = [load(files / "whole" / "checkpoints" / f"round-{n}").state_dict() for n in (1, 2)]
    assert not same(*references)
    assert not (files / "whole" / "checkpoints" / "round-3").exists()

    for stop_after in (2, 4, 5):  # looks at the stop request: sampling batches and steps
        try:
            tiny_run("stopped", "ddo", stop_after, refresh_every=24).execute()
        except Interrupted:
            continue
    tiny_run("stopped", "ddo", refresh_every=24).execute()
    assert losses(files / "stopped") == expected
    assert same(final(files, "stopped", "ddo"), final(files, "whole", "ddo"))

    tiny_run("single", "ddo").execute()
    single = losses(files / "single")
    assert single[:2] == expected[:2] and single[2] != expected[2]
    assert expected[2] == pytest.approx(2 * np.log(2), rel=0.02)  # a new reference is the policy's average
