"""A run's log.jsonl, as tests read it."""

import json

import numpy as np


def lines(outdir):
    """Every line of OUTDIR/log.jsonl."""
    return [json.loads(line) for line in (outdir / "log.jsonl").read_text().splitlines()]


def column(outdir, name):
    """What every line says of `name`."""
    return np.array([line[name] for line in lines(outdir)])


def assert_same_losses(found, expected, rtol=1e-5):
    """The losses of the run in one folder are the first of another's, but for the order of their sums.

    That order is the processor's and the thread number's. A loss that is a difference of energies may be
    near 0: it is judged by them, to 8 units in float32's last place.
    """
    losses, energy = column(found, "loss"), np.abs(column(expected, "positive")).max()
    np.testing.assert_allclose(losses, column(expected, "loss")[: len(losses)], rtol=rtol, atol=1e-6 * energy)
