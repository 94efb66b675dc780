"""A run's log.jsonl, as tests read it."""

import json

import numpy as np


def lines(outdir):
    """Every line of OUTDIR/log.jsonl."""
    return [json.loads(line) for line in (outdir / "log.jsonl").read_text().splitlines()]


def column(outdir, name):
    """What every line says of `name`."""
    return np.array([line[name] for line in lines(outdir)])
